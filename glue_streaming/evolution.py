"""A lake table's structure follows its source: columns are added, types widened, nothing is dropped.

A lake column belongs to one column of the source, by the source's name for it (ORIGINS). Where a type changes so that
the lake column cannot hold it, the source's column goes on in a new one: `amount`, `amount__2`, `amount__3`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import DecimalType, DoubleType, FloatType, IcebergType, IntegerType, ListType, LongType

from glue_streaming.errors import TableRefused
from glue_streaming.lake_table import (
    ORIGINS,
    column_field,
    comment_properties,
    iceberg_type,
    identity_properties,
    origins_of,
)
from schemas.change_record import RESERVED, Column, TableSchema

NEW_COLUMN: Final = "new_column"
HOLE: Final = "hole"
POLICIES: Final = (NEW_COLUMN, HOLE)
"""What a table does where a column's type changes and its lake column cannot hold the new one (`on_type_change`)."""

_PROMOTIONS: Final = {(IntegerType, LongType), (FloatType, DoubleType)}
_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class Fit:
    """How rows under a writer schema fit a lake table.

    columns: the writer's column to the lake's. lineage: the writer's column to every lake column that it has had,
    that one first.
    added, widened: what the table has to do first, by the lake's column. retyped: those of `added` that go on for
    a lake column which cannot hold the new type.
    """

    columns: Mapping[str, str]
    lineage: Mapping[str, tuple[str, ...]]
    added: Mapping[str, Column]
    widened: Mapping[str, Column]
    retyped: Mapping[str, str]

    @property
    def as_it_stands(self) -> bool:
        """Whether the table takes the rows without a change of its own."""
        return not self.added and not self.widened


def fit(table: Schema, origins: Mapping[str, str], schema: TableSchema, policy: str = NEW_COLUMN) -> Fit:
    """Where each column of the schema goes. origins: the source's name of a lake column, where it is not the same.

    Raises TableRefused, naming every column that the table cannot follow: by its policy, or because it is a key's.
    """
    if policy not in POLICIES:
        raise TableRefused(f"{schema.subject}: on_type_change is {policy}; expected {' or '.join(POLICIES)}")
    kept = {field.name: field.field_type for field in table.fields if field.name not in RESERVED}
    taken = set(kept) | set(RESERVED)
    names = {column.name for column in schema.columns}
    by_origin: dict[str, list[str]] = defaultdict(list)
    for name in kept:
        by_origin[origins.get(name, name)].append(name)
    columns, lineage = {}, {}
    added: dict[str, Column] = {}
    widened: dict[str, Column] = {}
    retyped: dict[str, str] = {}
    problems = []
    for column in schema.columns:
        in_key = column.name in schema.key
        known = _known(column, kept, by_origin, in_key)
        wanted = iceberg_type(column.avro)
        home = _first(name for name in known if _takes(kept[name], wanted))
        if home is None:
            home = _first(name for name in known if _promotes(kept[name], wanted))
            if home is not None:
                widened[home] = column
        if home is None and known and (policy == HOLE or in_key):
            why = "it is part of the key" if in_key else "on_type_change is hole"
            problems.append(f"column {column.name} is {kept[known[-1]]} in the lake and {wanted} at the source ({why})")
            continue
        if home is None:
            home = _free(column.name, taken | (names - {column.name}))
            taken.add(home)
            added[home] = column
            if known:
                retyped[home] = known[-1]
        columns[column.name] = home
        lineage[column.name] = tuple(dict.fromkeys((home, *known)))
    if problems:
        raise TableRefused(f"{schema.subject}: " + "; ".join(problems))
    return Fit(columns, lineage, added, widened, retyped)


