"""Thrift structs in the compact protocol, read and written without knowing what their fields mean.

As Apache Thrift's specification of the protocol has it, but for maps and sets, which Parquet's footers have none of.
"""

from __future__ import annotations

from typing import Any, Final

TRUE: Final = 1
FALSE: Final = 2
BYTE: Final = 3
I16: Final = 4
I32: Final = 5
I64: Final = 6
DOUBLE: Final = 7
BINARY: Final = 8
LIST: Final = 9
STRUCT: Final = 12
_LONG_LIST: Final = 15

Struct = dict[int, tuple[int, Any]]
"""By field: its type and its value. A list is the type of its items and the items."""


def read(data: bytes) -> Struct:
    """Raises ValueError for what is no such struct."""
    try:
        found: Struct = _Reader(data).value(STRUCT)
    except IndexError as problem:
        raise ValueError("the struct ends early") from problem
    return found


def write(fields: Struct) -> bytes:
    out = bytearray()
    _write(out, STRUCT, fields)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def value(self, kind: int) -> Any:
        if kind == STRUCT:
            return self._struct()
        if kind in (I16, I32, I64):
            number = self._varint()
            return (number >> 1) ^ -(number & 1)
        if kind == BINARY:
            return self._taken(self._varint())
        if kind == LIST:
            head = self._byte()
            count = head >> 4 if head >> 4 < _LONG_LIST else self._varint()
            return head & 15, [self.value(head & 15) for _ in range(count)]
        if kind == DOUBLE:
            return self._taken(8)
        if kind in (TRUE, FALSE, BYTE):
            return self._byte()
        raise ValueError(f"{kind} is no type that a footer has")

    def _struct(self) -> Struct:
        fields: Struct = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.value(I16)
            kind = head & 15
            fields[number] = (kind, None if kind in (TRUE, FALSE) else self.value(kind))
        return fields

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        found = shift = 0
        while (byte := self._byte()) & 128:
            found |= (byte & 127) << shift
            shift += 7
        return found | byte << shift

    def _taken(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise IndexError
        return self._data[self._at - size : self._at]


def _write(out: bytearray, kind: int, value: Any) -> None:
    if kind == STRUCT:
        before = 0
        for number, (of, field) in value.items():
            if 0 < number - before < 16:
                out.append((number - before) << 4 | of)
            else:
                out.append(of)
                _write(out, I16, number)
            before = number
            if of not in (TRUE, FALSE):
                _write(out, of, field)
        out.append(0)
    elif kind in (I16, I32, I64):
        _varint(out, value << 1 if value >= 0 else (-value << 1) - 1)
    elif kind == BINARY:
        _varint(out, len(value))
        out += value
    elif kind == LIST:
        of, items = value
        out.append(min(len(items), _LONG_LIST) << 4 | of)
        if len(items) >= _LONG_LIST:
            _varint(out, len(items))
        for item in items:
            _write(out, of, item)
    elif kind == DOUBLE:
        out += value
    else:
        out.append(value)


def _varint(out: bytearray, number: int) -> None:
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
