"""The fold engine as a contender: a table of local files, and what is done to it.

    python -m bench.fold_ours FOLDER BASE_ROWS CHANGES SMALL_FILES

The table is made once; `reset` makes it as it was at the start. In small files its rows are there twice, as base and as
history. Words: reset, minor, major, pack, facts, `query FORM WHICH` and `bytes FORM WHICH` (see `queries`). One DuckDB
thread, no catalog: a fold ends when its files are written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from pyiceberg.io.pyarrow import PyArrowFileIO

from bench import fold_corpus
from bench.contender import serve
from glue_streaming import data_files, view_current
from glue_streaming.fold import packing
from glue_streaming.fold.lake_files import LakeFile, of_tier, written_file
from glue_streaming.fold.layout import Bounds
from glue_streaming.fold.part import Ground
from glue_streaming.fold.plan import FoldSettings, Work
from glue_streaming.fold.run import merge_files
from schemas.position import Line

IO = PyArrowFileIO()
END = Line(1, 1 << 60)


class Lake:
    """files: the table's, as they are now; `pristine` as they were made."""

    def __init__(self, folder: Path, file_rows: int = 1_000_000) -> None:
        self.folder, self._file_rows = folder, file_rows
        self.schema, self.shape = fold_corpus.schema_and_shape()
        self._arrow = data_files.arrow_schema(self.schema)
        self.files: list[LakeFile] = []
        self.pristine: list[LakeFile] = []
        self.read_bytes = self.written_bytes = 0

    def add(self, tier: str, batches: Iterator[pa.RecordBatch]) -> None:
        rows = (part for batch in batches for part in fold_corpus.conformed(batch, self._arrow))
        written = data_files.write(rows, schema=self.schema, location=f"file://{self.folder}", tier=tier, io=IO)
        if written is not None:
            self.files.append(written_file(written, self.schema))

    def make(self, base_rows: int, changes: int, small_files: int) -> None:
        per_file = base_rows // small_files if small_files else self._file_rows
        for first in range(0, base_rows, per_file):
            for tier in ("base", "history") if small_files else ("base",):
                self.add(tier, fold_corpus.base(min(per_file, base_rows - first), first, tier))
        if changes:
            self.add("log", fold_corpus.changes(changes, base_rows, lsn=base_rows + 1))
        self.pristine = list(self.files)

    def fold(self, kind: str) -> None:
        settings = FoldSettings()
        ground = Ground(self.shape, self.schema, f"file://{self.folder}", END)
        bounds = Bounds(settings.target_file_bytes, settings.part_bytes, settings.memory_bytes)
        layout, done = merge_files(Work(kind, END, "", 0), ground, self.files, IO, bounds)  # type: ignore[arg-type]
        gone = {id(file) for file in layout.removed}
        new = [written_file(file, self.schema) for item in done for file in item.files]
        self.read_bytes, self.written_bytes = layout.read_bytes, sum(file.size for file in new)
        self.files = [file for file in self.files if id(file) not in gone] + new

    def pack(self) -> None:
        """The history's files become large ones, as the daily maintenance does it."""
        history = of_tier(self.files, "history")
        packs = packing.packs(history, FoldSettings().target_file_bytes)
        done = packing.write(packs, self.schema, f"file://{self.folder}", IO, self.shape.searched)
        gone = {id(file) for pack in packs for file in pack}
        self.files = [file for file in self.files if id(file) not in gone]
        self.files += [written_file(file, self.schema) for file in done]

    def bytes_of(self, *tiers: str) -> int:
        return sum(file.size for file in self.files if file.tier in tiers)

    def paths(self, *tiers: str) -> list[str]:
        return [f.data_file.file_path.removeprefix("file://") for f in self.files if f.tier in tiers]

    def connect(self, tiers: Sequence[str]) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(config={"threads": 1})
        connection.execute("SET parquet_metadata_cache = true")  # as in the laptop's Athena: a footer is read once
        connection.execute(f"CREATE SCHEMA {self.shape.source}_lake")
        paths = ", ".join(f"'{path}'" for path in self.paths(*tiers))
        table = f"{self.shape.source}_lake.{self.shape.table}"
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet([{paths}], union_by_name = true)")
        return connection


