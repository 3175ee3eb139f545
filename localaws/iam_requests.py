"""A request as IAM sees it: its parameters, whatever protocol they came in. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

_OPERATION = re.compile(r"/service/[^/]+/operation/(\w+)")


@dataclass(frozen=True)
class Request:
    """An HTTP request that was routed to one of the services; `action` is IAM's name for what it asks."""

    service: str
    action: str
    method: str
    path: str
    region: str
    account: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    query: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """Members of a JSON body, or of a query and a form (lists as their first value)."""
        if self.service != "s3" and self.body[:1] in (b"{", b"["):
            try:
                parsed = json.loads(self.body)
            except ValueError:
                return {}
            return {**_first_values(self.query), **parsed} if isinstance(parsed, dict) else {}
        return _first_values(self.query)

    @property
    def operation(self) -> str:
        return self.action.partition(":")[2]

    def text(self, *names: str) -> str:
        """The first of these parameters that is a text; empty where none is."""
        for name in names:
            value = self.parameters.get(name)
            if isinstance(value, str) and value:
                return value
        return ""

    def texts(self, name: str) -> list[str]:
        """A parameter that is a list of texts; a form's `Name.member.1` too."""
        value = self.parameters.get(name)
        if isinstance(value, list):
            return [each for each in value if isinstance(each, str)]
        members = re.compile(rf"{re.escape(name)}(\.member)?\.\d+")
        return [str(found) for key, found in self.parameters.items() if members.fullmatch(key)]

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the caller must be allowed for a request to go through. Context keys are in lower case."""

    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict)


def operation_of_path(path: str) -> str | None:
    """The operation that a path of the RPC protocol names."""
    matched = _OPERATION.search(path)
    return matched[1] if matched else None


def _first_values(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[0] if isinstance(value, list) and value else value for name, value in query.items()}
