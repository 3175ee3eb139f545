"""The views of a table in the Glue catalog, in the Presto encoding that Athena and Trino read.

Idempotent, and in place: a view is never dropped and created, so no query finds it missing. The fold makes them and
says on them what it did; the streaming job lets them follow a new structure before any row needs it. Who writes reads
the view's version first and the table's structure behind it, so that nobody brings an older structure back.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from glue_streaming import view_current, view_history, view_text
from glue_streaming.fold.errors import ViewContested, ViewRefused
from glue_streaming.fold.shape import Shape, ShapeColumn, shape_of
from glue_streaming.lake_table import COMMENT, catalog_text, identifier
from schemas.change_record import VERSIONS

MAX_VIEW_TEXT: Final = 409_600
ATTEMPTS: Final = 5
KIND: Final = "headrace.view"
FACTS: Final = "headrace.fold."
"""How the names of the parameters begin in which a fold says what it did."""
OUT_OF_CUT: Final = "out of the cut"
REFUSED: Final = "refused"
_SHOWS: Final = {
    "current": "Current rows, as fresh as the last batch.",
    "cut": "Rows at the source's watermark: whole transactions across all tables.",
    "changes": "Every change with its time.",
    "versions": "Every version of every row, with the times between which it was valid.",
    OUT_OF_CUT: "Out of the cut: every query raises, and says why.",
    REFUSED: "Too large for the catalog: every query raises, and says what to query instead.",
}


@dataclass(frozen=True)
class View:
    """A view as it is to stand in the catalog. kind: of `_SHOWS`. comments: by column. about: that on the table.

    facts: what a fold says on it; None leaves what stands there.
    """

    database: str
    name: str
    kind: str
    sql: str
    columns: tuple[ShapeColumn, ...]
    comments: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    facts: Mapping[str, str] | None = None


class Updated(NamedTuple):
    """written: the views that were missing or differed. refused: those that the catalog cannot hold, and why."""

    written: list[str]
    refused: dict[str, str]


def update(
    glue: Any,
    catalog: Catalog,
    source: str,
    table: str,
    *,
    in_cut: bool = True,
    facts: Mapping[str, str] | None = None,
) -> Updated:
    """Writes what is missing or differs of the table's views. facts: what the fold says on the view of current rows.

    in_cut: False where the cut view may not appear (yet); one that stands there is left as it is.
    A view that the catalog cannot hold is refused: one that stands stays as it is, and where there is none, one takes
    its place that raises and says so. So is one whose name another table's view has. Raises ViewContested.
    """
    updated = Updated([], {})

    def views() -> dict[str, View]:
        lake = catalog.load_table(identifier(source, table))
        return {view.kind: view for view in of_table(source, table, lake, facts)}

    for kind, view in views().items():
        if in_cut or kind != "cut":
            _settle(glue, view, lambda kind=kind: views()[kind], updated)  # type: ignore[misc]
    return updated


def follow(glue: Any, source: str, tables: Mapping[str, Table]) -> Updated:
    """Lets the views that stand follow the tables' structure as the streaming job has left it. Makes none.

    Views that raise stay as they are. Raises ViewContested.
    """
    updated = Updated([], {})
    views = [view for name, table in tables.items() for view in of_table(source, name, table)]
    standing = {
        (database, entry["Name"]): entry
        for database in sorted({view.database for view in views})
        for entry in _entries(glue, database)
    }
    for view in views:
        entry = standing.get((view.database, view.name))
        if entry is not None and entry.get("Parameters", {}).get(KIND) == view.kind and not _stands(entry, view):
            _settle(glue, view, lambda view=view: view, updated)  # type: ignore[misc]
    return updated


def of_table(source: str, name: str, table: Table, facts: Mapping[str, str] | None = None) -> Iterator[View]:
    """The views of a table as it stands, with the comments of its columns and its own."""
    shape = shape_of(source, name, table.schema(), table.properties)
    for view in views_of(shape):
        yield annotated(replace(view, facts=facts if view.kind == "current" else None), table)


def annotated(view: View, table: Table) -> View:
    """The view with the source's comments, which the lake table keeps."""
    comments = {column.name: column.doc for column in table.schema().fields if column.doc}
    return replace(view, comments=comments, about=table.properties.get(COMMENT, ""))


def views_of(shape: Shape) -> Iterator[View]:
    """The views of a table: current, cut, changes, versions."""
    source, table = shape.source, shape.table
    versions = view_history.versions(shape)
    yield View(source, table, "current", view_current.current(shape), view_current.state_columns(shape))
    yield View(f"{source}_cut", table, "cut", view_current.cut(shape), view_current.state_columns(shape))
    yield View(f"{source}_history", table, "changes", view_history.changes(shape), view_history.change_columns(shape))
    yield View(f"{source}_history", f"{table}{VERSIONS}", "versions", versions, view_history.version_columns(shape))


def put(glue: Any, view: View) -> bool:
    """Creates the view or updates it by its version; False where it stands so already. Raises ViewRefused."""
    return _put(glue, view, lambda: view)


