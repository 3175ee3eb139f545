"""The simulated lake tables, the catalog's watermark entry, and the views that queries read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from glue_streaming.fold.line import Closure
from glue_streaming.holes import Hole
from glue_streaming.requests import Request
from glue_streaming.state import FoldState, StreamState
from glue_streaming.watermark import Published
from schemas.position import ORIGIN, Line, Position
from tests.simulation.source import KEYLESS, NO_KEY, TABLES, Row, Rows, Source
from tests.simulation.stream import Block, LaneKey

HORIZON = 6
"""In ticks. A query is planned within fewer."""


@dataclass
class LakeTable:
    """The rows by tier, and what each of the two writers keeps beside them.

    versions: the structures that the table has followed. unusable: snapshots that could not be activated.
    closed_holes: those that were open when an activation was committed, and repaired_below, its lowest point: both
    are kept for the checks alone.
    """

    stream: StreamState = field(default_factory=StreamState)
    fold: FoldState = field(default_factory=FoldState)
    staged: list[Row] = field(default_factory=list)
    log: list[Row] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    delta: dict[int | Position, Row] = field(default_factory=dict)
    base: dict[int | Position, Row] = field(default_factory=dict)
    versions: set[int] = field(default_factory=set)
    unusable: set[int] = field(default_factory=set)
    closed_holes: list[Hole] = field(default_factory=list)
    repaired_below: Line = ORIGIN


@dataclass(frozen=True)
class Entry:
    """The catalog's watermark entry. closure None: the cut is open. shown: the tables that have a cut view."""

    line: Line = ORIGIN
    ring: tuple[Published, ...] = ()
    lines: Mapping[str, Line] = field(default_factory=dict)
    repair_lines: Mapping[str, Line | None] = field(default_factory=dict)
    closure: Closure | None = None
    excluded: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()


@dataclass
class Lake:
    """Everything that outlives a driver: tables, the entry, raw bytes on S3, and what is in DynamoDB."""

    tables: dict[str, LakeTable] = field(default_factory=lambda: {name: LakeTable() for name in TABLES})
    entry: Entry = field(default_factory=Entry)
    raw: dict[LaneKey, list[Block]] = field(default_factory=dict)
    positions: dict[LaneKey, int] = field(default_factory=dict)
    control_position: int = 0
    epoch: int = 0
    requests: list[Request] = field(default_factory=list)


def laid_over(state: dict[int | Position, Row], rows: Iterable[Row]) -> dict[int | Position, Row]:
    """The state with the rows laid over it in the order of their positions; what a row left out, from the row before.

    big stays None where no row at hand knows the value.
    """
    state, deleted = dict(state), None
    for row in ordered(rows):
        if row.op == "t":
            state = {}
        elif row.op == "d":
            deleted = state.pop(named_by(row, state), None)
        else:
            before = origin(row, state.get(row.identity), deleted)
            state[row.identity] = row if row.big is not None or before is None else row._replace(big=before.big)
    return state


def named_by(delete: Row, state: Mapping[int | Position, Row]) -> int | Position:
    """What the row is told apart by that a delete takes: without a key, one of those that are alike."""
    if delete.key != NO_KEY:
        return delete.key
    return next((identity for identity, row in state.items() if row.value == delete.value), delete.position)


def ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.position)


def origin(row: Row, own: Row | None, deleted: Row | None) -> Row | None:
    """The row that a value left out is taken from: of a key change, the one deleted just below."""
    return deleted if row.moved else own


def current(table: LakeTable, upto: Line | None = None) -> Rows:
    """The table's rows; of the log only what lies at or below the line, where one is given."""
    log = [row for row in table.log if upto is None or upto.covers(row.position)]
    rows = laid_over(table.base, [*table.delta.values(), *log])
    return {identity: (row.value, row.big) for identity, row in rows.items()}


def alike(name: str, seen: Rows, expected: Rows, untrusted: set[int] | None = None) -> bool:
    """Whether both show the same; of a table without a key, the same rows in any order. untrusted: keys to pass."""
    if name == KEYLESS:
        return bool(untrusted) or sorted(map(str, seen.values())) == sorted(map(str, expected.values()))
    keys = {*seen, *expected} - (untrusted or set())
    return all(seen.get(key) == expected.get(key) for key in keys)


class CutQuery:
    """Reads the watermark, and later each table once, in any order: that is how a query over cut views is planned."""

    def __init__(self, entry: Entry, now: int) -> None:
        self._line = entry.line
        self._deadline = now + HORIZON - 1
        self._unread = list(TABLES)

    def read(
        self, lake: Lake, source: Source, now: int, random: Random, untrusted: Callable[[str], set[int]]
    ) -> list[str]:
        """Loads tables that the planner comes to; returns what they showed that the source never held at that line.

        A table that has no cut view when the planner comes to it makes a query fail, not lie. untrusted: the keys of a
        table of which an operator has accepted that changes are missing.
        """
        wrong = []
        for name in list(self._unread):
            if random.random() < 0.3 or now >= self._deadline:
                self._unread.remove(name)
                seen = current(lake.tables[name], self._line) if name in lake.entry.shown else None
                expected = source.at(self._line)[name]
                if seen is not None and not alike(name, seen, expected, untrusted(name)):
                    wrong.append(f"{name} at {self._line} shows {seen}, the source held {expected}")
        return wrong

    @property
    def finished(self) -> bool:
        return not self._unread
