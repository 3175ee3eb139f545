"""Values as two systems print them, brought to one form so that they can be compared exactly. Pure.

PostgreSQL's text (ISO dates, UTC, shortest floats, hex bytea) and Athena's are read by the lake column's type. What a
column's type cannot hold (numeric NaN, an infinite timestamp, an array of arrays) is NULL there, and its original
text stands in `_raw`.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

Value = Any
"""None, bool, int, float (NaN as the text 'NaN'), Decimal, str, bytes, date, datetime, or a tuple of these."""

_PARAMETERS: Final = re.compile(r"\(.*\)")
_TOKEN: Final = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^"\\{},]+))(?:,|\Z)', re.DOTALL)


class Unheld(Exception):
    """The lake column's type cannot hold the source's value: it is NULL in the lake, and its text is in `_raw`."""


def element_type(lake_type: str) -> str | None:
    """The type of an array's elements from its Glue type, such as `array<int>`; None for other types."""
    return lake_type[len("array<") : -1] if lake_type.startswith("array<") else None


def may_be_unheld(lake_type: str) -> bool:
    """Whether a column of that type can lack a value that the source's type holds."""
    return lake_type.startswith(("decimal", "date", "timestamp", "array<"))


def from_source(text: str | None, lake_type: str) -> Value:
    """What PostgreSQL printed. Raises Unheld for what the lake's type cannot hold."""
    if text is None:
        return None
    element = element_type(lake_type)
    if element is None:
        return _READERS[_base(lake_type)](text)
    return tuple(None if item is None else from_source(item, element) for item in _array(text))


def from_athena(text: str | None, lake_type: str) -> Value:
    """What Athena printed; an array as json_format(CAST(column AS JSON))."""
    if text is None:
        return None
    element = element_type(lake_type)
    if element is None:
        return _ATHENA_READERS[_base(lake_type)](text)
    items = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    return tuple(None if item is None else from_athena(_plain(item), element) for item in items)


def _plain(item: Any) -> str:
    return ("true" if item else "false") if isinstance(item, bool) else str(item)


def _base(lake_type: str) -> str:
    return _PARAMETERS.sub("", lake_type).split("<")[0]


def _array(text: str) -> list[str | None]:
    """One dimension from index 1; other shapes are no array in the lake."""
    if text.startswith(("[", "{{")):
        raise Unheld
    items: list[str | None] = []
    inner, at = text[1:-1], 0
    while at < len(inner):
        match = _TOKEN.match(inner, at)
        if match is None:
            raise ValueError(f"not an array as PostgreSQL prints one: {text[:80]!r}")
        quoted, plain = match.groups()
        items.append(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) if quoted is not None else plain)
        if quoted is None and plain == "NULL":
            items[-1] = None
        at = match.end()
    return items


def _boolean(text: str) -> bool:
    return text in ("t", "true")


def _float(text: str) -> Value:
    value = float(text)
    return "NaN" if math.isnan(value) else (value, math.copysign(1, value))


def _real(text: str) -> Value:
    value = float(text)
    if math.isnan(value) or math.isinf(value):
        return _float(text)
    value = struct.unpack("<f", struct.pack("<f", value))[0]
    return (value, math.copysign(1, value))


def _decimal(text: str) -> Decimal:
    if not text[-1:].isdigit():
        raise Unheld
    return Decimal(text)


def _date(text: str) -> date:
    if len(text) != 10:
        raise Unheld
    return date.fromisoformat(text)


def _timestamp(text: str) -> datetime:
    plain = text.removesuffix("+00")
    if plain.endswith(("infinity", "BC")) or plain[4:5] != "-":
        raise Unheld
    return datetime.fromisoformat(plain)


def _source_bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("\\x"))


_READERS: Final[dict[str, Callable[[str], Value]]] = {
    "boolean": _boolean,
    "int": int,
    "bigint": int,
    "float": _real,
    "double": _float,
    "decimal": _decimal,
    "string": str,
    "binary": _source_bytes,
    "date": _date,
    "timestamp": _timestamp,
}
_ATHENA_READERS: Final = _READERS | {"binary": bytes.fromhex}
