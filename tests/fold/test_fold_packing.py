"""Which files of history become one, how often a row is written again for it, and that no row is changed by it."""

from __future__ import annotations

import random
from datetime import datetime
from math import log
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record

from glue_streaming import data_files, thrift_compact
from glue_streaming.fold import packing
from glue_streaming.fold.lake_files import LakeFile, written_file
from glue_streaming.fold.packing import packs
from schemas.change_record import Column
from schemas.position import Line
from tests.fold.local_lake import IO, lake_row, schema_of

TARGET = 128 << 20
ENOUGH = TARGET // 4
START = datetime(2026, 1, 1)
COLUMNS = [Column("id", "long", "id", "bigint"), Column("v", "string", "v", "text")]
LATE = Column("late", "string", "late", "text")


def sized(size: int) -> LakeFile:
    data_file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path="f",
        file_format=FileFormat.PARQUET,
        partition=Record("history"),
        record_count=1,
        file_size_in_bytes=size,
    )
    return LakeFile(data_file, "history", Line(1, 1), Line(1, 1))


@pytest.mark.parametrize("seed", range(5))
def test_a_row_is_written_again_a_few_times_at_most(seed: int) -> None:
    """A year of daily packing: no row is rewritten more often than is promised, also where files of all sizes lie
    beside each other; where they do not, few are left."""
    rng, mixed = random.Random(seed), seed % 2 == 1
    most = rng.choice([2_000, 50_000, 3_000_000])
    files: list[tuple[LakeFile, list[tuple[int, int]]]] = []
    for _ in range(400):
        for _ in range(rng.choice([1, 24, 96])):
            size = rng.randint(most // 10, most) if rng.random() < 0.99 or not mixed else rng.randint(1, 3 * TARGET)
            files.append((sized(size), [(size, 0)]))
        for pack in packs([file for file, _ in files], TARGET):
            at = next(n for n, (file, _) in enumerate(files) if file is pack[0])
            gone, files[at : at + len(pack)] = files[at : at + len(pack)], []
            assert [file for file, _ in gone] == pack, "not neighbours"
            rows = [(first, times + 1) for _, group in gone for first, times in group]
            files.insert(at, (sized(sum(file.size for file in pack)), rows))
    for file, rows in files:
        for first, times in rows:
            assert times <= max(0, 1 + log(ENOUGH / first, packing.MANY)), (first, times, file.size)
    assert all(file.size <= TARGET or len(rows) == 1 for file, rows in files)
    assert mixed or sum(file.size < ENOUGH for file, _ in files) < 60


def test_few_files_and_large_ones_are_left_alone() -> None:
    assert packs([sized(1_000)] * 7, TARGET) == []
    assert packs([sized(ENOUGH)] * 20, TARGET) == []
    assert [len(pack) for pack in packs([sized(1_000)] * 8, TARGET)] == [8]
    assert [len(pack) for pack in packs([sized(ENOUGH - 1)] * 9, TARGET)] == [4, 4]


def history(folder: Path, schema: Schema, first: int, rows: int, name: str = "v") -> LakeFile:
    made = [
        lake_row(1, n, 0, "c", {"id": n, name: f"{n * 7919} {n * 104729}"}, START) for n in range(first, first + rows)
    ]
    table = pa.Table.from_pylist([{**row, "_tier": "history"} for row in made], schema=data_files.arrow_schema(schema))
    written = data_files.write(table, schema=schema, location=f"file://{folder}", tier="history", io=IO, bloom=["id"])
    assert written is not None
    return written_file(written, schema)


def local(file: LakeFile) -> str:
    return file.data_file.file_path.removeprefix("file://")


@pytest.mark.parametrize("rows, copied", [(20_000, True), (30, False)])
def test_row_groups_that_are_large_enough_are_copied(rows: int, copied: bool, tmp_path: Path) -> None:
    """Small ones become large ones. Either way rows, their order, bounds and bloom filters are what they were."""
    schema, _ = schema_of(COLUMNS, ["id"])
    files = [history(tmp_path, schema, n * rows, rows) for n in range(9)]
    (written,) = packing.write([files], schema, f"file://{tmp_path}", IO, ["id"])
    packed = written_file(written, schema)
    metadata = pq.read_metadata(local(packed))
    assert metadata.num_row_groups == (9 if copied else 1)
    assert metadata.row_group(0).column(metadata.num_columns - 4).bloom_filter_offset is not None
    expected = pa.concat_tables(pq.read_table(local(file)) for file in files)
    assert pq.read_table(local(packed)).equals(expected)
    assert packed.rows == 9 * rows and packed.size == Path(local(packed)).stat().st_size
    assert (packed.lowest, packed.highest) == (Line(1, 0), Line(1, 9 * rows - 1))
    one = f"SELECT v FROM read_parquet('{local(packed)}') WHERE id = {rows + 1}"
    assert duckdb.sql(one).fetchall() == [(f"{(rows + 1) * 7919} {(rows + 1) * 104729}",)]


def test_files_of_another_structure_are_written_anew(tmp_path: Path) -> None:
    """Rows from before a column came have null in it."""
    old, new = schema_of(COLUMNS, ["id"])[0], schema_of([*COLUMNS, LATE], ["id"])[0]
    files = [history(tmp_path, old, 0, 20_000), history(tmp_path, new, 20_000, 20_000, "late")]
    (written,) = packing.write([files], new, f"file://{tmp_path}", IO)
    found = pq.read_table(local(written_file(written, new)))
    assert found.column("id").to_pylist() == [*range(40_000)]
    assert (found.column("late").null_count, found.column("v").null_count) == (20_000, 20_000)


def test_a_footer_is_read_and_written_to_the_same_bytes(tmp_path: Path) -> None:
    """All that a file says of its rows: types, bounds, encodings, offsets."""
    schema, _ = schema_of(COLUMNS, ["id"])
    whole = Path(local(history(tmp_path, schema, 0, 50_000))).read_bytes()
    size = int.from_bytes(whole[-8:-4], "little")
    footer = whole[-8 - size : -8]
    assert thrift_compact.write(thrift_compact.read(footer)) == footer
    with pytest.raises(ValueError, match="ends early"):
        thrift_compact.read(footer[: size // 2])
