"""What the properties of a lake table hold. Each property has one writer: the streaming job, or the fold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from glue_streaming import chain, holes
from glue_streaming.holes import Hole
from schemas.control import parse_snapshot_lane
from schemas.position import ORIGIN, Line, Position

EPOCH: Final = "headrace.epoch"
MARKS: Final = "headrace.marks"
HOLES: Final = "headrace.holes"
ACCEPTED: Final = "headrace.accepted"
SNAPSHOTS: Final = "headrace.snapshots"
TOTALS: Final = "headrace.totals"
FOLD_LINE: Final = "headrace.fold.line"
ACTIVATED_THROUGH: Final = "headrace.fold.activated_through"
FOLD_TOTALS: Final = "headrace.fold.totals"
FOLDED_AT: Final = "headrace.fold.at"
ERASED_AT: Final = "headrace.fold.erased_at"
HISTORY_FROM: Final = "headrace.fold.history_from"
TIDIED_AT: Final = "headrace.fold.tidied_at"
SOURCE: Final = "headrace.source"
TABLE: Final = "headrace.table"
KEY: Final = "headrace.key"
WHOLE_ROWS: Final = "headrace.whole_rows"
"""Set where a table without a key has deletes, which name whole rows; once set it stays."""
MAX_ACCEPTED: Final = 100
"""How many acceptances the property keeps, the newest ones; the Iceberg table `holes` keeps all."""


@dataclass(frozen=True)
class Mark:
    """The last position of a lane that the table has dealt with, and where its block lay in the stream.

    before: where the lane stood when it went into the era of its position.
    """

    position: Position
    shard: str
    sequence: str
    before: Position | None = None

    def reaches(self, last: Position) -> bool:
        """Whether everything of the lane up to `last` was dealt with; not, where that is known of its era no more."""
        if self.position.era <= last.era:
            return self.position >= last
        return self.before is not None and self.before.era == last.era and self.before >= last


@dataclass(frozen=True)
class EndedGroup:
    """A group of a snapshot that was read to its end; only this attempt's rows count."""

    attempt: int
    consistent_point: int
    key_from: tuple[str, ...] | None
    key_to: tuple[str, ...] | None
    count: int


@dataclass(frozen=True)
class SnapshotState:
    """A snapshot that was announced for the table: `low` bounds its consistent points from below.

    void: why the streaming job gave it up, although its source did not: it stays abandoned whatever is announced.
    """

    low: int
    groups: int | None = None
    ended: Mapping[int, EndedGroup] = field(default_factory=dict)
    abandoned: bool = False
    era: int = 1
    void: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "abandoned", self.abandoned or self.void is not None)

    @property
    def complete(self) -> bool:
        return not self.abandoned and self.groups is not None and len(self.ended) == self.groups

    @property
    def lowest(self) -> int:
        """The lowest consistent point, or the bound where no group has ended."""
        points = [group.consistent_point for group in self.ended.values()]
        return min(points) if self.complete else min([self.low, *points])

    @property
    def highest(self) -> int:
        """The highest consistent point of a complete snapshot."""
        return max(group.consistent_point for group in self.ended.values())


@dataclass(frozen=True)
class Totals:
    """Running totals of what the streaming job has appended: never lowered, so that a tail is a difference."""

    rows: int = 0
    bytes: int = 0
    files: int = 0

    def plus(self, rows: int, size: int, files: int) -> Totals:
        return Totals(self.rows + rows, self.bytes + size, self.files + files)


@dataclass(frozen=True)
class Accepted:
    """A hole that somebody accepted: its positions stay missing for good. at: ISO time, UTC."""

    hole: Hole
    by: str
    because: str
    at: str


