"""Random histories, folded at a random cadence, read through the views, against a plain model of the source."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glue_streaming import view_current, view_history
from glue_streaming.fold.errors import SnapshotUnusable
from glue_streaming.fold.layout import Bounds
from glue_streaming.fold.shape import Shape
from glue_streaming.state import EndedGroup, SnapshotState
from glue_streaming.view_lineage import HOPS
from schemas.change_record import Column
from schemas.position import Line
from tests.fold.local_lake import MANY_PARTS, ONE_PART, LocalLake, Row, lake_row, schema_of

START = datetime(2026, 1, 1)
COLUMNS = (
    Column("id", "long", "id", "bigint"),
    Column("n", "int", "n", "integer"),
    Column("doc", "string", "doc", "text"),
    Column("tags", {"type": "array", "items": ["null", "string"]}, "tags", "text[]"),
)
SCHEMA, KEYED = schema_of(COLUMNS, ("id",))
_, KEYLESS = schema_of(COLUMNS, ())
PLAIN_SCHEMA, PLAIN = schema_of(COLUMNS[:2], ("id",))


def lake_of(shape: Shape, folder: Path, rng: random.Random | None = None) -> LocalLake:
    """One part and large files, or a part a file and files of a few rows."""
    bounds = rng.choice([ONE_PART, MANY_PARTS]) if rng else ONE_PART
    return LocalLake(PLAIN_SCHEMA if shape is PLAIN else SCHEMA, shape, folder, bounds)


@dataclass
class Source:
    """A table at the source: what it holds, what it emitted, what it held at every commit."""

    rng: random.Random
    shape: Shape
    lsn: int = 0
    era: int = 1
    state: dict[int, Row] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    emitted: list[Row] = field(default_factory=list)
    at: dict[int, Any] = field(default_factory=dict)
    versions: list[Row] = field(default_factory=list)
    open: dict[int, Row] = field(default_factory=dict)
    value: int = 0

    def transaction(self) -> None:
        self.lsn += self.rng.randint(1, 3)
        self.now = START + timedelta(seconds=self.lsn)
        self.idx = 0
        for _ in range(self.rng.randint(1, 4)):
            self._keyed() if self.shape.key else self._keyless()
        self.at[self.lsn] = self.current()

    def current(self) -> list[tuple[Any, ...]]:
        rows = self.state.values() if self.shape.key else self.rows
        return sorted((tuple(row[c.name] for c in self.shape.columns) for row in rows), key=repr)

    def _keyless(self) -> None:
        if self.rng.random() < 0.05:
            self.rows = []
            self._emit("t", {})
            return
        row = self._fresh(self.rng.randint(0, 3))
        self.rows = [*self.rows, row]
        self._emit("c", row)

    def _keyed(self) -> None:
        key, chance = self.rng.randint(0, 5), self.rng.random()
        if chance < 0.04:
            self.state = {}
            for open_key in list(self.open):
                self._close(open_key)
            self._emit("t", {})
        elif key not in self.state:
            self._put(key, self._fresh(key), "c", None, None)
        elif chance < 0.2:
            del self.state[key]
            self._close(key)
            self._emit("d", {"id": key})
        elif chance < 0.45:
            self._rekey(key)
        else:
            row, unchanged = self._touched(key, key)
            self._put(key, row, "u", unchanged, None)

    def _rekey(self, key: int) -> None:
        free = [k for k in range(7) if k not in self.state]
        if not free:
            return
        new = self.rng.choice(free)
        row, unchanged = self._touched(key, new)
        del self.state[key]
        self._close(key)
        self._emit("d", {"id": key})
        self._put(new, row, "c", unchanged, str(key) if unchanged else None)

    def _touched(self, key: int, new: int) -> tuple[Row, list[str]]:
        row = self._fresh(new)
        unchanged = [c.name for c in self.shape.torn if self.rng.random() < 0.6]
        return row | {name: self.state[key][name] for name in unchanged}, unchanged

    def _fresh(self, key: int) -> Row:
        self.value += 1
        doc = None if self.rng.random() < 0.2 else f"doc {self.value}"
        tags = self.rng.choice([None, [], ["a", None], [f"tag {self.value}"]])
        row = {"id": key, "n": self.value, "doc": doc, "tags": tags}
        return {c.name: row[c.name] for c in self.shape.columns}

    def _put(self, key: int, row: Row, op: str, unchanged: list[str] | None, old_key: str | None) -> None:
        self.state = {**self.state, key: row}
        self._close(key)
        self.open[key] = {"valid_from": self.now, "valid_to": None, **row}
        self.versions.append(self.open[key])
        sent = {name: None if unchanged and name in unchanged else value for name, value in row.items()}
        self._emit(op, sent, unchanged or None, old_key)

    def _close(self, key: int) -> None:
        if key in self.open:
            self.open.pop(key)["valid_to"] = self.now

    def _emit(self, op: str, row: Row, unchanged: list[str] | None = None, old_key: str | None = None) -> None:
        values = {c.name: row.get(c.name) for c in self.shape.columns}
        self.emitted.append(lake_row(self.era, self.lsn, self.idx, op, values, self.now, unchanged, old_key))
        self.idx += 1


def states(shape: Shape, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted((row[: len(shape.columns)] for row in rows), key=repr)


examples = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def play(shape: Shape, seed: int, folder: Path, check: Callable[[Source, LocalLake], None]) -> tuple[Source, LocalLake]:
    """Transactions, appends in files of odd sizes, folds at random lines, minor and major."""
    rng = random.Random(seed)
    source, lake = Source(rng, shape), lake_of(shape, folder, rng)
    sent = 0
    for turn in range(rng.randint(3, 7)):
        for _ in range(rng.randint(1, 6)):
            source.transaction()
        lake.append("log", source.emitted[sent:])
        sent = len(source.emitted)
        if turn == 0:
            lake.fold(Line(1, source.lsn), major=True)
        elif rng.random() < 0.7:
            lsns = [lsn for lsn in source.at if lsn > lake.line.lsn]
            if lsns:
                lake.fold(Line(1, rng.choice(lsns)), major=rng.random() < 0.35)
        check(source, lake)
    return source, lake


@examples
@given(seed=st.integers(0, 10**9), shape=st.sampled_from([KEYED, KEYED, PLAIN, KEYLESS]))
def test_current_views_equal_the_source(seed: int, shape: Shape, in_folder: Callable[[], Path]) -> None:
    """At every moment, whatever was folded how, the current view holds the source's rows, value by value."""

    def check(source: Source, lake: LocalLake) -> None:
        assert states(shape, lake.query(view_current.current(shape))) == source.current()

    play(shape, seed, in_folder(), check)


