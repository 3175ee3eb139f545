"""Readers of files: their lines in order, good or bad, whatever the format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from producer.files.columns import inferred
from producer.files.foreign_types import of_arrow, of_avro
from producer.settings import FileTable

_ROWS_A_BATCH: Final = 2_000
_MAX_FIELD_BYTES: Final = 2**27
_PARQUET: Final = b"PAR1"

csv.field_size_limit(_MAX_FIELD_BYTES)


@dataclass(frozen=True)
class Line:
    """A row. number: its line in a text file, from 1, its ordinal in other files; values by the file's column names.

    types: what the file itself says of columns, or what the values suggest.
    """

    number: int
    values: Mapping[str, Any]
    types: Mapping[str, str]


@dataclass(frozen=True)
class BadLine:
    """What is no row, and why. number 0 stands for the whole file."""

    number: int
    reason: str
    raw: bytes | None = None


Reader: TypeAlias = Callable[[Path, FileTable], Iterator[Line | BadLine]]


def read(path: Path, table: FileTable) -> Iterator[Line | BadLine]:
    """Every line of a file, once. A file that is damaged in the middle ends with a BadLine that says where."""
    yield from _READERS[table.format](path, table)


def whole(path: Path, table: FileTable) -> bool:
    """Whether the file has its end: formats with a footer or with sync markers tell; text does not."""
    try:
        return table.format not in _WHOLE or _WHOLE[table.format](path)
    except (pa.ArrowException, OSError, ValueError, EOFError, IndexError):
        return False


def _csv(path: Path, table: FileTable) -> Iterator[Line | BadLine]:
    with path.open(encoding=table.encoding, errors="surrogateescape", newline="") as file:
        lines = _Kept(file)
        rows = csv.reader(lines, delimiter=table.delimiter, strict=True)
        names = list(table.columns)
        if table.header:
            try:
                names = next(rows, [])
            except csv.Error as error:
                yield BadLine(0, f"the header is no CSV: {error}", lines.take(table.encoding))
                return
            problem = _header_problem(names, list(table.columns))
            if problem is not None:
                yield BadLine(0, problem, lines.take(table.encoding))
                return
        types = dict.fromkeys(names, "string")
        lines.take(table.encoding)
        while True:
            start = rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield BadLine(start, str(error), lines.take(table.encoding))
                continue
            if row is None:
                return
            raw = lines.take(table.encoding)
            if not row:
                continue  # an empty line
            if len(row) != len(names):
                yield BadLine(start, f"{len(row)} values for {len(names)} columns", raw)
            elif not _clean(row):
                yield BadLine(start, f"not {table.encoding}", raw)
            else:
                values = (None if value == table.null else value for value in row)
                yield Line(start, dict(zip(names, values, strict=True)), types)


def _header_problem(names: Sequence[str], declared: Sequence[str]) -> str | None:
    if not names:
        return "there is no header"
    if not _clean(names):
        return "the header is not in the configured encoding"
    if len(set(names)) < len(names):
        return f"the header names a column twice: {', '.join(names)}"
    missing = [name for name in declared if name not in names]
    return f"the header lacks {', '.join(missing)}" if missing else None


def _clean(values: Sequence[str]) -> bool:
    """Whether all bytes were of the encoding: others came in as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for value in values for character in value)


class _Kept:
    """The lines that a reader has taken since the last look, as bytes."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._taken: list[str] = []

    def __iter__(self) -> _Kept:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self._taken.append(line)
        return line

    def take(self, encoding: str) -> bytes:
        raw = "".join(self._taken).encode(encoding, errors="surrogateescape")
        self._taken.clear()
        return raw


def _json_lines(path: Path, table: FileTable) -> Iterator[Line | BadLine]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                values = json.loads(raw.decode(table.encoding))
            except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
                yield BadLine(number, f"no JSON: {error}", raw)
                continue
            if isinstance(values, dict):
                yield Line(number, values, {name: inferred(v) for name, v in values.items() if v is not None})
            else:
                yield BadLine(number, "a JSON object is expected", raw)


def _parquet(path: Path, table: FileTable) -> Iterator[Line | BadLine]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            types = {field.name: of_arrow(field.type) for field in schema}
            for batch in file.iter_batches(batch_size=_ROWS_A_BATCH):
                for values in _plain(batch).to_pylist():
                    number += 1
                    yield Line(number, values, types)
    except (pa.ArrowException, OSError) as error:
        yield BadLine(number + 1, f"cannot be read from here on: {error}")


def _plain(batch: pa.RecordBatch) -> pa.Table:
    """Times that Python has no type for, as text."""
    fields = [
        pa.field(field.name, pa.string())
        if of_arrow(field.type) == "string" and pa.types.is_temporal(field.type)
        else field
        for field in batch.schema
    ]
    return pa.Table.from_batches([batch]).cast(pa.schema(fields))


def _avro(path: Path, table: FileTable) -> Iterator[Line | BadLine]:
    number = 0
    try:
        with path.open("rb") as file:
            reader = fastavro.reader(file)
            schema: Any = reader.writer_schema
            if not isinstance(schema, dict) or schema.get("type") != "record":
                yield BadLine(0, "an Avro record is expected")
                return
            types = {field["name"]: of_avro(field["type"]) for field in schema["fields"]}
            values: Any
            for values in reader:
                number += 1
                yield Line(number, values, types)
    except (ValueError, EOFError, OSError, IndexError, KeyError, TypeError) as error:
        yield BadLine(number + 1, f"cannot be read from here on: {error!r}")


def _whole_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(4) != _PARQUET or file.seek(-4, 2) < 8 or file.read(4) != _PARQUET:
            return False
    pq.read_metadata(path)
    return True


def _whole_avro(path: Path) -> bool:
    """All blocks are there, each with its sync marker; nothing is decoded."""
    with path.open("rb") as file:
        for _ in fastavro.block_reader(file):
            pass
    return True


_WHOLE: Final[Mapping[str, Callable[[Path], bool]]] = {"parquet": _whole_parquet, "avro": _whole_avro}
_READERS: Final[Mapping[str, Reader]] = {"csv": _csv, "jsonl": _json_lines, "parquet": _parquet, "avro": _avro}
