"""Values in binary form as PostgreSQL prints them: its scalar types, by the C function that sent the bytes.

The session that this text stands for is the one of connection.TEXT_FORMS: UTC, ISO dates, intervals in the style
`postgres`, shortest floats, hex bytea, UTF-8.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Final, TypeAlias

Printer: TypeAlias = Callable[[bytes], bytes]
"""Raises ValueError or struct.error where the bytes are none of its type."""

_i16 = struct.Struct(">h").unpack
_i32 = struct.Struct(">i").unpack
_u32 = struct.Struct(">I").unpack
_i64 = struct.Struct(">q").unpack
_u64 = struct.Struct(">Q").unpack
_f32 = struct.Struct(">f").unpack
_f64 = struct.Struct(">d").unpack
_tid = struct.Struct(">IH").unpack
_timetz = struct.Struct(">qi").unpack
_interval = struct.Struct(">qii").unpack
_numeric: Final[Callable[[bytes], tuple[int, ...]]] = struct.Struct(">HhHH").unpack_from

POSTGRES_EPOCH_DAYS: Final = 10_957
"""2000-01-01 in days since 1970."""
DATE_INFINITY: Final = {2**31 - 1: b"infinity", -(2**31): b"-infinity"}
TIMESTAMP_INFINITY: Final = {2**63 - 1: b"infinity", -(2**63): b"-infinity"}
NUMERIC_SIGNS: Final = {0x0000: b"", 0x4000: b"-"}
_NUMERIC_SPECIAL: Final = {0xC000: b"NaN", 0xD000: b"Infinity", 0xF000: b"-Infinity"}
_DAY_MICROS: Final = 86_400_000_000
_JULIAN_2000: Final = 2_451_545


def _as_is(value: bytes) -> bytes:
    return value


def _versioned(value: bytes) -> bytes:
    """A version byte, then text."""
    if value[:1] != b"\x01":
        raise ValueError(f"a version other than 1: {value[:20]!r}")
    return value[1:]


def _bool(value: bytes) -> bytes:
    return b"t" if value != b"\0" else b"f"


def _char(value: bytes) -> bytes:
    if value == b"\0":
        return b""
    return value if value[0] < 0x80 else b"\\%03o" % value[0]


def _whole(unpack: Callable[[bytes], tuple[int, ...]]) -> Printer:
    return lambda value: b"%d" % unpack(value)[0]


def numeric(value: bytes) -> bytes:
    """Base 10,000 digits with the weight of the first: exact at any length."""
    count, weight, sign, scale = _numeric(value)
    if (special := _NUMERIC_SPECIAL.get(sign)) is not None:
        return special
    minus = NUMERIC_SIGNS[sign]
    groups: tuple[int, ...] = struct.unpack_from(f">{count}H", value, 8)
    digits = b"".join([b"%04d" % group for group in groups])
    point = 4 * (weight + 1)
    whole = digits[: max(point, 0)].ljust(max(point, 0), b"0").lstrip(b"0") or b"0"
    if not scale:
        return minus + whole
    fraction = b"0" * max(-point, 0) + digits[max(point, 0) :]
    return minus + whole + b"." + fraction[:scale].ljust(scale, b"0")


def _float(value: float, shortest: str, fixed_below: int) -> bytes:
    """PostgreSQL's layout of the shortest digits: fixed point for exponents from -4 to below fixed_below."""
    if value != value:
        return b"NaN"
    if math.isinf(value):
        return b"Infinity" if value > 0 else b"-Infinity"
    mantissa, _, exponent = shortest.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return f"{sign}0".encode()
    leading = len(whole + fraction) - len(digits)
    power = int(exponent or 0) + len(whole) - 1 - leading
    digits = digits.rstrip("0") or "0"
    if not -4 <= power < fixed_below:
        point = "." if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{point}{digits[1:]}e{power:+03d}".encode()
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}".encode()
    whole = digits[: power + 1].ljust(power + 1, "0")
    fraction = digits[power + 1 :]
    return f"{sign}{whole}{'.' if fraction else ''}{fraction}".encode()