@examples
@given(seed=st.integers(0, 10**9), shape=st.sampled_from([KEYED, KEYLESS]))
def test_cut_views_equal_the_source_at_the_watermark(seed: int, shape: Shape, in_folder: Callable[[], Path]) -> None:
    """A cut view at any watermark that the fold line has not passed holds the source's rows as of that commit."""

    def check(source: Source, lake: LocalLake) -> None:
        lsn = source.rng.choice([lsn for lsn in source.at if lsn >= lake.line.lsn])
        assert states(shape, lake.query(view_current.cut(shape), Line(1, lsn))) == source.at[lsn]

    play(shape, seed, in_folder(), check)


@examples
@given(seed=st.integers(0, 10**9))
def test_history_holds_every_change_once(seed: int, in_folder: Callable[[], Path]) -> None:
    """The view of changes holds each emitted change once, at its position, folded or not."""
    source, lake = play(KEYED, seed, in_folder(), lambda source, lake: None)
    found = sorted((row[1], row[2], row[3], row[0], row[8]) for row in lake.query(view_history.changes(KEYED)))
    assert found == sorted((r["_era"], r["_lsn"], r["_idx"], r["_op"], r["id"]) for r in source.emitted)


@examples
@given(seed=st.integers(0, 10**9))
def test_versions_hold_every_version_with_its_times(seed: int, in_folder: Callable[[], Path]) -> None:
    """The type-2 view has each version with its values, valid from its commit to the next one's, or still valid."""

    def check(source: Source, lake: LocalLake) -> None:
        found = lake.query(view_history.versions(KEYED))
        rows = [row for row in found if not row[6]]
        expected = [tuple(v[c] for c in ("valid_from", "valid_to", "id", "n", "doc", "tags")) for v in source.versions]
        expected = [version for version in expected if version[0] != version[1]]  # it was never anybody's row
        left = [row for row in found if row[6]]
        assert len(rows) + len(left) == len(expected)
        assert sorted((row[:6] for row in rows), key=repr) == sorted(
            (row for row in expected if row[:4] not in {r[:4] for r in left}), key=repr
        )

    play(KEYED, seed, in_folder(), check)