def evolve(table: Table, schema: TableSchema, policy: str = NEW_COLUMN, *, newest: bool = False) -> Fit:
    """Adds, widens and says what the schema needs, in one commit, or none. Idempotent, also beside other writers.

    newest: the schema is the table's newest, so that its comments count, too.
    Returns the fit that it found, so its `added` and `widened` say what was done. Raises TableRefused.
    """
    for attempt in range(_ATTEMPTS):
        origins = origins_of(table.properties)
        found = fit(table.schema(), origins, schema, policy)
        comments = stale_comments(table.schema(), found, schema) if newest else {}
        about = missing_identity(table.properties, schema)
        about |= stale_description(table.properties, schema) if newest else {}
        if found.as_it_stands and not comments and not about:
            return found
        try:
            _change(table, found, origins, comments, about)
        except CommitFailedException:
            if attempt == _ATTEMPTS - 1:
                raise
            table.refresh()
        else:
            return found
    raise AssertionError("unreachable")


def writer(schema: TableSchema, found: Fit) -> dict[str, Any]:
    """The writer schema with its columns named as the lake's; Avro's bytes carry no names.

    `lineage` names the lake columns that one name in `_unchanged` or `_raw` stands for, where it is not just itself;
    the first is the one that the rows' values go to. What an update left out may be an older value in an older column.
    """
    avro = schema.to_avro()
    fields = [{**field, "name": found.columns.get(field["name"], field["name"])} for field in avro["fields"]]
    moved = {name: list(names) for name, names in found.lineage.items() if names != (name,)}
    return {**avro, "fields": fields, "lineage": moved}


def stale_comments(table: Schema, found: Fit, schema: TableSchema) -> dict[str, str | None]:
    """The comments of the lake's columns that the schema says otherwise, by lake column. Pure."""
    docs = {field.name: field.doc for field in table.fields}
    homes = ((found.columns[column.name], column) for column in schema.columns)
    wanted = {home: column_field(column).doc for home, column in homes if home in docs}
    return {home: doc for home, doc in wanted.items() if (doc or "") != (docs[home] or "")}


def missing_identity(properties: Mapping[str, str], schema: TableSchema) -> dict[str, str]:
    """The properties without which the table does not understand the schema's deletes. Pure."""
    return {name: text for name, text in identity_properties(schema).items() if properties.get(name) != text}


def stale_description(properties: Mapping[str, str], schema: TableSchema) -> dict[str, str]:
    """The properties that say of the table what the schema says otherwise. Pure."""
    return {name: text for name, text in comment_properties(schema).items() if properties.get(name) != text}


def _change(
    table: Table,
    found: Fit,
    origins: Mapping[str, str],
    comments: Mapping[str, str | None],
    about: Mapping[str, str],
) -> None:
    others = {name: column.source_name for name, column in found.added.items() if column.source_name != name}
    with table.transaction() as transaction:
        with transaction.update_schema() as update:
            for name, column in found.added.items():
                field = column_field(column)
                update.add_column(name, field.field_type, doc=field.doc)
            for name, column in found.widened.items():
                update.update_column(name, field_type=iceberg_type(column.avro))
            for name, doc in comments.items():
                update.update_column(name, doc=doc or "")
        properties = dict(about)
        if others:
            properties[ORIGINS] = json.dumps({**origins, **others}, separators=(",", ":"))
        if properties:
            transaction.set_properties(properties)


def _known(
    column: Column, kept: Mapping[str, IcebergType], by_origin: Mapping[str, list[str]], in_key: bool
) -> list[str]:
    """The lake columns that are the column's. A key's column keeps its name in the lake, whatever the source calls it:
    the views know it by that."""
    if in_key:
        return [column.name] if column.name in kept else []
    return list(by_origin.get(column.source_name, ()))


def _first(names: Iterable[str]) -> str | None:
    return next(iter(names), None)


def _free(name: str, taken: set[str]) -> str:
    candidate, suffix = name, 2
    while candidate in taken:
        candidate, suffix = f"{name}__{suffix}", suffix + 1
    return candidate


def _promotes(old: IcebergType, new: IcebergType) -> bool:
    if isinstance(old, DecimalType) and isinstance(new, DecimalType):
        return old.scale == new.scale and old.precision < new.precision
    return (type(old), type(new)) in _PROMOTIONS


def _takes(table: IcebergType, rows: IcebergType) -> bool:
    """Whether the table's column holds every value of the rows' type as it is."""
    if isinstance(table, ListType) and isinstance(rows, ListType):
        return _takes(table.element_type, rows.element_type)
    return table == rows or _promotes(rows, table)
