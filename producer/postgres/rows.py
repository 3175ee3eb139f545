"""Rows of one relation as Avro datums: the scalar encoder."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from producer.postgres import avro
from producer.postgres.binary import Reading
from producer.postgres.catalog import Catalog
from producer.postgres.messages import UNCHANGED, Binary, Relation, Row, Value
from producer.postgres.shaping import LEFT_OUT
from producer.postgres.source import PostgresSource
from producer.postgres.types import Ask, Encoder, Mapped, Unheld, mapped
from schemas.change_record import OPS, Column, TableSchema, lake_column_names

_OP: Final = {op: avro.long(OPS.index(op)) for op in OPS}
_SHOWN: Final = 200
_NOTHING_ODD: Final = avro.NULL * 3  # no _unchanged, no _old_key, no _raw


class Unencodable(Exception):
    """A row that has no datum; the message is the reason that its reject block carries."""


class Encoded(NamedTuple):
    """A row's columns, encoded, before its metadata."""

    columns: list[bytes]
    unchanged: tuple[str, ...]
    raw: dict[str, str]


class Stamp(NamedTuple):
    """The metadata that the changes of one transaction share, encoded once."""

    era_lsn: bytes
    committed_at: bytes

    @classmethod
    def of(cls, era: int, lsn: int, committed_at: int) -> Stamp:
        return cls(avro.long(era) + avro.long(lsn), avro.long(committed_at))


@dataclass(frozen=True)
class RowEncoder:
    """Encodes the rows that one Relation message describes.

    mapped, columns: an entry for each column of the relation; the lake's column is None for one that is left out.
    hides: values of the source must not leave the site, so no raw row may.
    """

    schema: TableSchema
    relation: Relation
    mapped: tuple[Mapped, ...]
    key: tuple[int, ...]
    columns: tuple[Column | None, ...]
    hides: bool = False

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The columns that cannot be had from a stream in binary form, as the source calls them."""
        pairs = zip(self.relation.columns, self.mapped, strict=True)
        return tuple(column.name for column, mapping in pairs if mapping.reading is Reading.NEVER)

    def asking(self, ask_of: Callable[[int], Ask]) -> RowEncoder:
        """With the source to be asked for values whose binary form only it knows. ask_of: by a type's oid."""
        pairs = zip(self.relation.columns, self.mapped, strict=True)
        mapped = [
            mapping.asking(ask_of(column.type_oid)) if mapping.reading is Reading.ASKED else mapping
            for column, mapping in pairs
        ]
        return replace(self, mapped=tuple(mapped))

    def encode(self, row: Row) -> Encoded:
        """Raises Unencodable when the row cannot be written, with column and value named."""
        if len(row) != len(self.mapped):
            raise Unencodable(f"{len(row)} values for {len(self.mapped)} columns")
        if UNCHANGED in row:
            return self._encode_odd(row)
        try:
            columns = [
                mapping.null if value is None else _encoder(mapping, value)(value)  # type: ignore[arg-type]
                for value, mapping in zip(row, self.mapped, strict=True)
            ]
        except (Unheld, ValueError, struct.error):
            return self._encode_odd(row)
        return Encoded(columns, (), {})

    def key_of(self, columns: Sequence[bytes]) -> bytes:
        """The key's canonical bytes: its encoded columns, in the key's order."""
        return b"".join([columns[place] for place in self.key])

    def key_text(self, row: Row) -> str | None:
        """The key for people: `id=7`, or None for a table without one."""
        if not self.key:
            return None
        return ", ".join(f"{self._name(place)}={self._shown(place, row[place])}" for place in self.key)

    def datum(self, op: str, stamp: Stamp, idx: int, encoded: Encoded, old_key: str | None = None) -> bytes:
        """The whole datum: metadata, then the columns."""
        columns, unchanged, raw = encoded
        odd = _NOTHING_ODD
        if unchanged or raw or old_key is not None:
            odd = avro.optional_strings(unchanged) + avro.optional_string(old_key) + avro.optional_map(raw)
        return b"".join((_OP[op], stamp.era_lsn, avro.long(idx), stamp.committed_at, odd, *columns))

    def empty(self) -> Encoded:
        """All columns null: what a truncate carries."""
        return Encoded([mapping.null for mapping in self.mapped], (), {})

    def _encode_odd(self, row: Row) -> Encoded:
        columns, unchanged, raw = [], [], {}
        for place, (value, mapping, column) in enumerate(zip(row, self.mapped, self.columns, strict=True)):
            encoded = mapping.null
            if column is None:
                columns.append(encoded)
                continue
            if value is UNCHANGED:
                unchanged.append(column.name)
            elif isinstance(value, bytes):
                try:
                    encoded = _encoder(mapping, value)(value)
                except Unheld:
                    raw[column.name] = _text(mapping, value).decode()
                except (ValueError, struct.error) as error:
                    raise Unencodable(f"column {column.name} ({column.source_type}): {error}") from error
            if place in self.key and encoded == avro.NULL and value is not None:
                raise Unencodable(f"key column {column.name} cannot hold {self._shown(place, value)}")
            columns.append(encoded)
        return Encoded(columns, tuple(unchanged), raw)

    def _name(self, place: int) -> str:
        column = self.columns[place]
        return self.relation.columns[place].name if column is None else column.name

    def _shown(self, place: int, value: Value) -> str:
        if not isinstance(value, bytes):
            return str(value)
        try:
            return _text(self.mapped[place], value).decode(errors="replace")[:_SHOWN]
        except (ValueError, struct.error):
            return value.hex()[:_SHOWN]


