"""A fold of a table that is ten times what DuckDB may hold. The long form is `make large-fold`."""

from __future__ import annotations

from tests.fold.large_fold import measured

LIMIT = 64 << 20


def test_a_table_of_ten_times_the_memory_limit_is_folded_within_600_mib() -> None:
    """A major fold streams: its process stays below what one task may use, and every row is there."""
    found = measured(rows=3_200_000, memory_bytes=LIMIT)
    assert found["table_bytes"] > 10 * LIMIT
    assert found["peak_bytes"] < 600 << 20
    assert found["base_rows"] > 3_150_000 and found["base_files"] > 1
