"""The shape of a lake table, as the SQL of folds and views needs it: columns, their types in two dialects, the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pyiceberg.schema import Schema
from pyiceberg.types import DecimalType, IcebergType, ListType, MapType

from glue_streaming.state import WHOLE_ROWS
from schemas.change_record import LAKE_FIELDS, METADATA_FIELDS, RESERVED

METADATA: Final = tuple(str(field["name"]) for field in METADATA_FIELDS)
LAKE: Final = LAKE_FIELDS

_DUCKDB: Final = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "binary": "BLOB",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}
_TRINO: Final = {
    "boolean": "boolean",
    "int": "integer",
    "long": "bigint",
    "float": "real",
    "double": "double",
    "string": "varchar",
    "binary": "varbinary",
    "date": "date",
    "timestamp": "timestamp(6)",
}
_HIVE: Final = _TRINO | {
    "int": "int",
    "float": "float",
    "string": "string",
    "binary": "binary",
    "timestamp": "timestamp",
}
_TOASTABLE: Final = ("string", "binary", "decimal", "list")


@dataclass(frozen=True)
class ShapeColumn:
    """A column and its type as DuckDB, Trino and the Glue catalog name it.

    toastable: the source may leave its value out of an update that did not touch it.
    """

    name: str
    duckdb: str
    trino: str
    hive: str
    toastable: bool = False


@dataclass(frozen=True)
class Shape:
    """One lake table: `columns` are the source table's, in the table's order; `key` is () for a keyless table.

    whole_rows: a keyless table has deletes as well, each of one row that equals it in all columns.
    """

    source: str
    table: str
    columns: tuple[ShapeColumn, ...]
    key: tuple[str, ...]
    metadata: tuple[ShapeColumn, ...]
    whole_rows: bool = False

    @property
    def every(self) -> tuple[ShapeColumn, ...]:
        """All physical columns: metadata, the source's, `_batch` and `_tier`."""
        return (*self.metadata, *self.columns, *_LAKE_COLUMNS)

    @property
    def torn(self) -> tuple[ShapeColumn, ...]:
        """The columns that `_unchanged` may name."""
        return tuple(c for c in self.columns if c.toastable and c.name not in self.key)

    @property
    def searched(self) -> list[str]:
        """The key columns that a bloom filter can be asked for, where rows are not in the order of their keys."""
        return [c.name for c in self.columns if c.name in self.key and c.duckdb in ("VARCHAR", "INTEGER", "BIGINT")]


def shape_of(source: str, table: str, schema: Schema, properties: Mapping[str, str]) -> Shape:
    """The shape that a lake table's Iceberg schema and its properties say."""
    return Shape(
        source=source,
        table=table,
        columns=tuple(
            ShapeColumn(
                field.name,
                duckdb_type(field.field_type),
                trino_type(field.field_type),
                hive_type(field.field_type),
                str(field.field_type).startswith(_TOASTABLE),
            )
            for field in schema.fields
            if field.name not in RESERVED
        ),
        key=tuple(json.loads(properties["headrace.key"])),
        metadata=METADATA_COLUMNS,
        whole_rows=properties.get(WHOLE_ROWS) == "true",
    )


def duckdb_type(kind: IcebergType) -> str:
    if isinstance(kind, ListType):
        return f"{duckdb_type(kind.element_type)}[]"
    if isinstance(kind, MapType):
        return f"MAP({duckdb_type(kind.key_type)}, {duckdb_type(kind.value_type)})"
    if isinstance(kind, DecimalType):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    return _DUCKDB[str(kind)]


def trino_type(kind: IcebergType) -> str:
    if isinstance(kind, ListType):
        return f"array({trino_type(kind.element_type)})"
    if isinstance(kind, MapType):
        return f"map({trino_type(kind.key_type)}, {trino_type(kind.value_type)})"
    if isinstance(kind, DecimalType):
        return f"decimal({kind.precision}, {kind.scale})"
    return _TRINO[str(kind)]


def hive_type(kind: IcebergType) -> str:
    if isinstance(kind, ListType):
        return f"array<{hive_type(kind.element_type)}>"
    if isinstance(kind, MapType):
        return f"map<{hive_type(kind.key_type)},{hive_type(kind.value_type)}>"
    if isinstance(kind, DecimalType):
        return f"decimal({kind.precision},{kind.scale})"
    return _HIVE[str(kind)]


METADATA_COLUMNS: Final = (
    ShapeColumn("_op", "VARCHAR", "varchar", "string"),
    ShapeColumn("_era", "INTEGER", "integer", "int"),
    ShapeColumn("_lsn", "BIGINT", "bigint", "bigint"),
    ShapeColumn("_idx", "INTEGER", "integer", "int"),
    ShapeColumn("_committed_at", "TIMESTAMP", "timestamp(6)", "timestamp"),
    ShapeColumn("_unchanged", "VARCHAR[]", "array(varchar)", "array<string>"),
    ShapeColumn("_old_key", "VARCHAR", "varchar", "string"),
    ShapeColumn("_raw", "MAP(VARCHAR, VARCHAR)", "map(varchar, varchar)", "map<string,string>"),
)
_LAKE_COLUMNS: Final = (
    ShapeColumn("_batch", "BIGINT", "bigint", "bigint"),
    ShapeColumn("_tier", "VARCHAR", "varchar", "string"),
)
