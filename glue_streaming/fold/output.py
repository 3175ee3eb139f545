"""The files that a fold writes: rows in their order, cut into files of about equal size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.schema import Schema

from glue_streaming import data_files
from glue_streaming.data_files import WrittenFile


def write(
    batches: Iterable[pa.RecordBatch],
    *,
    schema: Schema,
    location: str,
    tier: str,
    io: FileIO,
    rows_per_file: int,
    bloom: Sequence[str] = (),
) -> list[WrittenFile]:
    """Writes the rows in their order; no file where there are none. bloom: as in `data_files.write`."""
    conformed = data_files.conformed(batches, data_files.arrow_schema(schema))
    rows = (batch for batch in conformed if batch.num_rows)
    written = (
        data_files.write(part, schema=schema, location=location, tier=tier, io=io, bloom=bloom)
        for part in _parts(rows, rows_per_file)
    )
    return [file for file in written if file is not None]


def _parts(batches: Iterator[pa.RecordBatch], limit: int) -> Iterator[Iterator[pa.RecordBatch]]:
    """The batches in runs of `limit` rows; each run is to be used up before the next one."""
    rest: list[pa.RecordBatch] = []

    def run() -> Iterator[pa.RecordBatch]:
        rows = 0
        while rows < limit and (batch := rest.pop() if rest else next(batches, None)) is not None:
            if rows + batch.num_rows > limit:
                rest.append(batch.slice(limit - rows))
                batch = batch.slice(0, limit - rows)
            rows += batch.num_rows
            yield batch

    while rest or (first := next(batches, None)) is not None:
        if not rest:
            rest.append(first)
        yield run()
