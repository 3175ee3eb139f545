"""Rows read as they lie in files, and what of a fold is made of them without a query."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glue_streaming.fold import file_rows
from glue_streaming.fold.ranges import WHOLE, Cut, KeyRange
from glue_streaming.fold.scratch import Scratch
from schemas.change_record import Column
from schemas.position import Line
from tests.fold.local_lake import LocalLake, Row, lake_row, schema_of

SCHEMA = pa.schema(
    [("id", pa.int64()), ("state", pa.large_string()), ("note", pa.large_string()), ("late", pa.int64())]
)
START = datetime(2026, 1, 1)


def file_of(path: Path, rows: int, dictionaries: list[str]) -> Path:
    """Row groups of ten rows; `id` narrower than now, `late` not there yet."""
    columns = {"id": pa.array(range(rows), pa.int32()), "state": [f"s{n % 3}" for n in range(rows)]}
    table = pa.table(columns | {"note": [f"note {n}" for n in range(rows)]})
    pq.write_table(table, path, row_group_size=10, use_dictionary=dictionaries)
    return path


@pytest.mark.parametrize("first, end", [(0, None), (0, 35), (3, 4), (10, 20), (9, 21), (19, 31), (34, 35), (5, 5)])
def test_a_span_of_a_files_rows_comes_in_the_columns_and_types_of_now(
    first: int, end: int | None, tmp_path: Path
) -> None:
    """Over row groups and batches that end elsewhere; what the file lacks is null."""
    path = file_of(tmp_path / "f.parquet", 35, ["state"])
    schema = file_rows.schema_of(SCHEMA, [path])
    batches = list(file_rows.rows(path, schema, 4, first, end))
    assert all(batch.schema == schema and 0 < batch.num_rows <= 4 for batch in batches)
    found = [row for batch in batches for row in batch.to_pylist()]
    expected = [{"id": n, "state": f"s{n % 3}", "note": f"note {n}", "late": None} for n in range(35)]
    assert found == expected[first:end]


def test_text_stays_in_dictionaries_where_all_files_have_small_ones(tmp_path: Path) -> None:
    """Not where one file has none or lacks the column, where the values are many, or where the column is a key's."""
    both = [file_of(tmp_path / f"{n}.parquet", 3_000, ["state", "note"]) for n in range(2)]
    bare, empty = file_of(tmp_path / "bare.parquet", 20, []), tmp_path / "without.parquet"
    pq.write_table(pa.table({"id": [1]}), empty)

    def kept(files: list[Path], plain: tuple[str, ...] = ()) -> list[str]:
        schema = file_rows.schema_of(SCHEMA, files, plain)
        return [field.name for field in schema if pa.types.is_dictionary(field.type)]

    long = " ".join(str(n) for n in range(10_000))
    pq.write_table(pa.table({"id": [1], "state": ["s"], "note": [long]}), tmp_path / "long.parquet")
    assert kept(both) == ["state", "note"]
    assert kept([*both, tmp_path / "long.parquet"]) == ["state"]
    assert kept(both, ("state",)) == ["note"]
    assert kept([*both, bare]) == kept([*both, empty]) == []


def test_the_rows_of_a_key_range_are_a_span_of_each_sorted_file(tmp_path: Path) -> None:
    """Both ends, and files that lie outside or across them; the whole range asks no file."""
    _, shape = schema_of([Column("id", "int", "id", "int")], ["id"])
    files = []
    for first in (0, 10, 20):
        files.append(tmp_path / f"{first}.parquet")
        pq.write_table(pa.table({"id": pa.array(range(first, first + 10), pa.int32())}), files[-1], row_group_size=4)

    def spans(keys: KeyRange) -> list[tuple[int, int | None]]:
        scratch = Scratch(shape, tmp_path, memory_bytes=64 << 20, keys=keys)
        try:
            return scratch.spans(files)
        finally:
            scratch.close()

    assert spans(KeyRange(Cut((3,)), Cut((15,), after=True))) == [(3, 10), (0, 6), (0, 0)]
    assert spans(KeyRange(Cut((3,), after=True), Cut((15,)))) == [(4, 10), (0, 5), (0, 0)]
    assert spans(KeyRange(Cut((12,)), None)) == [(0, 0), (2, 10), (0, 10)]
    assert spans(WHOLE) == [(0, None)] * 3


@pytest.mark.parametrize("interleaved", [False, True])
def test_history_is_in_the_order_of_positions_up_to_the_line(interleaved: bool, tmp_path: Path) -> None:
    """Whether the log's files follow each other, and are copied, or lie across each other."""
    schema, shape = schema_of([Column("id", "long", "id", "bigint"), Column("v", "string", "v", "text")], ["id"])
    lake = LocalLake(schema, shape, tmp_path)
    rows: list[Row] = [lake_row(1, n, 0, "c", {"id": -n, "v": f"v{n % 2}"}, START) for n in range(1, 41)]
    for part in (rows[::2], rows[1::2]) if interleaved else (rows[:20], rows[20:]):
        lake.append("log", part)
    lake.fold(Line(1, 30), major=True)
    assert [(row["_lsn"], row["_tier"], row["v"]) for row in lake.rows("history")] == [
        (n, "history", f"v{n % 2}") for n in range(1, 31)
    ]
    assert sorted(row["_lsn"] for row in lake.rows("log")) == [*range(31, 41)]


def test_values_that_came_with_two_dictionaries_are_written_in_one(tmp_path: Path) -> None:
    """Files of different values, folded: the column is in a dictionary again, and every value is its row's."""
    schema, shape = schema_of([Column("id", "long", "id", "bigint"), Column("v", "string", "v", "text")], ["id"])
    lake = LocalLake(schema, shape, tmp_path)
    for first in (0, 500):
        values = [f"value {first + n % 5}" for n in range(500)]
        lake.append("base", [lake_row(1, 1, n, "c", {"id": first + n, "v": v}, START) for n, v in enumerate(values)])
    changed = [lake_row(1, 2, n, "u", {"id": n * 10, "v": f"value {n % 5}!"}, START) for n in range(100)]
    lake.append("log", changed)
    lake.fold(Line(1, 2), major=True)
    (path,) = lake.paths("base")
    group = pq.read_metadata(path).row_group(0)
    (column,) = [c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "v"]
    assert column.total_uncompressed_size < 2_000  # 1,000 values of some 8 bytes would be 10,000
    expected = {n: f"value {n // 500 * 500 + n % 5}" for n in range(1_000)}
    assert {row["id"]: row["v"] for row in lake.rows("base")} == expected | {
        n * 10: f"value {n % 5}!" for n in range(100)
    }
