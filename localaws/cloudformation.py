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


def install() -> None:
    """Keep the permissions boundary of a role, and where a CodeBuild project runs, logs and queues."""
    from ministack.services import codebuild, iam
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

    shape = codebuild._project_shape

    def with_fields(project: Mapping[str, Any]) -> dict[str, Any]:
        return {**shape(project), **{name: project[name] for name in _PROJECT_FIELDS.values() if name in project}}

    codebuild._project_shape = with_fields
    _after(provisioners._RESOURCE_HANDLERS["AWS::IAM::Role"], keep_boundary)
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
