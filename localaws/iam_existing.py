"""What ministack's stores tell about the resources of a request: full ARNs, workgroups, and keys that encrypt them."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .iam_requests import Check, Request
from .kinesis_errors import KinesisError
from .kinesis_iterators import Position

StreamKey = Callable[[str], str | None]  # the key that encrypts the stream with this ARN

_READ, _WRITE = ("kms:Decrypt",), ("kms:GenerateDataKey",)
_BOTH = (*_WRITE, *_READ)
_ITEMS = frozenset(
    f"dynamodb:{name}"
    for name in (
        *("GetItem", "BatchGetItem", "Query", "Scan", "ConditionCheckItem", "PartiQLSelect"),
        *("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"),
    )
)


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What a service asks of KMS on behalf of its caller."""

    actions: tuple[str, ...]
    key: str
    via: str  # the service's name in kms:ViaService
    encryption_context: Mapping[str, str]


def resources(request: Request) -> tuple[str, ...] | None:
    """ARNs of what exists, where the request names it in another way; None where it does not."""
    find = _NAMED.get(request.service)
    return find(request) if find else None


def _kinesis(request: Request) -> tuple[str, ...] | None:
    """A shard iterator holds its stream's name."""
    iterator = request.text("ShardIterator")
    if request.text("StreamARN", "StreamName", "ResourceARN") or not iterator:
        return None
    try:
        return (request.arn("kinesis", f"stream/{Position.decode(iterator).stream}"),)
    except KinesisError:
        return None


def _athena(request: Request) -> tuple[str, ...] | None:
    """A query is judged by the workgroup it ran in, a named query by the one it was saved in."""
    from ministack.services import athena

    if query_id := request.text("QueryExecutionId"):
        found = athena._executions.get(query_id) or {}
    elif query_id := request.text("NamedQueryId"):
        found = athena._named_queries.get(query_id) or {}
    else:
        return None
    return (request.arn("athena", f"workgroup/{found.get('WorkGroup', 'primary')}"),)


def _kms(request: Request) -> tuple[str, ...] | None:
    """An alias is judged as its key; making and moving an alias also as the alias."""
    alias = request.text("AliasName")
    named = request.text("KeyId", "TargetKeyId") or alias
    found = key_arn(named) if named else None
    if alias:
        return (request.arn("kms", alias), *([found] if found else []))
    return (found,) if found else None


def _iam(request: Request) -> tuple[str, ...] | None:
    """A role that exists has its path in its ARN, whether or not the request has."""
    from ministack.services import iam

    role = iam._roles.get(request.text("RoleName")) if request.operation != "CreateRole" else None
    return (str(role["Arn"]),) if role else None


_NAMED: Mapping[str, Callable[[Request], tuple[str, ...] | None]] = {
    "athena": _athena,
    "iam": _iam,
    "kinesis": _kinesis,
    "kms": _kms,
}


def context(request: Request) -> dict[str, Any]:
    """Condition keys that come from what exists: a role's boundary when its policies change, an item's first key."""
    from ministack.services import iam

    if request.service == "dynamodb":
        keys = _leading_keys(request)
        return {"dynamodb:leadingkeys": keys} if keys else {}
    role = iam._roles.get(request.text("RoleName")) if request.service == "iam" else None
    if not role or request.operation in ("CreateRole", "PutRolePermissionsBoundary"):
        return {}
    boundary = role.get("PermissionsBoundary")
    return {"iam:permissionsboundary": boundary} if boundary else {}


def _leading_keys(request: Request) -> list[str]:
    """The values of the partition key that a request names; none for a scan."""
    from ministack.services import dynamodb

    def of_table(name: str, items: list[Any]) -> list[str]:
        table = dynamodb._tables.get(name.rpartition("/")[2]) or {}
        hashed = next((key["AttributeName"] for key in table.get("KeySchema", []) if key["KeyType"] == "HASH"), "")
        return [
            str(next(iter(item[hashed].values()))) for item in items if isinstance(item, Mapping) and hashed in item
        ]

    given = request.parameters
    if "RequestItems" in given:
        found = []
        for name, asked in given["RequestItems"].items():
            writes = [next(iter(each.values())) for each in asked] if isinstance(asked, list) else []
            items = [each.get("Item") or each.get("Key") for each in writes] or asked["Keys"]
            found += of_table(name, items)
        return found
    item = given.get("Key") or given.get("Item") or _condition_values(given)
    return of_table(request.text("TableName"), [item])


def _condition_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that a query's key condition compares for equality, with the values in question."""
    names, values = given.get("ExpressionAttributeNames") or {}, given.get("ExpressionAttributeValues") or {}
    pairs = re.findall(r"([#\w.-]+)\s*=\s*(:\w+)", str(given.get("KeyConditionExpression") or ""))
    return {names.get(name, name): values[value] for name, value in pairs if value in values}


