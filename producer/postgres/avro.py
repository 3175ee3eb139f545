"""Avro's primitive encodings, for encoders that write datums without a dict in between."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

NULL: Final = b"\x00"
"""The first branch of a nullable union."""
VALUE: Final = b"\x02"
"""The second branch's index: what precedes a value in a nullable union."""

_ONE: Final = [bytes([code]) for code in range(0x80)]
_TWO: Final = [bytes([code & 0x7F | 0x80, code >> 7]) for code in range(0x4000)]
_TWO_MORE: Final = [bytes([code & 0x7F | 0x80, code >> 7 | 0x80]) for code in range(0x4000)]


def long(value: int) -> bytes:
    """An int or long: zig-zag, then seven bits a byte, lowest first."""
    code = value << 1 if value >= 0 else ~(value << 1)
    if code < 0x80:
        return _ONE[code]
    out = b""
    while code >= 0x4000:
        out += _TWO_MORE[code & 0x3FFF]
        code >>= 14
    return out + (_ONE[code] if code < 0x80 else _TWO[code])


def data(value: bytes) -> bytes:
    """A string (as UTF-8) or bytes."""
    return long(len(value)) + value


def array(items: Sequence[bytes]) -> bytes:
    """An array of encoded items."""
    return long(len(items)) + b"".join(items) + NULL if items else NULL


def optional_strings(values: Iterable[str]) -> bytes:
    """A nullable array of strings: null where there are none."""
    items = [data(value.encode()) for value in values]
    return VALUE + array(items) if items else NULL


def optional_string(value: str | None) -> bytes:
    return NULL if value is None else VALUE + data(value.encode())


def optional_map(values: Mapping[str, str]) -> bytes:
    """A nullable map of strings: null where it is empty."""
    items = [data(key.encode()) + data(value.encode()) for key, value in values.items()]
    return VALUE + array(items) if items else NULL
