"""Data files of a lake table: Parquet with field ids and tight bounds, written once, then only read."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record

from glue_streaming import failpoints

ROW_GROUP_ROWS: Final = 122_880
_SAMPLE_ROWS: Final = 8_192
_FULL_BOUNDS: Final = {"write.metadata.metrics.default": "full"}


@dataclass(frozen=True)
class WrittenFile:
    """One Parquet file and its statistics; small and picklable, so that a task can hand it to the driver.

    rows: count of records. size: bytes. bounds by field id, in Iceberg's single-value serialization.
    """

    path: str
    tier: str
    rows: int
    size: int
    column_sizes: Mapping[int, int]
    value_counts: Mapping[int, int]
    null_value_counts: Mapping[int, int]
    lower_bounds: Mapping[int, bytes]
    upper_bounds: Mapping[int, bytes]
    split_offsets: tuple[int, ...]

    def to_data_file(self, spec_id: int = 0) -> DataFile:
        """The Iceberg data file, in the partition of its tier."""
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self.path,
            file_format=FileFormat.PARQUET,
            partition=Record(self.tier),
            record_count=self.rows,
            file_size_in_bytes=self.size,
            sort_order_id=None,
            spec_id=spec_id,
            equality_ids=None,
            key_metadata=None,
            column_sizes=dict(self.column_sizes),
            value_counts=dict(self.value_counts),
            null_value_counts=dict(self.null_value_counts),
            nan_value_counts={},
            lower_bounds=dict(self.lower_bounds),
            upper_bounds=dict(self.upper_bounds),
            split_offsets=list(self.split_offsets),
        )


def arrow_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema of a lake table's files, with Iceberg's field ids."""
    return schema_to_pyarrow(schema)


def write(
    batches: pa.Table | Iterable[pa.RecordBatch], *, schema: Schema, location: str, tier: str, io: FileIO
) -> WrittenFile | None:
    """One file with all the rows, under `location`/data/`tier`/; None, and no file, where there are no rows.

    The rows' columns are those of the schema, in its order and of its Arrow types. The file belongs to no table until
    a commit adds it; one that is never added is found by the removal of orphan files.
    """
    first, rest = _first(batches)
    if first is None:
        return None
    failpoints.reach("files.before")
    path = f"{location.rstrip('/')}/data/{tier}/{uuid.uuid4()}.parquet"
    parts: list[pq.FileMetaData] = []
    output = io.new_output(path)
    with output.create(overwrite=True) as sink:  # its name is new: nothing is looked for
        options: dict[str, Any] = {
            "compression": "zstd",
            "compression_level": 1,
            "use_dictionary": _few_valued(first),
            "store_schema": False,
            "metadata_collector": parts,
        }
        with pq.ParquetWriter(sink, arrow_schema(schema), **options) as writer:
            writer.write_table(first, row_group_size=ROW_GROUP_ROWS)
            for table in rest:
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        size = sink.tell()
    failpoints.reach("files.written")
    return _written(path, tier, size, parts[0], schema)


def _first(batches: pa.Table | Iterable[pa.RecordBatch]) -> tuple[pa.Table | None, Iterable[pa.Table]]:
    """The first rows as a table (they decide about dictionaries), and the others in row groups' sizes."""
    if isinstance(batches, pa.Table):
        return (batches, ()) if batches.num_rows else (None, ())
    tables = _grouped(batches)
    return next(tables, None), tables


def _grouped(batches: Iterable[pa.RecordBatch]) -> Any:
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if batch.num_rows:
            pending.append(batch)
            rows += batch.num_rows
        if rows >= ROW_GROUP_ROWS:
            yield pa.Table.from_batches(pending)
            pending, rows = [], 0
    if pending:
        yield pa.Table.from_batches(pending)


def _few_valued(table: pa.Table) -> list[str]:
    """The flat columns with few distinct values: only there does a dictionary pay for the time it takes."""
    sample = table.slice(0, _SAMPLE_ROWS)
    bound = max(16, sample.num_rows // 32)  # with more, looking values up costs what encoding fewer bytes saves
    return [
        name
        for name, column in zip(sample.column_names, sample.columns, strict=True)
        if not pa.types.is_nested(column.type) and pc.count_distinct(column).as_py() <= bound
    ]


def _written(path: str, tier: str, size: int, metadata: pq.FileMetaData, schema: Schema) -> WrittenFile:
    statistics = data_file_statistics_from_parquet_metadata(
        metadata, compute_statistics_plan(schema, _FULL_BOUNDS), parquet_path_to_id_mapping(schema)
    )
    data_file = statistics.to_serialized_dict()
    return WrittenFile(
        path=path,
        tier=tier,
        rows=metadata.num_rows,
        size=size,
        column_sizes=data_file["column_sizes"],
        value_counts=data_file["value_counts"],
        null_value_counts=data_file["null_value_counts"],
        lower_bounds=data_file["lower_bounds"],
        upper_bounds=data_file["upper_bounds"],
        split_offsets=_offsets(data_file["split_offsets"]),
    )


def _offsets(offsets: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(offsets or ())
