"""Parquet files behind each other in one file, without a look at their rows.

Row groups are copied as they are, pages, dictionaries and bloom filters; only the footer is made anew: the row groups
of all files, with their offsets moved by where their file came to lie (field numbers as in Apache Parquet's
parquet.thrift).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import pyarrow.parquet as pq

from glue_streaming import thrift_compact
from glue_streaming.thrift_compact import I64, LIST, STRUCT, Struct

_MAGIC: Final = b"PAR1"
_STEP_BYTES: Final = 1 << 20
_SCHEMA, _ROWS, _GROUPS = 2, 3, 4
_COLUMNS, _GROUP_PLACE, _ORDINAL = 1, 5, 7
_CHUNK_PLACES, _CHUNK = (2, 4, 6), 3
_PAGE_PLACES: Final = (9, 10, 11, 14)
"""Of a chunk's metadata: where its data, index and dictionary pages begin, and its bloom filter."""


@dataclass(frozen=True)
class Footer:
    """What a file says of itself, and how many bytes lie between its beginning and this."""

    fields: Struct
    body: int

    @property
    def schema(self) -> Any:
        """Has to be equal in files that are concatenated."""
        return self.fields[_SCHEMA]


def footer_of(source: Path | IO[bytes]) -> Footer:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _footer(file)
    return _footer(source)


def _footer(file: IO[bytes]) -> Footer:
    end = file.seek(-len(_MAGIC) - 4, io.SEEK_END)
    size = int.from_bytes(file.read(4), "little")
    file.seek(end - size)
    return Footer(thrift_compact.read(file.read(size)), end - size - len(_MAGIC))


def concatenate(files: Sequence[tuple[Path, Footer]], sink: Any) -> pq.FileMetaData:
    """Writes one file with the row groups of all, in their order. There is one at least."""
    groups: list[Struct] = []
    at = len(_MAGIC)
    sink.write(_MAGIC)
    for path, footer in files:
        with path.open("rb") as file:
            file.seek(len(_MAGIC))
            _copy(file, sink, footer.body)
        groups += [_moved(group, at - len(_MAGIC)) for group in footer.fields[_GROUPS][1][1]]
        at += footer.body
    rows = sum(footer.fields[_ROWS][1] for _, footer in files)
    fields = files[0][1].fields | {_ROWS: (I64, rows), _GROUPS: (LIST, (STRUCT, groups))}
    written = thrift_compact.write(fields)
    tail = written + len(written).to_bytes(4, "little") + _MAGIC
    sink.write(tail)
    return pq.read_metadata(io.BytesIO(_MAGIC + tail))


def _copy(file: IO[bytes], sink: Any, size: int) -> None:
    for at in range(0, size, _STEP_BYTES):
        sink.write(file.read(min(_STEP_BYTES, size - at)))


def _moved(group: Struct, by: int) -> Struct:
    of, chunks = group[_COLUMNS][1]
    moved = _shifted(group, (_GROUP_PLACE,), by) | {_COLUMNS: (LIST, (of, [_moved_chunk(one, by) for one in chunks]))}
    moved.pop(_ORDINAL, None)  # it may be left out, and would be wrong
    return moved


def _moved_chunk(chunk: Struct, by: int) -> Struct:
    return _shifted(chunk, _CHUNK_PLACES, by) | {_CHUNK: (STRUCT, _shifted(chunk[_CHUNK][1], _PAGE_PLACES, by))}


def _shifted(fields: Struct, places: Sequence[int], by: int) -> Struct:
    """A place of 0 stands for none."""
    return {n: (kind, value + by if n in places and value else value) for n, (kind, value) in fields.items()}
