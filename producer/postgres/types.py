"""PostgreSQL's types in Avro, and encoders of values in its text and its binary form (docs/types.md is the table).

Text is exact by construction for every type there is: the session pins what it depends on. Binary is cheaper, and gives
the same bytes. Encoders return a nullable union's value branch. They raise Unheld where the Avro type cannot hold a
good PostgreSQL value (it then travels as text in `_raw`), and ValueError where the bytes are none of that type.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final, TypeAlias

from producer.postgres import avro
from producer.postgres.binary import Reading, dimensions, printer, reading, values
from producer.postgres.printed import POSTGRES_EPOCH_DAYS, Printer, numeric
from producer.postgres.type_facts import TypeFacts, base_type

Encoder: TypeAlias = Callable[[bytes], bytes]
Ask: TypeAlias = Callable[[Sequence[bytes]], list[bytes]]
"""The texts of values in binary form, in their order."""

MAX_DECIMAL_PRECISION: Final = 38
_CACHE_ENTRIES: Final = 65_536
_UNIX_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_FIRST_DAY: Final = date.min.toordinal() - _UNIX_EPOCH_ORDINAL
_LAST_DAY: Final = date.max.toordinal() - _UNIX_EPOCH_ORDINAL
_DAY_MICROS: Final = 86_400_000_000


class Unheld(Exception):
    """A value that PostgreSQL's type holds and the lake's type does not, such as numeric NaN."""


@dataclass(frozen=True)
class Mapped:
    """How a column of one type and modifier is written.

    encode, encode_binary: a value in text form, in binary form. printed: the text of a value in binary form.
    The last two are None for a type whose binary form is not read here; `reading` says what to do about it.
    reprinted: the text of a value in text form, where that is not the value itself. null: what a null is written as.
    """

    avro: Any
    encode: Encoder
    encode_binary: Encoder | None = None
    printed: Printer | None = None
    reprinted: Printer | None = None
    null: bytes = avro.NULL
    reading: Reading = Reading.HERE

    def asking(self, ask: Ask) -> Mapped:
        """With the source to be asked for what its values in binary form say."""
        reprinted = self.reprinted

        def printed(value: bytes) -> bytes:
            (text,) = ask([value])
            return text if reprinted is None else reprinted(text)

        return replace(self, encode_binary=AskedText(ask, self.encode), printed=printed)


BOOL, BYTEA, INT8, INT2, INT4, OID, FLOAT4, FLOAT8 = 16, 17, 20, 21, 23, 26, 700, 701
DATE, TIMESTAMP, TIMESTAMPTZ, NUMERIC = 1082, 1114, 1184, 1700


def mapped(oid: int, typmod: int, types: Mapping[int, TypeFacts]) -> Mapped:
    """The mapping of a type. Domains count as their base type; whatever has no mapping of its own is its text."""
    oid, typmod = base_type(oid, typmod, types)
    facts = types.get(oid)
    printed = printer(oid, types)
    if facts is not None and facts.element:
        item = mapped(facts.element, typmod, types)
        avro_type = {"type": "array", "items": ["null", item.avro]}
        binary = item.encode_binary and _binary_array_encoder(item.encode_binary)
        encode = _array_encoder(item.encode, facts.delimiter.encode())
        return Mapped(avro_type, encode, binary, printed, reading=reading(oid, types))
    if oid == NUMERIC and (digits := _decimal_digits(typmod)) is not None:
        return _decimal(*digits, printed)
    if oid in SCALARS:
        return replace(SCALARS[oid], printed=printed)
    return Mapped("string", encode_text, printed and PrintedText(printed), printed, reading=reading(oid, types))


@dataclass(frozen=True)
class PrintedText:
    """Encodes binary values of a type whose lake type is its text."""

    printed: Printer

    def __call__(self, value: bytes) -> bytes:
        return encode_text(self.printed(value))


@dataclass(frozen=True)
class AskedText:
    """Encodes binary values by the text that the source is asked for. encode: such a text."""

    ask: Ask
    encode: Encoder

    def __call__(self, value: bytes) -> bytes:
        (text,) = self.ask([value])
        return self.encode(text)


@dataclass(frozen=True)
class BinaryDecimal:
    """Encodes binary numerics of one precision and scale. encode: their text."""

    precision: int
    scale: int
    encode: Encoder

    def __call__(self, value: bytes) -> bytes:
        return self.encode(numeric(value))


def encode_text(value: bytes) -> bytes:
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


def _decimal_digits(typmod: int) -> tuple[int, int] | None:
    """Precision and scale of numeric(p,s) with 0 <= s <= p <= 38; None for any other, which stays text."""
    if typmod < 0:
        return None
    precision = typmod - 4 >> 16
    scale = ((typmod - 4 & 0x7FF) ^ 1024) - 1024
    return (precision, scale) if 0 <= scale <= precision <= MAX_DECIMAL_PRECISION else None


def _decimal(precision: int, scale: int, printed: Printer | None) -> Mapped:
    """PostgreSQL prints exactly `scale` digits behind the point."""

    def encode(value: bytes) -> bytes:
        if not value[-1:].isdigit():  # NaN; infinity no column with a precision can hold
            raise Unheld
        whole, _, fraction = value.partition(b".")
        if len(fraction) != scale:
            raise ValueError(f"numeric({precision},{scale}) with {len(fraction)} digits behind the point: {value!r}")
        unscaled = int(whole + fraction)
        return avro.VALUE + avro.data(unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True))

    avro_type = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    return Mapped(avro_type, encode, BinaryDecimal(precision, scale, encode), printed)


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


def _binary_array_encoder(item: Encoder) -> Encoder:
    def encode(value: bytes) -> bytes:
        shape, at = dimensions(value)
        if not shape:
            return avro.VALUE + avro.NULL
        if len(shape) > 1 or shape[0][1] != 1:
            raise Unheld
        items = [avro.NULL if part is None else item(part) for part in values(value, at, shape[0][0])]
        return avro.VALUE + avro.array(items)

    return encode


_unpack_i16 = struct.Struct(">h").unpack
_unpack_i32 = struct.Struct(">i").unpack
_unpack_i64 = struct.Struct(">q").unpack
_unpack_u32 = struct.Struct(">I").unpack


def _whole(unpack: Callable[[bytes], tuple[int, ...]]) -> Encoder:
    return lambda value: avro.VALUE + avro.long(unpack(value)[0])


def _reversed(size: int) -> Encoder:
    """A float: Avro's bytes are little-endian."""

    def encode(value: bytes) -> bytes:
        if len(value) != size:
            raise ValueError(f"a float of {len(value)} bytes")
        return avro.VALUE + value[::-1]

    return encode


