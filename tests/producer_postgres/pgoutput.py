"""pgoutput's messages made up: what a walsender could say, for tests that need none."""

from __future__ import annotations

import struct
from typing import Any

from producer.postgres.connection import xlog_data
from producer.postgres.messages import POSTGRES_EPOCH_MICROS, Relation

NULL = None
UNCHANGED = object()


class Text(bytes):
    """A value in text form."""


def xlog(message: bytes) -> bytes:
    return xlog_data(1, message)


def keepalive(lsn: int) -> bytes:
    return b"k" + struct.pack(">QqB", lsn, 0, 0)


def begin(lsn: int, committed_at: int, xid: int = 7) -> bytes:
    return b"B" + struct.pack(">QqI", lsn, committed_at - POSTGRES_EPOCH_MICROS, xid)


def commit(lsn: int, committed_at: int) -> bytes:
    return b"C" + struct.pack(">BQQq", 0, lsn, lsn + 8, committed_at - POSTGRES_EPOCH_MICROS)


def relation(described: Relation) -> bytes:
    data = b"R" + struct.pack(">I", described.oid) + described.namespace.encode() + b"\0" + described.name.encode()
    data += b"\0" + described.identity.encode() + struct.pack(">H", len(described.columns))
    for column in described.columns:
        data += bytes([column.in_key]) + column.name.encode() + b"\0"
        data += struct.pack(">Ii", column.type_oid, column.typmod)
    return data


def row(values: list[Any]) -> bytes:
    """values: binary values, Texts, NULL or UNCHANGED."""
    data = struct.pack(">H", len(values))
    for value in values:
        if value is NULL:
            data += b"n"
        elif value is UNCHANGED:
            data += b"u"
        else:
            data += (b"t" if isinstance(value, Text) else b"b") + struct.pack(">I", len(value)) + value
    return data


def insert(oid: int, new: list[Any]) -> bytes:
    return b"I" + struct.pack(">I", oid) + b"N" + row(new)


def update(oid: int, new: list[Any], old: list[Any] | None = None, kind: str = "O") -> bytes:
    before = b"" if old is None else kind.encode() + row(old)
    return b"U" + struct.pack(">I", oid) + before + b"N" + row(new)


def delete(oid: int, old: list[Any], kind: str = "K") -> bytes:
    return b"D" + struct.pack(">I", oid) + kind.encode() + row(old)


def truncate(*oids: int) -> bytes:
    return b"T" + struct.pack(f">IB{len(oids)}I", len(oids), 0, *oids)


def numeric(unscaled: int | None, scale: int) -> bytes:
    """numeric_send's bytes of unscaled / 10**scale; of NaN for None."""
    if unscaled is None:
        return struct.pack(">hhHH", 0, 0, 0xC000, 0)
    sign, text = unscaled < 0, str(abs(unscaled)).rjust(scale + 1, "0")
    whole, fraction = text[: len(text) - scale], text[len(text) - scale :]
    whole = whole.rjust(-(-len(whole) // 4) * 4, "0")
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int((whole + fraction)[at : at + 4]) for at in range(0, len(whole + fraction), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    if not groups:
        weight, sign = 0, False
    return struct.pack(f">hhHH{len(groups)}h", len(groups), weight, 0x4000 if sign else 0, scale, *groups)


def array(oid: int, items: list[bytes | None]) -> bytes:
    """array_send's bytes, one dimension from 1."""
    if not items:
        return struct.pack(">iiI", 0, 0, oid)
    data = struct.pack(">iiIii", 1, None in items, oid, len(items), 1)
    return data + b"".join(struct.pack(">i", -1) if i is None else struct.pack(">i", len(i)) + i for i in items)
