"""The files that a fold writes: a query's rows, cut into files of the target size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import pyarrow as pa
from pyiceberg.table import Table

from glue_streaming import data_files
from glue_streaming.data_files import WrittenFile

_COMPRESSION = 4
"""Arrow's bytes to Parquet's, roughly: it only decides where a file ends."""


def write(table: Table, tier: str, batches: Iterable[pa.RecordBatch], target_file_bytes: int) -> list[WrittenFile]:
    """Writes the rows in their order; no file where there are none."""
    schema = data_files.arrow_schema(table.schema())
    conformed = (
        part
        for batch in batches
        for part in pa.Table.from_batches([batch]).select(schema.names).cast(schema).to_batches()
    )
    written = (
        data_files.write(part, schema=table.schema(), location=table.location(), tier=tier, io=table.io)
        for part in _parts(conformed, target_file_bytes * _COMPRESSION)
    )
    return [file for file in written if file is not None]


def _parts(batches: Iterator[pa.RecordBatch], limit_bytes: int) -> Iterator[Iterable[pa.RecordBatch]]:
    """The batches in runs of about the limit; each run is to be used up before the next one."""
    for first in batches:
        yield _run(first, batches, limit_bytes)


def _run(first: pa.RecordBatch, batches: Iterator[pa.RecordBatch], limit_bytes: int) -> Iterator[pa.RecordBatch]:
    size = 0
    for batch in chain([first], batches):
        yield batch
        size += batch.nbytes
        if size >= limit_bytes:
            return
