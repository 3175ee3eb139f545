"""Columns of a table of files: which Avro type each has, and what a text or a JSON value is in it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

from schemas.change_record import AvroType, Column, lake_column_names

FILE_NAME: Final = "file_name"
LINE_NUMBER: Final = "line_number"

MAX_PRECISION: Final = 38
_DECIMAL: Final = re.compile(r"decimal\((\d{1,2}), ?(\d{1,2})\)")
_TRUTHS: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_INT: Final = {"int": 31, "long": 63}
PLAIN: Final[Mapping[str, AvroType]] = {
    "string": "string",
    "boolean": "boolean",
    "int": "int",
    "long": "long",
    "float": "float",
    "double": "double",
    "bytes": "bytes",
    "date": {"type": "int", "logicalType": "date"},
    "timestamp": {"type": "long", "logicalType": "local-timestamp-micros"},
    "timestamptz": {"type": "long", "logicalType": "timestamp-micros"},
}
TYPES: Final = (*PLAIN, "decimal(p,s)")

Converter: TypeAlias = Callable[[Any], Any]
"""What a file's value is in Avro, for fastavro; raises ValueError where the type cannot hold it."""


@dataclass(frozen=True)
class FileColumn:
    """A column by the name in the file. `declared`: its type was given, so that a value of another type is an error."""

    name: str
    type: str
    declared: bool = False

    def avro(self) -> AvroType:
        return avro_of(self.type)


def avro_of(name: str) -> AvroType:
    """The Avro type of one of TYPES. Raises ValueError."""
    if name in PLAIN:
        return PLAIN[name]
    found = _DECIMAL.fullmatch(name)
    if found is not None and 0 <= int(found[2]) <= int(found[1]) <= MAX_PRECISION and int(found[1]) > 0:
        return {"type": "bytes", "logicalType": "decimal", "precision": int(found[1]), "scale": int(found[2])}
    raise ValueError(f"{name!r} is none of {', '.join(TYPES)}")


def lake_columns(columns: tuple[FileColumn, ...]) -> tuple[Column, ...]:
    """The lake's columns: where a row was found, then what the file holds."""
    places = (FileColumn(FILE_NAME, "string"), FileColumn(LINE_NUMBER, "long"))
    every = (*places, *columns)
    names = lake_column_names([column.name for column in every])
    return tuple(
        Column(name, column.avro(), column.name, column.type) for name, column in zip(names, every, strict=True)
    )


def inferred(value: Any) -> str:
    """The type that a JSON value gives to a column that nobody declared."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return "long"
    return "double" if isinstance(value, float) else "string"


def converter(type_name: str) -> Converter:
    """How values of a column are converted: texts as in CSV, JSON's own numbers and truths, and what Parquet and Avro
    give, which is of the column's type already."""
    if type_name in _INT:
        return _whole(_INT[type_name])
    if type_name in _CONVERTERS:
        return _CONVERTERS[type_name]
    kind = avro_of(type_name)
    return _decimal(kind["precision"], kind["scale"])


def text_of(value: Any) -> str:
    """A value as the text that stands for it: JSON, but a string as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    found = _TRUTHS.get(_text(value).strip().lower())
    if found is None:
        raise ValueError(value)
    return found


def _whole(bits: int) -> Converter:
    def convert(value: Any) -> int:
        if isinstance(value, bool | float):
            raise ValueError(value)
        found = value if isinstance(value, int) else int(_text(value))
        if not -(2**bits) <= found < 2**bits:
            raise ValueError(value)
        return found

    return convert


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    return float(value if isinstance(value, int | float) else _text(value))


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else bytes.fromhex(_text(value).removeprefix("\\x"))


def _date(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(_text(value))


def _timestamp(value: Any) -> datetime:
    found = value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))
    if found.tzinfo is not None:
        raise ValueError(value)
    return found


def _timestamptz(value: Any) -> datetime:
    found = value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))
    if found.tzinfo is None:
        raise ValueError(value)
    return found.astimezone(UTC)


def _decimal(precision: int, scale: int) -> Converter:
    unit = Decimal(1).scaleb(-scale)

    def convert(value: Any) -> Decimal:
        try:
            exact = value if isinstance(value, Decimal) else Decimal(text_of(value))
            found = exact.quantize(unit)
        except InvalidOperation as error:
            raise ValueError(value) from error
        if found != exact or len(found.as_tuple().digits) > precision:
            raise ValueError(value)
        return found

    return convert


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


_CONVERTERS: Final[Mapping[str, Converter]] = {
    "string": text_of,
    "boolean": _boolean,
    "float": _number,
    "double": _number,
    "bytes": _bytes,
    "date": _date,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
}
