"""IAM Roles Anywhere's trust anchors and profiles, which ministack lacks. No session is made from a certificate here.

`session` of the control endpoints gives a role's keys instead.
"""

import json
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .settings import ACCOUNT

Response = tuple[int, dict[str, str], bytes]
Stored = dict[str, dict[str, Any]]

_KINDS = {"trustanchor": ("trustAnchor", "trust-anchor"), "profile": ("profile", "profile")}
_NAMESPACE = "rolesanywhere"
_NOTIFICATION = {"channel": "ALL", "configuredBy": "rolesanywhere.amazonaws.com", "enabled": True, "threshold": 45}


class NotFound(Exception):
    """No such trust anchor, profile or resource."""


class RolesAnywhere:
    """Everything in one file; few and small."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path, self._now = path, now
        self._lock = threading.Lock()
        self._stored: Stored = json.loads(path.read_text()) if path.exists() else {}

    def answer(self, method: str, path: str, body: bytes, query: Mapping[str, Any], region: str) -> Response:
        """One request of the API."""
        given = json.loads(body) if body else {}
        parts = [unquote(part) for part in path.split("/") if part]
        with self._lock:
            try:
                status, reply = self._answer(method, parts, given, query, region)
            except NotFound as error:
                headers = {"Content-Type": "application/json", "x-amzn-ErrorType": "ResourceNotFoundException"}
                return 404, headers, json.dumps({"message": f"{error} does not exist"}).encode()
            if method != "GET":
                temporary = self._path.with_suffix(".new")
                temporary.write_text(json.dumps(self._stored))
                temporary.replace(self._path)
        return status, {"Content-Type": "application/json"}, json.dumps(reply).encode()

    def _answer(
        self, method: str, parts: list[str], given: dict[str, Any], query: Mapping[str, Any], region: str
    ) -> tuple[int, dict[str, Any]]:
        match method, parts:
            case "POST", [("trustanchors" | "profiles") as kinds]:
                return 201, self._create(kinds.removesuffix("s"), given, region)
            case "GET", [("trustanchors" | "profiles") as kinds]:
                return 200, {
                    _plural(kinds): [each["shown"] for each in self._stored.values() if each["kind"] == kinds[:-1]]
                }
            case "GET", [kind, name]:
                return 200, self._reply(kind, self._find(kind, name))
            case "PATCH", [kind, name]:
                return 200, self._change(kind, name, given)
            case "POST", [kind, name, ("enable" | "disable") as switch]:
                return 200, self._change(kind, name, {"enabled": switch == "enable"})
            case "DELETE", [kind, name]:
                found = self._find(kind, name)
                del self._stored[name]
                return 200, self._reply(kind, found)
            case "GET", ["ListTagsForResource"]:
                return 200, {"tags": self._by_arn(_first(query, "resourceArn"))["tags"]}
            case "POST", [("TagResource" | "UntagResource") as change]:
                self._tag(given, removes=change == "UntagResource")
                return 201, {}
        raise NotFound(f"/{'/'.join(parts)}")

    def _create(self, kind: str, given: dict[str, Any], region: str) -> dict[str, Any]:
        name, now = str(uuid.uuid4()), self._now().isoformat()
        member, resource = _KINDS[kind]
        shown = {key: value for key, value in given.items() if key != "tags"}
        shown |= {
            f"{member}Id": name,
            f"{member}Arn": f"arn:aws:{_NAMESPACE}:{region}:{ACCOUNT}:{resource}/{name}",
            "enabled": given.get("enabled", True),
            "createdAt": now,
            "updatedAt": now,
        }
        if kind == "profile":
            shown = {"durationSeconds": 3600, "acceptRoleSessionName": False, **shown}
            shown.setdefault("createdBy", f"arn:aws:iam::{ACCOUNT}:root")
        else:
            shown["notificationSettings"] = [
                {**_NOTIFICATION, "event": event}
                for event in ("CA_CERTIFICATE_EXPIRY", "END_ENTITY_CERTIFICATE_EXPIRY")
            ]
        self._stored[name] = {"kind": kind, "shown": shown, "tags": given.get("tags", [])}
        return self._reply(kind, self._stored[name])

    def _change(self, kind: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
        found = self._find(kind, name)
        found["shown"] |= {**given, "updatedAt": self._now().isoformat()}
        return self._reply(kind, found)

    def _tag(self, given: dict[str, Any], *, removes: bool) -> None:
        found = self._by_arn(given["resourceArn"])
        changed = set(given.get("tagKeys", [])) if removes else {tag["key"] for tag in given["tags"]}
        kept = [tag for tag in found["tags"] if tag["key"] not in changed]
        found["tags"] = kept if removes else [*kept, *given["tags"]]

    def _find(self, kind: str, name: str) -> dict[str, Any]:
        found = self._stored.get(name)
        if found is None or found["kind"] != kind:
            raise NotFound(f"{kind} {name}")
        return found

    def _by_arn(self, arn: str) -> dict[str, Any]:
        return self._find(
            next((k for k, (_, resource) in _KINDS.items() if f":{resource}/" in arn), ""), arn.rpartition("/")[2]
        )

    @staticmethod
    def _reply(kind: str, found: dict[str, Any]) -> dict[str, Any]:
        return {_KINDS[kind][0]: found["shown"]}


def _plural(path: str) -> str:
    return "trustAnchors" if path == "trustanchors" else path


def _first(query: Mapping[str, Any], name: str) -> str:
    value = query.get(name, "")
    return str(value[0] if isinstance(value, list) else value)


def install(service: RolesAnywhere) -> None:
    """Route the service's requests here, and have them judged by their operation's name."""
    from ministack import app
    from ministack.core import iam_actions, responses, router

    async def handle(method: str, path: str, headers: Any, body: bytes, query: Any) -> Response:
        return service.answer(method, path, body, query, responses.get_region())

    app.SERVICE_HANDLERS[_NAMESPACE] = handle
    router.SERVICE_PATTERNS[_NAMESPACE] = {"host_patterns": [], "credential_scope": _NAMESPACE}
    iam_actions.SERVICE_TO_IAM_NAMESPACE[_NAMESPACE] = _NAMESPACE
    iam_actions._BOTOCORE_SERVICE_MAP[_NAMESPACE] = [_NAMESPACE]
