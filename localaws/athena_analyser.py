"""A query's names resolved as Trino's analyser resolves them: in its order, each catalog entry read once.

A WITH comes before what uses it, FROM before everything else of a SELECT, left before right; a view is analysed where
it is met, with its own schema as the place for unqualified names. An Iceberg table is pinned when it is read.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import duckdb
from sqlglot import exp

from . import athena_catalog as catalog
from . import athena_dialect as dialect
from . import athena_iceberg as iceberg
from .athena_errors import Place, QueryCancelled, QueryError, from_duckdb, place_of
from .athena_iceberg import Lake, TableVersion
from .athena_metadata_tables import METADATA_TABLES
from .athena_relations import Relations
from .athena_types import from_duckdb as trino_type
from .athena_types import parse as parse_type
from .athena_types import quoted, trino_in_duckdb
from .athena_view_columns import can_coerce

_SELECT_ORDER = ("from_", "joins", "laterals", "where", "expressions")
_METADATA_NAME = re.compile(rf"^(.+)\$({'|'.join(METADATA_TABLES)})$")


class Analyser:
    """Turns one statement, and every view under it, into SQL over a connection's temporary relations."""

    def __init__(self, reads: catalog.CatalogReads, lake: Lake, relations: Relations) -> None:
        self._reads, self._lake, self._relations = reads, lake, relations
        self._versions: dict[str, TableVersion] = {}
        self._views: dict[tuple[str, str], str] = {}
        self._open_views: list[tuple[str, str]] = []

    def duckdb_sql(self, tree: exp.Expr, schema: str | None, text: str) -> str:
        """DuckDB's SQL for a statement; its tree is used up. Raises QueryError for a name that does not resolve."""
        return self._translated(tree, schema, text)[0]

    def _translated(self, tree: exp.Expr, schema: str | None, text: str) -> tuple[str, bool]:
        """DuckDB's SQL, and whether it reads nothing from the catalog."""
        statement = _Statement(self, schema, text)
        statement.visit(tree, frozenset())
        statement.drop_qualifiers(tree)
        return dialect.to_duckdb(tree), not statement.reads_catalog

    def relation(self, database: str, name: str, table: exp.Table, place: Place | None) -> str:
        """The relation that stands for a reference to a table, a view or one of a table's metadata tables."""
        parts = _METADATA_NAME.match(name)
        entry = self._reads.table(database, parts[1] if parts else name, place)
        full_name = f"{database}.{name}"
        if catalog.is_view(entry):
            if parts:
                raise QueryError("TABLE_NOT_FOUND", f"Table '{catalog.CATALOG}.{full_name}' does not exist", place)
            return self._view(database, name, entry, place)
        version = self._version(database, entry)
        if parts:
            make = METADATA_TABLES[parts[2]]
            return self._relations.rows(f"{full_name} {version.metadata_location}", make(self._lake, version))
        return self._relations.table(full_name, _as_of(version, table), _wanted(table))

    def _version(self, database: str, entry: catalog.Entry) -> TableVersion:
        location = (entry.get("Parameters") or {}).get("metadata_location")
        if not location:
            name = f"{catalog.CATALOG}.{database}.{entry['Name']}"
            raise QueryError("NOT_SUPPORTED", f"Table '{name}' is not an Iceberg table: not supported on the laptop")
        if location not in self._versions:
            self._versions[location] = self._lake.current(location)
        return self._versions[location]

    def _view(self, database: str, name: str, entry: catalog.Entry, place: Place | None) -> str:
        key = (database, name)
        if key in self._open_views:
            raise QueryError("VIEW_IS_RECURSIVE", "View is recursive", place)
        if key not in self._views:
            self._open_views.append(key)
            self._views[key] = self._expand(database, name, catalog.view(database, entry), place)
            self._open_views.pop()
        return self._views[key]

    def _expand(self, database: str, name: str, view: catalog.View, place: Place | None) -> str:
        full_name = f"{catalog.CATALOG}.{database}.{name}"
        body: exp.Expr | None = None
        try:
            body = dialect.parse(view.sql)
            sql, constant = self._translated(body.copy(), view.schema, view.sql)
            columns = self._relations.described(sql)
            selected = _declared(full_name, view.columns, columns, place)
            relation = self._relations.new_name()
            self._relations.named((database, name), relation)
            names = ", ".join(quoted(f"c{position}") for position in range(len(columns)))
            query = f"SELECT {selected} FROM ({sql}) AS body({names})"
            # Trino computes VALUES while it plans, whether or not the rest of the query looks at them.
            (self._relations.constant if constant else self._relations.view)(relation, query)
        except duckdb.Error as error:
            said = from_duckdb(error, body, view.sql)
            if isinstance(said, QueryCancelled):
                raise said from error
            raise _in_view(full_name, said, place) from error
        except QueryError as error:
            raise _in_view(full_name, error, place) from error
        return relation


