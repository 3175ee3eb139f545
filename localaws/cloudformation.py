"""What ministack's CloudFormation drops of a template, put where its services keep it."""

from collections.abc import Callable, Mapping
from typing import Any

# What a CodeBuild project has beside what ministack's template handler hands on, by its name in the API.
_PROJECT_FIELDS = {
    "ConcurrentBuildLimit": "concurrentBuildLimit",
    "LogsConfig": "logsConfig",
    "QueuedTimeoutInMinutes": "queuedTimeoutInMinutes",
    "VpcConfig": "vpcConfig",
}
_NUMBERS = ("ConcurrentBuildLimit", "QueuedTimeoutInMinutes")

# A bucket's properties, the S3 operation that sets each, and the operation's word for it.
_BUCKET_CALLS = {
    "BucketEncryption": ("PutBucketEncryption", "ServerSideEncryptionConfiguration"),
    "LifecycleConfiguration": ("PutBucketLifecycleConfiguration", "LifecycleConfiguration"),
    "OwnershipControls": ("PutBucketOwnershipControls", "OwnershipControls"),
    "PublicAccessBlockConfiguration": ("PutPublicAccessBlock", "PublicAccessBlockConfiguration"),
}


def install() -> None:
    """Keep a role's permissions boundary, a bucket's settings, and where a CodeBuild project runs, logs and queues."""
    from ministack.services import codebuild, iam, s3
    from ministack.services.cloudformation import provisioners

    def keep_boundary(name: str, properties: Mapping[str, Any]) -> None:
        iam._roles[name]["PermissionsBoundary"] = properties.get("PermissionsBoundary")

    def keep_fields(name: str, properties: Mapping[str, Any]) -> None:
        project = codebuild._projects[name]
        for field, api_name in _PROJECT_FIELDS.items():
            project.pop(api_name, None)
            if field in properties:
                value = properties[field]
                project[api_name] = int(value) if field in _NUMBERS else provisioners._pascal_to_camel(value)
        project["encryptionKey"] = properties.get("EncryptionKey", project.get("encryptionKey"))

    def keep_settings(name: str, properties: Mapping[str, Any]) -> None:
        setters = {
            "BucketEncryption": s3._put_bucket_encryption,
            "LifecycleConfiguration": s3._put_bucket_lifecycle,
            "OwnershipControls": s3._put_bucket_ownership_controls,
            "PublicAccessBlockConfiguration": s3._put_public_access_block,
        }
        for field, (operation, member) in _BUCKET_CALLS.items():
            if field in properties:
                value = bucket_setting(field, properties[field])
                setters[field](name, _request_body(operation, {"Bucket": name, member: value}))

    shape = codebuild._project_shape

    def with_fields(project: Mapping[str, Any]) -> dict[str, Any]:
        return {**shape(project), **{name: project[name] for name in _PROJECT_FIELDS.values() if name in project}}

    codebuild._project_shape = with_fields
    _after(provisioners._RESOURCE_HANDLERS["AWS::IAM::Role"], keep_boundary)
    _after(provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"], keep_settings)
    _after(provisioners._RESOURCE_HANDLERS["AWS::CodeBuild::Project"], keep_fields)


def _after(handler: dict[str, Any], keep: Callable[[str, Mapping[str, Any]], None]) -> None:
    """Let `keep` see every creation and update that succeeded, with the physical id and the properties."""
    create, update = handler["create"], handler["update"]

    def creating(logical_id: str, properties: Mapping[str, Any], *more: Any, **named: Any) -> Any:
        result = create(logical_id, properties, *more, **named)
        keep(result[0], properties)
        return result

    def updating(physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any], *more: Any, **named: Any) -> Any:
        result = update(physical_id, old, new, *more, **named)
        keep(result[0], new)
        return result

    handler["create"], handler["update"] = creating, updating


def bucket_setting(field: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A property of a bucket in a template, in the words of S3's API."""
    if field == "BucketEncryption":
        return {"Rules": [_encryption(rule) for rule in value["ServerSideEncryptionConfiguration"]]}
    if field == "LifecycleConfiguration":
        return {"Rules": [_lifecycle(rule) for rule in value["Rules"]]}
    if field == "PublicAccessBlockConfiguration":
        return {name: _boolean(each) for name, each in value.items()}
    return dict(value)


def _encryption(rule: Mapping[str, Any]) -> dict[str, Any]:
    default = {"ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"]}
    return {**default, "BucketKeyEnabled": _boolean(rule.get("BucketKeyEnabled", False))}


def _lifecycle(rule: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {"Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    if "Id" in rule:
        changed["ID"] = rule["Id"]
    if "ExpirationInDays" in rule:
        changed["Expiration"] = {"Days": int(rule["ExpirationInDays"])}
    for name in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
        if name in rule:
            changed[name] = {key: int(each) for key, each in rule[name].items()}
    return changed


def _boolean(value: Any) -> bool:
    return str(value).lower() == "true"


def _request_body(operation: str, parameters: dict[str, Any]) -> bytes:
    """What a client would send: ministack's handlers read the XML of the request."""
    from botocore.serialize import create_serializer
    from botocore.session import get_session

    model = get_session().get_service_model("s3")
    request = create_serializer("rest-xml").serialize_to_request(parameters, model.operation_model(operation))
    return bytes(request["body"])
