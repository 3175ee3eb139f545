"""Data files of a lake table: Parquet with field ids and tight bounds, written once, then only read."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
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

from glue_streaming import failpoints, parquet_concat

ROW_GROUP_ROWS: Final = 122_880
ROW_GROUP_BYTES: Final = 64 << 20
"""Of Arrow's; rows with large values make smaller groups, since a writer holds a group at a time."""
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


def with_dictionaries(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """The schema, with the text of these columns in dictionaries."""
    kind = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([field.with_type(kind) if field.name in names else field for field in schema])


def in_dictionaries(schema: pa.Schema) -> list[str]:
    """The columns whose text is in dictionaries."""
    return [field.name for field in schema if pa.types.is_dictionary(field.type)]


def conformed(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows in the columns and types of an Arrow schema; text that is in dictionaries stays there."""
    for batch in batches:
        kept = with_dictionaries(schema, in_dictionaries(batch.schema))
        if batch.schema.equals(kept):
            yield batch
        else:
            yield from pa.Table.from_batches([batch]).select(kept.names).cast(kept).to_batches()


def write(
    batches: pa.Table | Iterable[pa.RecordBatch],
    *,
    schema: Schema,
    location: str,
    tier: str,
    io: FileIO,
    bloom: Sequence[str] = (),
) -> WrittenFile | None:
    """One file with all the rows, under `location`/data/`tier`/; None, and no file, where there are no rows.

    bloom: columns with a bloom filter in every row group. It pays where rows are looked for by a column that they are
    not sorted by; where they are, the bounds leave one row group anyway.

    A table, which is in memory anyhow, is one row group; batches are written in groups of ROW_GROUP_ROWS or a few more.
    The rows' columns are those of the schema, in its order and of its Arrow types, or `conformed` to them. The file
    belongs to no table until a commit adds it; one that is never added is found by the removal of orphan files.
    """
    first, rest = _first(batches)
    if first is None:
        return None
    failpoints.reach("files.before")
    path = _new_path(location, tier)
    parts: list[pq.FileMetaData] = []
    output = io.new_output(path)
    with output.create(overwrite=True) as sink:  # its name is new: nothing is looked for
        options: dict[str, Any] = {
            "compression": "zstd",
            "compression_level": 1,
            "use_dictionary": _few_valued(first),
            "store_schema": False,  # as in `concatenate`
            "metadata_collector": parts,
            "bloom_filter_options": {name: {"ndv": ROW_GROUP_ROWS, "fpp": 0.01} for name in bloom} or None,
        }
        arrow = with_dictionaries(arrow_schema(schema), in_dictionaries(first.schema))
        with pq.ParquetWriter(sink, arrow, **options) as writer:
            for table in itertools.chain([first], rest):
                writer.write_table(table, row_group_size=table.num_rows)
        size = sink.tell()
    failpoints.reach("files.written")
    return _written(path, tier, size, parts[0], schema)


def concatenate(files: Sequence[Path], *, schema: Schema, location: str, tier: str, io: FileIO) -> WrittenFile | None:
    """One file with the row groups of local files as they are.

    None, and no file, where not all have the columns and types that `write` gives a file of the schema now.
    """
    empty = BytesIO()
    pq.ParquetWriter(empty, arrow_schema(schema), store_schema=False).close()
    wanted = parquet_concat.footer_of(empty).schema
    footers = [parquet_concat.footer_of(file) for file in files]
    if any(footer.schema != wanted for footer in footers):
        return None
    path = _new_path(location, tier)
    with io.new_output(path).create(overwrite=True) as sink:
        metadata = parquet_concat.concatenate(list(zip(files, footers, strict=True)), sink)
        size = sink.tell()
    return _written(path, tier, size, metadata, schema)


def _new_path(location: str, tier: str) -> str:
    return f"{location.rstrip('/')}/data/{tier}/{uuid.uuid4()}.parquet"


def _first(batches: pa.Table | Iterable[pa.RecordBatch]) -> tuple[pa.Table | None, Iterable[pa.Table]]:
    """The first rows as a table (they decide about dictionaries), and the others in row groups' sizes."""
    if isinstance(batches, pa.Table):
        return (batches, ()) if batches.num_rows else (None, ())
    tables = _grouped(batches)
    return next(tables, None), tables


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """In one dictionary a column and group: the writer gives up what it finds two of."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if batch.num_rows:
            pending.append(batch)
            rows += batch.num_rows
            size += batch.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(pending).unify_dictionaries()
            pending, rows, size = [], 0, 0
    if pending:
        yield pa.Table.from_batches(pending).unify_dictionaries()


def _few_valued(table: pa.Table) -> list[str]:
    """The flat columns with few distinct values: only there does a dictionary pay for the time it takes."""
    sample = table.slice(0, _SAMPLE_ROWS)
    bound = max(16, sample.num_rows // 32)  # with more, looking values up costs what encoding fewer bytes saves
    return [
        name
        for name, column in zip(sample.column_names, sample.columns, strict=True)
        if not pa.types.is_nested(column.type) and pc.count_distinct(_indices(column)).as_py() <= bound
    ]


def _indices(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Of a column in one dictionary its places there, which are as many as its values; any other column as it is."""
    if not pa.types.is_dictionary(column.type):
        return column
    return pa.chunked_array([chunk.indices for chunk in column.chunks], column.type.index_type)


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
