"""Where a fold's SQL runs: one DuckDB connection over local copies of the files it takes up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from glue_streaming.fold import merge
from glue_streaming.fold.errors import SnapshotUnusable
from glue_streaming.fold.shape import Shape
from glue_streaming.state import SnapshotState
from schemas.position import Line, Position

TIERS: Final = ("log", "delta", "base", "staged")


@dataclass(frozen=True)
class Outputs:
    """The queries whose rows are the new files, by tier. A tier that is not named keeps its files."""

    queries: dict[str, str]
    taken_rows: int
    truncated: bool


class Scratch:
    """Holds the relations `log`, `delta`, `base` and `staged` of one table, and computes a fold from them.

    memory_limit bounds DuckDB only roughly; what does not fit spills to the folder.
    """

    def __init__(self, shape: Shape, folder: Path, memory_limit: str = "768MB", threads: int = 1) -> None:
        self._shape = shape
        self._connection = duckdb.connect(
            config={
                "threads": threads,
                "memory_limit": memory_limit,
                "temp_directory": str(folder / "spill"),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        for tier in TIERS:
            self.load(tier, [])

    def close(self) -> None:
        self._connection.close()

    def load(self, tier: str, files: Sequence[Path]) -> None:
        """Makes the rows of local Parquet files the relation of a tier, in the table's present types.

        A column that a file lacks is null in its rows; the lake's names are never used twice for different columns.
        """
        if not files:
            columns = ", ".join(f"CAST(NULL AS {c.duckdb}) AS {merge.quoted(c.name)}" for c in self._shape.every)
            self._view(tier, f"SELECT {columns} WHERE FALSE")
            return
        present = {name for file in files for name in pq.read_schema(file).names}
        columns = ", ".join(
            f"CAST({merge.quoted(c.name) if c.name in present else 'NULL'} AS {c.duckdb}) AS {merge.quoted(c.name)}"
            for c in self._shape.every
        )
        paths = ", ".join(merge.text(str(file)) for file in files)
        self._view(
            tier,
            f"SELECT {columns} FROM read_parquet([{paths}], union_by_name = true, hive_partitioning = false)",
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()

    def batches(self, sql: str, rows_per_batch: int = 65_536) -> Iterable[pa.RecordBatch]:
        """A query's rows, in the types of DuckDB's Arrow export."""
        reader: Iterable[pa.RecordBatch] = self._connection.sql(sql).to_arrow_reader(rows_per_batch)
        return reader

    def take(self, line: Line) -> Position | None:
        """Makes `taken`, the log's rows at or below the line, and `changes`. Returns their last truncate's position."""
        self._table("taken", merge.taken(line))
        found = self.rows(merge.last_truncate())
        truncate = Position.of(found[0]) if found else None
        if self._shape.key:
            self._table("changes", merge.changes(self._shape, truncate))
        return truncate

    def old_keys(self) -> list[tuple[Any, ...]]:
        """Keys (after `take`) whose base rows a minor fold needs: there a key change left values behind."""
        return self.rows(merge.old_keys(self._shape)) if self._shape.key and self._shape.torn else []

    def touched(self, ranges: Sequence[tuple[Any, Any]], old_keys_only: bool = False) -> list[int]:
        """Which of the ranges of the first key column (None: open) hold a key that changed, by index."""
        first = merge.quoted(self._shape.key[0])
        keys = merge.old_keys(self._shape) if old_keys_only else f"SELECT {first} FROM changes"
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE keys AS SELECT DISTINCT {first} AS key FROM ({keys})")
        return [
            index
            for index, (low, high) in enumerate(ranges)
            if self._connection.execute(
                "SELECT 1 FROM keys WHERE ($1 IS NULL OR key >= $1) AND ($2 IS NULL OR key <= $2) LIMIT 1", [low, high]
            ).fetchall()
        ]

    def minor(self, line: Line) -> Outputs:
        """History and one delta run, where no truncate was taken. `base`: the files that hold the old keys."""
        torn = self._resolve(with_base=True)
        return self._outputs(
            line, {"history": merge.history(self._shape, torn=torn), "delta": merge.delta_run(self._shape)}
        )

    def major(self, line: Line, truncate: Position | None) -> Outputs:
        """History and new base files in the place of delta and the base files loaded."""
        torn = self._resolve(with_base=truncate is None)
        queries = {
            "history": merge.history(self._shape, torn=torn),
            "base": merge.new_base(self._shape, truncated=truncate is not None),
        }
        return self._outputs(line, queries, truncated=truncate is not None)

    def keyless(self, line: Line, truncate: Position | None) -> Outputs:
        """History and base of a table without a key; the base files loaded, if any, become one with the new rows."""
        queries = {
            "history": merge.history(self._shape, torn=False),
            "base": merge.keyless_base(self._shape, truncate, with_old=truncate is None),
        }
        return self._outputs(line, queries, truncated=truncate is not None)

    def activate(self, line: Line, truncate: Position | None, snapshot: int, state: SnapshotState) -> Outputs:
        """The snapshot's rows with the later changes laid over them become base. Old base and delta are to go.

        Raises SnapshotUnusable where the staged rows are not as many as were announced, or where a later key change
        left out a value that lies in no row at hand.
        """
        shape = self._shape
        points = [group.consistent_point for group in state.ended.values()]
        self._table("staged_rows", merge.staged_rows(state.era, points))
        self._check_counts(snapshot, state)
        self._table("changes", merge.snapshot_changes(shape, state.era, state.lowest, truncate))
        if shape.key:
            torn = self._resolve(with_base=False)
            unknown = self.rows(merge.unknown_values(shape)) if torn else []
            if unknown:
                raise SnapshotUnusable(
                    f"{shape.source}.{shape.table}: snapshot {snapshot} lacks the values of {unknown}: "
                    "a key moved between its groups while it was read. Request another snapshot of the table."
                )
            base = merge.new_base(shape, truncated=True)
        else:
            torn = False
            base = merge.snapshot_keyless_base(shape)
        queries = {
            "history": merge.snapshot_history(shape, state.era, state.lowest, truncate, torn=torn),
            "base": base,
            "staged": merge.staged_remainder(state.era, state.highest),
        }
        return self._outputs(line, queries, truncated=True)

    def _check_counts(self, snapshot: int, state: SnapshotState) -> None:
        found = dict(self.rows("SELECT _lsn + 1, count(*) FROM staged_rows GROUP BY ALL"))
        expected: dict[int, int] = {}
        for group in state.ended.values():
            expected[group.consistent_point] = expected.get(group.consistent_point, 0) + group.count
        wrong = {
            point: (found.get(point, 0), count) for point, count in expected.items() if found.get(point, 0) != count
        }
        if wrong:
            listed = "; ".join(f"read at {point}: {have} of {want}" for point, (have, want) in wrong.items())
            raise SnapshotUnusable(
                f"{self._shape.source}.{self._shape.table}: snapshot {snapshot} has not the rows it announced "
                f"({listed}). Request another snapshot of the table."
            )

    def _resolve(self, *, with_base: bool) -> bool:
        """Makes `latest`; returns whether rows had left values out, so that `resolved` exists too."""
        shape = self._shape
        torn = bool(shape.torn) and bool(self.rows("SELECT 1 FROM changes WHERE len(_unchanged) > 0 LIMIT 1"))
        if torn:
            self._table("suspects", merge.suspects(shape))
            self._table("kin", merge.kin(shape, with_base=with_base))
            self._table("resolved", merge.resolved(shape))
        self._table("latest", merge.latest(shape, torn=torn))
        return torn

    def _outputs(self, line: Line, queries: dict[str, str], *, truncated: bool = False) -> Outputs:
        taken = self.rows("SELECT count(*) FROM taken")[0][0]
        return Outputs({"log": merge.remainder(line), **queries}, taken, truncated)

    def _view(self, name: str, sql: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")

    def _table(self, name: str, sql: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")
