"""Where a fold's SQL runs: one DuckDB connection over local copies of the files that a part of a fold reads.

Nothing of the files is loaded: their rows stream through the queries, and what a query has to hold (a sort, the keys of
a join) goes to the disk beyond the memory limit, which bounds DuckDB roughly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from glue_streaming.fold import merge, multiset
from glue_streaming.fold.ranges import WHOLE, KeyRange
from glue_streaming.fold.shape import Shape
from glue_streaming.state import SnapshotState
from schemas.position import Line, Position

TIERS: Final = ("log", "delta", "base", "staged")
BATCH_ROWS: Final = 16_384
"""Of what is handed from one step to the next. With four times as many a fold of 3.2 million rows took 110 MiB more."""
POSITIONS: Final = pa.schema([("_era", pa.int32()), ("_lsn", pa.int64()), ("_idx", pa.int32())])


class Scratch:
    """Holds the relations that `merge` names, of one table and one key range.

    truncates: the log's truncates, which have no key, belong to this range.
    """

    def __init__(
        self,
        shape: Shape,
        folder: Path,
        *,
        memory_bytes: int,
        keys: KeyRange = WHOLE,
        truncates: bool = True,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self._shape, self._batch_rows = shape, batch_rows
        self._keys = keys
        self._within = merge.within(shape, keys)
        self._in_log = f"({self._within} OR _op = 't')" if truncates else f"({self._within} AND _op <> 't')"
        self._completed = self.torn = False
        self._connection = duckdb.connect(
            config={
                "threads": 1,
                "memory_limit": f"{memory_bytes}B",
                "temp_directory": str(folder / "spill"),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        for tier in TIERS:
            self.load(tier, [])
        self.cancel(POSITIONS.empty_table())

    def close(self) -> None:
        self._connection.close()

    def load(self, tier: str, files: Sequence[Path]) -> None:
        """Makes the rows of local Parquet files the relation of a tier, in the table's present types.

        A column that a file lacks is null in its rows; the lake's names are never used twice for different columns.
        """
        if not files:
            columns = ", ".join(f"CAST(NULL AS {c.duckdb}) AS {merge.quoted(c.name)}" for c in self._shape.every)
            self.view(tier, f"SELECT {columns} WHERE FALSE")
            return
        present = {name for file in files for name in pq.read_schema(file).names}
        columns = ", ".join(
            f"CAST({merge.quoted(c.name) if c.name in present else 'NULL'} AS {c.duckdb}) AS {merge.quoted(c.name)}"
            for c in self._shape.every
        )
        paths = ", ".join(merge.text(str(file)) for file in files)
        rows = f"SELECT {columns} FROM read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"
        self.view(tier, f"SELECT * FROM ({rows}) WHERE {self._in_log if tier == 'log' else self._within}")

    def spans(self, files: Sequence[Path]) -> list[tuple[int, int | None]]:
        """Of files in the order of their keys the rows that lie in the key range: from the first up to the second."""
        if self._keys == WHOLE:
            return [(0, None) for _ in files]
        number = "coalesce(min(file_row_number), 0), coalesce(max(file_row_number) + 1, 0)"
        return [
            self.rows(
                f"SELECT {number} FROM read_parquet({merge.text(str(file))}, file_row_number = true, "
                f"hive_partitioning = false) WHERE {self._within}"
            )[0]
            for file in files
        ]

    def complete(self, rows: pa.Table) -> None:
        """Takes the completed inserts of key changes; those within the range count."""
        self._completed = rows.num_rows > 0
        if self._completed:
            self._connection.register("given", rows)
            self.table("completed", f"SELECT {merge.every(self._shape)} FROM given WHERE {self._within}")
            self._connection.unregister("given")

    def take(self, line: Line) -> None:
        """Makes `taken`: the log's rows at or below the line."""
        self.view("taken", merge.taken(self._shape, line, completed=self._completed))

    def change(self, truncate: Position | None, *, with_delta: bool) -> None:
        """Makes `changes` and `fresh` (after `take`). with_delta: the delta's rows are merged as well."""
        self.view("changes", merge.changes(self._shape, truncate))
        self.view("fresh", "SELECT * FROM changes" if with_delta else merge.fresh(self._shape, truncate))

    def overlay(self, state: SnapshotState, truncate: Position | None) -> None:
        """Makes `staged_rows`, `changes` and `fresh` of an activation (after `take`)."""
        points = [group.consistent_point for group in state.ended.values()]
        self.view("staged_rows", merge.staged_rows(state.era, points))
        self.view("changes", merge.snapshot_changes(self._shape, state.era, state.lowest, truncate))
        self.view("fresh", "SELECT * FROM changes")

    def resolve(self, *, with_base: bool, stored: bool = False) -> None:
        """Makes `candidates` and `latest` (after `fresh`), and says whether a row was `torn`: left a value out.

        stored: computed once, for several queries.
        """
        shape = self._shape
        self.torn = bool(shape.torn) and bool(self.rows("SELECT 1 FROM fresh WHERE len(_unchanged) > 0 LIMIT 1"))
        if self.torn:
            self.table("suspects", merge.suspects(shape))
            self.table("kin", merge.kin(shape, with_base=with_base))
            self.table("resolved", merge.resolved(shape, across_keys=False))
        self.view("candidates", merge.candidates(shape, torn=self.torn))
        (self.table if stored else self.view)("latest", merge.latest(shape))

    def completed(self) -> pa.Table:
        """The inserts of key changes, completed from `changes`, and from the base files that are loaded."""
        self.table("suspects", merge.moved_keys(self._shape))
        self.table("kin", merge.kin(self._shape, with_base=True))
        self.table("resolved", merge.resolved(self._shape, across_keys=True))
        return self._connection.sql(merge.completed(self._shape)).to_arrow_table()

    def delete(self) -> bool:
        """Makes `contents`, `ends` and an empty `found` (after `changes`); False where nothing is deleted."""
        self.table("contents", multiset.contents(self._shape))
        if not self.rows("SELECT 1 FROM contents LIMIT 1"):
            return False
        self.table("ends", multiset.ends(self._shape))
        self.table("found", f"{multiset.found(self._shape, 'changes')} LIMIT 0")
        return True

    def find(self, relation: str) -> None:
        """Adds to `found` the rows of a relation that equal something deleted."""
        self._connection.execute(f"INSERT INTO found {multiset.found(self._shape, relation)}")

    def cancelled(self) -> pa.Table:
        """The positions of deletes and of the rows that they take away (after `find`); makes `cancelled`."""
        self.cancel(self._connection.sql(multiset.cancelled()).to_arrow_table())
        return self._connection.sql("SELECT * FROM cancelled").to_arrow_table()

    def cancel(self, positions: pa.Table) -> None:
        """Takes the positions that cancelled each other."""
        self._connection.register("given", positions)
        self.table("cancelled", "SELECT * FROM given")
        self._connection.unregister("given")

    def keys(self, sql: str) -> None:
        """Makes `keys`, which `holds` looks at, in their order, so that a range of them is found without a scan."""
        names = merge.names(self._shape.key)
        self.table("keys", f"SELECT DISTINCT {names} FROM ({sql}) ORDER BY {names}")

    def holds(self, keys: KeyRange) -> bool:
        return bool(self.rows(f"SELECT 1 FROM keys WHERE {merge.within(self._shape, keys)} LIMIT 1"))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """A query's rows as they come. Several queries may be read at a time."""
        yield from self._connection.cursor().sql(sql).to_arrow_reader(self._batch_rows)

    def view(self, name: str, sql: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE VIEW {name} AS {sql}")

    def table(self, name: str, sql: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TABLE {name} AS {sql}")
