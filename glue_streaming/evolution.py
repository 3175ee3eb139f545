"""A lake table's structure follows its source: columns are added, types widened, nothing is dropped."""

from __future__ import annotations

from typing import Final

from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import DecimalType, DoubleType, FloatType, IcebergType, IntegerType, ListType, LongType

from glue_streaming.errors import TableRefused
from glue_streaming.lake_table import iceberg_type
from schemas.change_record import Column, TableSchema

_PROMOTIONS: Final = {(IntegerType, LongType), (FloatType, DoubleType)}


def additions(table: Schema, schema: TableSchema) -> tuple[list[Column], list[Column]]:
    """The columns to add, and those to widen, so that the table takes rows of the schema.

    Raises TableRefused, naming every column that the table cannot follow. (PyIceberg's union_by_name would ignore a
    changed scale and add `ID` beside `id`.)
    """
    added, widened, problems = [], [], []
    known = {field.name.lower(): field for field in table.fields}
    for column in schema.columns:
        field = known.get(column.name)
        wanted = iceberg_type(column.avro)
        if field is None:
            added.append(column)
        elif _promotes(field.field_type, wanted):
            widened.append(column)
        elif not _takes(field.field_type, wanted):
            problems.append(f"column {column.name} is {field.field_type} in the lake and {wanted} at the source")
    if problems:
        raise TableRefused(f"{schema.subject}: " + "; ".join(problems))
    return added, widened


def evolve(table: Table, schema: TableSchema) -> bool:
    """Adds and widens in one commit; False where the table takes the schema as it is. Idempotent."""
    added, widened = additions(table.schema(), schema)
    if not added and not widened:
        return False
    with table.update_schema() as update:
        for column in added:
            update.add_column(column.name, iceberg_type(column.avro), doc=column.comment)
        for column in widened:
            update.update_column(column.name, field_type=iceberg_type(column.avro))
    return True


def _promotes(old: IcebergType, new: IcebergType) -> bool:
    if isinstance(old, DecimalType) and isinstance(new, DecimalType):
        return old.scale == new.scale and old.precision < new.precision
    return (type(old), type(new)) in _PROMOTIONS


def _takes(table: IcebergType, rows: IcebergType) -> bool:
    """Whether the table's column holds every value of the rows' type as it is."""
    if isinstance(table, ListType) and isinstance(rows, ListType):
        return _takes(table.element_type, rows.element_type)
    return table == rows or _promotes(rows, table)