WHERE = {"scan": "TRUE", "range": "id BETWEEN 1500 AND 31500", "key": "id = 1501"}
ANSWER = """SELECT count(*), sum(price), max(note), min(ordered_at), sum(quantity), max(email)
    FROM ({rows}) AS r WHERE {which}"""


def queries(lake: Lake) -> dict[str, tuple[tuple[str, ...], str]]:
    """By form: the tiers whose files are read, and the rows."""
    table = f"{lake.shape.source}_lake.{lake.shape.table}"
    columns = ", ".join(column.name for column in lake.shape.columns)
    newest = "row_number() OVER (PARTITION BY id ORDER BY _era DESC, _lsn DESC, _idx DESC) = 1"
    naive = f"SELECT {columns} FROM (SELECT * FROM {table} QUALIFY {newest}) AS n WHERE _op <> 'd'"
    view = sqlglot.transpile(view_current.current(lake.shape), read="athena", write="duckdb")[0]
    return {
        "plain": (("base",), f"SELECT {columns} FROM {table}"),
        "view": (("log", "delta", "base"), view),
        "naive": (("log", "delta", "base"), naive),
    }


def main(folder: Path, base_rows: int, changes: int, small_files: int) -> None:
    lake = Lake(folder)
    lake.make(base_rows, changes, small_files)

    def run(words: str) -> int:
        verb, *rest = words.split()
        return _VERBS[verb](lake, rest)

    serve(run)


def _reset(lake: Lake, _: list[str]) -> int:
    for file in lake.files:
        if file not in lake.pristine:
            Path(file.data_file.file_path.removeprefix("file://")).unlink()
    lake.files = list(lake.pristine)
    return 0


def _fold(kind: str) -> Callable[[Lake, list[str]], int]:
    def run(lake: Lake, _: list[str]) -> int:
        lake.fold(kind)
        return sum(file.rows for file in lake.files if file.tier in ("base", "delta"))

    return run


def answer(lake: Lake, form: str, which: str) -> tuple[Any, ...]:
    """What a query says of the table as it is."""
    return _asked(lake, form, which, "")[0]


def _asked(lake: Lake, form: str, which: str, how: str) -> list[tuple[Any, ...]]:
    tiers, rows = queries(lake)[form]
    with lake.connect(tiers) as connection:
        return connection.execute(how + ANSWER.format(rows=rows, which=WHERE[which])).fetchall()


def _read(lake: Lake, words: list[str]) -> int:
    """Bytes of Parquet files that DuckDB reads for a query, footers included."""
    form, which = words
    ((_, plan),) = _asked(lake, form, which, "EXPLAIN (ANALYZE, FORMAT json) ")
    return int(json.loads(plan)["io"]["total_bytes_read"])


def _pack(lake: Lake, _: list[str]) -> int:
    lake.pack()
    return sum(file.rows for file in of_tier(lake.files, "history"))


def _query(lake: Lake, words: list[str]) -> int:
    return int(answer(lake, *words)[0])


def _facts(lake: Lake, _: list[str]) -> int:
    facts: dict[str, Any] = {tier: lake.bytes_of(tier) for tier in ("base", "delta", "log", "history")}
    facts |= {"read": lake.read_bytes, "written": lake.written_bytes, "paths": lake.paths("base", "delta", "log")}
    facts["files"] = [(tier, path) for tier in ("base", "delta", "log", "history") for path in lake.paths(tier)]
    (lake.folder / "facts.json").write_text(json.dumps(facts))
    return 0


_VERBS: dict[str, Callable[[Lake, list[str]], int]] = {
    "reset": _reset,
    "minor": _fold("minor"),
    "major": _fold("major"),
    "pack": _pack,
    "query": _query,
    "bytes": _read,
    "facts": _facts,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:5]))