def _in_view(name: str, error: Exception, place: Place | None) -> QueryError:
    """Trino tells which stored view a mistake is in. What its rows raise is no mistake of the view's text."""
    if isinstance(error, QueryError) and error.kind not in _MISTAKES:
        return error
    return QueryError("INVALID_VIEW", f"Failed analyzing stored view '{name}': {error}", place)


_MISTAKES = (
    "SYNTAX_ERROR", "COLUMN_NOT_FOUND", "TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND", "FUNCTION_NOT_FOUND", "TYPE_MISMATCH",
    "AMBIGUOUS_NAME", "EXPRESSION_NOT_AGGREGATE", "NOT_SUPPORTED",
)  # fmt: skip


def _declared(
    name: str, declared: tuple[tuple[str, str], ...], columns: list[tuple[str, Any]], place: Place | None
) -> str:
    """The view's columns with the types and names it promises. Raises QueryError when its body does not fit them."""
    stale = f"View '{name}' is stale or in invalid state: "
    if len(columns) != len(declared):
        counts = f"stored view column count ({len(declared)}) does not match column count derived from the view query"
        raise QueryError("VIEW_IS_STALE", f"{stale}{counts} analysis ({len(columns)})", place)
    selected = []
    for position, ((column, promised), (found_name, found)) in enumerate(zip(declared, columns, strict=True)):
        wanted, actual = parse_type(promised), trino_type(found)
        if not can_coerce(actual, wanted):
            problem = (
                f"column [{found_name}] of type {actual.text} projected from query view at position {position} "
                f"cannot be coerced to column [{column}] of type {promised} stored in view definition"
            )
            raise QueryError("VIEW_IS_STALE", stale + problem, place)
        source = quoted(f"c{position}")
        target = trino_in_duckdb(wanted)
        selected.append(f"{source} AS {quoted(column)}" if str(found) == target else
                        f"CAST({source} AS {target}) AS {quoted(column)}")  # fmt: skip
    return ", ".join(selected)


class _Statement:
    """One statement's or view's text while its tables are replaced, in the analyser's order."""

    def __init__(self, analyser: Analyser, schema: str | None, text: str) -> None:
        self._analyser, self._schema, self._text = analyser, schema, text
        self._qualified: set[tuple[str, str]] = set()

    @property
    def reads_catalog(self) -> bool:
        return bool(self._qualified)

    def visit(self, node: exp.Expr, local: frozenset[str]) -> None:
        """Resolve every table under a node; `local` holds the names that WITH gives here."""
        with_ = node.args.get("with_")
        if with_:
            local = self._with(with_, local)
        if isinstance(node, exp.Table):
            self._table(node, local)
        for child in _children(node):
            self.visit(child, local)

    def _with(self, with_: exp.With, local: frozenset[str]) -> frozenset[str]:
        for query in with_.expressions:
            name = query.alias.lower()
            self.visit(query.this, local | {name} if with_.args.get("recursive") else local)
            local = local | {name}
        return local

    def _table(self, table: exp.Table, local: frozenset[str]) -> None:
        place = place_of(self._text, table)
        if not isinstance(table.this, exp.Identifier):
            name = getattr(table.this, "name", "") or str(table.this)
            raise QueryError("FUNCTION_NOT_FOUND", f"Table function '{name}' not registered", place)
        name, database = table.name.lower(), table.db.lower()
        if not database and name in local:
            return
        if table.catalog and table.catalog.lower() != catalog.CATALOG:
            raise QueryError("CATALOG_NOT_FOUND", f"Catalog '{table.catalog}' not found", place)
        if not database:
            if not self._schema:
                reason = "Schema must be specified when session schema is not set"
                raise QueryError("MISSING_SCHEMA_NAME", reason, place)
            database = self._schema.lower()
        relation = self._analyser.relation(database, name, table, place)
        self._qualified.add((database, name))
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.set("this", exp.to_identifier(relation, quoted=True))
        for part in ("db", "catalog", "version", "when"):
            table.set(part, None)

    def drop_qualifiers(self, root: exp.Expr) -> None:
        """Columns written as schema.table.column are table.column once the table stands under its alias."""
        for column in root.find_all(exp.Column):
            if (column.text("db").lower(), column.text("table").lower()) in self._qualified:
                column.set("db", None)
                column.set("catalog", None)