@dataclass(frozen=True)
class StreamState:
    """What the streaming job keeps in the table."""

    epoch: int = 0
    marks: Mapping[str, Mark] = field(default_factory=dict)
    holes: tuple[Hole, ...] = ()
    snapshots: Mapping[int, SnapshotState] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    accepted: tuple[Accepted, ...] = ()

    @property
    def data_holes(self) -> tuple[Hole, ...]:
        """The holes in lanes of changes; one in a snapshot's lane only voids the attempt."""
        return tuple(hole for hole in self.holes if parse_snapshot_lane(hole.lane) is None)

    @property
    def sealed(self) -> Line | None:
        """The line below which open holes are left to a complete snapshot."""
        number = newest_complete(self.snapshots)
        return None if number is None else Line(self.snapshots[number].era, self.snapshots[number].lowest)

    def lane(self, name: str) -> chain.Lane:
        mark = self.marks.get(name)
        position, before = (None, None) if mark is None else (mark.position, mark.before)
        return chain.Lane(name, position, holes.of_lane(self.holes, name), self.sealed, before)

    def with_lane(self, lane: chain.Lane, shard: str, sequence: str) -> StreamState:
        """The state after a lane has moved; its block lay at (shard, sequence)."""
        others = tuple(hole for hole in self.holes if hole.lane != lane.name)
        marks, known = dict(self.marks), self.marks.get(lane.name)
        if known is not None and known.position == lane.mark:
            marks[lane.name] = replace(known, before=lane.before)
        elif lane.mark is not None:
            marks[lane.name] = Mark(lane.mark, shard, sequence, lane.before)
        return replace(self, marks=marks, holes=(*others, *lane.holes))

    def accept(self, accepted: Accepted) -> StreamState:
        """The state with one of its holes closed for good, and who did it on record."""
        return replace(
            self,
            holes=holes.without(self.holes, accepted.hole),
            accepted=(*self.accepted, accepted)[-MAX_ACCEPTED:],
        )

    def voided(self, snapshot: int, era: int, why: str) -> StreamState:
        """The state with a snapshot given up: it holds F no more, and another one has to take its place."""
        known = self.snapshots.get(snapshot, SnapshotState(low=0, era=era))
        return replace(self, snapshots={**self.snapshots, snapshot: replace(known, void=why)})

    def without_snapshots_through(self, activated: int) -> StreamState:
        """The state less the snapshots that the fold has taken in, their lanes' marks, and the holes they closed."""
        taken = self.snapshots.get(activated)
        closed_below = ORIGIN if taken is None else Line(taken.era, taken.lowest)
        return replace(
            self,
            marks={lane: mark for lane, mark in self.marks.items() if not _of_snapshot(lane, activated)},
            holes=tuple(
                hole
                for hole in self.holes
                if not _of_snapshot(hole.lane, activated) and not hole.ends_below(closed_below)
            ),
            snapshots={number: state for number, state in self.snapshots.items() if number > activated},
        )

    def to_properties(self) -> dict[str, str]:
        return {
            EPOCH: str(self.epoch),
            MARKS: _dump({lane: _mark_as_json(mark) for lane, mark in self.marks.items()}),
            HOLES: _dump(holes.to_json(self.holes)),
            SNAPSHOTS: _dump({str(number): _snapshot_json(state) for number, state in self.snapshots.items()}),
            TOTALS: _dump([self.totals.rows, self.totals.bytes, self.totals.files]),
            **({ACCEPTED: _dump([_accepted_json(item) for item in self.accepted])} if self.accepted else {}),
        }


@dataclass(frozen=True)
class FoldTotals:
    """The fold's own totals: what it has taken of the log for good, and what each tier holds now.

    merged_rows: of the rows taken those since the last major fold. overlap_bytes: of the base files that delta's keys
    lie in. read_bytes, written_bytes: of all folds so far. unmatched_rows: of delta the deletes of whole rows that the
    last major fold found no row for.
    """

    log_rows_taken: int = 0
    log_bytes_taken: int = 0
    delta_rows: int = 0
    delta_bytes: int = 0
    base_rows: int = 0
    base_bytes: int = 0
    history_rows: int = 0
    history_bytes: int = 0
    log_files_taken: int = 0
    merged_rows: int = 0
    overlap_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    unmatched_rows: int = 0

    def moved(self, tier: str, rows: int, size: int) -> FoldTotals:
        """The totals after a tier has gained so many rows and bytes, or lost them where they are negative.

        What the log loses was taken from it.
        """
        if tier == "staged":
            return self
        names = (f"{tier}_rows", f"{tier}_bytes") if tier != "log" else ("log_rows_taken", "log_bytes_taken")
        sign = -1 if tier == "log" else 1
        return replace(self, **{n: getattr(self, n) + sign * by for n, by in zip(names, (rows, size), strict=True)})