def key_arn(key: str) -> str | None:
    """The ARN of a customer's key by its id, ARN or alias; None for a key that AWS manages, or that is not there."""
    from ministack.services import kms

    if key.rpartition(":")[2].startswith("alias/aws/"):
        return None
    record = kms._resolve_key(key)
    return str(record["Arn"]) if record and record.get("KeyManager", "CUSTOMER") == "CUSTOMER" else None


def key_uses(check: Check, request: Request | None, stream_key: StreamKey) -> Iterator[KeyUse]:
    """What KMS is asked when the check has passed, with the caller's permissions."""
    service = check.action.partition(":")[0]
    find = _KEYS.get(service)
    if find is None:
        return
    key, actions = find(check, request, stream_key)
    arn = key_arn(key) if key and actions else None
    if arn:
        yield KeyUse(actions, arn, service, _encryption_context(check))


_CONTEXT_NAMES = {
    "kinesis": "aws:kinesis:arn",
    "secretsmanager": "SecretARN",
    "sns": "aws:sns:topicArn",
    "sqs": "aws:sqs:arn",
}


def _encryption_context(check: Check) -> dict[str, str]:
    """What a service binds a data key to. With a bucket key, that of all objects of a bucket is the bucket."""
    from ministack.services import s3

    service = check.action.partition(":")[0]
    if service == "s3":
        bucket = check.resource.removeprefix("arn:aws:s3:::").partition("/")[0]
        has_bucket_key = b"<BucketKeyEnabled>true" in _bytes(s3._bucket_encryption.get(bucket) or b"")
        return {"aws:s3:arn": f"arn:aws:s3:::{bucket}" if has_bucket_key else check.resource}
    if service == "dynamodb":
        arn = check.resource.split(":")
        return {"aws:dynamodb:tableName": arn[5].removeprefix("table/"), "aws:dynamodb:subscriberId": arn[4]}
    return {_CONTEXT_NAMES[service]: check.resource} if service in _CONTEXT_NAMES else {}


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


Found = tuple[str | None, tuple[str, ...]]


def _object_key(check: Check, request: Request | None, _: StreamKey) -> Found:
    from ministack.services import s3

    bucket, _slash, name = check.resource.removeprefix("arn:aws:s3:::").partition("/")
    header = "x-amz-server-side-encryption-aws-kms-key-id"
    if check.action == "s3:PutObject":
        asked = request.headers if request else {}
        key = asked.get(header) or s3._bucket_default_sse_headers(bucket).get(header)
        in_parts = request is not None and bool({"uploads", "uploadId"} & set(request.query))
        return key, _BOTH if in_parts else _WRITE
    if check.action != "s3:GetObject" or (request is not None and request.method == "HEAD"):
        return None, ()
    stored = ((s3._buckets.get(bucket) or {}).get("objects") or {}).get(name) or {}
    return s3._stored_sse_headers(stored).get(header), _READ


def _stream_key(check: Check, _: Request | None, stream_key: StreamKey) -> Found:
    actions = {"kinesis:PutRecord": _WRITE, "kinesis:PutRecords": _WRITE, "kinesis:GetRecords": _READ}
    return stream_key(check.resource), actions.get(check.action, ())


def _table_key(check: Check, _: Request | None, __: StreamKey) -> Found:
    from ministack.services import dynamodb

    table = dynamodb._tables.get(check.resource.partition("table/")[2].partition("/")[0]) or {}
    key = (table.get("SSEDescription") or {}).get("KMSMasterKeyArn")
    return key, _READ if check.action in _ITEMS else ()


def _topic_key(check: Check, _: Request | None, __: StreamKey) -> Found:
    from ministack.services import sns

    topic = sns._topics.get(check.resource) or {}
    return topic.get("attributes", {}).get("KmsMasterKeyId"), _BOTH if check.action == "sns:Publish" else ()


def _queue_key(check: Check, _: Request | None, __: StreamKey) -> Found:
    from ministack.services import sqs

    found = (queue["attributes"] for queue in sqs._queues.values())
    queue: dict[str, str] = next((each for each in found if each.get("QueueArn") == check.resource), {})
    actions = {"sqs:SendMessage": _BOTH, "sqs:ReceiveMessage": _READ}
    return queue.get("KmsMasterKeyId"), actions.get(check.action, ())


def _secret_key(check: Check, request: Request | None, _: StreamKey) -> Found:
    from ministack.services import secretsmanager

    _, secret = secretsmanager._resolve(check.resource)
    key = (secret or {}).get("KmsKeyId") or (request.text("KmsKeyId") if request else "")
    actions = {
        "secretsmanager:GetSecretValue": _READ,
        "secretsmanager:PutSecretValue": _BOTH,
        "secretsmanager:CreateSecret": _BOTH,
        "secretsmanager:UpdateSecret": _BOTH,
    }
    return key, actions.get(check.action, ())


_KEYS: Mapping[str, Callable[[Check, Request | None, StreamKey], Found]] = {
    "dynamodb": _table_key,
    "kinesis": _stream_key,
    "s3": _object_key,
    "secretsmanager": _secret_key,
    "sns": _topic_key,
    "sqs": _queue_key,
}
