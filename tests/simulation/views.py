"""The simulated lake tables, the catalog's watermark entry, and the views that queries read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from glue_streaming.fold.line import Closure
from glue_streaming.holes import Hole
from glue_streaming.state import FoldState, StreamState
from glue_streaming.watermark import Published
from schemas.position import ORIGIN, Line
from tests.simulation.source import TABLES, Row, Rows, Source

HORIZON = 6
"""In ticks. A query is planned within fewer."""


@dataclass
class LakeTable:
    """The rows by tier, and what each of the two writers keeps beside them.

    closed_holes: those that were open when an activation was committed; kept for the checks alone.
    """

    stream: StreamState = field(default_factory=StreamState)
    fold: FoldState = field(default_factory=FoldState)
    staged: list[Row] = field(default_factory=list)
    log: list[Row] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    delta: dict[int, Row] = field(default_factory=dict)
    base: dict[int, Row] = field(default_factory=dict)
    closed_holes: list[Hole] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """The catalog's watermark entry. closure None: the cut is open. shown: the tables that have a cut view."""

    line: Line = ORIGIN
    ring: tuple[Published, ...] = ()
    lines: Mapping[str, Line | None] = field(default_factory=dict)
    repair_lines: Mapping[str, Line | None] = field(default_factory=dict)
    closure: Closure | None = None
    excluded: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()


@dataclass
class Lake:
    tables: dict[str, LakeTable] = field(default_factory=lambda: {name: LakeTable() for name in TABLES})
    entry: Entry = field(default_factory=Entry)


def current(table: LakeTable, upto: Line | None = None) -> Rows:
    """The table's rows; of the log only what lies at or below the line, where one is given."""
    log = [row for row in table.log if upto is None or upto.covers(row.position)]
    truncate = max((row.position for row in log if row.op == "t"), default=None)
    newest: dict[int, Row] = {}
    for row in [*table.delta.values(), *log]:
        hidden = row.op == "t" or (truncate is not None and row.position < truncate)
        if not hidden and (row.key not in newest or newest[row.key].position < row.position):
            newest[row.key] = row
    base = {} if truncate is not None else table.base
    return {
        **{key: row.value for key, row in base.items() if key not in newest},
        **{key: row.value for key, row in newest.items() if row.op != "d"},
    }


class CutQuery:
    """Reads the watermark, and later each table once, in any order: that is how a query over cut views is planned."""

    def __init__(self, entry: Entry, now: int) -> None:
        self._line = entry.line
        self._deadline = now + HORIZON - 1
        self._unread = list(TABLES)

    def read(self, lake: Lake, source: Source, now: int, random: Random) -> list[str]:
        """Loads tables that the planner comes to; returns what they showed that the source never held at that line.

        A table that has no cut view when the planner comes to it makes a query fail, not lie.
        """
        wrong = []
        for name in list(self._unread):
            if random.random() < 0.3 or now >= self._deadline:
                self._unread.remove(name)
                seen = current(lake.tables[name], self._line) if name in lake.entry.shown else None
                expected = source.at(self._line.lsn)[name]
                if seen is not None and seen != expected:
                    wrong.append(f"{name} at {self._line} shows {seen}, the source held {expected}")
        return wrong

    @property
    def finished(self) -> bool:
        return not self._unread