def read_snapshot(source: Source, lake: LocalLake, groups: list[range]) -> SnapshotState:
    """Reads the table in groups of keys, each at a consistent point of its own, while transactions go on."""
    ended, sent = {}, len(source.emitted)
    for number, keys in enumerate(groups):
        for _ in range(source.rng.randint(0, 3)):
            source.transaction()
        source.lsn += 1
        rows = [row for key, row in sorted(source.state.items()) if key in keys]
        at = START + timedelta(seconds=source.lsn)
        lake.append("staged", [lake_row(1, source.lsn, n, "r", row, at) for n, row in enumerate(rows)])
        ended[number] = EndedGroup(1, source.lsn + 1, None, None, len(rows))
    for _ in range(source.rng.randint(1, 3)):
        source.transaction()
    lake.append("log", source.emitted[sent:])
    return SnapshotState(low=ended[0].consistent_point, groups=len(groups), ended=ended)


@examples
@given(seed=st.integers(0, 10**9), shape=st.sampled_from([KEYED, PLAIN]), lossy=st.booleans())
def test_an_activated_snapshot_equals_the_source(
    seed: int, shape: Shape, lossy: bool, in_folder: Callable[[], Path]
) -> None:
    """Read in groups among changes, over an old state that lacks changes or not: behind it, the table is the source.

    The one refusal that is allowed: a row moved between the groups and left a value out, so no row at hand has it.
    """
    rng = random.Random(seed)
    source, lake = Source(rng, shape), lake_of(shape, in_folder(), rng)
    for _ in range(rng.randint(0, 6)):
        source.transaction()
    before = [row for row in source.emitted if not lossy or rng.random() < 0.6]
    lake.append("log", before)
    if rng.random() < 0.5 and not lossy:
        lake.fold(Line(1, source.lsn), major=rng.random() < 0.5)
    state = read_snapshot(source, lake, [range(3), range(3, 7)])
    try:
        lake.activate(Line(1, source.lsn), 1, state)
    except SnapshotUnusable as error:
        assert shape is KEYED and any(row["_old_key"] for row in source.emitted), error
        return
    assert states(shape, lake.query(view_current.current(shape))) == source.current()
    live = {row[2]: row[3] for row in lake.query(view_history.versions(shape)) if row[1] is None}
    assert live == {key: row["n"] for key, row in source.state.items()}
    source.transaction()
    lake.append("log", [row for row in source.emitted if row["_lsn"] == source.lsn])
    lake.fold(Line(1, source.lsn), major=rng.random() < 0.5)
    assert states(shape, lake.query(view_current.current(shape))) == source.current()


def test_a_row_whose_delete_was_lost_is_gone_behind_the_snapshot(in_folder: Callable[[], Path]) -> None:
    """Its insert lies below the snapshot, its delete in a hole: base lacks it, and history closes it."""
    lake = lake_of(PLAIN, in_folder())
    values = {"id": 5, "n": 1}
    lake.append("log", [lake_row(1, 5, 0, "c", values, START)])
    lake.append("staged", [lake_row(1, 9, 0, "r", {"id": 1, "n": 2}, START)])
    state = SnapshotState(low=10, groups=1, ended={0: EndedGroup(1, 10, None, None, 1)})
    lake.activate(Line(1, 12), 1, state)
    assert states(PLAIN, lake.query(view_current.current(PLAIN))) == [(1, 2)]
    history = sorted((row[0], row[2], row[8]) for row in lake.query(view_history.changes(PLAIN)))
    assert history == [("c", 5, 5), ("d", 9, 5), ("r", 9, 1)]