def table_input(view: View, standing: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The catalog's entry of a view. standing: the parameters of the entry that it replaces.

    Raises ViewRefused beyond what the catalog can hold.
    """
    document = {
        "originalSql": view.sql,
        "catalog": "awsdatacatalog",
        "schema": view.database,
        "columns": [{"name": column.name, "type": column.trino} for column in view.columns],
        "runAsInvoker": True,
        "properties": {},
    }
    original = f"/* Presto View: {base64.b64encode(json.dumps(document).encode()).decode()} */"
    if len(original) > MAX_VIEW_TEXT:
        raise ViewRefused(
            f"{view.database}.{view.name}: its text has {len(original)} characters, the catalog holds {MAX_VIEW_TEXT}. "
            "Query the lake table instead, or declare fewer columns at the source."
        )
    kept = {name: value for name, value in (standing or {}).items() if name.startswith(FACTS)}
    facts = kept if view.facts is None else dict(view.facts)
    return {
        "Name": view.name,
        "Description": _description(view),
        "TableType": "VIRTUAL_VIEW",
        "Parameters": {"presto_view": "true", "comment": "Presto View", KIND: view.kind, **facts},
        "ViewOriginalText": original,
        "ViewExpandedText": "/* Presto View */",
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": [_column(column, view.comments) for column in view.columns],
            "Location": "",
            "SerdeInfo": {},
        },
    }


def _refusing(view: View, why: str) -> View:
    """What stands in the place of a view that the catalog cannot hold."""
    sentence = view_text.text(why)
    return View(
        view.database,
        view.name,
        REFUSED,
        f"SELECT CAST(NULL AS varchar) AS refused FROM (VALUES (CAST({sentence} AS integer))) AS t (why) WHERE why = 0",
        (ShapeColumn("refused", "VARCHAR", "varchar", "string"),),
    )


def _settle(glue: Any, view: View, make: Callable[[], View], updated: Updated) -> None:
    name = f"{view.database}.{view.name}"
    try:
        if _put(glue, view, make):
            updated.written.append(name)
    except ViewRefused as error:
        updated.refused[name] = str(error)
        entry = _found(glue, view)
        if entry is None or entry.get("Parameters", {}).get(KIND) == REFUSED:
            put(glue, _refusing(view, str(error)))


def _put(glue: Any, place: View, make: Callable[[], View]) -> bool:
    """make: the view as it is to be, asked for after each look at the one that stands."""
    for _ in range(ATTEMPTS):
        found = _found(glue, place)
        view = make()
        if found is not None:
            _require_ours(found, view)
            if _stands(found, view):
                return False
        wanted = table_input(view, (found or {}).get("Parameters"))
        try:
            if found is None:
                glue.create_table(DatabaseName=view.database, TableInput=wanted)
            else:
                fence = {"VersionId": found["VersionId"]} if "VersionId" in found else {}
                glue.update_table(DatabaseName=view.database, TableInput=wanted, SkipArchive=True, **fence)
        except (glue.exceptions.ConcurrentModificationException, glue.exceptions.AlreadyExistsException):
            continue
        return True
    raise ViewContested(f"{place.database}.{place.name}: other writers changed the view {ATTEMPTS} times")


def _require_ours(found: Mapping[str, Any], view: View) -> None:
    """Raises ViewRefused where another table's view has the name: a table `x_versions` beside `x`. It stays."""
    if {found.get("Parameters", {}).get(KIND), view.kind} == {"changes", "versions"}:
        table = view.name.removesuffix(VERSIONS)
        raise ViewRefused(
            f"{view.database}.{view.name} is the name of two views: of the changes of {view.name}, and of the versions "
            f"of {table}; the {view.kind} have no view. Query the lake table instead, or give one of the two tables "
            "another name in the agent's configuration (rename), and capture it anew."
        )


def _stands(found: Mapping[str, Any], view: View) -> bool:
    """Whether the catalog's entry says all that the view says. Raises ViewRefused."""
    wanted = table_input(view, found.get("Parameters"))

    def columns(entry: Mapping[str, Any]) -> list[tuple[str, ...]]:
        listed = entry.get("StorageDescriptor", {}).get("Columns", [])
        return [(column["Name"], column.get("Type", ""), column.get("Comment", "")) for column in listed]

    return (
        found.get("ViewOriginalText") == wanted["ViewOriginalText"]
        and found.get("Description", "") == wanted["Description"]
        and wanted["Parameters"].items() <= found.get("Parameters", {}).items()
        and columns(found) == columns(wanted)
    )


def _description(view: View) -> str:
    return catalog_text(f"{_SHOWS[view.kind]} {view.about}")


def _column(column: ShapeColumn, comments: Mapping[str, str]) -> dict[str, str]:
    comment = catalog_text(comments.get(column.name, ""))
    return {"Name": column.name, "Type": column.hive, **({"Comment": comment} if comment else {})}


def _found(glue: Any, view: View) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = glue.get_table(DatabaseName=view.database, Name=view.name)["Table"]
    except glue.exceptions.EntityNotFoundException:
        return None
    return entry


def _entries(glue: Any, database: str) -> Iterator[dict[str, Any]]:
    try:
        for page in glue.get_paginator("get_tables").paginate(DatabaseName=database):
            yield from page["TableList"]
    except glue.exceptions.EntityNotFoundException:
        return
