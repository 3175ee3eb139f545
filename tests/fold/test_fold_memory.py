"""A fold of a table that is ten times what DuckDB may hold. The long form is `make large-fold`."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path

from glue_streaming.fold.scratch import BATCH_ROWS
from schemas.change_record import Column
from schemas.position import Line
from tests.fold.large_fold import measured
from tests.fold.local_lake import LocalLake, lake_row, schema_of

LIMIT = 64 << 20


def test_a_table_of_ten_times_the_memory_limit_is_folded_within_600_mib() -> None:
    """A major fold streams: its process stays below what one task may use, and every row is there."""
    found = measured(rows=3_200_000, memory_bytes=LIMIT)
    assert found["table_bytes"] > 10 * LIMIT
    assert found["peak_bytes"] < 600 << 20
    assert found["base_rows"] > 3_150_000 and found["base_files"] > 1


def test_few_rows_are_held_at_a_time_where_rows_are_large(tmp_path: Path) -> None:
    """Judged by the files' bytes; of a file of few rows most of them are not the rows'."""

    def held(doc: str) -> int:
        schema, shape = schema_of(
            (Column("id", "long", "id", "bigint"), Column("doc", "string", "doc", "text")), ("id",)
        )
        lake = LocalLake(schema, shape, tmp_path)
        rows = [lake_row(1, n + 1, 0, "c", {"id": n, "doc": doc}, datetime(2026, 1, 1)) for n in range(8)]
        lake.append("log", rows)
        return lake.fold(Line(1, 50), major=True).parts[0].ground.batch_rows

    assert held("small") == BATCH_ROWS
    assert held(random.Random(1).randbytes(200_000).hex()) < 1_000
