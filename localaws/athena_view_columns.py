"""Whether a view's body still fits the columns that the view promises, by Trino's rules of coercion."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from . import athena_types as types
from .athena_errors import Place, QueryError
from .athena_types import TrinoType, quoted

_INTEGERS = ("tinyint", "smallint", "integer", "bigint")
_INTEGER_DIGITS = {"tinyint": 3, "smallint": 5, "integer": 10, "bigint": 19}
_TEXTS = ("varchar", "char")
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Output:
    """A column of a view's body: its name, its Trino type and how DuckDB spells that type."""

    name: str
    kind: TrinoType
    duckdb: str

    @staticmethod
    def cast(name: str, kind: exp.DataType) -> "Output":
        """A column that the body itself casts."""
        return Output(name, types.from_trino(kind), types.trino_in_duckdb(kind))

    @staticmethod
    def bound(name: str, kind: Any) -> "Output":
        """A column as DuckDB bound it."""
        return Output(name, types.from_duckdb(kind), str(kind))


def fitted(
    view: str, body: str, outputs: Sequence[Output], declared: Sequence[tuple[str, str]], place: Place | None
) -> str:
    """SQL for the view's rows with the names and types it promises. Raises QueryError when its body does not fit."""
    if len(outputs) != len(declared):
        raise _stale(
            view, place,
            f"stored view column count ({len(declared)}) does not match column count derived from the view query "
            f"analysis ({len(outputs)})",
        )  # fmt: skip
    targets = []
    for position, (output, (name, promised)) in enumerate(zip(outputs, declared, strict=True)):
        wanted = types.parse(promised)
        shown = f"column [{output.name}] of type {output.kind.text} projected from query view at position {position}"
        if _PLAIN_NAME.fullmatch(output.name) and output.name.lower() != name.lower():
            problem = f"has a different name from column [{name}] of type {promised} stored in view definition"
            raise _stale(view, place, f"{shown} {problem}")
        if not can_coerce(output.kind, wanted):
            problem = f"cannot be coerced to column [{name}] of type {promised} stored in view definition"
            raise _stale(view, place, f"{shown} {problem}")
        targets.append((name, types.trino_in_duckdb(wanted)))
    if [(output.name, output.duckdb) for output in outputs] == targets:
        return body
    columns = [f"c{position}" for position in range(len(targets))]
    selected = (
        f"CAST({column} AS {kind}) AS {quoted(name)}" for column, (name, kind) in zip(columns, targets, strict=True)
    )
    return f"SELECT {', '.join(selected)} FROM ({body}) AS body({', '.join(columns)})"


def _stale(view: str, place: Place | None, problem: str) -> QueryError:
    return QueryError("VIEW_IS_STALE", f"View '{view}' is stale or in invalid state: {problem}", place)


def can_coerce(actual: TrinoType, declared: exp.DataType) -> bool:
    """True when a value of the actual type is one of the declared type without a CAST."""
    return _fits(actual, types.from_trino(declared))


def _fits(actual: TrinoType, wanted: TrinoType) -> bool:
    if actual.base == "unknown" or actual == wanted:
        return True
    if actual.base in _INTEGERS:
        return _integer_fits(actual.base, wanted)
    if actual.base in ("real", "double"):
        # DuckDB divides decimals as doubles, so a double may stand for what is a decimal in Trino.
        return wanted.base in ("double", "decimal", actual.base)
    if actual.base == "decimal":
        return wanted.base in ("real", "double") or (wanted.base == "decimal" and _decimal_fits(actual, wanted))
    if actual.base == "date":
        return wanted.base.startswith("timestamp")
    if actual.base in _TEXTS:
        return wanted.base in _TEXTS
    if actual.base == "timestamp":
        return wanted.base in ("timestamp", "timestamp with time zone")
    if actual.base != wanted.base or len(actual.children) != len(wanted.children):
        return False
    return all(_fits(ours, theirs) for ours, theirs in zip(actual.children, wanted.children, strict=True))


def _integer_fits(base: str, wanted: TrinoType) -> bool:
    if wanted.base in _INTEGERS:
        return _INTEGERS.index(base) <= _INTEGERS.index(wanted.base)
    if wanted.base == "decimal":
        precision, scale = wanted.arguments
        return precision - scale >= _INTEGER_DIGITS[base]
    return wanted.base in ("real", "double")


def _decimal_fits(actual: TrinoType, wanted: TrinoType) -> bool:
    (precision, scale), (wanted_precision, wanted_scale) = actual.arguments, wanted.arguments
    return wanted_scale >= scale and wanted_precision - wanted_scale >= precision - scale