def test_closing_rows_of_several_parts_have_places_of_their_own(in_folder: Callable[[], Path]) -> None:
    """Beside each other and beside the rows that were read at the same position."""
    lake = LocalLake(PLAIN_SCHEMA, PLAIN, in_folder(), MANY_PARTS)
    for keys in (range(3), range(3, 6)):
        lake.append("base", [lake_row(1, 5, key, "c", {"id": key, "n": key}, START) for key in keys])
    lake.append("staged", [lake_row(1, 9, n, "r", {"id": 6 + n, "n": 0}, START) for n in range(2)])
    layout = lake.activate(Line(1, 12), 1, SnapshotState(10, 1, {0: EndedGroup(1, 10, None, None, 2)}))
    assert len(layout.parts) > 1
    assert sorted(row["id"] for row in lake.rows("history") if row["_op"] == "d") == list(range(6))


def test_a_snapshot_that_lacks_a_value_of_a_moved_row_is_refused(in_folder: Callable[[], Path]) -> None:
    """The row left its group before that was read, and came into one that was read before: no row has its value."""
    lake = lake_of(KEYED, in_folder())
    lake.append("log", [lake_row(1, 15, 0, "d", {"id": 1}, START)])
    lake.append("log", [lake_row(1, 15, 1, "c", {"id": 5, "n": 2}, START, ["doc"], "1")])
    ended = {n: EndedGroup(1, point, None, None, 0) for n, point in enumerate((20, 10))}
    with pytest.raises(SnapshotUnusable, match=r"lacks the values of \[\(5, \['doc'\]\)\]"):
        lake.activate(Line(1, 25), 1, SnapshotState(10, 2, ended))


@pytest.mark.parametrize("bounds", [ONE_PART, MANY_PARTS], ids=["one part", "many parts"])
def test_history_keeps_the_value_that_a_key_change_left_out(bounds: Bounds, in_folder: Callable[[], Path]) -> None:
    """Base alone has it, under the old key, and loses it with that."""
    lake = LocalLake(SCHEMA, KEYED, in_folder(), bounds)
    lake.append("base", [lake_row(1, 5, 0, "c", {"id": 1, "n": 1, "doc": "old"}, START)])
    moved = lake_row(1, 6, 1, "c", {"id": 2, "n": 2}, START, ["doc"], "1")
    lake.append("log", [lake_row(1, 6, 0, "d", {"id": 1}, START), moved])
    lake.fold(Line(1, 6), major=False)
    assert [(row["id"], row["doc"]) for row in lake.rows("history")] == [(1, None), (2, "old")]


TAKEN = (
    *("nth", "deletes", "own", "older", "moved", "came", "lost", "segment", "lineage", "next_lineage", "known_0"),
    *("carrier_0", "same_0", "same_1", "content", "valid_from", "valid_to", "span_era", "end_lsn", "item", "l", "w"),
)


