"""The rows of a lake table's file, in the table's present columns and types."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.table import Table

from glue_streaming import data_files
from glue_streaming.fold.lake_files import LakeFile

_BATCH_ROWS = 65_536


def rows(table: Table, file: LakeFile, columns: Collection[str] | None = None) -> Iterator[pa.Table]:
    """All columns or those named, a few row groups at a time; what the file lacks is null."""
    schema = data_files.arrow_schema(table.schema())
    fields = [each for each in schema if columns is None or each.name in columns]
    with table.io.new_input(file.data_file.file_path).open() as source:
        parquet = pq.ParquetFile(source)
        there = [each.name for each in fields if each.name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=there):
            arrays = [
                batch.column(each.name).cast(each.type) if each.name in there else pa.nulls(len(batch), each.type)
                for each in fields
            ]
            yield pa.Table.from_arrays(arrays, schema=pa.schema(fields))