@dataclass(frozen=True)
class FoldState:
    """What the fold keeps in the table. line: delta, base and history hold only positions at or below it.

    erased_at, tidied_at: when the maintenance last rewrote something; history_from: from when on history is whole. All
    times are ISO, UTC.
    """

    line: Line = ORIGIN
    activated_through: int = 0
    totals: FoldTotals = field(default_factory=FoldTotals)
    folded_at: str | None = None
    erased_at: str | None = None
    history_from: str | None = None
    tidied_at: str | None = None

    def to_properties(self) -> dict[str, str]:
        return {
            FOLD_LINE: _dump(list(self.line)),
            ACTIVATED_THROUGH: str(self.activated_through),
            FOLD_TOTALS: _dump(vars(self.totals)),
            **({} if self.folded_at is None else {FOLDED_AT: self.folded_at}),
            **{name: value for name, value in self._maintained().items() if value is not None},
        }

    def _maintained(self) -> dict[str, str | None]:
        return {ERASED_AT: self.erased_at, HISTORY_FROM: self.history_from, TIDIED_AT: self.tidied_at}


def _mark_as_json(mark: Mark) -> list[int | str]:
    return [*mark.position, mark.shard, mark.sequence, *(mark.before or ())]


def _mark_of_json(mark: list[Any]) -> Mark:
    return Mark(Position.of(mark[:3]), mark[3], mark[4], Position.of(mark[5:]) if mark[5:] else None)


def newest_complete(snapshots: Mapping[int, SnapshotState], activated_through: int = 0) -> int | None:
    """The newest snapshot whose groups have all ended and that is not activated yet."""
    return max(
        (number for number, state in snapshots.items() if number > activated_through and state.complete), default=None
    )


def stream_state(properties: Mapping[str, str]) -> StreamState:
    """The streaming job's state in a table's properties (or in its parameters in the catalog)."""
    marks = json.loads(properties.get(MARKS, "{}"))
    return StreamState(
        epoch=int(properties.get(EPOCH, 0)),
        marks={lane: _mark_of_json(mark) for lane, mark in marks.items()},
        holes=holes.from_json(json.loads(properties.get(HOLES, "[]"))),
        snapshots={
            int(number): _snapshot(item) for number, item in json.loads(properties.get(SNAPSHOTS, "{}")).items()
        },
        totals=Totals(*json.loads(properties.get(TOTALS, "[0,0,0]"))),
        accepted=tuple(_accepted(item) for item in json.loads(properties.get(ACCEPTED, "[]"))),
    )


def fold_state(properties: Mapping[str, str]) -> FoldState:
    """The fold's state in a table's properties (or in its parameters in the catalog)."""
    return FoldState(
        line=Line(*json.loads(properties.get(FOLD_LINE, "[0,0]"))),
        activated_through=int(properties.get(ACTIVATED_THROUGH, 0)),
        totals=FoldTotals(**json.loads(properties.get(FOLD_TOTALS, "{}"))),
        folded_at=properties.get(FOLDED_AT),
        erased_at=properties.get(ERASED_AT),
        history_from=properties.get(HISTORY_FROM),
        tidied_at=properties.get(TIDIED_AT),
    )


def _of_snapshot(lane: str, through: int) -> bool:
    parsed = parse_snapshot_lane(lane)
    return parsed is not None and parsed[0] <= through


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _snapshot_json(state: SnapshotState) -> dict[str, Any]:
    return {
        "era": state.era,
        "low": state.low,
        "groups": state.groups,
        "abandoned": state.abandoned,
        **({} if state.void is None else {"void": state.void}),
        "ended": {str(number): vars(group) for number, group in state.ended.items()},
    }


def _snapshot(item: dict[str, Any]) -> SnapshotState:
    return SnapshotState(
        low=item["low"],
        groups=item["groups"],
        ended={int(number): _group(group) for number, group in item["ended"].items()},
        abandoned=item["abandoned"],
        era=item["era"],
        void=item.get("void"),
    )


def _group(item: dict[str, Any]) -> EndedGroup:
    bounds = {name: None if item[name] is None else tuple(item[name]) for name in ("key_from", "key_to")}
    return EndedGroup(**{**item, **bounds})


def _accepted_json(item: Accepted) -> dict[str, Any]:
    (hole,) = holes.to_json([item.hole])
    return {"hole": hole, "by": item.by, "because": item.because, "at": item.at}


def _accepted(item: dict[str, Any]) -> Accepted:
    (hole,) = holes.from_json([item["hole"]])
    return Accepted(hole, item["by"], item["because"], item["at"])
