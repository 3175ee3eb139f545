"""A query's references resolved as Trino's analyser resolves them: in its order, each catalog entry read once.

A view is analysed where it is met, with its own schema as the place for unqualified names. An Iceberg table is pinned
when it is read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from . import athena_catalog as catalog
from . import athena_dialect as dialect
from . import athena_iceberg as iceberg
from .athena_errors import Place, QueryCancelled, QueryError, from_duckdb
from .athena_iceberg import Lake, Remembered, TableVersion
from .athena_metadata_tables import METADATA_TABLES
from .athena_references import Compiled, Reference, compiled
from .athena_relations import Relations
from .athena_view_columns import Output, fitted

_METADATA_NAME = re.compile(rf"^(.+)\$({'|'.join(METADATA_TABLES)})$")


@dataclass(frozen=True, slots=True)
class _OpenedView:
    """A view of this query: what is needed to tell whether a mistake is in it, and how the query came to it."""

    path: tuple[tuple[str, Place | None], ...]  # the outermost view first, this one last; each where it is mentioned
    text: str
    sql: str


class Analyser:
    """Turns one statement, and every view under it, into SQL over a connection's relations."""

    def __init__(
        self, reads: catalog.CatalogReads, lake: Lake, relations: Relations, compilations: Remembered[Compiled]
    ) -> None:
        self._reads, self._lake, self._relations, self._compilations = reads, lake, relations, compilations
        self._versions: dict[str, TableVersion] = {}
        self._views: dict[str, str] = {}
        self._opened: list[_OpenedView] = []
        self._path: list[tuple[str, Place | None]] = []

    def sql(self, statement: Compiled) -> str:
        """DuckDB's SQL for a statement. Raises QueryError for a name that does not resolve."""
        return statement.sql([self._relation(reference) for reference in statement.references])

    def _relation(self, reference: Reference) -> str:
        """What stands in FROM for a table, a view or one of a table's metadata tables."""
        parts = _METADATA_NAME.match(reference.name)
        entry = self._reads.table(reference.database, parts[1] if parts else reference.name, reference.place)
        if catalog.is_view(entry):
            if parts:
                raise catalog.table_not_found(reference.database, reference.name, reference.place)
            return self._view(reference, entry)
        version = self._version(reference.database, entry)
        full_name = f"{reference.database}.{reference.name}"
        if parts:
            make = METADATA_TABLES[parts[2]]
            return self._relations.rows(f"{full_name} {version.metadata_location}", make(self._lake, version))
        return self._relations.table(full_name, self._as_of(version, reference), reference.wanted)

    def _version(self, database: str, entry: catalog.Entry) -> TableVersion:
        location = (entry.get("Parameters") or {}).get("metadata_location")
        if not location:
            name = f"{catalog.CATALOG}.{database}.{entry['Name']}"
            raise QueryError("NOT_SUPPORTED", f"Table '{name}' is not an Iceberg table: not supported on the laptop")
        if location not in self._versions:
            self._versions[location] = self._lake.current(location)
        return self._versions[location]

    def _as_of(self, version: TableVersion, reference: Reference) -> TableVersion:
        """The version that FOR VERSION AS OF or FOR TIMESTAMP AS OF asks for."""
        if reference.as_of_version is not None:
            return iceberg.at_version(version, reference.as_of_version)
        if reference.as_of_time is not None:
            return iceberg.at_time(version, self._moment(reference.as_of_time))
        return version

    def _moment(self, sql: str) -> datetime:
        micros = self._relations.value(f"SELECT epoch_us(CAST(({sql}) AS TIMESTAMP WITH TIME ZONE))")
        if micros is None:
            raise QueryError("INVALID_ARGUMENTS", "Pointer value cannot be NULL")
        return datetime.fromtimestamp(micros / 1_000_000, UTC)

    def _view(self, reference: Reference, entry: catalog.Entry) -> str:
        name = f"{catalog.CATALOG}.{reference.database}.{reference.name}"
        if any(name == opened for opened, _ in self._path):
            raise QueryError("VIEW_IS_RECURSIVE", "View is recursive", reference.place)
        if name not in self._views:
            self._path.append((name, reference.place))
            self._views[name] = self._expanded(name, catalog.view(reference.database, entry), reference.place)
            self._path.pop()
        return self._views[name]

    def _expanded(self, name: str, view: catalog.View, place: Place | None) -> str:
        try:
            body = self.compilation(view.sql, view.schema)
            sql = self.sql(body)
        except QueryError as error:
            raise _in_view(name, error, place) from error
        self._opened.append(_OpenedView(tuple(self._path), view.sql, sql))
        query = fitted(name, sql, self._outputs(body, sql), view.columns, place)
        # Trino computes VALUES while it plans, whether or not the rest of the query looks at them.
        return f"({query})" if body.references else self._relations.constant(query)

    def _outputs(self, body: Compiled, sql: str) -> Sequence[Output]:
        if body.casts is not None:
            return [Output.cast(name, kind) for name, kind in body.casts]
        return [Output.bound(name, kind) for name, kind in self._relations.described(sql)]

    def compilation(self, text: str, schema: str | None) -> Compiled:
        """A query without parameters, compiled once for all queries of the engine."""
        return self._compilations.get(f"{schema}\x00{text}", lambda: compiled(dialect.parse(text), schema, text))

    def blamed(self, error: duckdb.Error, text: str) -> Exception:
        """What Athena would say of an error that DuckDB raised for the whole: in which view it is, if in one."""
        if isinstance(error, duckdb.BinderException | duckdb.CatalogException | duckdb.ParserException):
            for view in self._opened:  # those inside others come first
                try:
                    self._relations.described(view.sql)
                except duckdb.Error as inner:
                    said = from_duckdb(inner, view.text)
                    for name, place in reversed(view.path):
                        said = _in_view(name, said, place)
                    return said
        return from_duckdb(error, text)


def _in_view(name: str, error: Exception, place: Place | None) -> Exception:
    """Trino tells which stored view a mistake is in. What its rows raise is no mistake of the view's text."""
    if isinstance(error, QueryCancelled) or (isinstance(error, QueryError) and error.kind not in _MISTAKES):
        return error
    return QueryError("INVALID_VIEW", f"Failed analyzing stored view '{name}': {error}", place)


_MISTAKES = (
    "SYNTAX_ERROR", "COLUMN_NOT_FOUND", "TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND", "FUNCTION_NOT_FOUND", "TYPE_MISMATCH",
    "AMBIGUOUS_NAME", "EXPRESSION_NOT_AGGREGATE", "NOT_SUPPORTED", "MISSING_SCHEMA_NAME", "CATALOG_NOT_FOUND",
    "INVALID_VIEW", "VIEW_IS_STALE", "VIEW_IS_RECURSIVE",
)  # fmt: skip
