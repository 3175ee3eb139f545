"""Roles that a request hands to a service: the caller needs iam:PassRole for each. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from .iam_requests import Check, Request

# IAM action: (parameters that hold a role, each with its path; the service that will assume it)
_PASSED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "cloudformation:CreateStack": (("RoleARN",), "cloudformation.amazonaws.com"),
    "cloudformation:CreateChangeSet": (("RoleARN",), "cloudformation.amazonaws.com"),
    "codebuild:CreateProject": (("serviceRole",), "codebuild.amazonaws.com"),
    "codebuild:UpdateProject": (("serviceRole",), "codebuild.amazonaws.com"),
    "ec2:CreateFlowLogs": (("DeliverLogsPermissionArn",), "vpc-flow-logs.amazonaws.com"),
    "events:PutTargets": (("Targets.RoleArn",), "events.amazonaws.com"),
    "events:PutRule": (("RoleArn",), "events.amazonaws.com"),
    "glue:CreateJob": (("Role",), "glue.amazonaws.com"),
    "glue:UpdateJob": (("JobUpdate.Role",), "glue.amazonaws.com"),
    "lambda:CreateFunction": (("Role",), "lambda.amazonaws.com"),
    "lambda:UpdateFunctionConfiguration": (("Role",), "lambda.amazonaws.com"),
    "rolesanywhere:CreateProfile": (("roleArns",), "rolesanywhere.amazonaws.com"),
    "rolesanywhere:UpdateProfile": (("roleArns",), "rolesanywhere.amazonaws.com"),
    "scheduler:CreateSchedule": (("Target.RoleArn",), "scheduler.amazonaws.com"),
    "scheduler:UpdateSchedule": (("Target.RoleArn",), "scheduler.amazonaws.com"),
    "states:CreateStateMachine": (("roleArn",), "states.amazonaws.com"),
    "states:UpdateStateMachine": (("roleArn",), "states.amazonaws.com"),
}


def checks(request: Request) -> list[Check]:
    """One check for each role that the request passes on."""
    paths, service = _PASSED.get(request.action, ((), ""))
    roles = {role for path in paths for role in _values(request.parameters, path.split("."))}
    return [
        Check("iam:PassRole", _arn(role, request.account), {"iam:passedtoservice": service}) for role in sorted(roles)
    ]


def _arn(role: str, account: str) -> str:
    return role if role.startswith("arn:") else f"arn:aws:iam::{account}:role/{role}"


def _values(value: Any, path: list[str]) -> Iterator[str]:
    if isinstance(value, list):
        for member in value:
            yield from _values(member, path)
    elif not path:
        if isinstance(value, str) and value:
            yield value
    elif isinstance(value, Mapping):
        yield from _values(value.get(path[0]), path[1:])
