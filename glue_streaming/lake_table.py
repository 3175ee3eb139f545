"""Lake tables: an Iceberg table per source table, derived from its change records."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Final

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    TimestampType,
)

from glue_streaming.errors import TableRefused
from glue_streaming.state import KEY, SOURCE, TABLE, WHOLE_ROWS
from schemas.change_record import RESERVED, AvroType, Column, TableSchema

_PRIMITIVES: Final[dict[str, IcebergType]] = {
    "boolean": BooleanType(),
    "int": IntegerType(),
    "long": LongType(),
    "float": FloatType(),
    "double": DoubleType(),
    "string": StringType(),
    "bytes": BinaryType(),
    "date": DateType(),
    "timestamp-micros": TimestampType(),
    "local-timestamp-micros": TimestampType(),
}
_METADATA: Final[tuple[tuple[str, IcebergType, bool], ...]] = (
    ("_op", StringType(), True),
    ("_era", IntegerType(), True),
    ("_lsn", LongType(), True),
    ("_idx", IntegerType(), True),
    ("_committed_at", TimestampType(), False),
    ("_unchanged", ListType(-1, StringType(), element_required=False), False),
    ("_old_key", StringType(), False),
    ("_raw", MapType(-1, StringType(), -2, StringType(), value_required=False), False),
)
_LAKE: Final[tuple[tuple[str, IcebergType, bool], ...]] = (("_batch", LongType(), False), ("_tier", StringType(), True))
_PROPERTIES: Final = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.delete.isolation-level": "snapshot",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    "commit.retry.num-retries": "8",
    "commit.retry.min-wait-ms": "50",
    "commit.retry.max-wait-ms": "2000",
}


ORIGINS: Final = "headrace.columns"
"""Property: the source's name of each lake column that the source calls something else, as a JSON object."""


COMMENT: Final = "headrace.comment"
"""Property: the source's comment on the table."""
DESCRIPTION: Final = "Description"
"""Property: what PyIceberg makes the catalog's description of the table."""
MAX_COMMENT_BYTES: Final = 255


def lake_database(source: str) -> str:
    return f"{source}_lake"


def identifier(source: str, table: str) -> str:
    return f"{lake_database(source)}.{table}"


def location(lake_bucket: str, source: str, table: str) -> str:
    return f"s3://{lake_bucket}/lake/{source}/{table}"


def iceberg_type(avro: AvroType) -> IcebergType:
    """The Iceberg type of a column's Avro type (docs/types.md). Nested ids are placeholders."""
    if isinstance(avro, dict):
        if avro.get("logicalType") == "decimal":
            return DecimalType(avro["precision"], avro["scale"])
        if avro.get("type") == "array":
            return ListType(-1, iceberg_type(avro["items"][1]), element_required=False)
        avro = avro.get("logicalType", avro["type"])
    try:
        return _PRIMITIVES[avro]
    except KeyError:
        raise TableRefused(f"there is no lake type for the Avro type {avro}") from None


def iceberg_schema(schema: TableSchema) -> Schema:
    """The lake table's schema: metadata, the columns, `_batch` and `_tier`, with fresh field ids."""
    head = [_field(name, kind, required) for name, kind, required in _METADATA]
    columns = [column_field(column) for column in schema.columns]
    tail = [_field(name, kind, required) for name, kind, required in _LAKE]
    return assign_fresh_schema_ids(Schema(*_numbered([*head, *columns, *tail])))


def column_field(column: Column) -> NestedField:
    return _field(column.name, iceberg_type(column.avro), required=False, doc=_doc(column))


def ensure(catalog: Catalog, schema: TableSchema, lake_bucket: str) -> Table:
    """The table, created where it is missing. Idempotent, also beside another writer."""
    name = identifier(schema.source, schema.table)
    if catalog.table_exists(name):
        return catalog.load_table(name)
    with contextlib.suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace(lake_database(schema.source))
    fields = iceberg_schema(schema)
    tier = fields.find_field("_tier").field_id
    try:
        return catalog.create_table(
            name,
            fields,
            location=location(lake_bucket, schema.source, schema.table),
            partition_spec=PartitionSpec(PartitionField(tier, 1000, IdentityTransform(), "_tier")),
            properties=_properties(schema),
        )
    except TableAlreadyExistsError:
        return catalog.load_table(name)


def adopt_key(table: Table, schema: TableSchema) -> None:
    """Gives a table that was made before its schema was known the schema's key; others keep theirs."""
    without_columns = all(field.name in RESERVED for field in table.schema().fields)
    if without_columns and schema.key:
        with table.transaction() as transaction:
            transaction.set_properties({KEY: json.dumps(list(schema.key))})


def _properties(schema: TableSchema) -> dict[str, Any]:
    return {
        **_PROPERTIES,
        SOURCE: schema.source,
        TABLE: schema.table,
        KEY: json.dumps(list(schema.key)),
        **identity_properties(schema),
        ORIGINS: json.dumps({c.name: c.source_name for c in schema.columns if c.source_name != c.name}),
        **comment_properties(schema),
    }


def identity_properties(schema: TableSchema) -> dict[str, str]:
    """What the table needs to know before it takes the schema's rows."""
    return {WHOLE_ROWS: "true"} if schema.whole_rows else {}


def comment_properties(schema: TableSchema) -> dict[str, str]:
    """What the table says of itself in the catalog."""
    source, comment = schema.source, catalog_text(schema.comment or "")
    told = f"{schema.table}: changes in tiers. Query the views in {source}, {source}_cut and {source}_history."
    return {COMMENT: comment, DESCRIPTION: catalog_text(f"{told} {comment}")}


def catalog_text(text: str, room: int = MAX_COMMENT_BYTES) -> str:
    """The text as the catalog takes comments: one line, without control characters, at most 255 bytes of UTF-8."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line.encode()) <= room:
        return line
    return line.encode()[: room - len("…".encode())].decode(errors="ignore") + "…"


def origins_of(properties: Mapping[str, str]) -> dict[str, str]:
    """The source's name of each lake column that the source calls something else."""
    return dict(json.loads(properties.get(ORIGINS, "{}")))


def _field(name: str, kind: IcebergType, required: bool, doc: str | None = None) -> NestedField:
    return NestedField(field_id=-1, name=name, field_type=kind, required=required, doc=doc)


def _numbered(fields: list[NestedField]) -> list[NestedField]:
    """Distinct provisional ids: PyIceberg refuses a schema with two fields of one id before it assigns fresh ones."""
    counter = iter(range(1, 1_000_000))

    def number(kind: IcebergType) -> IcebergType:
        if isinstance(kind, ListType):
            element = next(counter)
            return ListType(element, number(kind.element_type), element_required=False)
        if isinstance(kind, MapType):
            key, value = next(counter), next(counter)
            return MapType(key, number(kind.key_type), value, number(kind.value_type), value_required=False)
        return kind

    return [
        NestedField(
            field_id=next(counter), name=f.name, field_type=number(f.field_type), required=f.required, doc=f.doc
        )
        for f in fields
    ]


def _doc(column: Column) -> str | None:
    """The column's comment in the catalog; a timestamp with time zone says that it is kept in UTC."""
    utc = isinstance(column.avro, dict) and column.avro.get("logicalType") == "timestamp-micros"
    comment = catalog_text(column.comment or "", MAX_COMMENT_BYTES - (len(" UTC") if utc else 0))
    return " ".join(part for part in (comment, "UTC" if utc else "") if part) or None
