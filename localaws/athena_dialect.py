"""Trino's SQL as DuckDB's, function by function: parsing, and the rules where the two mean different things.

sqlglot carries over the syntax and most functions; the rules here are for what would give another result. What DuckDB's
settings and macros make right stands in `SESSION` and `MACROS`.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, ParseError, TokenError, UnsupportedError

from .athena_errors import Place, QueryError
from .athena_types import trino_in_duckdb

SESSION = (
    "SET TimeZone = 'UTC'",
    "SET integer_division = true",  # 7 / 2 = 3 for integers, as in Trino
    "SET python_enable_replacements = false",  # a table's name is never a variable of this program
    "SET parquet_metadata_cache = true",
)

MACROS = (
    # The type of avg(x): a decimal's own, a double for integers.
    """CREATE MACRO trino_avg_type(v BIGINT) AS 0e0, (v HUGEINT) AS 0e0, (v) AS v""",
    """CREATE MACRO trino_exponent(digits, shift) AS
        substr(digits, 1, 1) || '.' || coalesce(nullif(substr(digits, 2), ''), '0') || 'E' || shift""",
    """CREATE MACRO trino_mantissa(whole, fraction, shift) AS CASE
        WHEN ltrim(whole || fraction, '0') = '' THEN '0.0E0'
        WHEN whole <> '0' THEN trino_exponent(coalesce(nullif(rtrim(whole || fraction, '0'), ''), '0'),
            length(whole) - 1 + shift)
        ELSE trino_exponent(rtrim(ltrim(fraction, '0'), '0'),
            length(ltrim(fraction, '0')) - length(fraction) - 1 + shift) END""",
    """CREATE MACRO trino_double(t) AS CASE ltrim(t, '-')
        WHEN 'nan' THEN 'NaN' WHEN 'inf' THEN replace(t, 'inf', 'Infinity')
        ELSE CASE WHEN t[1] = '-' THEN '-' ELSE '' END || trino_mantissa(
            split_part(split_part(ltrim(t, '-'), 'e', 1), '.', 1), split_part(split_part(t, 'e', 1), '.', 2),
            coalesce(try_cast(nullif(split_part(t, 'e', 2), '') AS INTEGER), 0)) END""",
    """CREATE MACRO trino_timestamp(t, digits) AS
        CASE WHEN contains(t, '.') THEN
            rpad(t, CAST(strpos(t, '.') + digits AS INTEGER), '0')
        ELSE t || '.' || repeat('0', digits) END""",
    """CREATE MACRO trino_varchar(v) AS CASE typeof(v)
        WHEN 'DOUBLE' THEN trino_double(CAST(v AS VARCHAR)) WHEN 'FLOAT' THEN trino_double(CAST(v AS VARCHAR))
        WHEN 'TIMESTAMP' THEN trino_timestamp(CAST(v AS VARCHAR), 6)
        WHEN 'TIMESTAMP_MS' THEN trino_timestamp(CAST(v AS VARCHAR), 3)
        WHEN 'TIMESTAMP WITH TIME ZONE' THEN
            trino_timestamp(regexp_replace(CAST(v AS VARCHAR), '[+-][0-9:]+$', ''), 6) || ' UTC'
        ELSE CAST(v AS VARCHAR) END""",
    """CREATE MACRO trino_regexp_extract(s, pattern, part := 0) AS
        CASE WHEN regexp_matches(s, pattern) THEN regexp_extract(s, pattern, part) END""",
    """CREATE MACRO trino_split_part(s, delimiter, part) AS
        CASE WHEN part <= len(string_split(s, delimiter)) THEN split_part(s, delimiter, part) END""",
    """CREATE MACRO trino_slice(list, start, length) AS list_slice(list, start, start + length - 1)""",
    """CREATE MACRO trino_array_position(list, element) AS
        CASE WHEN list IS NOT NULL AND element IS NOT NULL THEN coalesce(list_position(list, element), 0) END""",
    """CREATE MACRO map_agg(k, v) AS map(list(k), list(v))""",
    """CREATE MACRO at_timezone(t, zone) AS CAST(t AS TIMESTAMP WITH TIME ZONE)""",
    """CREATE MACRO with_timezone(t, zone) AS t AT TIME ZONE zone""",
    """CREATE MACRO to_iso8601(t) AS strftime(t, '%Y-%m-%dT%H:%M:%S.%gZ')""",
    """CREATE MACRO is_nan(v) AS isnan(v)""",
    """CREATE MACRO is_finite(v) AS isfinite(v)""",
    """CREATE MACRO is_infinite(v) AS isinf(v)""",
    """CREATE MACRO nan() AS CAST('nan' AS DOUBLE)""",
    """CREATE MACRO infinity() AS CAST('inf' AS DOUBLE)""",
)


# A statement that sqlglot does not know is refused with a reason of ours; its warning would only be noise.
logging.getLogger("sqlglot").setLevel(logging.ERROR)


def parse(text: str) -> exp.Expr:
    """The one statement in the text. Raises QueryError (SYNTAX_ERROR) with the place of the mistake."""
    if "\x00" in text:
        raise QueryError("SYNTAX_ERROR", "a NUL character cannot stand in a statement")
    try:
        statements = [each for each in sqlglot.parse(text, read="trino") if each is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        found = first.get("highlight") or ""
        place = Place(first["line"], max(1, first["col"] - len(found) + 1)) if first.get("line") else None
        told = str(first.get("description", error)).split(" but got ", 1)[0]
        raise QueryError("SYNTAX_ERROR", f"mismatched input '{found}': {told}", place) from None
    except TokenError as error:
        raise QueryError("SYNTAX_ERROR", str(error).split("\n", 1)[0]) from None
    if len(statements) != 1:
        raise QueryError("SYNTAX_ERROR", f"Only one sql statement is allowed. Got: {len(statements)}")
    return statements[0]


def to_duckdb(tree: exp.Expr) -> str:
    """DuckDB's SQL for a statement whose tables are resolved. The tree is used up."""
    for node in reversed(list(tree.dfs())):  # what stands inside first
        rule = _RULES.get(type(node))
        changed = rule(node) if rule else node
        if changed is node:
            continue
        if node is tree:
            tree = changed
        else:
            node.replace(changed)
    try:
        return str(tree.sql(dialect="duckdb", unsupported_level=ErrorLevel.RAISE))
    except UnsupportedError as error:
        raise QueryError("NOT_SUPPORTED", f"not supported on the laptop: {error}") from None