@pytest.mark.parametrize("whole_rows", [False, True], ids=["keyed", "whole rows"])
def test_columns_called_as_what_folds_and_views_make_for_themselves(whole_rows: bool, tmp_path: Path) -> None:
    """They are the table's: each keeps its value through folds, and in every view."""
    columns = [Column("id", "long", "id", "bigint"), Column("doc", "string", "doc", "text")]
    columns += [Column(name, "int", name, "integer") for name in TAKEN]
    schema, shape = schema_of(columns, () if whole_rows else ("id",))
    lake = LocalLake(schema, replace(shape, whole_rows=whole_rows), tmp_path)

    def numbers(first: int) -> list[int | None]:
        return [None if name.startswith("same") else first + n for n, name in enumerate(TAKEN)]

    def row(lsn: int, idx: int, op: str, key: int, first: int, *left_out: Any) -> Row:
        values = {"id": key, "doc": None if left_out else "d"} | dict(zip(TAKEN, numbers(first), strict=True))
        return lake_row(1, lsn, idx, op, values, START + timedelta(seconds=lsn), *left_out)

    lake.append("log", [row(1, 0, "c", 1, 100)])
    lake.fold(Line(1, 1), major=True)
    if whole_rows:
        changes = [row(2, 0, "d", 1, 100), row(2, 1, "c", 1, 200)], [row(3, 0, "d", 1, 200), row(3, 1, "c", 2, 300)]
    else:
        changes = [row(2, 0, "u", 1, 200, ["doc"])], [row(3, 0, "d", 1, 0), row(3, 1, "c", 2, 300, ["doc"], "1")]
    for number, rows in enumerate(changes, 2):
        lake.append("log", rows)
        expected = [(2 if number == 3 else 1, "d", *numbers(100 * number))]
        for major in (None, False, True):
            if major is not None:
                lake.fold(Line(1, number), major=major)
            for view in (view_current.current, view_current.cut):
                assert states(lake.shape, lake.query(view(lake.shape), Line(1, number))) == expected, major
            versions = lake.query(view_history.versions(lake.shape))
            assert [row[2 : 4 + len(TAKEN)] for row in versions if row[1] is None] == expected, major


def test_rows_of_a_later_snapshot_stay_staged(in_folder: Callable[[], Path]) -> None:
    """In a file with rows of the one that is activated or in one of their own; its own activation then takes them."""
    lake = lake_of(PLAIN, in_folder())
    states = {
        n: SnapshotState(low=c, groups=1, ended={0: EndedGroup(1, c, None, None, 1)}) for n, c in ((1, 10), (2, 20))
    }
    first = lake_row(1, 9, 0, "r", {"id": 1, "n": 1}, START)
    lake.append("staged", [first, lake_row(1, 19, 0, "r", {"id": 2, "n": 2}, START)])
    lake.activate(Line(1, 12), 1, states[1])
    assert [row["id"] for row in lake.rows("base")] == [1]
    assert [row["id"] for row in lake.rows("staged")] == [2]
    lake.activate(Line(1, 22), 2, states[2])
    assert [row["id"] for row in lake.rows("base")] == [2] and lake.rows("staged") == []


@pytest.mark.parametrize("major", [False, True])
def test_a_value_left_out_is_never_taken_from_before_a_delete(major: bool, in_folder: Callable[[], Path]) -> None:
    """Where the insert behind a delete is lost, an update's missing value is unknown: null, not the deleted row's."""
    lake = lake_of(KEYED, in_folder())
    old = {"id": 1, "n": 1, "doc": "old", "tags": None}
    lake.append("base", [lake_row(1, 5, 0, "c", old, START)])
    lake.append("log", [lake_row(1, 6, 0, "d", {"id": 1}, START)])
    lake.append("log", [lake_row(1, 8, 0, "u", {"id": 1, "n": 2}, START, ["doc"])])
    for line in (5, 7, 9):
        lake.fold(Line(1, line), major=major and line == 9)
        assert states(KEYED, lake.query(view_current.current(KEYED))) == [(1, 2, None, None)], line
    lake.fold(Line(1, 9), major=True)
    assert states(KEYED, lake.query(view_current.current(KEYED))) == [(1, 2, None, None)]


