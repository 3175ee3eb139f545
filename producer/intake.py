"""The intake: events of the capture into the spool, and only then the confirmation to the source (line 1)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from producer import failpoints, lanes
from producer.blocks import Gatherer, Lane
from producer.change import Begin, Change, Commit, Event, Keepalive, Rejected
from producer.spool import DurableEnd, Spool
from schemas.change_record import TableSchema

IDLE_NOTE_SECONDS = 1.0


@dataclass
class Intake:
    """Gathers changes, and spools them as soon as a block is full or the oldest has waited linger_seconds.

    end: the spool's durable end when it starts. lanes_of: how many lanes a table has.
    confirm: tells the source what it may forget; called after the fsync.
    """

    spool: Spool
    gatherer: Gatherer
    end: DurableEnd
    lanes_of: Callable[[str], int]
    confirm: Callable[[int], None]
    linger_seconds: float
    clock: Callable[[], float] = time.monotonic
    captured: int = 0
    _durable: DurableEnd = field(init=False)
    _oldest: float | None = None
    _moved: float | None = None
    _tail_spooled: bool = False
    _schemas: dict[int, TableSchema] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._durable = self.end

    def take(self, events: Iterable[Event]) -> None:
        """Gather events in order; what fills a block is spooled at once."""
        for event in events:
            if isinstance(event, Change | Rejected):
                self._change(event)
            elif isinstance(event, Commit):
                self._commit(event)
            elif isinstance(event, Keepalive):
                self._keepalive(event)
            else:
                self._begin(event)

    def due_in(self) -> float:
        """Seconds until something has waited long enough; at most the linger, so that nobody waits unheard."""
        now = self.clock()
        waits = [self.linger_seconds]
        if self._oldest is not None:
            waits.append(self._oldest + self.linger_seconds - now)
        return max(0.0, min(waits))

    def flush_if_due(self) -> None:
        now = self.clock()
        lingered = self._oldest is not None and now - self._oldest >= self.linger_seconds
        idle = self._moved is not None and now - self._moved >= IDLE_NOTE_SECONDS
        if lingered or idle:
            self.flush()

    def flush(self) -> None:
        """Spool every whole transaction gathered so far, then confirm it to the source."""
        if self._tail_spooled:
            return  # the open transaction's commit settles everything
        blocks = self.gatherer.whole(datetime.now(UTC))
        if blocks or self.end != self._durable:
            self.spool.append(blocks, durable=self.end, schemas=self._schemas.values())
            self._durable = self.end
            self.confirm(self.end.flushed)
            failpoints.reach("source.confirmed")
        self._rest()

    def _begin(self, _: Begin) -> None:
        """Nothing to do: a transaction counts from its first change."""

    def _change(self, change: Change | Rejected) -> None:
        lane = lanes.lane(change, self.lanes_of(change.table))
        self.gatherer.add(Lane(change.table, lane), change)
        self._schemas[id(change.schema)] = change.schema
        self.captured += 1
        failpoints.reach("capture.changed")
        if self._oldest is None:
            self._oldest = self.clock()
        if self.gatherer.full:
            self._overflow()

    def _commit(self, commit: Commit) -> None:
        self.gatherer.commit()
        self.end = DurableEnd(self.end.era, commit.lsn, commit.end_lsn, commit.committed_at)
        self._note_move()
        if self._tail_spooled:
            self._tail_spooled = False
            self.flush()

    def _keepalive(self, keepalive: Keepalive) -> None:
        """A transaction may still commit exactly at a keepalive's position: complete is what lies below it."""
        if keepalive.lsn - 1 > self.end.lsn:
            self.end = DurableEnd(self.end.era, keepalive.lsn - 1, keepalive.lsn, time.time_ns() // 1000)
            self._note_move()

    def _note_move(self) -> None:
        if self._moved is None:
            self._moved = self.clock()

    def _overflow(self) -> None:
        """A block is full within a transaction: earlier transactions go first, then the open one as a tail."""
        if not self._tail_spooled:
            self.flush()
        if self.gatherer.full:
            self.spool.append(self.gatherer.tail(datetime.now(UTC)), durable=None, schemas=self._schemas.values())
            self._tail_spooled = True
            self._rest()

    def _rest(self) -> None:
        """What is left waits from now on."""
        self._moved = None
        self._oldest = self.clock() if self.gatherer.changes else None
        if not self.gatherer.changes:
            self._schemas.clear()
