"""Change records: the Avro schema of one table's changes, derived from the source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from schemas.fingerprint import schema_fingerprint

AvroType = Any
"""An Avro type as JSON: a name, or a dict with logicalType, precision, items ..."""

OPS: Final = ("c", "u", "d", "r", "t")

METADATA_FIELDS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "_op", "type": {"type": "enum", "name": "Op", "namespace": "headrace", "symbols": list(OPS)}},
    {"name": "_era", "type": "int"},
    {"name": "_lsn", "type": "long"},
    {"name": "_idx", "type": "int"},
    {"name": "_committed_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "_unchanged", "type": ["null", {"type": "array", "items": "string"}], "default": None},
    {"name": "_old_key", "type": ["null", "string"], "default": None},
    {"name": "_raw", "type": ["null", {"type": "map", "values": "string"}], "default": None},
)
LAKE_FIELDS: Final = ("_batch", "_tier")
RESERVED_TABLES: Final = frozenset(("holes", "watermark", "verifications"))
"""What Headrace calls its own tables and views in a source's databases."""
VERSIONS: Final = "_versions"
"""What the view of a table's versions has behind the table's name; so no two tables may differ by just that."""
RESERVED: Final = frozenset(field["name"] for field in METADATA_FIELDS) | frozenset(LAKE_FIELDS)


@dataclass(frozen=True)
class Column:
    """One column: its name in the lake (and in Avro), its non-null Avro type, and what the source calls it."""

    name: str
    avro: AvroType
    source_name: str
    source_type: str
    comment: str | None = None


@dataclass(frozen=True)
class TableSchema:
    """The structure of a table's changes at one moment. `key` holds lake column names; () for a table without one.

    whole_rows: a table without a key whose deletes carry whole old rows; otherwise it is append-only.
    Comments are people's: they make no two structures incompatible.
    """

    source: str
    table: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    comment: str | None = None
    whole_rows: bool = False

    def to_avro(self) -> dict[str, Any]:
        """The writer schema: metadata fields first, then the columns, each nullable."""
        return {
            "type": "record",
            "name": self.table,
            "namespace": f"headrace.{self.source}",
            **({} if self.comment is None else {"doc": self.comment}),
            "key": list(self.key),
            **({"whole_rows": True} if self.whole_rows else {}),
            "fields": [*METADATA_FIELDS, *(_field(column) for column in self.columns)],
        }

    @classmethod
    def from_avro(cls, schema: dict[str, Any]) -> TableSchema:
        """The inverse of to_avro."""
        return cls(
            source=schema["namespace"].removeprefix("headrace."),
            table=schema["name"],
            columns=tuple(_column(field) for field in schema["fields"][len(METADATA_FIELDS) :]),
            key=tuple(schema["key"]),
            comment=schema.get("doc"),
            whole_rows=schema.get("whole_rows", False),
        )

    def fingerprint(self) -> bytes:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> bytes:
        return schema_fingerprint(self.to_avro())

    @property
    def subject(self) -> str:
        return f"{self.source}.{self.table}"


def lake_column_names(source_names: Sequence[str]) -> tuple[str, ...]:
    """The lake's names for a table's columns, in order: lower case, [a-z0-9_], unique, never a metadata field's.

    Athena ignores case, so names that differ only by case would be one; the later one gets a suffix (`id`, `id__2`).
    """
    taken = set(RESERVED)
    names = []
    for source_name in source_names:
        name = base = _plain(source_name)
        suffix = 2
        while name in taken:
            name, suffix = f"{base}__{suffix}", suffix + 1
        taken.add(name)
        names.append(name)
    return tuple(names)


def lake_table_name(schema: str, table: str) -> str:
    """The lake's name for a source table; the schema `public` is dropped, but where the name would be one of ours."""
    name = _plain(table)
    return name if schema == "public" and name not in RESERVED_TABLES else _plain(f"{schema}_{table}")


def _plain(name: str) -> str:
    plain = re.sub(r"[^a-z0-9_]", "_", name.lower())
    return f"c_{plain}" if not plain or plain[0].isdigit() else plain


def _field(column: Column) -> dict[str, Any]:
    field = {
        "name": column.name,
        "type": ["null", column.avro],
        "default": None,
        "source_name": column.source_name,
        "source_type": column.source_type,
    }
    if column.comment is not None:
        field["doc"] = column.comment
    return field


def _column(field: dict[str, Any]) -> Column:
    return Column(
        name=field["name"],
        avro=field["type"][1],
        source_name=field["source_name"],
        source_type=field["source_type"],
        comment=field.get("doc"),
    )
