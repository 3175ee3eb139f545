"""Statements of the roles' policies that no request has used: what could be taken away, or needs a reason. Pure.

The laptop's AWS remembers which statement allowed each request (`GET /_local/iam/decisions`); the policies come from
IAM. A statement is known by role, policy and its Sid, or its place where it has none, as it is in the decisions.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]
Key = tuple[str, str, str]  # role, policy, Sid or index


@dataclass(frozen=True)
class Grant:
    """One Allow statement of a role."""

    role: str
    policy: str
    name: str
    actions: tuple[str, ...]

    @property
    def key(self) -> Key:
        return (self.role, self.policy, self.name)


@dataclass(frozen=True)
class Unused:
    """A statement that allowed nothing, or actions of a used one that nobody asked for."""

    grant: Grant
    actions: tuple[str, ...]
    reason: str | None = None

    @property
    def whole(self) -> bool:
        return self.actions == self.grant.actions

    def __str__(self) -> str:
        what = "nothing used it" if self.whole else f"nothing used {', '.join(self.actions)}"
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.grant.role}: {self.grant.name} in {self.grant.policy}: {what}{why}"


def grants(role: str, policies: Mapping[str, Json | str]) -> list[Grant]:
    """The Allow statements of a role's policies, by the policies' names or ARNs."""
    found = []
    for policy, document in policies.items():
        parsed = json.loads(document) if isinstance(document, str) else document
        for position, statement in enumerate(_listed(parsed.get("Statement", []))):
            if statement.get("Effect") == "Allow":
                name = str(statement.get("Sid") or position)
                found.append(Grant(role, policy, name, tuple(_listed(statement.get("Action", [])))))
    return found


def unused(
    all_grants: Iterable[Grant], decisions: Iterable[Json], reasons: Mapping[str, str] | None = None
) -> list[Unused]:
    """What the decisions leave unused, in the grants' order.

    reasons: why something is there all the same, by `ROLE/SID` or `ROLE/SID/ACTION`; stars match.
    """
    used = _used(decisions)
    found = []
    for grant in all_grants:
        asked = used.get(grant.key, set())
        idle = tuple(action for action in grant.actions if not any(_matches(name, action) for name in asked))
        if not idle:
            continue
        if not asked:
            found.append(Unused(grant, grant.actions, _reason(grant, None, reasons or {})))
            continue
        by_reason: dict[str | None, list[str]] = {}
        for action in idle:
            by_reason.setdefault(_reason(grant, action, reasons or {}), []).append(action)
        found += [Unused(grant, tuple(actions), reason) for reason, actions in by_reason.items()]
    return found


def unexplained(found: Iterable[Unused]) -> list[Unused]:
    return [each for each in found if each.reason is None]


def _used(decisions: Iterable[Json]) -> dict[Key, set[str]]:
    """The actions that each statement allowed."""
    used: dict[Key, set[str]] = {}
    for decision in decisions:
        for each in decision["allowed_by"]:
            used.setdefault((each["role"], each["policy"], each["statement"]), set()).add(decision["action"])
    return used


def _reason(grant: Grant, action: str | None, reasons: Mapping[str, str]) -> str | None:
    names = [f"{grant.role}/{grant.name}", *([f"{grant.role}/{grant.name}/{action}"] if action else [])]
    return next((why for pattern, why in reasons.items() for name in names if fnmatch.fnmatchcase(name, pattern)), None)


def _matches(action: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(action.lower(), pattern.lower())


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]
