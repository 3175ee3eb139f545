"""Random histories, folded at a random cadence, read through the views, against a plain model of the source."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glue_streaming import view_sql
from glue_streaming.fold.errors import SnapshotUnusable
from glue_streaming.fold.scratch import TIERS, Outputs, Scratch
from glue_streaming.fold.shape import METADATA_COLUMNS, Shape, ShapeColumn
from glue_streaming.state import EndedGroup, SnapshotState
from schemas.position import Line, Position

START = datetime(2026, 1, 1)
COLUMNS = (
    ShapeColumn("id", "BIGINT", "bigint", "bigint"),
    ShapeColumn("n", "INTEGER", "integer", "int"),
    ShapeColumn("doc", "VARCHAR", "varchar", "string", toastable=True),
    ShapeColumn("tags", "VARCHAR[]", "array(varchar)", "array<string>", toastable=True),
)
KEYED = Shape("shop", "t", COLUMNS, ("id",), METADATA_COLUMNS)
KEYLESS = Shape("shop", "t", COLUMNS, (), METADATA_COLUMNS)
PLAIN = Shape("shop", "t", COLUMNS[:2], ("id",), METADATA_COLUMNS)
Row = dict[str, Any]


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
        self.emitted.append(lake_row(self.era, self.lsn, self.idx, op, values, "log", self.now, unchanged, old_key))
        self.idx += 1


def lake_row(
    era: int, lsn: int, idx: int, op: str, values: Row, tier: str, at: datetime,
    unchanged: list[str] | None = None, old_key: str | None = None,
) -> Row:  # fmt: skip
    metadata = {"_op": op, "_era": era, "_lsn": lsn, "_idx": idx, "_committed_at": at, "_unchanged": unchanged}
    return metadata | {"_old_key": old_key, "_raw": None, **values, "_batch": 1, "_tier": tier}


ARROW = {
    "BIGINT": pa.int64(), "INTEGER": pa.int32(), "VARCHAR": pa.string(), "VARCHAR[]": pa.list_(pa.string()),
    "TIMESTAMP": pa.timestamp("us"), "MAP(VARCHAR, VARCHAR)": pa.map_(pa.string(), pa.string()),
}  # fmt: skip


class Lake:
    """A lake table as local files by tier, without a catalog."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self.shape, self.folder, self.line = shape, folder, Line(0, 0)
        self.files: dict[str, list[Path]] = {tier: [] for tier in (*TIERS, "history")}
        self.schema = pa.schema([(c.name, ARROW[c.duckdb]) for c in shape.every])
        self.count = 0

    def append(self, tier: str, rows: list[Row]) -> None:
        if rows:
            self._write(tier, pa.Table.from_pylist(rows, schema=self.schema))

    def _write(self, tier: str, table: pa.Table) -> None:
        if table.num_rows:
            self.count += 1
            path = self.folder / f"{tier}-{self.count}.parquet"
            pq.write_table(table, path)
            self.files[tier].append(path)

    def scratch(self, base: bool = True) -> Scratch:
        scratch = Scratch(self.shape, self.folder)
        for tier in TIERS:
            if tier != "base" or base:
                scratch.load(tier, self.files[tier])
        return scratch

    def fold(self, line: Line, *, major: bool) -> None:
        scratch = self.scratch()
        truncate = scratch.take(line)
        if not self.shape.key:
            outputs = scratch.keyless(line, truncate)
        elif major or truncate:
            outputs = scratch.major(line, truncate)
        else:
            if not scratch.old_keys():
                scratch.load("base", [])
            outputs = scratch.minor(line)
        self._replace(scratch, outputs, line)

    def activate(self, line: Line, snapshot: int, state: SnapshotState) -> None:
        scratch = self.scratch()
        truncate = scratch.take(line)
        self._replace(scratch, scratch.activate(line, truncate, snapshot, state), line)

    def _replace(self, scratch: Scratch, outputs: Outputs, line: Line) -> None:
        tables = {}
        for tier, sql in outputs.queries.items():
            batches = list(scratch.batches(sql))
            tables[tier] = pa.Table.from_batches(batches).cast(self.schema) if batches else self.schema.empty_table()
        if "base" in tables:
            self.files["delta"] = []
        for tier, table in tables.items():
            if tier != "history":
                self.files[tier] = []
            self._write(tier, table)
        self.line = line
        scratch.close()
        for tier, files in self.files.items():
            for row in pa.concat_tables([pq.read_table(f) for f in files] or [self.schema.empty_table()]).to_pylist():
                assert row["_tier"] == tier
                inside = line.covers(Position(row["_era"], row["_lsn"], row["_idx"]))
                assert tier == "staged" or inside == (tier != "log"), f"{tier} row at {row['_lsn']}, line {line}"

    def query(self, view: str, watermark: Line | None = None) -> list[tuple[Any, ...]]:
        connection = duckdb.connect()
        connection.execute("CREATE SCHEMA shop_lake; CREATE SCHEMA shop_cut")
        files = [str(f) for files in self.files.values() for f in files]
        lake = pa.concat_tables([pq.read_table(f) for f in files] or [self.schema.empty_table()])
        connection.register("lake", lake)
        connection.execute("CREATE VIEW shop_lake.t AS SELECT * FROM lake")
        era, lsn = watermark or (0, 0)
        connection.execute(f"CREATE VIEW shop_cut.watermark AS SELECT {era} AS era, CAST({lsn} AS BIGINT) AS lsn")
        return connection.execute(in_duckdb(view)).fetchall()


