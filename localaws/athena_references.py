"""A statement's references to catalog entries, in the order of Trino's analyser, and its SQL with a gap for each. Pure.

A WITH comes before what uses it, FROM before everything else of a SELECT, left before right. What is made here depends
on the text alone, so it is made once for a view, however often the view is read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from . import athena_dialect as dialect
from .athena_catalog import CATALOG
from .athena_errors import Place, QueryError, place_of

_SELECT_ORDER = ("from_", "joins", "laterals", "where", "expressions")


@dataclass(frozen=True, slots=True)
class Reference:
    """One mention of a table or view. `wanted` are the only values of a column that the statement asks for there."""

    database: str
    name: str
    place: Place | None
    wanted: Mapping[str, frozenset[str]]
    as_of_version: int | str | None = None
    as_of_time: str | None = None  # DuckDB's SQL for an instant


Casts = tuple[tuple[str, exp.DataType], ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """DuckDB's SQL as text and, where a relation belongs, the number of its reference.

    `casts` are the names and types of the output when the text itself casts every column of it.
    """

    template: tuple[str | int, ...]
    references: tuple[Reference, ...]
    casts: Casts | None

    def sql(self, relations: Sequence[str]) -> str:
        """The SQL over these relations, one for each reference; each is SQL that may stand in a FROM."""
        return "".join(relations[piece] if isinstance(piece, int) else piece for piece in self.template)


def compiled(tree: exp.Expr, schema: str | None, text: str) -> Compiled:
    """The statement in DuckDB's SQL; its tree is used up. Unqualified names are looked up in the schema.

    Raises QueryError for a name that cannot be looked up at all, and for what is not supported here.
    """
    statement = _Statement(schema, text)
    statement.visit(tree, frozenset())
    statement.drop_qualifiers(tree)
    casts = _casts(tree)
    pieces = _GAP.split(dialect.to_duckdb(tree))
    template = tuple(int(piece) if position % 2 else piece for position, piece in enumerate(pieces))
    return Compiled(template, tuple(statement.references), casts)


_GAP = re.compile('"\x00([0-9]+)\x00"')


def _gap(number: int) -> exp.Identifier:
    """An identifier that no statement can hold, since the parser refuses a NUL."""
    return exp.to_identifier(f"\x00{number}\x00", quoted=True)


class _Statement:
    """One text while its tables are replaced by gaps."""

    def __init__(self, schema: str | None, text: str) -> None:
        self._schema, self._text = schema, text
        self.references: list[Reference] = []

    def visit(self, node: exp.Expr, local: frozenset[str]) -> None:
        """Replace every table under a node; `local` holds the names that WITH gives here."""
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
        if not table.db and table.name.lower() in local:
            return
        self.references.append(self._reference(table, place))
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.set("this", _gap(len(self.references) - 1))
        for part in ("db", "catalog", "version"):
            table.set(part, None)

    def _reference(self, table: exp.Table, place: Place | None) -> Reference:
        if table.catalog and table.catalog.lower() != CATALOG:
            raise QueryError("CATALOG_NOT_FOUND", f"Catalog '{table.catalog}' not found", place)
        database = table.db or self._schema
        if not database:
            reason = "Schema must be specified when session schema is not set"
            raise QueryError("MISSING_SCHEMA_NAME", reason, place)
        # Names in Glue are lower case, and Athena does not tell cases apart, not even in quotes.
        names = (database.lower(), table.name.lower(), place, _wanted(table))
        clause = table.args.get("version")
        if clause is None:
            return Reference(*names)
        value = clause.expression
        if clause.name == "VERSION":
            return Reference(*names, as_of_version=value.name if value.is_string else int(value.name))
        return Reference(*names, as_of_time=dialect.to_duckdb(exp.select(value.copy())))

    def drop_qualifiers(self, root: exp.Expr) -> None:
        """Columns written as schema.table.column are table.column once the table stands under its alias."""
        qualified = {(reference.database, reference.name) for reference in self.references}
        for column in root.find_all(exp.Column):
            if (column.text("db").lower(), column.text("table").lower()) in qualified:
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


def _casts(query: exp.Expr) -> Casts | None:
    """The output of a query whose every branch casts every column, with the same types in the same order."""
    if isinstance(query, exp.Subquery):
        return _casts(query.this)
    if isinstance(query, exp.SetOperation):
        left, right = _casts(query.left), _casts(query.right)
        same = left is not None and right is not None and [kind for _, kind in left] == [kind for _, kind in right]
        return left if same else None
    if not isinstance(query, exp.Select):
        return None
    named = [each for each in query.expressions if isinstance(each, exp.Alias) and type(each.this) is exp.Cast]
    if len(named) != len(query.expressions):
        return None
    return tuple((each.alias, each.this.to.copy()) for each in named)


def _wanted(table: exp.Table) -> Mapping[str, frozenset[str]]:
    """Columns that the WHERE around a table compares with string literals, so that other partitions need no reading."""
    parent = table.parent
    select = parent.parent if isinstance(parent, exp.From | exp.Join) else None
    where = select.args.get("where") if isinstance(select, exp.Select) else None
    if where is None or select is None:
        return {}
    wanted: dict[str, frozenset[str]] = {}
    for condition in _conjuncts(where.this):
        column, values = _equals(condition)
        # Without a qualifier it can only be this table's: were it another's too, it would be ambiguous.
        if column is None or column.table.lower() not in ("", table.alias_or_name.lower()):
            continue
        wanted[column.name] = wanted.get(column.name, values) & values
    return wanted


def _conjuncts(condition: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(condition, exp.And):
        yield from _conjuncts(condition.left)
        yield from _conjuncts(condition.right)
    elif isinstance(condition, exp.Paren):
        yield from _conjuncts(condition.this)
    else:
        yield condition


def _equals(condition: exp.Expr) -> tuple[exp.Column | None, frozenset[str]]:
    """The column and the literals of `c = 'x'`, `'x' = c` and `c IN ('x', 'y')`; no column for anything else."""
    if isinstance(condition, exp.EQ):
        column, values = condition.left, [condition.right]
        if column.is_string:
            column, values = condition.right, [condition.left]
    elif isinstance(condition, exp.In) and not condition.args.get("query") and not condition.args.get("unnest"):
        column, values = condition.this, condition.expressions
    else:
        return None, frozenset()
    if isinstance(column, exp.Column) and values and all(value.is_string for value in values):
        return column, frozenset(value.name for value in values)
    return None, frozenset()
