"""PostgreSQL's types in Avro, and encoders of values in PostgreSQL's text form (docs/types.md is the table).

Text, because it is exact by construction for every type there is: the session pins what the text depends on. Encoders
return a nullable union's value branch. They raise Unheld where the Avro type cannot hold a good PostgreSQL value (it
then travels as text in `_raw`), and ValueError where the text is none of that type.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, TypeAlias

from producer.postgres import avro

Encoder: TypeAlias = Callable[[bytes], bytes]

MAX_DECIMAL_PRECISION: Final = 38
_MAX_DOMAIN_DEPTH: Final = 32
_CACHE_ENTRIES: Final = 65_536
_UNIX_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()


class Unheld(Exception):
    """A value that PostgreSQL's type holds and the lake's type does not, such as numeric NaN."""


@dataclass(frozen=True)
class TypeFacts:
    """A row of pg_type. base: a domain's base type and modifier; element: an array's; both 0 for other types."""

    oid: int
    name: str
    base: int = 0
    base_typmod: int = -1
    element: int = 0
    delimiter: str = ","


@dataclass(frozen=True)
class Mapped:
    """How a column of one type and modifier is written."""

    avro: Any
    encode: Encoder


BOOL, BYTEA, INT8, INT2, INT4, OID, FLOAT4, FLOAT8 = 16, 17, 20, 21, 23, 26, 700, 701
DATE, TIMESTAMP, TIMESTAMPTZ, NUMERIC = 1082, 1114, 1184, 1700


def mapped(oid: int, typmod: int, types: Mapping[int, TypeFacts]) -> Mapped:
    """The mapping of a type. Domains count as their base type; whatever has no mapping of its own is its text."""
    oid, typmod = _base(oid, typmod, types)
    facts = types.get(oid)
    if facts is not None and facts.element:
        item = mapped(facts.element, typmod, types)
        avro_type = {"type": "array", "items": ["null", item.avro]}
        return Mapped(avro_type, _array_encoder(item.encode, facts.delimiter.encode()))
    if oid == NUMERIC:
        return _numeric(typmod)
    return _SCALARS.get(oid, _TEXT)


def _base(oid: int, typmod: int, types: Mapping[int, TypeFacts]) -> tuple[int, int]:
    for _ in range(_MAX_DOMAIN_DEPTH):
        facts = types.get(oid)
        if facts is None or not facts.base:
            break
        oid, typmod = facts.base, facts.base_typmod
    return oid, typmod


def _text(value: bytes) -> bytes:
    if not value.isascii():
        value.decode()  # a database in SQL_ASCII can hand out what is no UTF-8
    return avro.VALUE + avro.long(len(value)) + value


def _bool(value: bytes) -> bytes:
    return b"\x02\x01" if value == b"t" else b"\x02\x00"


def _int(value: bytes) -> bytes:
    return avro.VALUE + avro.long(int(value))


_pack_float = struct.Struct("<f").pack
_pack_double = struct.Struct("<d").pack


def _float4(value: bytes) -> bytes:
    return avro.VALUE + _pack_float(float(value))


def _float8(value: bytes) -> bytes:
    return avro.VALUE + _pack_double(float(value))


def _bytea(value: bytes) -> bytes:
    if not value.startswith(b"\\x"):
        raise ValueError(f"bytea in a form other than hex: {value[:20]!r}")
    return avro.VALUE + avro.data(bytes.fromhex(value[2:].decode()))


_DAYS: Final[dict[bytes, int]] = {}
_SECONDS: Final[dict[bytes, int]] = {}


def _days(text: bytes) -> int:
    """Days since 1970 of YYYY-MM-DD, years 1 to 9999."""
    days = _DAYS.get(text)
    if days is None:
        if len(_DAYS) >= _CACHE_ENTRIES:
            _DAYS.clear()
        days = _DAYS[text] = date.fromisoformat(text.decode()).toordinal() - _UNIX_EPOCH_ORDINAL
    return days


def _date(value: bytes) -> bytes:
    if len(value) != 10:  # infinity, -infinity, BC, five digits of year
        raise Unheld
    return avro.VALUE + avro.long(_days(value))


def _seconds(text: bytes) -> int:
    """Seconds since 1970 of YYYY-MM-DD HH:MM:SS."""
    seconds = _SECONDS.get(text)
    if seconds is None:
        if len(_SECONDS) >= _CACHE_ENTRIES:
            _SECONDS.clear()
        time_of_day = int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])
        seconds = _SECONDS[text] = _days(text[:10]) * 86_400 + time_of_day
    return seconds


def _timestamp(value: bytes) -> bytes:
    if value[4:5] != b"-" or value[10:11] != b" " or value.endswith(b"BC"):
        raise Unheld
    fraction = value[20:]
    micros = int(fraction.ljust(6, b"0")) if fraction else 0
    return avro.VALUE + avro.long(_seconds(value[:19]) * 1_000_000 + micros)


def _timestamptz(value: bytes) -> bytes:
    if not value.endswith(b"+00"):
        if value.endswith((b"infinity", b"BC")):
            raise Unheld
        raise ValueError(f"timestamptz outside UTC: {value!r}")
    return _timestamp(value[:-3])


def _numeric(typmod: int) -> Mapped:
    """numeric(p,s) with 0 <= s <= p <= 38 is a decimal; PostgreSQL prints exactly s digits behind the point."""
    if typmod < 0:
        return _TEXT
    precision = typmod - 4 >> 16
    scale = ((typmod - 4 & 0x7FF) ^ 1024) - 1024
    if not 0 <= scale <= precision <= MAX_DECIMAL_PRECISION:
        return _TEXT

    def encode(value: bytes) -> bytes:
        if not value[-1:].isdigit():  # NaN; infinity no column with a precision can hold
            raise Unheld
        whole, _, fraction = value.partition(b".")
        if len(fraction) != scale:
            raise ValueError(f"numeric({precision},{scale}) with {len(fraction)} digits behind the point: {value!r}")
        unscaled = int(whole + fraction)
        return avro.VALUE + avro.data(unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True))

    return Mapped({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}, encode)


def _array_encoder(item: Encoder, delimiter: bytes) -> Encoder:
    escaped = re.escape(delimiter)
    token = re.compile(rb'(?:"((?:[^"\\]|\\.)*)"|([^"\\{}' + escaped + rb"]+))(?:" + escaped + rb"|\Z)", re.DOTALL)

    def encode(value: bytes) -> bytes:
        """One dimension from index 1, as an Avro array; other shapes cannot be told apart in one."""
        if value.startswith((b"[", b"{{")):
            raise Unheld
        inner = value[1:-1]
        items, at = [], 0
        while at < len(inner):
            match = token.match(inner, at)
            if match is None:
                raise ValueError(f"no array: {value[:80]!r}")
            quoted, plain = match.groups()
            if quoted is not None:
                items.append(item(_ESCAPED.sub(rb"\1", quoted)))
            else:
                items.append(avro.NULL if plain == b"NULL" else item(plain))
            at = match.end()
        return avro.VALUE + avro.array(items)

    return encode


_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_TEXT: Final = Mapped("string", _text)
_SCALARS: Final[dict[int, Mapped]] = {
    BOOL: Mapped("boolean", _bool),
    INT2: Mapped("int", _int),
    INT4: Mapped("int", _int),
    INT8: Mapped("long", _int),
    OID: Mapped("long", _int),
    FLOAT4: Mapped("float", _float4),
    FLOAT8: Mapped("double", _float8),
    BYTEA: Mapped("bytes", _bytea),
    DATE: Mapped({"type": "int", "logicalType": "date"}, _date),
    TIMESTAMP: Mapped({"type": "long", "logicalType": "local-timestamp-micros"}, _timestamp),
    TIMESTAMPTZ: Mapped({"type": "long", "logicalType": "timestamp-micros"}, _timestamptz),
}
