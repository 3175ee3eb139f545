"""What IAM decided since the server started: by principal, action and resource, and by which statement. Pure."""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_EXACT_RESOURCES = 500


@dataclass(frozen=True, slots=True, order=True)
class Statement:
    """A statement of a policy: `policy` is an inline policy's name or a managed one's ARN, `name` its Sid or index."""

    role: str
    policy: str
    name: str

    def to_json(self) -> dict[str, str]:
        return {"role": self.role, "policy": self.policy, "statement": self.name}


@dataclass(slots=True)
class _Tally:
    allowed: int = 0
    denied: int = 0
    statements: Counter[Statement] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Decision:
    """One judged request. `statement` is what allowed it; `refusal` says why it was denied."""

    principal: str
    action: str
    resource: str
    statement: Statement | None = None
    refusal: str = ""


class Decisions:
    """Counts decisions. Many resources of one action (objects of a bucket) become one entry with a star at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, str, str], _Tally] = {}
        self._seen: Counter[tuple[str, str]] = Counter()
        self._unjudged: Counter[tuple[str, str]] = Counter()

    def remember(self, decision: Decision) -> None:
        with self._lock:
            tally = self._tally(decision)
            if decision.statement is None:
                tally.denied += 1
                tally.refusals[decision.refusal] += 1
            else:
                tally.allowed += 1
                tally.statements[decision.statement] += 1

    def remember_unjudged(self, service: str, request: str) -> None:
        """A request whose action is not known, so that no policy was asked."""
        with self._lock:
            self._unjudged[service, request] += 1

    def clear(self) -> None:
        with self._lock:
            self._tallies.clear()
            self._seen.clear()
            self._unjudged.clear()

    def to_json(self) -> dict[str, Any]:
        """`decisions` and `unjudged`, each sorted."""
        with self._lock:
            return {
                "decisions": [_shown(key, self._tallies[key]) for key in sorted(self._tallies)],
                "unjudged": [
                    {"service": service, "request": request, "count": count}
                    for (service, request), count in sorted(self._unjudged.items())
                ],
            }

    def _tally(self, decision: Decision) -> _Tally:
        key = (decision.principal, decision.action, decision.resource)
        if key in self._tallies:
            return self._tallies[key]
        if self._seen[key[:2]] >= _EXACT_RESOURCES:
            key = (*key[:2], _folder(decision.resource))
        if key not in self._tallies:
            self._seen[key[:2]] += 1
            self._tallies[key] = _Tally()
        return self._tallies[key]


def _folder(resource: str) -> str:
    """The first part of an ARN's resource, with a star for the rest."""
    head, slash, _ = resource.partition("/")
    return f"{head}{slash}*"


def _shown(key: tuple[str, str, str], tally: _Tally) -> dict[str, Any]:
    principal, action, resource = key
    return {
        "principal": principal,
        "action": action,
        "resource": resource,
        "allowed": tally.allowed,
        "denied": tally.denied,
        "allowed_by": _counted(tally.statements.items()),
        "refusals": dict(sorted(tally.refusals.items())),
    }


def _counted(statements: Iterable[tuple[Statement, int]]) -> list[dict[str, Any]]:
    return [{**statement.to_json(), "count": count} for statement, count in sorted(statements)]
