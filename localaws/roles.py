"""Credentials of IAM roles, as AWS gives them to its own services: sessions in ministack's STS.

The services assume a role under their own name (`glue.amazonaws.com`), which no caller over HTTP can have, so the
session is registered in process. With IAM enforced the role must exist and must trust the service.
"""

import functools
import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class RoleError(Exception):
    """A service may not assume the role; the message says why."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A role session's keys. They do not expire while the server runs."""

    access_key: str
    secret_key: str
    token: str

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": self.token,
        }

    def client_options(self) -> dict[str, str]:
        return {
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "aws_session_token": self.token,
        }


def role_arn(role: str, account: str) -> str:
    """A role's ARN from its ARN or its bare name, as Glue accepts both."""
    return role if role.startswith("arn:") else f"arn:aws:iam::{account}:role/{role}"


def assume(role: str, session_name: str, service: str) -> Credentials:
    """A session of the role for one of AWS's services. Raises RoleError."""
    from ministack import app

    account, role_name = _parse(role)
    if app.AUTH:
        _require_trust(role, role_name, account, service)
    return _session(role, session_name)


def _session(role: str, session_name: str) -> Credentials:
    from ministack.services import sts

    account, role_name = _parse(role)
    credentials = Credentials(
        f"ASIA{uuid.uuid4().hex[:16].upper()}", secrets.token_urlsafe(30), secrets.token_urlsafe(60)
    )
    sts.register_session(
        credentials.access_key,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{role_name}/{session_name}",
            "UserId": f"{sts._role_id(role)}:{session_name}",
            "SecretAccessKey": credentials.secret_key,
            "SessionToken": credentials.token,
            "AccountId": account,
            "PrincipalType": "AssumedRole",
        },
    )
    return credentials


@functools.cache
def service_session(role: str) -> Credentials:
    """The session that services share for their own calls in a role, such as writing its logs."""
    return _session(role, "service")


def session(role: str, session_name: str) -> Credentials:
    """A session of any role that exists, whoever it trusts: what the laptop's owner may have. Raises RoleError."""
    from ministack.services import iam

    account, role_name = _parse(role)
    if iam._roles.get_scoped(account, None, role_name) is None:
        raise RoleError(f"The role {role} does not exist")
    return _session(role, session_name)


def _parse(role: str) -> tuple[str, str]:
    parts = role.split(":", 5)
    if len(parts) != 6 or not parts[5].startswith("role/"):
        raise RoleError(f"{role!r} is not the ARN of an IAM role")
    return parts[4], parts[5].rpartition("/")[2]


def _require_trust(role: str, role_name: str, account: str, service: str) -> None:
    from ministack.services import iam

    stored = iam._roles.get_scoped(account, None, role_name)
    if stored is None:
        raise RoleError(f"The role {role} does not exist")
    if not trusts(json.loads(stored.get("AssumeRolePolicyDocument") or "{}"), service, account):
        raise RoleError(f"The role {role} does not trust {service}: its trust policy must allow it sts:AssumeRole")


def trusts(document: Mapping[str, Any], service: str, account: str) -> bool:
    """Whether a trust policy lets a service of this account assume its role. A Deny wins.

    A condition on aws:SourceAccount is judged; others are taken as met, since a service's own calls carry no more here.
    """
    matching = [
        statement["Effect"]
        for statement in _listed(document.get("Statement", []))
        if _covers(statement, service) and _source_matches(statement.get("Condition", {}), account)
    ]
    return "Allow" in matching and "Deny" not in matching


def _covers(statement: Mapping[str, Any], service: str) -> bool:
    principal = statement.get("Principal", {})
    services = ["*"] if principal == "*" else _listed(principal.get("Service", []))
    actions = {action.lower() for action in _listed(statement.get("Action", []))}
    return bool({"*", service} & set(services)) and bool({"*", "sts:*", "sts:assumerole"} & actions)


def _source_matches(condition: Mapping[str, Any], account: str) -> bool:
    wanted = [
        value
        for tests in condition.values()
        for key, values in tests.items()
        if key.lower() == "aws:sourceaccount"
        for value in _listed(values)
    ]
    return not wanted or account in wanted


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
