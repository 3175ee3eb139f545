"""Holes: positions of a lane that are missing from a table for a stated reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from schemas.position import Line, Position

MAX_REASON: Final = 400
MAX_WHERE: Final = 800
"""Characters. A hole that goes on growing keeps the first reasons and places: the catalog holds 512,000 in a property,
and all holes of a table stand in one."""


@dataclass(frozen=True)
class Hole:
    """The positions (after, last] of a lane. `after` None: from the lane's beginning in this era.

    where: S3 URIs of the raw bytes, where there are any, apart by spaces; `<uri>..<sequence number>` stands for all
    that lie between two of one shard. opened_at: ISO time, UTC.
    """

    lane: str
    after: Position | None
    last: Position
    reason: str
    opened_at: str
    where: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", self.reason[:MAX_REASON])

    @property
    def lowest(self) -> Position:
        """No position of the hole lies at or below this one (the origin of its era where nothing came before)."""
        return self.after if self.after is not None else Position(self.last.era, 0, -1)

    def ends_below(self, line: Line) -> bool:
        """Whether a snapshot whose lowest consistent point is `line` holds all that is missing here."""
        return (self.last.era, self.last.lsn) < line


def add(holes: Sequence[Hole], hole: Hole) -> tuple[Hole, ...]:
    """The holes with one more. It is one with a hole that it continues, which keeps its time and adds the reason."""
    for index, earlier in enumerate(holes):
        if earlier.lane == hole.lane and earlier.last == hole.after:
            both = earlier.reason if hole.reason in earlier.reason else f"{earlier.reason}; {hole.reason}"
            where = joined(earlier.where, hole.where)
            one = replace(earlier, last=hole.last, reason=both, where=where)
            return (*holes[:index], one, *holes[index + 1 :])
    return (*holes, hole)


def filled(holes: Sequence[Hole], hole: Hole, upto: Position) -> tuple[Hole, ...]:
    """The holes after the rows of `hole` up to `upto` were loaded: it shrinks from below, and at its end is gone."""
    rest = () if upto >= hole.last else (replace(hole, after=upto),)
    return tuple(part for earlier in holes for part in (rest if earlier == hole else (earlier,)))


def of_lane(holes: Iterable[Hole], lane: str) -> tuple[Hole, ...]:
    return tuple(hole for hole in holes if hole.lane == lane)


def to_json(holes: Iterable[Hole]) -> list[dict[str, Any]]:
    return [
        {
            "lane": hole.lane,
            "after": None if hole.after is None else list(hole.after),
            "last": list(hole.last),
            "reason": hole.reason,
            "opened_at": hole.opened_at,
            "where": hole.where,
        }
        for hole in holes
    ]


def from_json(items: Iterable[dict[str, Any]]) -> tuple[Hole, ...]:
    return tuple(
        Hole(
            lane=item["lane"],
            after=None if item["after"] is None else Position.of(item["after"]),
            last=Position.of(item["last"]),
            reason=item["reason"],
            opened_at=item["opened_at"],
            where=item.get("where"),
        )
        for item in items
    )


def without(holes: Iterable[Hole], gone: Hole) -> tuple[Hole, ...]:
    return tuple(hole for hole in holes if hole != gone)


def places(where: str | None) -> list[tuple[str, str]]:
    """The places of raw bytes, as (URI of the first, sequence number of the last)."""
    found = []
    for item in (where or "").split():
        first, _, last = item.partition("..")
        found.append((first, last or first.rpartition("/")[2]))
    return found


def joined(first: str | None, second: str | None) -> str | None:
    """Both places; those in one shard become a range, so that a long hole does not grow without end."""
    found = places(first)
    for uri, last in places(second):
        if found and found[-1][0].rpartition("/")[0] == uri.rpartition("/")[0]:
            found[-1] = (found[-1][0], last)
        else:
            found.append((uri, last))
    texts = [uri if uri.endswith(f"/{last}") else f"{uri}..{last}" for uri, last in found]
    while len(" ".join(texts)) > MAX_WHERE:
        texts.pop()
    return " ".join(texts) or None
