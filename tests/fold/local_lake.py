"""A lake table as real data files in a folder, folded by the real engine, without a catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema

from glue_streaming import data_files
from glue_streaming.fold.lake_files import LakeFile, written_file
from glue_streaming.fold.layout import Bounds, Layout
from glue_streaming.fold.part import Ground
from glue_streaming.fold.plan import Work
from glue_streaming.fold.run import RunParts, merge_files
from glue_streaming.fold.shape import Shape, shape_of
from glue_streaming.lake_table import iceberg_schema
from glue_streaming.state import SnapshotState
from schemas.change_record import Column, TableSchema
from schemas.position import ORIGIN, Line, Position

Row = dict[str, Any]
IO = PyArrowFileIO()
ONE_PART = Bounds(target_file_bytes=128 << 20, part_bytes=2 << 30, memory_bytes=128 << 20)
MANY_PARTS = Bounds(target_file_bytes=1_000, part_bytes=1, memory_bytes=128 << 20)
"""Files of a handful of rows, and a part for each of them."""


def schema_of(columns: Sequence[Column], key: Sequence[str]) -> tuple[Schema, Shape]:
    table = TableSchema("shop", "t", tuple(columns), tuple(key))
    schema = iceberg_schema(table)
    return schema, shape_of("shop", "t", schema, {"headrace.key": '["' + '","'.join(key) + '"]' if key else "[]"})


@dataclass
class LocalLake:
    """files: what the table holds now. Every fold is checked: nothing stands on the wrong side of the line."""

    schema: Schema
    shape: Shape
    folder: Path
    bounds: Bounds = ONE_PART
    line: Line = ORIGIN
    files: list[LakeFile] = field(default_factory=list)
    spread: RunParts | None = None

    def append(self, tier: str, rows: Sequence[Row]) -> None:
        arrow = data_files.arrow_schema(self.schema)
        table = pa.Table.from_pylist([{**row, "_tier": tier} for row in rows], schema=arrow)
        written = data_files.write(table, schema=self.schema, location=f"file://{self.folder}", tier=tier, io=IO)
        if written is not None:
            self.files.append(written_file(written, self.schema))

    def fold(self, line: Line, *, major: bool) -> Layout:
        return self._merge(Work("major" if major else "minor", line, "", 0), None)

    def activate(self, line: Line, snapshot: int, state: SnapshotState) -> Layout:
        return self._merge(Work("activate", line, "", 0, snapshot), state)

    def _merge(self, due: Work, state: SnapshotState | None) -> Layout:
        ground = Ground(self.shape, self.schema, f"file://{self.folder}", due.line, snapshot=state)
        layout, done = merge_files(due, ground, self.files, IO, self.bounds, self.spread)
        gone = {id(file) for file in layout.removed}
        self.files = [file for file in self.files if id(file) not in gone]
        self.files += [written_file(file, self.schema) for item in done for file in item.files]
        self.line = due.line
        self.check()
        return layout

    def check(self) -> None:
        """The one assertion of the design; base and delta are files that share no key; no two changes share a place."""
        places = [(row["_era"], row["_lsn"], row["_idx"]) for tier in ("log", "history") for row in self.rows(tier)]
        assert len(places) == len(set(places)), "two changes at one position"
        for tier in ("log", "delta", "base", "history", "staged"):
            rows = self.rows(tier)
            for row in rows:
                inside = self.line.covers(Position(row["_era"], row["_lsn"], row["_idx"]))
                assert row["_tier"] == tier
                assert tier == "staged" or inside == (tier != "log"), f"{tier} row at {row['_lsn']}, line {self.line}"
            if tier in ("delta", "base") and self.shape.key:
                keys = [repr([row[name] for name in self.shape.key]) for row in rows]
                assert len(keys) == len(set(keys)), f"{tier} has a key twice"

    def paths(self, tier: str) -> list[str]:
        return [f.data_file.file_path.removeprefix("file://") for f in self.files if f.tier == tier]

    def arrow(self, tier: str) -> pa.Table:
        schema = data_files.arrow_schema(self.schema)
        tables = [pq.read_table(path).select(schema.names).cast(schema) for path in self.paths(tier)]
        return pa.concat_tables(tables or [schema.empty_table()])

    def rows(self, tier: str) -> list[Row]:
        found: list[Row] = self.arrow(tier).to_pylist()
        return found

    def query(self, view: str, watermark: Line | None = None) -> list[tuple[Any, ...]]:
        connection = duckdb.connect(config={"threads": 1})
        connection.execute("CREATE SCHEMA shop_lake; CREATE SCHEMA shop_cut")
        connection.register("lake", pa.concat_tables([self.arrow(t) for t in ("log", "delta", "base", "history")]))
        connection.execute("CREATE VIEW shop_lake.t AS SELECT * FROM lake")
        era, lsn = watermark or (0, 0)
        connection.execute(f"CREATE VIEW shop_cut.watermark AS SELECT {era} AS era, CAST({lsn} AS BIGINT) AS lsn")
        return connection.execute(in_duckdb(view)).fetchall()


@lru_cache
def in_duckdb(view: str) -> str:
    return sqlglot.transpile(view, read="athena", write="duckdb")[0]


def lake_row(
    era: int, lsn: int, idx: int, op: str, values: Row, at: datetime,
    unchanged: list[str] | None = None, old_key: str | None = None,
) -> Row:  # fmt: skip
    metadata = {"_op": op, "_era": era, "_lsn": lsn, "_idx": idx, "_committed_at": at, "_unchanged": unchanged}
    return metadata | {"_old_key": old_key, "_raw": None, **values, "_batch": 1}
