"""Blocks: changes gathered lane by lane, and cut where the design allows a cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

import numpy as np

from producer.change import Change, Rejected, Run
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


Item: TypeAlias = Change | Run | Rejected


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
        blocks: list[PackedBlock] = []
        for one in _together(items):
            if isinstance(one, Rejected):
                reject = encode_reject(Reject(op=one.op, key=one.key_text, reason=one.reason, raw=one.raw))
                blocks.append(self._reject(one, reject, now))
                continue
            first = 0
            while first < one.count:
                last = _cut(one, first, self.raw_bytes)
                blocks += self._pack(one.part(first, last), now)
                first = last
        return blocks

    def _pack(self, run: Run, now: datetime) -> list[PackedBlock]:
        fingerprint = self._fingerprint(run.schema)
        first, last = run.position(0), run.position(-1)
        data = self._data(self._kind, fingerprint, first, last, run.count, run.datums, now)
        self._ratio += (len(data) / max(1, len(run.datums)) - self._ratio) / 4
        if len(data) > RECORD_LIMIT_BYTES and run.count > 1:
            middle = run.count // 2
            return self._pack(run.part(0, middle), now) + self._pack(run.part(middle, run.count), now)
        at = int(run.times[0])
        packed = PackedBlock(self._lane, self._kind, fingerprint, self.last, first, last, at, run.count, data)
        self.last = last
        return [packed]

    def _reject(self, item: Rejected, datum: bytes, now: datetime) -> PackedBlock:
        at = item.position
        data = self._data(Kind.REJECT, NO_SCHEMA, at, at, 1, datum, now)
        packed = PackedBlock(self._lane, Kind.REJECT, NO_SCHEMA, self.last, at, at, item.committed_at, 1, data)
        self.last = at
        return packed

    def _data(
        self, kind: Kind, schema: bytes, first: Position, last: Position, count: int, datums: bytes, now: datetime
    ) -> bytes:
        block = wire.build(
            kind,
            self._source,
            self._lane.table,
            self._lane.name,
            schema=schema,
            prev=self.last,
            first=first,
            last=last,
            count=count,
            created_at=now,
            datums=datums,
        )
        return wire.encode(block)

    def _fingerprint(self, schema: TableSchema) -> bytes:
        if self._schema is None or self._schema[0] is not schema:
            self._schema = schema, schema.fingerprint()
        return self._schema[1]


def _together(items: Sequence[Item]) -> Iterator[Run | Rejected]:
    """Consecutive changes of one schema in one piece; every reject alone."""
    start = 0
    for at, item in enumerate(items):
        if isinstance(item, Rejected):
            if start < at:
                yield _joined(items[start:at])
            yield item
            start = at + 1
        elif at > start and items[start].schema is not item.schema:
            yield _joined(items[start:at])
            start = at
    if start < len(items):
        yield _joined(items[start:])


def _joined(items: Sequence[Item]) -> Run:
    runs = list(_runs(items))
    if len(runs) == 1:
        return runs[0]
    sizes = np.cumsum([0, *(len(run.datums) for run in runs)])
    return Run(
        runs[0].table,
        runs[0].schema,
        runs[0].era,
        np.concatenate([run.lsns for run in runs]),
        np.concatenate([run.idxs for run in runs]),
        np.concatenate([run.times for run in runs]),
        np.concatenate([run.ends + size for run, size in zip(runs, sizes[:-1], strict=True)]),
        b"".join([run.datums for run in runs]),
        None,
    )


def _runs(items: Sequence[Item]) -> Iterator[Run]:
    """The same, with changes that came one by one gathered in runs as well."""
    single: list[Change] = []
    for item in items:
        if isinstance(item, Change):
            single.append(item)
            continue
        if single:
            yield Run.of(single)
            single = []
        if isinstance(item, Run):
            yield item
    if single:
        yield Run.of(single)


def _cut(run: Run, first: int, raw_bytes: int) -> int:
    """Where a block that begins with change `first` ends: with the change that fills it."""
    start = int(run.ends[first - 1]) if first else 0
    return min(run.count, int(np.searchsorted(run.ends, start + raw_bytes)) + 1)


def rows_of(item: Item) -> int:
    """How many changes an item is."""
    return item.count if isinstance(item, Run) else 1


def size_of(item: Item) -> int:
    """Its bytes before they are compressed."""
    if isinstance(item, Change):
        return len(item.datum)
    return len(item.datums) if isinstance(item, Run) else len(item.raw or b"")


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
        self.raw_bytes = sum(map(size_of, self.items))
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
        buffer.raw_bytes += size_of(item)
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
