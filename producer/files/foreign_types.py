"""Column types of what Parquet and Avro files say of themselves. Pure."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from producer.files.columns import MAX_PRECISION, PLAIN


def of_arrow(kind: pa.DataType) -> str:
    """The column type of an Arrow type; what has no type of its own is text, JSON where it has parts."""
    if pa.types.is_decimal(kind) and 0 <= kind.scale <= kind.precision <= MAX_PRECISION:
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind) and kind.unit != "ns":  # nanoseconds do not fit microseconds; they stay text
        return "timestamp" if kind.tz is None else "timestamptz"
    return next((name for holds, name in _ARROW if holds(kind)), "string")


_ARROW: Final = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_uint64, "decimal(20,0)"),
    (lambda kind: pa.types.is_int64(kind) or pa.types.is_uint32(kind), "long"),
    (pa.types.is_integer, "int"),
    (pa.types.is_float64, "double"),
    (pa.types.is_floating, "float"),
    (pa.types.is_date, "date"),
    (
        lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind),
        "bytes",
    ),
)


def of_avro(kind: Any) -> str:
    """The column type of an Avro type, nullable or not."""
    if isinstance(kind, list):
        others = [branch for branch in kind if branch != "null"]
        return of_avro(others[0]) if len(others) == 1 else "string"
    if isinstance(kind, str):
        return kind if kind in PLAIN else "string"
    logical = kind.get("logicalType", "")
    if logical == "decimal" and kind["precision"] <= MAX_PRECISION:
        return f"decimal({kind['precision']},{kind.get('scale', 0)})"
    if logical in _LOGICAL:
        return _LOGICAL[logical]
    return of_avro(kind["type"]) if kind["type"] in PLAIN and not logical else "string"


_LOGICAL: Final = {
    "date": "date",
    "timestamp-millis": "timestamptz",
    "timestamp-micros": "timestamptz",
    "local-timestamp-millis": "timestamp",
    "local-timestamp-micros": "timestamp",
}
