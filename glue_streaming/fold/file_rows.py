"""The rows of Parquet files as they lie there, a few at a time, in a table's present columns and types.

For what needs no query. Text of few values stays the dictionary that the files have: it is then neither copied nor
looked up value by value, which are a fifth of a fold's seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from glue_streaming import data_files

_SMALL_BYTES: Final = 4_096
"""Of a dictionary as it is stored. Rows and changes are brought to one; for a large one that would not pay."""


def schema_of(schema: pa.Schema, files: Iterable[Any], plain: Collection[str] = ()) -> pa.Schema:
    """The schema, with dictionaries for text that has small ones in all of the files. plain: columns that stay text."""
    texts = {field.name for field in schema if _is_text(field.type) and field.name not in plain}
    for file in files:
        texts &= _small(pq.read_metadata(file))
    return data_files.with_dictionaries(schema, texts)


def rows(
    source: Any, schema: pa.Schema, batch_rows: int, first: int = 0, end: int | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows from `first` up to `end` (the last one) of a file, by path or open, in their order.

    A column that the file lacks is null; the lake's names are never used twice for different columns.
    """
    file = pq.ParquetFile(source, read_dictionary=data_files.in_dictionaries(schema), pre_buffer=False)
    present = set(file.schema_arrow.names)
    there = [name for name in schema.names if name in present]
    start, end = 0, file.metadata.num_rows if end is None else end
    for group in range(file.num_row_groups):
        at, start = start, start + file.metadata.row_group(group).num_rows
        if start <= first or at >= end:
            continue
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=there, use_threads=False):
            low, high = max(first - at, 0), min(end - at, batch.num_rows)
            at += batch.num_rows
            if low < high:
                yield _conformed(batch.slice(low, high - low), schema)


def _conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    there = batch.schema.names
    arrays = [
        batch.column(field.name).cast(field.type) if field.name in there else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _small(file: pq.FileMetaData) -> set[str]:
    """The columns that have a small dictionary in every row group."""
    groups = [file.row_group(group) for group in range(file.num_row_groups)]
    columns = [[group.column(index) for group in groups] for index in range(file.num_columns)]
    return {chunks[0].path_in_schema for chunks in columns if chunks and all(_is_small(chunk) for chunk in chunks)}


def _is_small(chunk: pq.ColumnChunkMetaData) -> bool:
    return bool(chunk.has_dictionary_page and chunk.data_page_offset - chunk.dictionary_page_offset <= _SMALL_BYTES)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
