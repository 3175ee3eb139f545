"""Blocks: changes gathered lane by lane, and cut where the design allows a cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

from producer.change import Change, Rejected
from schemas import block as wire
from schemas.block import NO_SCHEMA, Kind
from schemas.change_record import TableSchema
from schemas.control import Reject, encode_reject
from schemas.position import Position

RECORD_LIMIT_BYTES: Final = 1024 * 1024 - 1024
"""Kinesis counts data and partition key (at most 1,024 bytes of UTF-8) together, up to 1 MiB."""

_FIRST_RATIO: Final = 0.5
_MAX_EXPANSION: Final = 8


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane of a table. As text it is the key of the lane's queue in the spool."""

    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.table}/{self.name}"


Item: TypeAlias = Change | Rejected


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """An encoded block and what the spool needs to know of it without decoding.

    first_at: when the first change committed, microseconds since 1970.
    """

    lane: Lane
    kind: Kind
    fingerprint: bytes
    prev: Position | None
    first: Position
    last: Position
    first_at: int
    count: int
    data: bytes


class Packer:
    """Cuts one lane's items into chained blocks of about block_bytes compressed, one writer schema each."""

    def __init__(self, source: str, lane: Lane, kind: Kind, block_bytes: int, last: Position | None) -> None:
        self.last = last
        self._source = source
        self._lane = lane
        self._kind = kind
        self._block_bytes = block_bytes
        self._ratio = _FIRST_RATIO
        self._schema: tuple[TableSchema, bytes] | None = None

    @property
    def raw_bytes(self) -> int:
        """How many uncompressed bytes fill a block, as far as the lane's earlier blocks tell."""
        return int(self._block_bytes / max(self._ratio, 1 / _MAX_EXPANSION))

    def pack(self, items: Sequence[Item], now: datetime) -> list[PackedBlock]:
        """All items, in order, as blocks that continue the lane."""
        return [block for run in _runs(items, self.raw_bytes) for block in self._pack(run, now)]

    def _pack(self, run: Sequence[Item], now: datetime) -> list[PackedBlock]:
        datums = b"".join([_datum(item) for item in run])
        head = run[0]
        kind = Kind.REJECT if isinstance(head, Rejected) else self._kind
        fingerprint = NO_SCHEMA if isinstance(head, Rejected) else self._fingerprint(head.schema)
        first, last = run[0].position, run[-1].position
        block = wire.build(
            kind,
            self._source,
            self._lane.table,
            self._lane.name,
            schema=fingerprint,
            prev=self.last,
            first=first,
            last=last,
            count=len(run),
            created_at=now,
            datums=datums,
        )
        data = wire.encode(block)
        self._ratio += (len(data) / max(1, len(datums)) - self._ratio) / 4
        if len(data) > RECORD_LIMIT_BYTES and len(run) > 1:
            middle = len(run) // 2
            return self._pack(run[:middle], now) + self._pack(run[middle:], now)
        packed = PackedBlock(self._lane, kind, fingerprint, self.last, first, last, run[0].committed_at, len(run), data)
        self.last = last
        return [packed]

    def _fingerprint(self, schema: TableSchema) -> bytes:
        if self._schema is None or self._schema[0] is not schema:
            self._schema = schema, schema.fingerprint()
        return self._schema[1]


def _runs(items: Sequence[Item], raw_bytes: int) -> Iterator[Sequence[Item]]:
    """Consecutive changes of one schema, up to raw_bytes; every reject alone."""
    start, size = 0, 0
    for at, item in enumerate(items):
        if at > start and (size >= raw_bytes or not _alike(items[start], item)):
            yield items[start:at]
            start, size = at, 0
        size += _size(item)
    if start < len(items):
        yield items[start:]


def _alike(one: Item, other: Item) -> bool:
    return isinstance(one, Change) and isinstance(other, Change) and one.schema is other.schema


def _datum(item: Item) -> bytes:
    if isinstance(item, Change):
        return item.datum
    return encode_reject(Reject(op=item.op, key=item.key_text, reason=item.reason, raw=item.raw))


def _size(item: Item) -> int:
    return len(item.datum) if isinstance(item, Change) else len(item.raw or b"")


@dataclass
class _Buffer:
    packer: Packer
    items: list[Item] = field(default_factory=list)
    raw_bytes: int = 0
    whole: int = 0  # how many of the items belong to committed transactions

    def take(self, count: int, now: datetime) -> list[PackedBlock]:
        blocks = self.packer.pack(self.items[:count], now) if count else []
        del self.items[:count]
        self.whole = max(0, self.whole - count)
        self.raw_bytes = sum(map(_size, self.items))
        return blocks


class Gatherer:
    """Changes of all lanes between two flushes.

    `whole` cuts after the last committed transaction, `tail` cuts within the open one; a tail therefore never shares
    a block with another transaction, so that a restart can discard it and nothing else.
    """

    def __init__(self, source: str, block_bytes: int, ends: dict[Lane, Position]) -> None:
        self._source = source
        self._block_bytes = block_bytes
        self._ends = dict(ends)
        self._buffers: dict[Lane, _Buffer] = {}
        self._touched: set[Lane] = set()
        self.changes = 0
        self.full = False

    def add(self, lane: Lane, item: Item) -> None:
        buffer = self._buffers.get(lane)
        if buffer is None:
            packer = Packer(self._source, lane, Kind.DATA, self._block_bytes, self._ends.get(lane))
            buffer = self._buffers[lane] = _Buffer(packer)
        buffer.items.append(item)
        buffer.raw_bytes += _size(item)
        self._touched.add(lane)
        self.changes += 1
        if buffer.raw_bytes >= buffer.packer.raw_bytes:
            self.full = True

    def commit(self) -> None:
        """The open transaction has committed: all that was added belongs to whole transactions."""
        for lane in self._touched:
            buffer = self._buffers[lane]
            buffer.whole = len(buffer.items)
        self._touched.clear()

    def whole(self, now: datetime) -> list[PackedBlock]:
        """Blocks of every committed change gathered so far."""
        blocks = [block for buffer in self._buffers.values() for block in buffer.take(buffer.whole, now)]
        self._settle()
        return blocks

    def tail(self, now: datetime) -> list[PackedBlock]:
        """Blocks of the open transaction. Take `whole` first, so that they hold nothing else."""
        blocks = [block for buffer in self._buffers.values() for block in buffer.take(len(buffer.items), now)]
        self._settle()
        return blocks

    def _settle(self) -> None:
        self.changes = sum(len(buffer.items) for buffer in self._buffers.values())
        self.full = any(buffer.raw_bytes >= buffer.packer.raw_bytes for buffer in self._buffers.values())
