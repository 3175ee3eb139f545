"""The parts of a deployment in AWS: which there should be, and what each is like now.

Terraform writes their names as JSON into the SSM parameter `/<name>/deployment`:

    name, region, account, sources: [..], stream, bucket, dynamodb_prefix, databases: [..], workgroup, key (ARN),
    topic (ARN), dead_letters (a queue's name), jobs: {stream, fold}, function, workflows: {ingest, fold} (ARNs),
    schedules: [..], roles: {part: ARN}, log_groups: [..], alarms: [..], rules: [..], dashboard (null without one),
    network: {endpoints: [ids], vpn_connections: [ids], connections: [Glue connections]}, secrets: [..]

A name that the parameter lacks is a part that this deployment does not have. The parameter itself is asked for first:
without it nothing is known of the deployment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from rich.table import Table
from rich.text import Text

from ops.aws import Aws
from ops.errors import OpsError
from ops.names import DYNAMODB_KEYS
from ops.part_looks import LOOKS, NotThere

MISSING: Final = "MISSING"
_LOOKERS: Final = 8

_NOT_FOUND: Final = frozenset(
    {
        *("ResourceNotFoundException", "ResourceNotFound", "NotFoundException", "NotFound", "404", "NoSuchBucket"),
        *("EntityNotFoundException", "NoSuchEntity", "StateMachineDoesNotExist", "ParameterNotFound"),
        *("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "InvalidVpcEndpointId.NotFound"),
        *("InvalidVpnConnectionID.NotFound", "DashboardNotFoundError"),
    }
)


# What else than `terraform apply` it takes, or what is gone with the part.
_MISSING_HINTS: Final[Mapping[str, str]] = {
    "stream": "what it held and the job had not read is in the agents' spools at best: docs/operations.md, lost parts",
    "bucket": "the lake's data is gone with it: docs/operations.md, lost parts",
    "table": "restore it before `terraform apply` makes an empty one: docs/operations.md, lost parts",
    "key": "what it encrypted cannot be read: docs/operations.md, lost parts",
    "database": "its tables must be registered anew: docs/operations.md, lost parts",
    "secret": "`terraform apply` makes it again, empty: put its value",
}


@dataclass(frozen=True)
class Wanted:
    """One part that there should be."""

    kind: str
    name: str


@dataclass(frozen=True)
class Part:
    """One part as it is. in_place: it exists and can do its work; hint: what to do, or what else to know of it."""

    kind: str
    name: str
    state: str
    in_place: bool
    hint: str = ""


def read_deployment(aws: Aws, name: str) -> Mapping[str, Any]:
    """The names that Terraform wrote. Raises OpsError where there is no such deployment."""
    parameter = f"/{name}/deployment"
    try:
        value = aws.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    except ClientError as error:
        if not _is_missing(error):
            raise OpsError(f"SSM parameter {parameter} could not be read: {error}") from error
        raise OpsError(
            f"there is no SSM parameter {parameter}: no deployment of that name was applied in this account and "
            "region, or the parameter was deleted by hand; `terraform apply` writes it"
        ) from error
    except BotoCoreError as error:
        raise OpsError(f"no AWS answers: {error}; name a profile (AWS_PROFILE), or --endpoint-url") from error
    found: Mapping[str, Any] = json.loads(value)
    return found


def wanted(deployment: Mapping[str, Any]) -> Iterator[Wanted]:
    """Every part of a deployment, in the order of a change's path. Pure."""
    network = deployment.get("network") or {}
    yield from _of("stream", deployment.get("stream"))
    yield from _of("bucket", deployment.get("bucket"))
    if prefix := deployment.get("dynamodb_prefix"):
        yield from _of("table", [f"{prefix}-{table}" for table in DYNAMODB_KEYS])
    yield from _of("database", deployment.get("databases"))
    yield from _of("job", deployment.get("jobs"))
    yield from _of("function", deployment.get("function"))
    yield from _of("workflow", deployment.get("workflows"))
    yield from _of("schedule", deployment.get("schedules"))
    yield from _of("workgroup", deployment.get("workgroup"))
    yield from _of("key", deployment.get("key"))
    yield from _of("role", deployment.get("roles"))
    yield from _of("secret", deployment.get("secrets"))
    yield from _of("topic", deployment.get("topic"))
    yield from _of("queue", deployment.get("dead_letters"))
    yield from _of("rule", deployment.get("rules"))
    yield from _of("dashboard", deployment.get("dashboard"))
    yield from _of("log group", deployment.get("log_groups"))
    yield from _of("endpoint", network.get("endpoints"))
    yield from _of("vpn", network.get("vpn_connections"))
    yield from _of("connection", network.get("connections"))
    yield from _of("alarm", deployment.get("alarms"))


def look(aws: Aws, parts: Iterator[Wanted]) -> list[Part]:
    """Every part as it is now, in the order given."""
    listed = list(parts)
    for service in {LOOKS[part.kind][0] for part in listed}:
        aws.client(service)  # made here: clients are made one at a time, and used side by side
    with ThreadPoolExecutor(_LOOKERS) as lookers:
        return list(lookers.map(lambda part: look_at(aws, part), listed))


def look_at(aws: Aws, part: Wanted) -> Part:
    """One part. What may not be read is no reason to stop: it is shown as such, and does not count as in place."""
    service, see = LOOKS[part.kind]
    try:
        seen = see(aws.client(service), part.name)
    except NotThere:
        return _missing(part)
    except ClientError as error:
        if _is_missing(error):
            return _missing(part)
        return Part(part.kind, part.name, error.response["Error"]["Code"], False, error.response["Error"]["Message"])
    except BotoCoreError as error:
        return Part(part.kind, part.name, "UNREACHABLE", False, str(error))
    return Part(part.kind, part.name, seen.state, seen.works, seen.hint)


def _missing(part: Wanted) -> Part:
    return Part(part.kind, part.name, MISSING, False, _MISSING_HINTS.get(part.kind, "`terraform apply` makes it again"))


def _is_missing(error: ClientError) -> bool:
    return error.response["Error"]["Code"] in _NOT_FOUND


def _of(kind: str, names: Any) -> Iterator[Wanted]:
    """One name, a list of names, or names by role; nothing where there is none."""
    listed = names.values() if isinstance(names, Mapping) else [names] if isinstance(names, str) else names or []
    for name in listed:
        yield Wanted(kind, str(name))


def shown(parts: list[Part], title: str) -> Table:
    """A table for people, what is not in place first seen by its colour."""
    view = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in ("part", "name", "state", "hint"):
        view.add_column(column, overflow="fold")
    for part in parts:
        style = "red" if not part.in_place else "yellow" if part.state in ("ALARM", "FAILED", "TIMEOUT") else ""
        view.add_row(part.kind, Text(_short(part.name)), Text(part.state, style), Text(part.hint))
    return view


def summary(parts: list[Part]) -> str:
    """One line: all in place, or what is not, by name."""
    lacking = [f"{part.kind} {part.name} ({part.state})" for part in parts if not part.in_place]
    raised = [part.name for part in parts if part.kind == "alarm" and part.state == "ALARM"]
    told = (
        f"{len(lacking)} of {len(parts)} parts are not in place: {', '.join(lacking)}"
        if lacking
        else (f"all {len(parts)} parts are in place")
    )
    return f"{told}; alarms raised: {', '.join(raised)}" if raised else told


def _short(name: str) -> str:
    """An ARN's last part; log groups and secrets have slashes of their own and stay whole."""
    return name.rsplit(":", 1)[-1].rsplit("/", 1)[-1] if name.startswith("arn:") else name