def _float8(value: bytes) -> bytes:
    number = _f64(value)[0]
    shortest = repr(number)
    if 2.0**52 <= abs(number) < math.inf and _is_border(shortest, value, _f64):
        shortest = _fewest_digits(number, value, _f64, (15, 16))
    return _float(number, shortest, 15)


def _float4(value: bytes) -> bytes:
    number = _f32(value)[0]
    return _float(number, _fewest_digits(number, value, _f32, range(9)), 6)


def _fewest_digits(number: float, value: bytes, unpack: Callable[[bytes], tuple[float]], behind: Sequence[int]) -> str:
    """The fewest digits that give the same float: the nearest such number, or the next to it (at a power of two)."""
    if not math.isfinite(number):
        return ""
    pack = struct.Struct(">f" if len(value) == 4 else ">d").pack
    for digits in behind:
        mantissa, _, exponent = f"{number:.{digits}e}".partition("e")
        for step in (0, 1, -1):
            near = f"{int(mantissa.replace('.', '')) + step}e{int(exponent) - digits}"
            with suppress(OverflowError):
                if pack(float(near)) == value and not _is_border(near, value, unpack):
                    return near
    return repr(number)


def _is_border(text: str, value: bytes, unpack: Callable[[bytes], tuple[float]]) -> bool:
    """Whether the number is midway to the next float. Not every reader would give the float: PostgreSQL avoids it."""
    size = len(value)
    place = int.from_bytes(value, "big") & ~(1 << 8 * size - 1)
    here, there = (abs(Fraction(number)) for number in (unpack(place.to_bytes(size, "big"))[0], text))
    if here == there:
        return False
    near = unpack((place + (1 if there > here else -1)).to_bytes(size, "big"))[0]
    return math.isfinite(near) and 2 * there == here + Fraction(near)


def _bytea(value: bytes) -> bytes:
    return b"\\x" + value.hex().encode()


def _civil(days: int) -> tuple[int, int, int]:
    """Year (0 is 1 BC), month and day of days since 2000: the proleptic Gregorian calendar."""
    julian = days + _JULIAN_2000 + 32_044
    century = (4 * julian + 3) // 146_097
    rest = julian - 146_097 * century // 4
    year = (4 * rest + 3) // 1461
    day = rest - 1461 * year // 4
    month = (5 * day + 2) // 153
    return 100 * century + year - 4800 + month // 10, month + 3 - 12 * (month // 10), day - (153 * month + 2) // 5 + 1


def _calendar(days: int) -> tuple[bytes, bytes]:
    """The date, and what stands behind the whole text."""
    year, month, day = _civil(days)
    return (b"%04d-%02d-%02d" % (year if year > 0 else 1 - year, month, day)), (b"" if year > 0 else b" BC")