def _binary_date(value: bytes) -> bytes:
    days = _unpack_i32(value)[0] + POSTGRES_EPOCH_DAYS
    if not _FIRST_DAY <= days <= _LAST_DAY:
        raise Unheld
    return avro.VALUE + avro.long(days)


def _binary_timestamp(value: bytes) -> bytes:
    micros = _unpack_i64(value)[0] + POSTGRES_EPOCH_DAYS * _DAY_MICROS
    if not _FIRST_DAY * _DAY_MICROS <= micros < (_LAST_DAY + 1) * _DAY_MICROS:
        raise Unheld
    return avro.VALUE + avro.long(micros)


SCALARS: Final[dict[int, Mapped]] = {
    BOOL: Mapped("boolean", _bool, lambda value: avro.VALUE + value),
    INT2: Mapped("int", _int, _whole(_unpack_i16)),
    INT4: Mapped("int", _int, _whole(_unpack_i32)),
    INT8: Mapped("long", _int, _whole(_unpack_i64)),
    OID: Mapped("long", _int, _whole(_unpack_u32)),
    FLOAT4: Mapped("float", _float4, _reversed(4)),
    FLOAT8: Mapped("double", _float8, _reversed(8)),
    BYTEA: Mapped("bytes", _bytea, lambda value: avro.VALUE + avro.data(value)),
    DATE: Mapped({"type": "int", "logicalType": "date"}, _date, _binary_date),
    TIMESTAMP: Mapped({"type": "long", "logicalType": "local-timestamp-micros"}, _timestamp, _binary_timestamp),
    TIMESTAMPTZ: Mapped({"type": "long", "logicalType": "timestamp-micros"}, _timestamptz, _binary_timestamp),
}
