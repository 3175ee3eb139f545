"""Tables without a key whose rows are deleted: a multiset, against a counter, through folds, snapshots and views."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glue_streaming import view_current, view_history
from glue_streaming.fold.layout import Bounds
from glue_streaming.state import EndedGroup, SnapshotState
from schemas.change_record import Column
from schemas.position import Line
from tests.fold.local_lake import MANY_PARTS, ONE_PART, LocalLake, Row, lake_row, schema_of

START = datetime(2026, 1, 1)
NAN = float("nan")
COLUMNS = (
    Column("n", "int", "n", "integer"),
    Column("x", "double", "x", "double precision"),
    Column("amount", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}, "amount", "numeric"),
    Column("doc", "string", "doc", "text"),
    Column("data", "bytes", "data", "bytea"),
    Column("tags", {"type": "array", "items": ["null", "string"]}, "tags", "text[]"),
    Column("marks", {"type": "array", "items": ["null", "double"]}, "marks", "double precision[]"),
)
SCHEMA, APPEND_ONLY = schema_of(COLUMNS, ())
SHAPE = replace(APPEND_ONLY, whole_rows=True)
NOTHING: Row = dict.fromkeys((*(c.name for c in COLUMNS), "_raw"))
CONTENTS: tuple[Row, ...] = tuple(
    NOTHING | row
    for row in (
        {},
        {"doc": ""},
        {"doc": "-"},
        {"n": 0, "x": 0.0},
        {"n": 0, "x": -0.0},
        {"x": NAN, "marks": [NAN, None, -0.0]},
        {"x": NAN, "marks": [NAN, None, 0.0]},
        {"marks": []},
        {"marks": [None]},
        {"tags": ["a", None], "data": b"\x00\xff"},
        {"tags": ["a", "-"], "data": b"\x00\xff"},
        {"amount": Decimal("1.50")},
        {"_raw": [("amount", "NaN")]},
        {"_raw": [("amount", "Infinity"), ("tags", "{{1}}")]},
        {"_raw": [("tags", "{{1}}")]},
    )
)
"""Rows that are nearly alike. Each differs from each other at the source."""


def shown(row: Row) -> str:
    """A row's content as a text, equal only where rows are."""
    return repr([row[name] for name in NOTHING])


def contents(rows: list[tuple[Any, ...]], first: int = 0) -> Counter[str]:
    """What a view shows, as often as it does. Its columns before the table's, and what stands before `_raw`."""
    width = len(COLUMNS)

    def raw(value: Any) -> Any:
        return value and sorted(value.items())

    return Counter(repr([*row[first : first + width], raw(row[-1])]) for row in rows)


@dataclass
class Source:
    """rows: the contents that are there, with the time of their insert, oldest first."""

    rng: random.Random
    lsn: int = 0
    rows: list[tuple[Row, datetime]] = field(default_factory=list)
    emitted: list[Row] = field(default_factory=list)
    versions: list[tuple[str, datetime, datetime | None]] = field(default_factory=list)
    at: dict[int, Counter[str]] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.lsn)

    def transaction(self, busy: float = 0.55) -> None:
        self.lsn += self.rng.randint(1, 3)
        self.idx = 0
        for _ in range(self.rng.randint(1, 4)):
            self._change(busy)
        self.at[self.lsn] = self.current()

    def current(self) -> Counter[str]:
        return Counter(shown(row) for row, _ in self.rows)

    def all_versions(self) -> Counter[tuple[str, datetime, datetime | None]]:
        """Every version that was anybody's row: valid from, valid to."""
        live = [(shown(row), since, None) for row, since in self.rows]
        return Counter(version for version in [*self.versions, *live] if version[1] != version[2])

    def end_all(self) -> None:
        self.versions += [(shown(row), since, self.now) for row, since in self.rows]
        self.rows = []

    def _change(self, busy: float) -> None:
        chance = self.rng.random()
        if chance < 0.03:
            self.end_all()
            self._emit("t", NOTHING)
        elif chance < busy or not self.rows:
            self._insert(self.rng.choice(CONTENTS))
        else:
            self._delete(self.rng.choice(self.rows)[0])
            if chance > 0.8:
                self._insert(self.rng.choice(CONTENTS))

    def _insert(self, row: Row) -> None:
        self.rows.append((row, self.now))
        self._emit("c", row)

    def _delete(self, row: Row) -> None:
        oldest = next(place for place, (other, _) in enumerate(self.rows) if shown(other) == shown(row))
        _, since = self.rows.pop(oldest)
        self.versions.append((shown(row), since, self.now))
        self._emit("d", row)

    def _emit(self, op: str, row: Row) -> None:
        self.emitted.append(lake_row(1, self.lsn, self.idx, op, {}, self.now) | row)
        self.idx += 1