def _call(name: str, *arguments: exp.Expr | None) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=[each for each in arguments if each is not None])


def _typed(kind: str) -> exp.DataType:
    return exp.DataType(this=exp.DataType.Type.USERDEFINED, kind=kind)


_TEXT = ("VARCHAR", "TEXT", "CHAR", "NVARCHAR", "NCHAR")


def _cast(node: Any) -> exp.Expr:
    value, target = node.this, node.to
    name = getattr(target.this, "value", "")
    if name in _TEXT:
        text = value if value.is_string else _call("trino_varchar", value)
        length = target.expressions
        return _call("left", text, length[0].this) if length else text
    if name == "JSON":
        return _call("to_json", value)
    if name == "DECIMAL" and not target.expressions and value.is_string:
        return exp.Literal.number(value.name)  # DECIMAL '1.50'
    kind = exp.TryCast if isinstance(node, exp.TryCast) else exp.Cast
    return kind(this=value, to=_typed(trino_in_duckdb(target)))


def _row(node: Any) -> exp.Expr:
    return _call("row", *node.expressions)


def _by(name: str) -> Callable[[Any], exp.Expr]:
    def rule(node: Any) -> exp.Expr:
        count = node.args.get("count")
        # Trino keeps the NULL that belongs to the greatest key; DuckDB's arg_max would pass it over.
        return _call(name if count else f"{name}_null", node.this, node.expression, count)

    return rule


def _avg(node: Any) -> exp.Expr:
    value = node.this
    if isinstance(value, exp.Distinct) or value.find(exp.AggFunc):
        return node  # type: ignore[no-any-return]
    top = node
    while isinstance(top.parent, exp.Filter | exp.Window) and top.parent.this is top:
        top = top.parent
    sample = _call("min", _call("trino_avg_type", value.copy()))
    if top is node:
        return _call("cast_to_type", node.copy(), sample)
    beside = top.copy()
    beside.find(exp.Avg).replace(sample)
    top.replace(_call("cast_to_type", top.copy(), beside))
    return node  # type: ignore[no-any-return]


def _same_type(node: exp.Expr, as_of: exp.Expr) -> exp.Expr:
    """DuckDB makes a timestamp of a date plus an interval; Trino leaves it a date."""
    return _call("cast_to_type", node.copy(), as_of.copy())


def _date_add(node: Any) -> exp.Expr:
    return _same_type(node, node.this)


def _plus(node: Any) -> exp.Expr:
    left, right = node.this, node.expression
    if isinstance(right, exp.Interval) and not isinstance(left, exp.Interval):
        return _same_type(node, left)
    return node  # type: ignore[no-any-return]


def _date_diff(node: Any) -> exp.Expr:
    # Trino counts whole units between the two; DuckDB's date_diff counts the boundaries crossed.
    unit = node.args.get("unit") or exp.var("day")
    return _call("date_sub", exp.Literal.string(unit.name.lower()), node.expression, node.this)


def _truncated(node: Any) -> exp.Expr:
    unit = node.args["unit"]
    return _same_type(_call("date_trunc", exp.Literal.string(unit.name.lower()), node.this), node.this)