def _encoder(mapping: Mapped, value: Value) -> Encoder:
    if type(value) is not Binary:
        return mapping.encode
    if mapping.encode_binary is None:
        raise ValueError("came in binary form, which cannot be read")
    return mapping.encode_binary


def _text(mapping: Mapped, value: bytes) -> bytes:
    printed = mapping.printed if type(value) is Binary else mapping.reprinted
    return value if printed is None else printed(value)


def row_encoder(
    source: PostgresSource, lake_table: str, relation: Relation, catalog: Catalog, *, append_only: bool
) -> RowEncoder:
    """The encoder for a relation, its schema derived from the message, from the catalog and from the configuration."""
    shaping = source.shaping(relation.oid, relation.namespace, relation.name)
    types = catalog.types(column.type_oid for column in relation.columns)
    type_names = catalog.type_names(relation.columns)
    facts = catalog.table(relation.oid)
    mappings = [
        shaping.applied(column.name, mapped(column.type_oid, column.typmod, types), source.hash_key)
        for column in relation.columns
    ]
    kept = [place for place, mapping in enumerate(mappings) if mapping is not LEFT_OUT]
    names = lake_column_names([relation.columns[place].name for place in kept])
    columns: list[Column | None] = [None] * len(mappings)
    for name, place in zip(names, kept, strict=True):
        own = relation.columns[place].name
        columns[place] = Column(name, mappings[place].avro, own, type_names[place], (facts.comments or {}).get(own))
    key = () if append_only else _key(relation, facts.primary_key, source.names.whole_rows(relation.oid))
    lake_key = tuple(column.name for place in key if (column := columns[place]) is not None)
    written = tuple(column for column in columns if column is not None)
    whole_rows = not append_only and not key
    if not append_only:
        source.names.note_identity(relation.oid, whole_rows)
    schema = TableSchema(source.name, lake_table, written, lake_key, facts.comment, whole_rows)
    return RowEncoder(schema, relation, tuple(mappings), key, tuple(columns), shaping.hides)


def _key(relation: Relation, primary_key: Sequence[str], whole_rows: bool) -> tuple[int, ...]:
    """Places of the key's columns, in column order. The message knows the identity that its changes were written
    under; only REPLICA IDENTITY FULL has to ask for the primary key. whole_rows: the table had no key when it was
    first captured; a primary key that comes later changes nothing as long as whole rows come."""
    if relation.identity == "f":
        primary_key = () if whole_rows else primary_key
        return tuple(place for place, column in enumerate(relation.columns) if column.name in primary_key)
    return tuple(place for place, column in enumerate(relation.columns) if column.in_key)
