"""pgoutput's messages (protocol version 1, values as text or binary), as PostgreSQL's manual lays them out."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias

from producer.errors import SourceProtocolBroken

POSTGRES_EPOCH_MICROS: Final = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970: PostgreSQL's clock starts there."""


class _Unchanged:
    """A TOASTed value that the source did not send, since the change did not touch it."""

    def __repr__(self) -> str:
        return "UNCHANGED"


class Binary(bytes):
    """A value in its type's binary form; a value that is plain bytes is in text form."""

    __slots__ = ()


UNCHANGED: Final = _Unchanged()
Value: TypeAlias = bytes | Binary | _Unchanged | None
Row: TypeAlias = list[Value]


class RelationColumn(NamedTuple):
    name: str
    type_oid: int
    typmod: int
    in_key: bool


class Relation(NamedTuple):
    """A table as the following messages see it. identity: d(efault), i(ndex), f(ull), n(othing)."""

    oid: int
    namespace: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


class Begin(NamedTuple):
    final_lsn: int
    committed_at: int
    xid: int


class Commit(NamedTuple):
    lsn: int
    end_lsn: int
    committed_at: int


class Insert(NamedTuple):
    relation: int
    new: Row


class Update(NamedTuple):
    """old: the old row (`old_kind` O) or its key (K), where the source sent one."""

    relation: int
    old_kind: str | None
    old: Row | None
    new: Row


class Delete(NamedTuple):
    relation: int
    old_kind: str
    old: Row


class Truncate(NamedTuple):
    relations: tuple[int, ...]


Message: TypeAlias = Relation | Begin | Commit | Insert | Update | Delete | Truncate | None

_INSERT, _UPDATE, _DELETE, _BEGIN, _COMMIT = b"IUDBC"
_RELATION, _TRUNCATE, _TYPE, _ORIGIN, LOGICAL = b"RTYOM"
_NULL, _TEXT, _TOAST, _BINARY = b"ntub"
_KEY, _OLD, _NEW = b"KON"
NO_MEANING: Final = frozenset((_TYPE, _ORIGIN, LOGICAL))
"""Types are looked up in the catalog; origins make no difference; logical messages change no row."""

_u16 = struct.Struct(">H").unpack_from
_u32 = struct.Struct(">I").unpack_from
_i32 = struct.Struct(">i").unpack_from
_begin = struct.Struct(">QqI").unpack_from
_commit = struct.Struct(">BQQq").unpack_from


def parse(data: bytes) -> Message:
    """The message in the bytes; None for one that says nothing here. Raises SourceProtocolBroken."""
    try:
        return _parse(data)
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
        raise SourceProtocolBroken(
            f"a pgoutput message does not parse: {error}; it starts with {data[:64]!r}"
        ) from error


def _parse(data: bytes) -> Message:
    kind = data[0]
    if kind == _INSERT:
        row, _ = _row(data, 6)
        return Insert(_u32(data, 1)[0], row)
    if kind == _UPDATE:
        return _update(data)
    if kind == _DELETE:
        row, _ = _row(data, 6)
        return Delete(_u32(data, 1)[0], chr(data[5]), row)
    if kind == _BEGIN:
        lsn, committed_at, xid = _begin(data, 1)
        return Begin(lsn, committed_at + POSTGRES_EPOCH_MICROS, xid)
    if kind == _COMMIT:
        _, lsn, end_lsn, committed_at = _commit(data, 1)
        return Commit(lsn, end_lsn, committed_at + POSTGRES_EPOCH_MICROS)
    if kind == _RELATION:
        return _relation(data)
    if kind == _TRUNCATE:
        count = _u32(data, 1)[0]
        return Truncate(struct.unpack_from(f">{count}I", data, 6))
    if kind in NO_MEANING:
        return None
    raise ValueError(f"unknown kind {chr(kind)!r}")


def _update(data: bytes) -> Update:
    kind = data[5]
    if kind == _NEW:
        new, _ = _row(data, 6)
        return Update(_u32(data, 1)[0], None, None, new)
    if kind not in (_KEY, _OLD):
        raise ValueError(f"an update with a tuple of kind {chr(kind)!r}")
    old, at = _row(data, 6)
    new, _ = _row(data, at + 1)
    return Update(_u32(data, 1)[0], chr(kind), old, new)


def _row(data: bytes, at: int) -> tuple[Row, int]:
    """The values of the tuple at an offset, and the offset behind it."""
    count = _u16(data, at)[0]
    at += 2
    values: Row = []
    for _ in range(count):
        kind = data[at]
        if kind == _TEXT:
            start = at + 5
            at = start + _u32(data, at + 1)[0]
            values.append(data[start:at])
        elif kind == _BINARY:
            start = at + 5
            at = start + _u32(data, at + 1)[0]
            values.append(Binary(data[start:at]))
        elif kind == _NULL:
            values.append(None)
            at += 1
        elif kind == _TOAST:
            values.append(UNCHANGED)
            at += 1
        else:
            raise ValueError(f"a column of kind {chr(kind)!r}")
    if at > len(data):
        raise ValueError("the tuple is cut short")
    return values, at


def _relation(data: bytes) -> Relation:
    oid = _u32(data, 1)[0]
    namespace, at = _string(data, 5)
    name, at = _string(data, at)
    identity, count = chr(data[at]), _u16(data, at + 1)[0]
    at += 3
    columns = []
    for _ in range(count):
        flags = data[at]
        column, at = _string(data, at + 1)
        columns.append(RelationColumn(column, _u32(data, at)[0], _i32(data, at + 4)[0], bool(flags & 1)))
        at += 8
    return Relation(oid, namespace or "pg_catalog", name, identity, tuple(columns))


def _string(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode(), end + 1