examples = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def lake_of(folder: Path, bounds: Bounds = ONE_PART) -> LocalLake:
    return LocalLake(SCHEMA, SHAPE, folder, bounds)


def play(seed: int, folder: Path, check: Callable[[Source, LocalLake], None]) -> None:
    """Transactions, appends in files of odd sizes, folds at random lines, minor and major, now and then a snapshot."""
    rng = random.Random(seed)
    source, lake = Source(rng), lake_of(folder, rng.choice([ONE_PART, MANY_PARTS]))
    sent, snapshots = 0, 0
    for _ in range(rng.randint(4, 9)):
        for _ in range(rng.randint(1, 8)):
            source.transaction()
        lake.append("log", source.emitted[sent:])
        sent = len(source.emitted)
        chance = rng.random()
        if chance < 0.2:
            snapshots += 1
            sent = resnapshot(source, lake, snapshots)
        elif chance < 0.8:
            line = rng.choice([lsn for lsn in source.at if lsn > lake.line.lsn])
            layout = lake.fold(Line(1, line), major=rng.random() < 0.5)
            assert not layout.unmatched_rows
        check(source, lake)


def resnapshot(source: Source, lake: LocalLake, number: int) -> int:
    """Reads the table at a point, lets changes pass, activates. How many of the emitted changes the lake has then."""
    source.lsn += 1
    point, before = source.lsn + 1, len(source.emitted)
    rows = [row for row, _ in source.rows]
    lake.append("staged", [lake_row(1, source.lsn, n, "r", {}, source.now) | row for n, row in enumerate(rows)])
    source.end_all()
    source.rows = [(row, source.now) for row in rows]
    source.at[source.lsn] = source.current()
    for _ in range(source.rng.randint(1, 4)):
        source.transaction()
    lake.append("log", source.emitted[before:])
    state = SnapshotState(low=point, groups=1, ended={0: EndedGroup(1, point, None, None, len(rows))})
    layout = lake.activate(Line(1, source.lsn), number, state)
    assert not layout.unmatched_rows and not lake.rows("delta")
    return len(source.emitted)


@examples
@given(seed=st.integers(0, 10**9))
def test_current_views_equal_the_source(seed: int, in_folder: Callable[[], Path]) -> None:
    """At every moment, whatever was folded how, the current view holds each row as often as the source."""

    def check(source: Source, lake: LocalLake) -> None:
        assert contents(lake.query(view_current.current(SHAPE))) == source.current()

    play(seed, in_folder(), check)


@examples
@given(seed=st.integers(0, 10**9))
def test_cut_views_equal_the_source_at_the_watermark(seed: int, in_folder: Callable[[], Path]) -> None:
    """A cut view at any watermark that the fold line has not passed holds the source's rows as of that commit."""

    def check(source: Source, lake: LocalLake) -> None:
        lsn = source.rng.choice([lsn for lsn in source.at if lsn >= lake.line.lsn])
        assert contents(lake.query(view_current.cut(SHAPE), Line(1, lsn))) == source.at[lsn]

    play(seed, in_folder(), check)


@examples
@given(seed=st.integers(0, 10**9))
def test_versions_hold_every_row_with_its_times(seed: int, in_folder: Callable[[], Path]) -> None:
    """The nth delete of a content ends its nth insert; a truncate or a snapshot ends all."""

    def check(source: Source, lake: LocalLake) -> None:
        found: Counter[tuple[str, datetime, datetime | None]] = Counter()
        for row in lake.query(view_history.versions(SHAPE)):
            (text,) = contents([row], first=2)
            found[text, row[0], row[1]] += 1
        assert found == source.all_versions()

    play(seed, in_folder(), check)


def rows_at(lsn: int, op: str, *docs: str) -> list[Row]:
    return [lake_row(1, lsn, n, op, {}, START) | NOTHING | {"doc": doc} for n, doc in enumerate(docs)]