def _at_time_zone(node: Any) -> exp.Expr:
    return exp.Cast(this=node.this, to=_typed("TIMESTAMP WITH TIME ZONE"))


def _concat(node: Any) -> exp.Expr:
    # DuckDB's concat passes NULL over; Trino's gives NULL.
    joined, *others = node.expressions
    for other in others:
        joined = exp.DPipe(this=joined, expression=other, safe=False)
    return exp.Paren(this=joined)


def _regexp_extract(node: Any) -> exp.Expr:
    return _call("trino_regexp_extract", node.this, node.expression, node.args.get("group"))


def _split_part(node: Any) -> exp.Expr:
    return _call("trino_split_part", node.this, node.args["delimiter"], node.args["part_index"])


def _slice(node: Any) -> exp.Expr:
    return _call("trino_slice", node.this, node.args["start"], node.args["end"])


def _array_position(node: Any) -> exp.Expr:
    return _call("trino_array_position", node.this, node.expression)


def _reduce(node: Any) -> exp.Expr:
    finish = node.args.get("finish")
    if finish is None:
        return node  # type: ignore[no-any-return]
    state = exp.Reduce(this=node.this, initial=node.args["initial"], merge=node.args["merge"])
    finished = exp.Transform(this=exp.Array(expressions=[state]), expression=finish)
    return exp.Bracket(this=finished, expressions=[exp.Literal.number(1)], offset=1)


def _unnest(node: Any) -> exp.Expr:
    """UNNEST(a, b) AS u (x, y): DuckDB's takes one list, but lets two stand side by side in a SELECT."""
    alias = node.args.get("alias")
    if len(node.expressions) < 2 or node.args.get("offset"):
        return node  # type: ignore[no-any-return]
    columns = [_call("unnest", each) for each in node.expressions]
    return exp.Subquery(this=exp.select(*columns), alias=alias)


_RENAMED = {
    "codepoint": "unicode", "to_utf8": "encode", "from_utf8": "decode", "array_max": "list_max",
    "array_min": "list_min", "arrays_overlap": "list_has_any", "array_intersect": "list_intersect",
    "array_distinct": "list_distinct", "from_hex": "unhex",
}  # fmt: skip


def _anonymous(node: Any) -> exp.Expr:
    name = node.name.lower()
    if name in _RENAMED:
        node.set("this", _RENAMED[name])
    return node  # type: ignore[no-any-return]


_RULES: dict[type[exp.Expr], Callable[[Any], exp.Expr]] = {
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.Struct: _row,
    exp.ArgMax: _by("arg_max"),
    exp.ArgMin: _by("arg_min"),
    exp.Avg: _avg,
    exp.DateAdd: _date_add,
    exp.Add: _plus,
    exp.Sub: _plus,
    exp.DateDiff: _date_diff,
    exp.DateTrunc: _truncated,
    exp.TimestampTrunc: _truncated,
    exp.AtTimeZone: _at_time_zone,
    exp.Concat: _concat,
    exp.RegexpExtract: _regexp_extract,
    exp.SplitPart: _split_part,
    exp.ArraySlice: _slice,
    exp.ArrayPosition: _array_position,
    exp.Reduce: _reduce,
    exp.Unnest: _unnest,
    exp.Anonymous: _anonymous,
}


def name_outputs(query: exp.Expr) -> exp.Expr:
    """The query with Trino's names for the unnamed columns of its result: _col0, _col1, ... by their place."""
    if isinstance(query, exp.Values):
        first = query.expressions[0]
        width = len(first.expressions) if isinstance(first, exp.Tuple) else 1
        return exp.select("*").from_(exp.alias_(query, "t", table=[f"_col{place}" for place in range(width)]))
    first_select: Any = query
    while isinstance(first_select, exp.SetOperation | exp.Subquery):
        first_select = first_select.this
    if isinstance(first_select, exp.Select):
        named = [_named(position, each) for position, each in enumerate(first_select.expressions)]
        first_select.set("expressions", named)
    return query


def _named(position: int, output: exp.Expr) -> exp.Expr:
    if isinstance(output, exp.Alias | exp.Column | exp.Star | exp.Dot | exp.Aliases):
        return output
    return exp.alias_(output, f"_col{position}")


def bind(tree: exp.Expr, parameters: Sequence[str]) -> None:
    """Put ExecutionParameters, each a literal as SQL writes it, in the place of the question marks."""
    places = list(tree.find_all(exp.Placeholder, bfs=False))
    if len(places) != len(parameters):
        reason = f"Incorrect number of parameters: expected {len(places)} but found {len(parameters)}"
        raise QueryError("INVALID_PARAMETER_USAGE", reason)
    for place, parameter in zip(places, parameters, strict=True):
        place.replace(parse(f"SELECT {parameter}").expressions[0])