def _clock(micros: int) -> bytes:
    seconds, fraction = divmod(micros, 1_000_000)
    text = b"%02d:%02d:%02d" % (seconds // 3600, seconds // 60 % 60, seconds % 60)
    return text + (b".%06d" % fraction).rstrip(b"0") if fraction else text


def date(value: bytes) -> bytes:
    days = _i32(value)[0]
    return DATE_INFINITY.get(days) or b"".join(_calendar(days))


def timestamp(value: bytes, zone: bytes = b"") -> bytes:
    micros = _i64(value)[0]
    if micros in TIMESTAMP_INFINITY:
        return TIMESTAMP_INFINITY[micros]
    days, time = divmod(micros, _DAY_MICROS)
    calendar, era = _calendar(days)
    return calendar + b" " + _clock(time) + zone + era


def timestamptz(value: bytes) -> bytes:
    return timestamp(value, b"+00")


def _time(value: bytes) -> bytes:
    return _clock(_i64(value)[0])


def _time_zoned(value: bytes) -> bytes:
    micros, west = _timetz(value)
    minutes, seconds = divmod(abs(west), 60)
    zone = b"%c%02d" % (b"-+"[west <= 0], minutes // 60)
    if minutes % 60 or seconds:
        zone += b":%02d" % (minutes % 60)
    return _clock(micros) + zone + (b":%02d" % seconds if seconds else b"")


def _interval_text(value: bytes) -> bytes:
    micros, days, months = _interval(value)
    if (micros, days, months) == (2**63 - 1, 2**31 - 1, 2**31 - 1):
        return b"infinity"
    if (micros, days, months) == (-(2**63), -(2**31), -(2**31)):
        return b"-infinity"
    sign = -1 if months < 0 else 1
    words: list[bytes] = []
    before = False
    for amount, unit in ((sign * (abs(months) // 12), b"year"), (sign * (abs(months) % 12), b"mon"), (days, b"day")):
        if amount:
            plus = b"+" if before and amount > 0 else b""
            words.append(b"%s%d %s%s" % (plus, amount, unit, b"" if amount == 1 else b"s"))
            before = amount < 0
    if micros or not words:
        words.append((b"-" if micros < 0 else b"+" if before else b"") + _clock(abs(micros)))
    return b" ".join(words)


def _plain_money(value: bytes) -> bytes:
    """As in the locale C: dollars, with commas, and cents."""
    (cents,) = _i64(value)
    whole, part = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}${whole:,}.{part:02d}".encode()


def _uuid(value: bytes) -> bytes:
    if len(value) != 16:
        raise ValueError(f"a uuid of {len(value)} bytes")
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}".encode()


def _colons(value: bytes) -> bytes:
    return value.hex(":").encode()


def _network(value: bytes) -> bytes:
    _, bits, is_cidr, size = value[:4]
    address = value[4:]
    if size != len(address) or size not in (4, 16):
        raise ValueError(f"no network address: {value!r}")
    text = _dotted(address) if size == 4 else _colon_hex(address)
    return text if bits == 8 * size and not is_cidr else b"%s/%d" % (text, bits)


def _dotted(address: bytes) -> bytes:
    return b"%d.%d.%d.%d" % tuple(address)


def _colon_hex(address: bytes) -> bytes:
    """The longest run of zeros is `::`, and an IPv4 address in it is dotted: as the server does it."""
    words = struct.unpack(">8H", address)
    runs = [(_zeros(words[start:]), -start) for start in range(8)]
    length, start = max(runs)
    start = -start
    if length < 2:
        return b":".join([b"%x" % word for word in words])
    embedded = start == 0 and (length == 6 or (length == 5 and words[5] == 0xFFFF))
    if embedded:
        return b"::" + b"".join([b"%x:" % word for word in words[length:6]]) + _dotted(address[12:])
    head, tail = words[:start], words[start + length :]
    return b":".join([b"%x" % word for word in head]) + b"::" + b":".join([b"%x" % word for word in tail])


def _zeros(words: tuple[int, ...]) -> int:
    return next((at for at, word in enumerate(words) if word), len(words))


def _bits(value: bytes) -> bytes:
    length = _i32(value[:4])[0]
    return "".join([f"{byte:08b}" for byte in value[4:]])[:length].encode()


def _points(value: bytes) -> list[bytes]:
    numbers = [_float8(value[at : at + 8]) for at in range(0, len(value), 8)]
    return [b"(%s,%s)" % pair for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def _joined(left: bytes, right: bytes) -> Printer:
    return lambda value: left + b",".join(_points(value)) + right


def _line(value: bytes) -> bytes:
    return b"{" + b",".join([_float8(value[at : at + 8]) for at in (0, 8, 16)]) + b"}"


def _path(value: bytes) -> bytes:
    left, right = (b"(", b")") if value[0] else (b"[", b"]")
    return left + b",".join(_points(value[5:])) + right


def _polygon(value: bytes) -> bytes:
    return b"(" + b",".join(_points(value[4:])) + b")"


def _circle(value: bytes) -> bytes:
    return b"<" + _points(value[:16])[0] + b"," + _float8(value[16:]) + b">"


def _lsn(value: bytes) -> bytes:
    high, low = struct.unpack(">II", value)
    return b"%X/%X" % (high, low)


def _tsvector(value: bytes) -> bytes:
    lexemes: list[bytes] = []
    at = 4
    for _ in range(_i32(value[:4])[0]):
        end = value.index(b"\0", at)
        count = struct.unpack_from(">H", value, end + 1)[0]
        places = struct.unpack_from(f">{count}H", value, end + 3)
        lexeme = value[at:end].replace(b"'", b"''").replace(b"\\", b"\\\\")
        weighted = b",".join([b"%d%s" % (place & 0x3FFF, (b"", b"C", b"B", b"A")[place >> 14]) for place in places])
        lexemes.append(b"'" + lexeme + b"'" + (b":" + weighted if count else b""))
        at = end + 3 + 2 * count
    return b" ".join(lexemes)


def _vector_of_whole(unpack: Callable[[bytes], tuple[int, ...]]) -> Printer:
    """int2vector, oidvector: an array's form without nulls."""

    def printed(value: bytes) -> bytes:
        numbers, at = [], 20
        while at < len(value):
            size = _i32(value[at : at + 4])[0]
            numbers.append(b"%d" % unpack(value[at + 4 : at + 4 + size])[0])
            at += 4 + size
        return b" ".join(numbers)

    return printed


def _hstore(value: bytes) -> bytes:
    pairs, at = [], 4
    for _ in range(_i32(value[:4])[0]):
        key, at = _counted(value, at)
        held, at = _counted(value, at)
        pairs.append(_in_quotes(key or b"") + b"=>" + (b"NULL" if held is None else _in_quotes(held)))
    return b", ".join(pairs)


def _counted(value: bytes, at: int) -> tuple[bytes | None, int]:
    size = _i32(value[at : at + 4])[0]
    return (None, at + 4) if size < 0 else (value[at + 4 : at + 4 + size], at + 4 + size)


def _in_quotes(text: bytes) -> bytes:
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _vector(value: bytes) -> bytes:
    return b"[" + b",".join([_float4(value[at : at + 4]) for at in range(4, len(value), 4)]) + b"]"


SCALARS: Final[Mapping[str, Printer]] = {
    **dict.fromkeys(
        (
            *("textsend", "varcharsend", "bpcharsend", "namesend", "json_send", "xml_send", "enum_send"),
            *("unknownsend", "cstring_send", "pg_node_tree_send"),
        ),
        _as_is,
    ),
    **dict.fromkeys(("jsonb_send", "jsonpath_send", "ltree.ltree_send", "ltree.lquery_send"), _versioned),
    "boolsend": _bool,
    "charsend": _char,
    "int2send": _whole(_i16),
    "int4send": _whole(_i32),
    "int8send": _whole(_i64),
    **dict.fromkeys(("oidsend", "xidsend", "cidsend"), _whole(_u32)),
    "xid8send": _whole(_u64),
    "float4send": _float4,
    "float8send": _float8,
    "numeric_send": numeric,
    "byteasend": _bytea,
    "date_send": date,
    "timestamp_send": timestamp,
    "timestamptz_send": timestamptz,
    "time_send": _time,
    "timetz_send": _time_zoned,
    "interval_send": _interval_text,
    "uuid_send": _uuid,
    **dict.fromkeys(("macaddr_send", "macaddr8_send"), _colons),
    **dict.fromkeys(("inet_send", "cidr_send"), _network),
    **dict.fromkeys(("bit_send", "varbit_send"), _bits),
    **{f"{locale}.cash_send": _plain_money for locale in ("C", "POSIX", "C.UTF-8", "C.utf8")},
    "point_send": _joined(b"", b""),
    "box_send": _joined(b"", b""),
    "lseg_send": _joined(b"[", b"]"),
    "line_send": _line,
    "path_send": _path,
    "poly_send": _polygon,
    "circle_send": _circle,
    "pg_lsn_send": _lsn,
    "tidsend": lambda value: b"(%d,%d)" % _tid(value),
    "tsvectorsend": _tsvector,
    "int2vectorsend": _vector_of_whole(_i16),
    "oidvectorsend": _vector_of_whole(_u32),
    "hstore.hstore_send": _hstore,
    "vector.vector_send": _vector,
}
"""By TypeFacts.send."""