def docs(lake: LocalLake) -> list[str]:
    return sorted(row[3] for row in lake.query(view_current.current(SHAPE)))


def test_a_minor_fold_leaves_base_alone_and_a_major_one_rewrites_what_loses_a_row(
    in_folder: Callable[[], Path],
) -> None:
    """Deletes wait in delta. Of three files of base the one that holds the row is written anew, without it."""
    lake = lake_of(in_folder(), replace(ONE_PART, target_file_bytes=4))
    for lsn, doc in ((1, "a"), (2, "b"), (3, "c")):
        lake.append("log", rows_at(lsn, "c", doc))
        lake.fold(Line(1, lsn), major=False)
    lake.append("log", rows_at(4, "d", "b"))
    before = lake.paths("base")
    lake.fold(Line(1, 4), major=False)
    assert lake.paths("base") == before
    assert [row["doc"] for row in lake.rows("delta")] == ["b"]
    assert docs(lake) == ["a", "c"]
    layout = lake.fold(Line(1, 4), major=True)
    assert lake.paths("base") == [before[0], before[2]]
    assert (layout.unmatched_rows, lake.paths("delta")) == (0, [])
    assert docs(lake) == ["a", "c"]


def test_a_delete_that_finds_no_row_stays_and_is_told(in_folder: Callable[[], Path]) -> None:
    """It is counted and named by its position, takes nothing away, and is gone with the next snapshot."""
    lake = lake_of(in_folder())
    lake.append("log", rows_at(1, "c", "a", "a"))
    lake.append("log", rows_at(2, "d", "a", "other"))
    layout = lake.fold(Line(1, 2), major=True)
    assert layout.unmatched_rows == 1
    assert [tuple(position) for position in layout.unmatched] == [(1, 2, 1)]
    assert [row["doc"] for row in lake.rows("delta")] == ["other"]
    assert docs(lake) == ["a"]
    assert lake.fold(Line(1, 2), major=True).unmatched_rows == 1
    lake.append("staged", [lake_row(1, 9, 0, "r", {}, START) | NOTHING | {"doc": "b"}])
    state = SnapshotState(low=10, groups=1, ended={0: EndedGroup(1, 10, None, None, 1)})
    assert lake.activate(Line(1, 10), 1, state).unmatched_rows == 0
    assert (docs(lake), lake.rows("delta")) == (["b"], [])


def test_a_snapshot_without_rows_ends_what_was_there(in_folder: Callable[[], Path]) -> None:
    """Its truncate in the history says so, where there were rows; of a table that was empty it says nothing."""
    lake = lake_of(in_folder())
    empty = SnapshotState(low=5, groups=1, ended={0: EndedGroup(1, 5, None, None, 0)})
    lake.activate(Line(1, 5), 1, empty)
    assert lake.rows("history") == []
    lake.append("log", rows_at(7, "c", "a"))
    lake.fold(Line(1, 7), major=False)
    lake.activate(Line(1, 10), 2, replace(empty, ended={0: EndedGroup(1, 10, None, None, 0)}))
    assert [(row["_op"], row["_lsn"]) for row in lake.rows("history")] == [("c", 7), ("t", 9)]
    assert docs(lake) == []
    ((_, ended, *_),) = lake.query(view_history.versions(SHAPE))
    assert ended is not None


def test_many_small_files_become_one(in_folder: Callable[[], Path]) -> None:
    """Minor folds write small files of base and delta; eight of about one size are merged by the way."""
    lake = lake_of(in_folder())
    for lsn in range(1, 21):
        lake.append("log", [*rows_at(2 * lsn, "c", "a", "b"), *rows_at(2 * lsn + 1, "d", "a")])
        lake.fold(Line(1, 2 * lsn + 1), major=False)
    assert len(lake.paths("base")) < 10 and len(lake.paths("delta")) < 10
    assert docs(lake) == ["b"] * 20
    assert len(lake.rows("base")) == 40


def test_an_append_only_table_reads_no_position_of_base(in_folder: Callable[[], Path]) -> None:
    """Without deletes a table pays nothing for them: its views are the plain ones."""
    assert "cancelled" not in view_current.current(APPEND_ONLY)
    lake = LocalLake(SCHEMA, APPEND_ONLY, in_folder())
    lake.append("log", rows_at(1, "c", "a", "a"))
    lake.fold(Line(1, 1), major=False)
    assert docs(lake) == ["a", "a"]
