"""Pieces of a snapshot into the spool: the rows of one group as blocks of a lane of their own, and the end of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from producer import failpoints
from producer.blocks import Item, Lane, PackedBlock, Packer, rows_of, size_of
from producer.budget import Budget
from producer.snapshot_book import Piece, Snapshot
from producer.spool import Spool
from schemas import block as wire
from schemas.block import Kind
from schemas.change_record import TableSchema
from schemas.control import SnapshotEnd, encode_snapshot_end, snapshot_lane
from schemas.position import Position

_SHARE: Final = 0.5
_PORTION_BLOCKS: Final = 4


class Opened(Protocol):
    """A group as of its consistent point."""

    @property
    def consistent_point(self) -> int: ...

    @property
    def schema(self) -> TableSchema: ...

    @property
    def rows(self) -> Iterator[Item]: ...


class PieceWriter:
    """Spools groups, never faster than `budget` rows a second over all readers."""

    def __init__(
        self,
        name: str,
        spool: Spool,
        block_bytes: int,
        budget: Budget,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        patience_seconds: float = 60.0,
    ) -> None:
        self._name = name
        self._spool = spool
        self._block_bytes = block_bytes
        self._budget = budget
        self._now = now
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._in_flight: dict[Piece, int] = {}

    def rows_in_flight(self, snapshot: int) -> int:
        """Rows spooled of groups that have not ended yet."""
        return sum(rows for piece, rows in list(self._in_flight.items()) if piece.snapshot == snapshot)

    def write(
        self, snapshot: Snapshot, piece: Piece, attempt: int, opened: Opened, stop: threading.Event
    ) -> int | None:
        """How many rows were spooled; None when it was stopped on the way, or there was no room for long.

        A group that waited out an outage of hours would hold back the source's vacuum as long: it is read anew later.
        """
        lane = Lane(snapshot.table, snapshot_lane(piece.snapshot, piece.number, attempt))
        packer = Packer(self._name, lane, Kind.SNAPSHOT, self._block_bytes, None)
        count = 0
        try:
            for items in _portions(opened.rows, packer):
                if not self._room(stop):
                    return None
                rows = sum(map(rows_of, items))
                if stop.is_set() or stop.wait(self._budget.spend(rows)):
                    return None
                self._spool.append_snapshot(packer.pack(items, self._now()), schemas=_schemas(items))
                failpoints.reach("snapshot.rows")
                count += rows
                self._in_flight[piece] = count
            end = self._end_of(piece, attempt, opened.consistent_point, count)
            closing = self._end_block(snapshot.era, lane, packer.last, end, opened.schema)
            self._spool.append_snapshot([closing], ends=(piece, count), schemas=[opened.schema])
        finally:
            self._in_flight.pop(piece, None)
        failpoints.reach("snapshot.ended")
        return count

    def room(self) -> bool:
        """Whether rows find room. Half of the spool is kept for changes."""
        return not self._spool.full(_SHARE)

    def _room(self, stop: threading.Event) -> bool:
        until = self._clock() + self._patience_seconds
        while not self.room():
            if stop.wait(0.1) or self._clock() >= until:
                return False
        return True

    def _end_of(self, piece: Piece, attempt: int, consistent_point: int, count: int) -> SnapshotEnd:
        key_from, key_to = piece.group.keys
        return SnapshotEnd(
            snapshot=piece.snapshot,
            group=piece.number,
            groups=len(self._spool.book.pieces(piece.snapshot)),
            attempt=attempt,
            consistent_point=consistent_point,
            key_from=key_from,
            key_to=key_to,
            count=count,
        )

    def _end_block(
        self, era: int, lane: Lane, prev: Position | None, end: SnapshotEnd, schema: TableSchema
    ) -> PackedBlock:
        """It names the table's schema, so that the lake makes the table also where the snapshot has no row."""
        fingerprint = schema.fingerprint()
        position = Position(era, end.consistent_point - 1, end.count)
        now = self._now()
        block = wire.build(
            Kind.SNAPSHOT_END,
            self._name,
            lane.table,
            lane.name,
            schema=fingerprint,
            prev=prev,
            first=position,
            last=position,
            count=1,
            created_at=now,
            datums=encode_snapshot_end(end),
        )
        at = int(now.timestamp() * 1_000_000)
        return PackedBlock(lane, block.kind, fingerprint, prev, position, position, at, 1, wire.encode(block))


def _portions(rows: Iterator[Item], packer: Packer) -> Iterator[list[Item]]:
    """The rows, in portions of a few blocks: each is one write to the disk."""
    portion: list[Item] = []
    size = 0
    for row in rows:
        portion.append(row)
        size += size_of(row)
        if size >= _PORTION_BLOCKS * packer.raw_bytes:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _schemas(items: Sequence[Item]) -> list[TableSchema]:
    return list({id(item.schema): item.schema for item in items}.values())
