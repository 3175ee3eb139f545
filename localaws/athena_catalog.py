"""The Glue catalog as a query sees it: each entry read once, in the order in which the analyser asks."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .athena_errors import Place, QueryError

CATALOG = "awsdatacatalog"

Entry = Mapping[str, Any]  # a Table as Glue's GetTable answers


class Catalog(Protocol):
    """Where tables and views are looked up. Names are lower case, as in Glue."""

    def databases(self) -> Sequence[str]:
        """The names of all databases."""

    def tables(self, database: str) -> Sequence[Entry]:
        """Every table and view of a database; none when there is no such database."""

    def table(self, database: str, name: str) -> Entry | None:
        """The entry as it is now."""


@dataclass(frozen=True, slots=True)
class View:
    """A view in the Presto encoding: its SQL, where its names are looked up, and the columns it promises."""

    sql: str
    schema: str
    columns: tuple[tuple[str, str], ...]


def is_view(entry: Entry) -> bool:
    return entry.get("TableType") == "VIRTUAL_VIEW"


_PRESTO_VIEW = re.compile(r"^\s*/\*\s*Presto View:\s*(\S+)\s*\*/\s*$")


def view(database: str, entry: Entry) -> View:
    """The view in a catalog entry. Raises QueryError when it is not in the Presto encoding."""
    found = _PRESTO_VIEW.match(entry.get("ViewOriginalText") or "")
    try:
        if not found:
            raise ValueError("its ViewOriginalText is not of the form /* Presto View: <base64> */")
        body = json.loads(base64.b64decode(found[1], validate=True))
        columns = tuple((column["name"], column["type"]) for column in body["columns"])
        return View(body["originalSql"], body.get("schema") or database, columns)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        reason = f"View '{CATALOG}.{database}.{entry['Name']}' cannot be read: {error}"
        raise QueryError("INVALID_VIEW", reason) from error


def table_not_found(database: str, name: str, place: Place | None) -> QueryError:
    return QueryError("TABLE_NOT_FOUND", f"Table '{CATALOG}.{database}.{name}' does not exist", place)


class CatalogReads:
    """One query's reads. `before_read(database, name)` is called before each one that goes to the catalog."""

    def __init__(self, catalog: Catalog, before_read: Callable[[str, str], None] | None = None) -> None:
        self._catalog, self._before_read = catalog, before_read
        self._read: dict[tuple[str, str], Entry | None] = {}

    def databases(self) -> Sequence[str]:
        return self._catalog.databases()

    def tables(self, database: str) -> Sequence[Entry]:
        return self._catalog.tables(database)

    def table(self, database: str, name: str, place: Place | None = None) -> Entry:
        """The entry, read the first time it is asked for. Raises QueryError when there is none."""
        key = (database, name)
        if key not in self._read:
            if self._before_read:
                self._before_read(database, name)
            self._read[key] = self._catalog.table(database, name)
        entry = self._read[key]
        if entry is not None:
            return entry
        if database not in self._catalog.databases():
            raise QueryError("SCHEMA_NOT_FOUND", f"Schema '{database}' does not exist", place)
        raise table_not_found(database, name, place)