def test_a_view_joins_what_log_delta_and_base_know_of_a_row(in_folder: Callable[[], Path]) -> None:
    """Delta's deletes hide base; what delta left out is in base, and what the log leaves out in either."""
    lake = lake_of(KEYED, in_folder())

    def shown() -> list[tuple[Any, ...]]:
        return states(KEYED, lake.query(view_current.current(KEYED)))

    for key in (1, 2, 3, 4):
        lake.append("base", [lake_row(1, key, 0, "c", {"id": key, "n": key, "doc": f"doc {key}"}, START)])
    lake.append("log", [lake_row(1, 6, 0, "d", {"id": 2}, START)])
    lake.append("log", [lake_row(1, 6, 1, "u", {"id": 1, "n": 10}, START, ["doc"])])
    lake.append("log", [lake_row(1, 6, 2, "u", {"id": 3, "n": 30}, START, ["doc"])])
    lake.fold(Line(1, 6), major=False)
    assert [row["_unchanged"] for row in lake.rows("delta") if row["id"] == 1] == [["doc"]]
    assert shown() == [(1, 10, "doc 1", None), (3, 30, "doc 3", None), (4, 4, "doc 4", None)]
    lake.append("log", [lake_row(1, 8, 0, "u", {"id": 1, "n": 100}, START, ["doc", "tags"])])
    lake.append("log", [lake_row(1, 8, 1, "d", {"id": 3}, START)])
    lake.append("log", [lake_row(1, 8, 2, "c", {"id": 2, "n": 20}, START, ["doc"], "3")])
    assert shown() == [(1, 100, "doc 1", None), (2, 20, "doc 3", None), (4, 4, "doc 4", None)]
    lake.append("log", [lake_row(1, 9, 0, "t", {}, START)])
    assert shown() == []
    lake.append("log", [lake_row(1, 9, 1, "c", {"id": 1, "n": 1}, START)])
    lake.append("log", [lake_row(1, 10, 0, "u", {"id": 1, "n": 2}, START, ["doc"])])
    assert shown() == [(1, 2, None, None)]


def test_a_view_follows_a_value_through_key_changes(in_folder: Callable[[], Path]) -> None:
    """Three of them; beyond that it raises where the value is asked for. What the row itself holds is shown."""
    lake = lake_of(KEYED, in_folder())
    lake.append("base", [lake_row(1, 1, 0, "c", {"id": 0, "n": 0, "doc": "doc"}, START)])
    lake.line = Line(1, 1)
    numbers = f"SELECT id, n FROM ({view_current.current(KEYED)}) AS v"
    for moves in range(1, 5):
        old, new = {"id": moves - 1}, {"id": moves, "n": moves}
        lake.append("log", [lake_row(1, moves + 1, 0, "d", old, START)])
        lake.append("log", [lake_row(1, moves + 1, 1, "c", new, START, ["doc"], str(moves - 1))])
        assert lake.query(numbers) == [(moves, moves)]
        if moves <= HOPS:
            assert states(KEYED, lake.query(view_current.current(KEYED))) == [(moves, moves, "doc", None)]
    with pytest.raises(
        duckdb.ConversionException, match="changed its key more than 3 times since the last fold, key 4"
    ):
        lake.query(view_current.current(KEYED))
    lake.append("log", [lake_row(1, 6, 0, "u", {"id": 4, "n": 5, "doc": "new"}, START, ["tags"])])
    assert lake.query(f"SELECT id, doc FROM ({view_current.current(KEYED)}) AS v") == [(4, "new")]
    lake.fold(Line(1, 5), major=False)
    assert states(KEYED, lake.query(view_current.current(KEYED))) == [(4, 5, "new", None)]


def test_versions_follow_a_value_through_key_changes(in_folder: Callable[[], Path]) -> None:
    """A fold completed the first of them; three later ones leave the value out, and each version shows it."""
    lake = lake_of(KEYED, in_folder())
    lake.append("log", [lake_row(1, 1, 0, "c", {"id": 0, "n": 0, "doc": "doc"}, START)])
    for moves in range(1, 5):
        at = START + timedelta(seconds=moves)
        lake.append("log", [lake_row(1, moves + 1, 0, "d", {"id": moves - 1}, at)])
        new = {"id": moves, "n": moves}
        lake.append("log", [lake_row(1, moves + 1, 1, "c", new, at, ["doc"], str(moves - 1))])
        if moves == 1:
            lake.fold(Line(1, 2), major=False)
    found = sorted(lake.query(view_history.versions(KEYED)), key=lambda row: row[2])
    assert [(row[2], row[4]) for row in found] == [(n, "doc") for n in range(5)]
    assert not any(row[6] for row in found)
