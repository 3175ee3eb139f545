"""Why a query fails, in Athena's words: `KIND: line 1:8: message`.

QueryError      the query or the data is at fault; its text is the execution's StateChangeReason
  QueryDenied   the caller may not do what the query needs
QueryCancelled  somebody called StopQueryExecution
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import duckdb
from sqlglot import exp


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the text of a statement: both count from 1."""

    line: int
    column: int


class QueryError(Exception):
    """A failed query. `kind` is one of Trino's error names."""

    def __init__(self, kind: str, message: str, place: Place | None = None) -> None:
        self.kind, self.message, self.place = kind, message, place
        where = f"line {place.line}:{place.column}: " if place else ""
        super().__init__(f"{kind}: {where}{message}")


class QueryDenied(QueryError):
    """The caller lacks a permission; the message is Athena's, without a kind in front."""

    def __init__(self, message: str) -> None:
        super().__init__("PERMISSION_DENIED", message)
        self.args = (message,)


class QueryCancelled(Exception):
    """The query was interrupted on request."""


def place_at(text: str, start: int) -> Place:
    """The place of a character, counted from 0, in the text."""
    before = text[:start]
    return Place(before.count("\n") + 1, start - (before.rfind("\n") + 1) + 1)


def place_of(text: str, node: exp.Expr) -> Place | None:
    """Where a name begins in the statement's text, its qualifiers included, if the parser kept it."""
    parts = [node, *(node.args.get(part) for part in ("this", "db", "catalog"))]
    starts = [part.meta["start"] for part in parts if isinstance(part, exp.Identifier) and "start" in part.meta]
    return place_at(text, min(starts)) if starts else None


_TYPE_NAMES = {
    "INT8": "TINYINT", "INT16": "SMALLINT", "INT32": "INTEGER", "INT64": "BIGINT", "INT128": "BIGINT",
    "FLOAT": "REAL", "BOOL": "BOOLEAN",
}  # fmt: skip

Locate = Callable[[str], Place | None]


def _cast_failed(found: re.Match[str], locate: Locate) -> QueryError:
    value, target = found.groups()
    return QueryError("INVALID_CAST_ARGUMENT", f"Cannot cast '{value}' to {_TYPE_NAMES.get(target, target)}")


def _column_missing(found: re.Match[str], locate: Locate) -> QueryError:
    name = found[1]
    reason = f"Column '{name}' cannot be resolved or requester is not authorized to access requested resources"
    return QueryError("COLUMN_NOT_FOUND", reason, locate(name))


def _ambiguous(found: re.Match[str], locate: Locate) -> QueryError:
    return QueryError("AMBIGUOUS_NAME", f"Column '{found[1]}' is ambiguous", locate(found[1]))


def _not_aggregate(found: re.Match[str], locate: Locate) -> QueryError:
    reason = f"'{found[1]}' must be an aggregate expression or appear in GROUP BY clause"
    return QueryError("EXPRESSION_NOT_AGGREGATE", reason, locate(found[1]))


def _function_missing(found: re.Match[str], locate: Locate) -> QueryError:
    return QueryError("FUNCTION_NOT_FOUND", f"Function '{found[1]}' not registered", locate(found[1]))


def _fixed(kind: str, message: str) -> Callable[[re.Match[str], Locate], QueryError]:
    return lambda found, locate: QueryError(kind, message)


def _as_told(kind: str) -> Callable[[re.Match[str], Locate], QueryError]:
    return lambda found, locate: QueryError(kind, found[0])


# First match wins. DuckDB's sentences on the left, Trino's on the right.
_SENTENCES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Locate], QueryError]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), make)
    for pattern, make in (
        (r"Could not convert string ['\"](.*)['\"] to (\w+)", _cast_failed),
        (r"invalid (?:date|timestamp|time) field format: \"[^\n]*", _as_told("INVALID_CAST_ARGUMENT")),
        (r"Referenced column \"([^\"]+)\" (?:was )?not found", _column_missing),
        (r"does not have a column named \"([^\"]+)\"", _column_missing),
        (r"Referenced table \"([^\"]+)\" not found", _column_missing),
        (r"Ambiguous reference to column name \"([^\"]+)\"", _ambiguous),
        (r"column \"?([^\"]+)\"? must appear in the GROUP BY clause", _not_aggregate),
        (r"(?:Scalar|Aggregate|Table|Table Macro|Macro) Function with name (\S+) does not exist", _function_missing),
        (r"[Dd]ivision by zero", _fixed("DIVISION_BY_ZERO", "Division by zero")),
        (r"More than one row returned by a subquery",
         _fixed("SUBQUERY_MULTIPLE_ROWS", "Scalar sub-query has returned multiple rows")),
        (r"[^\n]*(?:out of range|Overflow)[^\n]*", _as_told("NUMERIC_VALUE_OUT_OF_RANGE")),
    )
)  # fmt: skip

_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (duckdb.OutOfRangeException, "NUMERIC_VALUE_OUT_OF_RANGE"),
    (duckdb.ConversionException, "INVALID_CAST_ARGUMENT"),
    (duckdb.OutOfMemoryException, "EXCEEDED_LOCAL_MEMORY_LIMIT"),
    (duckdb.BinderException, "TYPE_MISMATCH"),
    (duckdb.ParserException, "SYNTAX_ERROR"),
    (duckdb.NotImplementedException, "NOT_SUPPORTED"),
    (duckdb.IOException, "ICEBERG_CANNOT_OPEN_SPLIT"),
)


def from_duckdb(error: Exception, text: str) -> Exception:
    """What Athena would say of an error that DuckDB raised for the statement or view with this text."""
    if isinstance(error, duckdb.InterruptException):
        return QueryCancelled("Query was cancelled by user")

    def locate(name: str) -> Place | None:
        found = re.search(rf'(?<![\w"]){re.escape(name)}(?![\w"])|"{re.escape(name)}"', text, re.IGNORECASE)
        return place_at(text, found.start()) if found else None

    said = str(error)
    for pattern, make in _SENTENCES:
        found = pattern.search(said)
        if found:
            return make(found, locate)
    kind = next((kind for parent, kind in _KINDS if isinstance(error, parent)), "GENERIC_INTERNAL_ERROR")
    return QueryError(kind, said.split("\n", 1)[0].removeprefix("Binder Error: "))
