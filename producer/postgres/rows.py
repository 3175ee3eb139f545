"""Rows of one relation as Avro datums: the scalar encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from producer.postgres import avro
from producer.postgres.catalog import Catalog
from producer.postgres.messages import UNCHANGED, Relation, Row, Value
from producer.postgres.types import Encoder, Unheld, mapped
from schemas.change_record import OPS, Column, TableSchema, lake_column_names, lake_table_name

_OP: Final = {op: avro.long(OPS.index(op)) for op in OPS}
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
    """Encodes the rows that one Relation message describes."""

    schema: TableSchema
    relation: Relation
    encoders: tuple[Encoder, ...]
    key: tuple[int, ...]

    def encode(self, row: Row) -> Encoded:
        """Raises Unencodable when the row cannot be written, with column and value named."""
        if len(row) != len(self.encoders):
            raise Unencodable(f"{len(row)} values for {len(self.encoders)} columns")
        if UNCHANGED in row:
            return self._encode_odd(row)
        try:
            columns = [
                avro.NULL if value is None else encode(value)  # type: ignore[arg-type]
                for value, encode in zip(row, self.encoders, strict=True)
            ]
        except (Unheld, ValueError):
            return self._encode_odd(row)
        return Encoded(columns, (), {})

    def key_of(self, columns: Sequence[bytes]) -> bytes:
        """The key's canonical bytes: its encoded columns, in the key's order."""
        return b"".join([columns[place] for place in self.key])

    def key_text(self, row: Row) -> str | None:
        """The key for people: `id=7`, or None for a table without one."""
        if not self.key:
            return None
        return ", ".join(f"{self.schema.columns[place].name}={_shown(row[place])}" for place in self.key)

    def datum(self, op: str, stamp: Stamp, idx: int, encoded: Encoded, old_key: str | None = None) -> bytes:
        """The whole datum: metadata, then the columns."""
        columns, unchanged, raw = encoded
        odd = _NOTHING_ODD
        if unchanged or raw or old_key is not None:
            odd = avro.optional_strings(unchanged) + avro.optional_string(old_key) + avro.optional_map(raw)
        return b"".join((_OP[op], stamp.era_lsn, avro.long(idx), stamp.committed_at, odd, *columns))

    def empty(self) -> Encoded:
        """All columns null: what a truncate carries."""
        return Encoded([avro.NULL] * len(self.encoders), (), {})

    def _encode_odd(self, row: Row) -> Encoded:
        columns, unchanged, raw = [], [], {}
        for place, (value, encode, column) in enumerate(zip(row, self.encoders, self.schema.columns, strict=True)):
            encoded = avro.NULL
            if value is UNCHANGED:
                unchanged.append(column.name)
            elif isinstance(value, bytes):
                try:
                    encoded = encode(value)
                except Unheld:
                    raw[column.name] = value.decode()
                except ValueError as error:
                    raise Unencodable(f"column {column.name} ({column.source_type}): {error}") from error
            if place in self.key and encoded == avro.NULL and value is not None:
                raise Unencodable(f"key column {column.name} cannot hold {_shown(value)}")
            columns.append(encoded)
        return Encoded(columns, tuple(unchanged), raw)


def row_encoder(source: str, relation: Relation, catalog: Catalog, *, append_only: bool) -> RowEncoder:
    """The encoder for a relation, its schema derived from the message and from the catalog."""
    types = catalog.types(column.type_oid for column in relation.columns)
    type_names = catalog.type_names(relation.columns)
    facts = catalog.table(relation.oid)
    names = lake_column_names([column.name for column in relation.columns])
    mappings = [mapped(column.type_oid, column.typmod, types) for column in relation.columns]
    columns = tuple(
        Column(name, mapping.avro, column.name, type_name, (facts.comments or {}).get(column.name))
        for name, mapping, column, type_name in zip(names, mappings, relation.columns, type_names, strict=True)
    )
    key = () if append_only else _key(relation, facts.primary_key)
    schema = TableSchema(
        source, lake_table_name(relation.namespace, relation.name), columns, tuple(names[place] for place in key)
    )
    return RowEncoder(schema, relation, tuple(mapping.encode for mapping in mappings), key)


def _key(relation: Relation, primary_key: Sequence[str]) -> tuple[int, ...]:
    """Places of the key's columns, in column order. The message knows the identity that its changes were written
    under; only REPLICA IDENTITY FULL has to ask for the primary key."""
    if relation.identity == "f":
        return tuple(place for place, column in enumerate(relation.columns) if column.name in primary_key)
    return tuple(place for place, column in enumerate(relation.columns) if column.in_key)


def _shown(value: Value) -> str:
    return value.decode(errors="replace")[:200] if isinstance(value, bytes) else str(value)
