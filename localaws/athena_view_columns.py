"""Whether a view's body still fits the column types that the view promises, by Trino's rules of coercion."""

from sqlglot import exp

from .athena_types import TrinoType, from_trino

_INTEGERS = ("tinyint", "smallint", "integer", "bigint")
_INTEGER_DIGITS = {"tinyint": 3, "smallint": 5, "integer": 10, "bigint": 19}
_TEXTS = ("varchar", "char")


def can_coerce(actual: TrinoType, declared: exp.DataType) -> bool:
    """True when a value of the actual type is one of the declared type without a CAST."""
    return _fits(actual, from_trino(declared))


def _fits(actual: TrinoType, wanted: TrinoType) -> bool:
    if actual.base == "unknown" or actual == wanted:
        return True
    if actual.base in _INTEGERS:
        return _integer_fits(actual.base, wanted)
    if actual.base in ("real", "double"):
        # DuckDB divides decimals as doubles, so a double may stand for what is a decimal in Trino.
        return wanted.base == "double" or wanted.base == "decimal" or actual.base == wanted.base
    if actual.base == "decimal":
        return wanted.base in ("real", "double") or (wanted.base == "decimal" and _decimal_fits(actual, wanted))
    if actual.base == "date":
        return wanted.base.startswith("timestamp")
    if actual.base in _TEXTS:
        return wanted.base in _TEXTS
    if actual.base == "timestamp":
        return wanted.base in ("timestamp", "timestamp with time zone")
    if len(actual.children) != len(wanted.children) or actual.base != wanted.base:
        return False
    return all(_fits(ours, theirs) for ours, theirs in zip(actual.children, wanted.children, strict=True))


def _integer_fits(base: str, wanted: TrinoType) -> bool:
    if wanted.base in _INTEGERS:
        return _INTEGERS.index(base) <= _INTEGERS.index(wanted.base)
    if wanted.base == "decimal":
        precision, scale = wanted.arguments
        return precision - scale >= min(_INTEGER_DIGITS[base], 19)
    return wanted.base in ("real", "double")


def _decimal_fits(actual: TrinoType, wanted: TrinoType) -> bool:
    (precision, scale), (wanted_precision, wanted_scale) = actual.arguments, wanted.arguments
    return wanted_scale >= scale and wanted_precision - wanted_scale >= precision - scale
