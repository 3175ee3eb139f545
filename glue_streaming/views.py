"""The views of a table in the Glue catalog, in the Presto encoding that Athena and Trino read.

Idempotent, and in place: a view is never dropped and created, so no query finds it missing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyiceberg.catalog import Catalog

from glue_streaming import view_sql
from glue_streaming.fold.errors import ViewRefused
from glue_streaming.fold.shape import Shape, ShapeColumn, shape_of
from glue_streaming.lake_table import identifier

MAX_VIEW_TEXT: Final = 409_600
MAX_COMMENT: Final = 255
ATTEMPTS: Final = 3


@dataclass(frozen=True)
class View:
    """A view as it is to stand in the catalog."""

    database: str
    name: str
    sql: str
    columns: tuple[ShapeColumn, ...]


def update(glue: Any, catalog: Catalog, source: str, table: str, *, in_cut: bool = True) -> list[str]:
    """Writes what is missing or differs of the table's views; returns their names.

    in_cut: False where the cut view may not appear (yet); one that stands there is left as it is.
    Raises ViewRefused where the catalog could not hold a view; the views before it are written.
    """
    lake = catalog.load_table(identifier(source, table))
    shape = shape_of(source, table, lake.schema(), lake.properties)
    comments = {field.name: field.doc for field in lake.schema().fields if field.doc}
    wanted = [view for view in views_of(shape) if in_cut or not view.database.endswith("_cut")]
    return [f"{view.database}.{view.name}" for view in wanted if put(glue, view, comments)]


def views_of(shape: Shape) -> Iterator[View]:
    """The views of a table: current, cut, changes, versions."""
    source, table = shape.source, shape.table
    versions = view_sql.versions(shape) if shape.key else view_sql.keyless_versions(shape)
    yield View(source, table, view_sql.current(shape), view_sql.state_columns(shape))
    yield View(f"{source}_cut", table, view_sql.cut(shape), view_sql.state_columns(shape))
    yield View(f"{source}_history", table, view_sql.changes(shape), view_sql.change_columns(shape))
    yield View(f"{source}_history", f"{table}_versions", versions, view_sql.version_columns(shape))


def put(glue: Any, view: View, comments: Mapping[str, str]) -> bool:
    """Creates the view or updates it by its version; False where it stands so already."""
    wanted = table_input(view, comments)
    for _ in range(ATTEMPTS):
        found = _found(glue, view)
        try:
            if found is None:
                glue.create_table(DatabaseName=view.database, TableInput=wanted)
            elif _same(found, wanted):
                return False
            else:
                _update(glue, view, wanted, found.get("VersionId"))
        except (glue.exceptions.ConcurrentModificationException, glue.exceptions.AlreadyExistsException):
            continue
        return True
    raise ViewRefused(
        f"{view.database}.{view.name}: other writers changed the view {ATTEMPTS} times; run the fold again"
    )


def table_input(view: View, comments: Mapping[str, str]) -> dict[str, Any]:
    """The catalog's entry of a view. Raises ViewRefused beyond the catalog's limits."""
    document = {
        "originalSql": view.sql,
        "catalog": "awsdatacatalog",
        "schema": view.database,
        "columns": [{"name": column.name, "type": column.trino} for column in view.columns],
        "runAsInvoker": True,
        "properties": {},
    }
    encoded = base64.b64encode(json.dumps(document).encode()).decode()
    original = f"/* Presto View: {encoded} */"
    _check(view, original, comments)
    return {
        "Name": view.name,
        "TableType": "VIRTUAL_VIEW",
        "Parameters": {"presto_view": "true", "comment": "Presto View"},
        "ViewOriginalText": original,
        "ViewExpandedText": "/* Presto View */",
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": [_column(column, comments) for column in view.columns],
            "Location": "",
            "SerdeInfo": {},
        },
    }


def _column(column: ShapeColumn, comments: Mapping[str, str]) -> dict[str, str]:
    comment = comments.get(column.name)
    return {"Name": column.name, "Type": column.hive, **({"Comment": comment} if comment else {})}


def _check(view: View, text: str, comments: Mapping[str, str]) -> None:
    if len(text) > MAX_VIEW_TEXT:
        raise ViewRefused(
            f"{view.database}.{view.name}: its text has {len(text)} characters, the catalog holds {MAX_VIEW_TEXT}. "
            f"Query the lake table instead, or declare fewer columns at the source."
        )
    long: Sequence[str] = [c.name for c in view.columns if len(comments.get(c.name, "")) > MAX_COMMENT]
    if long:
        raise ViewRefused(
            f"{view.database}.{view.name}: the comments of {', '.join(long)} exceed {MAX_COMMENT} characters. "
            "Shorten them at the source; the lake table stays queryable."
        )


def _found(glue: Any, view: View) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = glue.get_table(DatabaseName=view.database, Name=view.name)["Table"]
    except glue.exceptions.EntityNotFoundException:
        return None
    return entry


def _same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    columns = found.get("StorageDescriptor", {}).get("Columns", [])
    return (
        found.get("ViewOriginalText") == wanted["ViewOriginalText"]
        and [(c["Name"], c.get("Type"), c.get("Comment")) for c in columns]
        == [(c["Name"], c["Type"], c.get("Comment")) for c in wanted["StorageDescriptor"]["Columns"]]
    )  # fmt: skip


def _update(glue: Any, view: View, wanted: Mapping[str, Any], version: str | None) -> None:
    fence = {"VersionId": version} if version is not None else {}
    glue.update_table(DatabaseName=view.database, TableInput=wanted, SkipArchive=True, **fence)
