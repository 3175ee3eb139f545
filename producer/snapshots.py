"""Snapshots: the initial load, a new era and a repair are the same thing.

Announce, wait until the announcement was accepted, and only then fix the point at which the table is read: readers
hold their fold line below it from then on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from producer import failpoints
from producer.blocks import Item, Lane, PackedBlock, Packer
from producer.change import Change
from producer.control_lane import ControlLane
from producer.errors import SourceUnreachable
from producer.spool import Snapshot, Spool
from schemas import block as wire
from schemas.block import Kind
from schemas.change_record import TableSchema
from schemas.control import SnapshotEnd, encode_snapshot_end, snapshot_lane
from schemas.position import Position

log = logging.getLogger(__name__)

SNAPSHOTS_PER_ERA = 1_000_000
_GROUP, _GROUPS = 0, 1


@dataclass(frozen=True)
class OpenSnapshot:
    """A table as of its consistent point; the rows can be read once."""

    consistent_point: int
    schema: TableSchema
    rows: Iterator[Item]


class SnapshotSource(Protocol):
    """What can be read in one piece: tables by their lake names, and the source's current position."""

    def tables(self) -> Sequence[str]: ...

    def current_lsn(self) -> int: ...

    def open(self, table: str) -> AbstractContextManager[OpenSnapshot]: ...


class Snapshotter:
    """Reads one table after the other while changes stream. `run` is a thread of its own."""

    def __init__(
        self,
        name: str,
        era: int,
        spool: Spool,
        control: ControlLane,
        source: SnapshotSource,
        block_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._name = name
        self._era = era
        self._spool = spool
        self._control = control
        self._source = source
        self._block_bytes = block_bytes
        self._now = now
        self._wanted: list[str] = []
        self._lock = threading.Lock()
        self.running: str | None = None

    def tables(self) -> Sequence[str]:
        return self._source.tables()

    def request(self, table: str) -> None:
        """Take a new snapshot of a table; an unfinished one of it is abandoned."""
        self._announce(table)

    def run(self, stop: threading.Event) -> None:
        """Snapshot every table that this era has none of, then whatever is requested, until told to stop."""
        while not stop.is_set():
            try:
                self._announce_missing()
                todo = self._unfinished()
                for snapshot in todo:
                    self._take(snapshot, stop)
                if not todo:
                    stop.wait(0.5)
            except SourceUnreachable as error:
                log.warning("a snapshot was interrupted", extra={"table": self.running, "cause": str(error)})
                stop.wait(2.0)
            finally:
                self.running = None

    def _announce_missing(self) -> None:
        have = {s.table for s in self._spool.snapshots() if s.era == self._era}
        for table in self._source.tables():
            if table not in have:
                self._announce(table)

    def _announce(self, table: str) -> None:
        with self._lock:
            number = self._era * SNAPSHOTS_PER_ERA + self._spool.count_up(f"snapshots.{self._era}")
            low = self._source.current_lsn()
            self._spool.add_snapshot(Snapshot(number, self._era, table, low, "announced", 0))

    def _unfinished(self) -> list[Snapshot]:
        return [s for s in self._spool.snapshots() if s.era == self._era and s.state in ("announced", "running")]

    def _take(self, snapshot: Snapshot, stop: threading.Event) -> None:
        """One attempt at the snapshot's single group, from its announcement to its end."""
        self.running = snapshot.table
        while not self._control.wait_announced(snapshot.snapshot, 0.5):
            if stop.is_set():
                return
        failpoints.reach("snapshot.announced")
        attempt = self._spool.begin_attempt(snapshot.snapshot)
        with self._source.open(snapshot.table) as opened:
            count = self._spool_rows(snapshot, attempt, opened, stop)
        if count is not None:
            log.info("snapshot taken", extra={"table": snapshot.table, "snapshot": snapshot.snapshot, "rows": count})

    def _spool_rows(self, snapshot: Snapshot, attempt: int, opened: OpenSnapshot, stop: threading.Event) -> int | None:
        """How many rows were spooled; None when it was stopped on the way."""
        lane = Lane(snapshot.table, snapshot_lane(snapshot.snapshot, _GROUP, attempt))
        packer = Packer(self._name, lane, Kind.SNAPSHOT, self._block_bytes, None)
        count = 0
        for items in _portions(opened.rows, packer):
            while self._spool.full() and not stop.is_set():
                stop.wait(0.1)
            if stop.is_set():
                return None
            self._spool.append_snapshot(packer.pack(items, self._now()), schemas=_schemas(items))
            failpoints.reach("snapshot.rows")
            count += len(items)
        end = SnapshotEnd(
            snapshot=snapshot.snapshot,
            group=_GROUP,
            groups=_GROUPS,
            attempt=attempt,
            consistent_point=opened.consistent_point,
            key_from=None,
            key_to=None,
            count=count,
        )
        closing = self._end_block(lane, packer.last, end, opened.schema)
        self._spool.append_snapshot([closing], ends=snapshot.snapshot, schemas=[opened.schema])
        failpoints.reach("snapshot.ended")
        return count

    def _end_block(self, lane: Lane, prev: Position | None, end: SnapshotEnd, schema: TableSchema) -> PackedBlock:
        """It names the table's schema, so that the lake makes the table also where the snapshot has no row."""
        fingerprint = schema.fingerprint()
        position = Position(self._era, end.consistent_point - 1, end.count)
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
    """The rows, in portions of about one block."""
    portion: list[Item] = []
    size = 0
    for row in rows:
        portion.append(row)
        size += len(row.datum) if isinstance(row, Change) else 0
        if size >= packer.raw_bytes:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _schemas(items: Sequence[Item]) -> list[TableSchema]:
    return list({id(item.schema): item.schema for item in items}.values())