def _children(node: exp.Expr) -> Iterator[exp.Expr]:
    names = [name for name in node.args if name != "with_"]
    if isinstance(node, exp.Select):
        names.sort(key=lambda name: _SELECT_ORDER.index(name) if name in _SELECT_ORDER else len(_SELECT_ORDER))
    for name in names:
        value = node.args[name]
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, exp.Expr):
                yield child


def _wanted(table: exp.Table) -> Mapping[str, Collection[Any]]:
    """Columns that the WHERE around a table compares with string literals, so that other partitions need no reading."""
    parent = table.parent
    select = parent.parent if isinstance(parent, exp.From | exp.Join) else None
    where = select.args.get("where") if isinstance(select, exp.Select) else None
    if where is None or select is None:
        return {}
    alone = not select.args.get("joins") and not select.args.get("laterals")
    wanted: dict[str, set[str]] = {}
    for condition in _conjuncts(where.this):
        column, values = _equals(condition)
        if column is None or not (column.table.lower() == table.alias_or_name.lower() or (alone and not column.table)):
            continue
        wanted[column.name] = wanted[column.name] & values if column.name in wanted else values
    return wanted


def _conjuncts(condition: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(condition, exp.And):
        yield from _conjuncts(condition.left)
        yield from _conjuncts(condition.right)
    elif isinstance(condition, exp.Paren):
        yield from _conjuncts(condition.this)
    else:
        yield condition


def _equals(condition: exp.Expr) -> tuple[exp.Column | None, set[str]]:
    """The column and the literals of `c = 'x'`, `'x' = c` and `c IN ('x', 'y')`; no column for anything else."""
    if isinstance(condition, exp.EQ):
        column, values = condition.left, [condition.right]
        if column.is_string:
            column, values = condition.right, [condition.left]
    elif isinstance(condition, exp.In) and not condition.args.get("query") and not condition.args.get("unnest"):
        column, values = condition.this, condition.expressions
    else:
        return None, set()
    if isinstance(column, exp.Column) and values and all(value.is_string for value in values):
        return column, {value.name for value in values}
    return None, set()


def _as_of(version: TableVersion, table: exp.Table) -> TableVersion:
    """The version that FOR VERSION AS OF or FOR TIMESTAMP AS OF asks for."""
    clause = table.args.get("version")
    if clause is None:
        return version
    value = clause.expression
    if clause.name == "VERSION":
        return iceberg.at_version(version, value.name if value.is_string else int(value.name))
    return iceberg.at_time(version, _moment(value))


def _moment(value: exp.Expr) -> datetime:
    """The instant that an expression of literals gives; UTC unless it says otherwise."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        sql = dialect.to_duckdb(exp.select(value.copy()))
        try:
            found = connection.execute(f"SELECT epoch_us(CAST(({sql}) AS TIMESTAMP WITH TIME ZONE))").fetchone()
        except duckdb.Error as error:
            raise from_duckdb(error, None, "") from error
    micros = found[0] if found else None
    if micros is None:
        raise QueryError("INVALID_ARGUMENTS", "Pointer value cannot be NULL")
    return datetime.fromtimestamp(micros / 1_000_000, UTC)
