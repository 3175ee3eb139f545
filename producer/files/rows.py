"""Rows of files as changes: the table's structure as far as it is known, and the Avro of each row."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import fastavro

from producer.change import Change, Rejected
from producer.files.columns import FILE_NAME, LINE_NUMBER, Converter, FileColumn, converter, lake_columns, text_of
from producer.files.ledger import Ledger
from producer.files.readers import BadLine, Line
from producer.settings import FileTable
from schemas.change_record import TableSchema
from schemas.position import Position

_OWN: Final = 2
"""The columns in front of a file's own: its name and the line."""


@dataclass(frozen=True)
class Shape:
    """A table's structure at one moment, and what writes it."""

    schema: TableSchema
    parsed: Any
    columns: Mapping[str, FileColumn]
    lake_names: Mapping[str, str]
    converters: Mapping[str, Converter]


@dataclass(frozen=True)
class Place:
    """Where rows stand: which file, and the position of its first row."""

    file: str
    op: str
    era: int
    lsn: int
    committed_at: int  # microseconds since 1970


class Rows:
    """One table's rows. Columns that nobody declared join the table when a file first has them."""

    def __init__(self, source: str, table: FileTable, ledger: Ledger) -> None:
        self._source = source
        self._table = table
        self._ledger = ledger
        self.shape = self._shaped()

    def change(self, line: Line | BadLine, place: Place, idx: int) -> Change | Rejected:
        """A line as a change, or as its rejection with file, line and reason."""
        position = Position(place.era, place.lsn, idx)
        if isinstance(line, BadLine):
            return self._rejected(line, place, position)
        if not line.values.keys() <= self.shape.columns.keys():
            new = {name: line.types.get(name, "string") for name in line.values if name not in self.shape.columns}
            self._ledger.add_columns(self._table.name, new)
            self.shape = self._shaped()
        converted = self._converted(line)
        if isinstance(converted, BadLine):
            return self._rejected(converted, place, position)
        return Change(
            self._table.name,
            self.shape.schema,
            place.op,
            b"",
            position,
            place.committed_at,
            self._datum(line.number, converted, place, idx),
        )

    def _converted(self, line: Line) -> dict[str, Any] | BadLine:
        """The values by lake name, `_raw` for those that an undeclared type cannot hold."""
        values: dict[str, Any] = {}
        raw: dict[str, str] = {}
        for name, value in line.values.items():
            if value is None:
                continue
            lake_name = self.shape.lake_names[name]
            try:
                values[lake_name] = self.shape.converters[name](value)
            except (ValueError, OverflowError):
                column = self.shape.columns[name]
                if column.declared:
                    reason = f"column {name} is {column.type}, which cannot be {text_of(value)[:200]!r}"
                    return BadLine(line.number, reason, text_of(dict(line.values)).encode())
                raw[lake_name] = text_of(value)
        return values | {"_raw": raw or None}

    def _datum(self, number: int, values: Mapping[str, Any], place: Place, idx: int) -> bytes:
        own = self.shape.schema.columns[:_OWN]
        record = {
            "_op": place.op,
            "_era": place.era,
            "_lsn": place.lsn,
            "_idx": idx,
            "_committed_at": place.committed_at,
            own[0].name: place.file,
            own[1].name: number,
            **values,
        }
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self.shape.parsed, record)
        return out.getvalue()

    def _rejected(self, line: BadLine, place: Place, position: Position) -> Rejected:
        where = place.file if line.number == 0 else f"{place.file} line {line.number}"
        return Rejected(
            self._table.name,
            self.shape.schema,
            place.op,
            b"",
            f"{FILE_NAME}={place.file}, {LINE_NUMBER}={line.number}",
            position,
            place.committed_at,
            f"{where}: {line.reason}",
            line.raw,
        )

    def _shaped(self) -> Shape:
        declared = {name: FileColumn(name, kind, declared=True) for name, kind in self._table.columns.items()}
        seen = self._ledger.columns(self._table.name)
        columns = declared | {name: FileColumn(name, kind) for name, kind in seen.items() if name not in declared}
        every = lake_columns(tuple(columns.values()))
        schema = TableSchema(self._source, self._table.name, every, ())
        return Shape(
            schema=schema,
            parsed=fastavro.parse_schema(schema.to_avro()),
            columns=columns,
            lake_names={column.source_name: column.name for column in every[_OWN:]},
            converters={name: converter(column.type) for name, column in columns.items()},
        )


def micros_now() -> int:
    return int(datetime.now(UTC).timestamp() * 1_000_000)
