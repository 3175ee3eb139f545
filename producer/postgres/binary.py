"""Values in binary form as PostgreSQL prints them: types made of others, and whose bytes are not read here."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Final

from producer.postgres.printed import SCALARS, Printer
from producer.postgres.type_facts import TypeFacts, base_type

_i32 = struct.Struct(">i").unpack_from
_u32 = struct.Struct(">I").unpack_from
_EMPTY, _LOWER_IN, _UPPER_IN, _NO_LOWER, _NO_UPPER = 0x01, 0x02, 0x04, 0x08 | 0x20, 0x10 | 0x40


class Reading(Enum):
    """How the values of a type are had from a stream that asks for binary form.

    HERE: their bytes are read here. TEXT: the type has no binary form, so they come as text. ASKED: the source, which
    knows the form, is asked for their text (most extensions' types; money in most locales). NEVER: the stream has to be
    text. The text depends on the catalog of that moment (the reg types), or the source breaks off since the type is
    made of one that has no binary form.
    """

    HERE = auto()
    TEXT = auto()
    ASKED = auto()
    NEVER = auto()


def reading(oid: int, types: Mapping[int, TypeFacts]) -> Reading:
    facts = types.get(base_type(oid, -1, types)[0])
    if facts is not None and not facts.send:
        return Reading.TEXT
    if printer(oid, types) is not None:
        return Reading.HERE
    return Reading.ASKED if _may_be_asked(oid, types) else Reading.NEVER


def _may_be_asked(oid: int, types: Mapping[int, TypeFacts]) -> bool:
    facts = types.get(base_type(oid, -1, types)[0])
    if facts is None or not facts.send or facts.send.startswith("reg"):
        return False
    parts = (facts.element,) if facts.element else facts.parts
    return all(_may_be_asked(part, types) for part in parts)


def printer(oid: int, types: Mapping[int, TypeFacts]) -> Printer | None:
    """What prints the type's values; None where nothing here can."""
    facts = types.get(base_type(oid, -1, types)[0])
    if facts is None:
        return None
    if facts.send == "array_send":
        item = printer(facts.element, types)
        return item and _array(item, facts.delimiter.encode())
    if facts.send in ("range_send", "multirange_send") and facts.parts:
        part = printer(facts.parts[0], types)
        return part and (_range(part) if facts.send == "range_send" else _multirange(part))
    if facts.send == "record_send":
        parts = {part: printer(part, types) for part in facts.parts}
        known = {part: found for part, found in parts.items() if found is not None}
        return _record(known) if len(known) == len(parts) else None
    return SCALARS.get(facts.send)


def values(data: bytes, at: int, count: int) -> Iterator[bytes | None]:
    """`count` values from an offset, each behind its length; -1 is null."""
    for _ in range(count):
        (size,) = _i32(data, at)
        at += 4
        if size < 0:
            yield None
            continue
        if at + size > len(data):
            raise ValueError("a value is cut short")
        yield data[at : at + size]
        at += size


def dimensions(data: bytes) -> tuple[list[tuple[int, int]], int]:
    """An array's dimensions as (size, lower bound), and where its values begin."""
    (count,) = _i32(data, 0)
    return [struct.unpack_from(">ii", data, 12 + 8 * place) for place in range(count)], 12 + 8 * count


def _array(item: Printer, delimiter: bytes) -> Printer:
    awkward = re.compile(rb'["\\{}\s' + re.escape(delimiter) + rb"]|\A\Z|\A[Nn][Uu][Ll][Ll]\Z")

    def one(value: bytes | None) -> bytes:
        if value is None:
            return b"NULL"
        text = item(value)
        if awkward.search(text) is None:
            return text
        return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'

    def printed(data: bytes) -> bytes:
        shape, at = dimensions(data)
        if not shape:
            return b"{}"
        count = 1
        for size, _ in shape:
            count *= size
        parts = [one(value) for value in values(data, at, count)]
        for size, _ in reversed(shape):
            parts = [b"{" + delimiter.join(parts[n : n + size]) + b"}" for n in range(0, len(parts), size)]
        if all(lower == 1 for _, lower in shape):
            return parts[0]
        return b"".join([b"[%d:%d]" % (lower, lower + size - 1) for size, lower in shape]) + b"=" + parts[0]

    return printed


_AWKWARD_BOUND: Final = re.compile(rb'["\\()\[\],\s]|\A\Z')
_AWKWARD_FIELD: Final = re.compile(rb'["\\(),\s]|\A\Z')


def _doubled(text: bytes, awkward: re.Pattern[bytes]) -> bytes:
    if awkward.search(text) is None:
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'""') + b'"'


def _range(bound: Printer) -> Printer:
    def printed(data: bytes) -> bytes:
        flags = data[0]
        if flags & _EMPTY:
            return b"empty"
        has = (not flags & _NO_LOWER, not flags & _NO_UPPER)
        found = values(data, 1, sum(has))
        lower, upper = (_doubled(bound(next(found) or b""), _AWKWARD_BOUND) if there else b"" for there in has)
        return b"%c%s,%s%c" % (b"(["[bool(flags & _LOWER_IN)], lower, upper, b")]"[bool(flags & _UPPER_IN)])

    return printed


def _multirange(one: Printer) -> Printer:
    return lambda data: b"{" + b",".join([one(part or b"") for part in values(data, 4, _i32(data, 0)[0])]) + b"}"


def _record(fields: Mapping[int, Printer]) -> Printer:
    def printed(data: bytes) -> bytes:
        texts, at = [], 4
        for _ in range(_i32(data, 0)[0]):
            (oid,) = _u32(data, at)
            (value,) = values(data, at + 4, 1)
            at += 8 + len(value or b"")
            if oid not in fields:
                raise ValueError(f"a field of type {oid}, which the composite type does not have now")
            texts.append(b"" if value is None else _doubled(fields[oid](value), _AWKWARD_FIELD))
        return b"(" + b",".join(texts) + b")"

    return printed