@lru_cache
def in_duckdb(view: str) -> str:
    return sqlglot.transpile(view, read="athena", write="duckdb")[0]


def states(shape: Shape, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted((row[: len(shape.columns)] for row in rows), key=repr)


@pytest.fixture
def in_folder() -> Any:
    folders: list[str] = []

    def make() -> Path:
        folders.append(tempfile.mkdtemp())
        return Path(folders[-1])

    yield make
    for folder in folders:
        shutil.rmtree(folder)


examples = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def play(shape: Shape, seed: int, folder: Path, check: Callable[[Source, Lake], None]) -> tuple[Source, Lake]:
    """Transactions, appends in files of odd sizes, folds at random lines, minor and major."""
    rng = random.Random(seed)
    source, lake = Source(rng, shape), Lake(shape, folder)
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

    def check(source: Source, lake: Lake) -> None:
        assert states(shape, lake.query(view_sql.current(shape))) == source.current()

    play(shape, seed, in_folder(), check)


@examples
@given(seed=st.integers(0, 10**9), shape=st.sampled_from([KEYED, KEYLESS]))
def test_cut_views_equal_the_source_at_the_watermark(seed: int, shape: Shape, in_folder: Callable[[], Path]) -> None:
    """A cut view at any watermark that the fold line has not passed holds the source's rows as of that commit."""

    def check(source: Source, lake: Lake) -> None:
        lsn = source.rng.choice([lsn for lsn in source.at if lsn >= lake.line.lsn])
        assert states(shape, lake.query(view_sql.cut(shape), Line(1, lsn))) == source.at[lsn]

    play(shape, seed, in_folder(), check)


@examples
@given(seed=st.integers(0, 10**9))
def test_history_holds_every_change_once(seed: int, in_folder: Callable[[], Path]) -> None:
    """The view of changes holds each emitted change once, at its position, folded or not."""
    source, lake = play(KEYED, seed, in_folder(), lambda source, lake: None)
    found = sorted((row[1], row[2], row[3], row[0], row[8]) for row in lake.query(view_sql.changes(KEYED)))
    assert found == sorted((r["_era"], r["_lsn"], r["_idx"], r["_op"], r["id"]) for r in source.emitted)


@examples
@given(seed=st.integers(0, 10**9))
def test_versions_hold_every_version_with_its_times(seed: int, in_folder: Callable[[], Path]) -> None:
    """The type-2 view has each version with its values, valid from its commit to the next one's, or still valid."""

    def check(source: Source, lake: Lake) -> None:
        found = lake.query(view_sql.versions(KEYED))
        rows = [row for row in found if not row[6]]
        expected = [tuple(v[c] for c in ("valid_from", "valid_to", "id", "n", "doc", "tags")) for v in source.versions]
        left = [row for row in found if row[6]]
        assert len(rows) + len(left) == len(expected)
        assert sorted((row[:6] for row in rows), key=repr) == sorted(
            (row for row in expected if row[:4] not in {r[:4] for r in left}), key=repr
        )

    play(KEYED, seed, in_folder(), check)


def read_snapshot(source: Source, lake: Lake, groups: list[range]) -> SnapshotState:
    """Reads the table in groups of keys, each at a consistent point of its own, while transactions go on."""
    ended, sent = {}, len(source.emitted)
    for number, keys in enumerate(groups):
        for _ in range(source.rng.randint(0, 3)):
            source.transaction()
        source.lsn += 1
        rows = [row for key, row in sorted(source.state.items()) if key in keys]
        at = START + timedelta(seconds=source.lsn)
        lake.append("staged", [lake_row(1, source.lsn, n, "r", row, "staged", at) for n, row in enumerate(rows)])
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
    source, lake = Source(rng, shape), Lake(shape, in_folder())
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
    assert states(shape, lake.query(view_sql.current(shape))) == source.current()
    live = {row[2]: row[3] for row in lake.query(view_sql.versions(shape)) if row[1] is None}
    assert live == {key: row["n"] for key, row in source.state.items()}
    source.transaction()
    lake.append("log", [row for row in source.emitted if row["_lsn"] == source.lsn])
    lake.fold(Line(1, source.lsn), major=rng.random() < 0.5)
    assert states(shape, lake.query(view_sql.current(shape))) == source.current()


def test_a_row_whose_delete_was_lost_is_gone_behind_the_snapshot(in_folder: Callable[[], Path]) -> None:
    """Its insert lies below the snapshot, its delete in a hole: base lacks it, and history closes it."""
    lake = Lake(PLAIN, in_folder())
    values = {"id": 5, "n": 1}
    lake.append("log", [lake_row(1, 5, 0, "c", values, "log", START)])
    lake.append("staged", [lake_row(1, 9, 0, "r", {"id": 1, "n": 2}, "staged", START)])
    state = SnapshotState(low=10, groups=1, ended={0: EndedGroup(1, 10, None, None, 1)})
    lake.activate(Line(1, 12), 1, state)
    assert states(PLAIN, lake.query(view_sql.current(PLAIN))) == [(1, 2)]
    history = sorted((row[0], row[2], row[8]) for row in lake.query(view_sql.changes(PLAIN)))
    assert history == [("c", 5, 5), ("d", 9, 5), ("r", 9, 1)]


@pytest.mark.parametrize("major", [False, True])
def test_a_value_left_out_is_never_taken_from_before_a_delete(major: bool, in_folder: Callable[[], Path]) -> None:
    """Where the insert behind a delete is lost, an update's missing value is unknown: null, not the deleted row's."""
    lake = Lake(KEYED, in_folder())
    old = {"id": 1, "n": 1, "doc": "old", "tags": None}
    lake.append("base", [lake_row(1, 5, 0, "c", old, "base", START)])
    lake.append("log", [lake_row(1, 6, 0, "d", {"id": 1}, "log", START)])
    lake.append("log", [lake_row(1, 8, 0, "u", {"id": 1, "n": 2}, "log", START, ["doc"])])
    for line in (5, 7, 9):
        lake.fold(Line(1, line), major=major and line == 9)
        assert states(KEYED, lake.query(view_sql.current(KEYED))) == [(1, 2, None, None)], line
    lake.fold(Line(1, 9), major=True)
    assert states(KEYED, lake.query(view_sql.current(KEYED))) == [(1, 2, None, None)]
