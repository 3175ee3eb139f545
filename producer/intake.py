"""The intake: events of the capture into the spool, and only then the confirmation to the source (line 1)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from producer import failpoints, lanes
from producer.blocks import Gatherer, Lane
from producer.change import Change, Commit, Event, Keepalive, Rejected, Run
from producer.continuity import Known
from producer.durable_end import DurableEnd
from producer.spool import Spool
from schemas.change_record import TableSchema

IDLE_NOTE_SECONDS = 1.0
UNHEARD_SECONDS = 0.5


@dataclass
class Intake:
    """Gathers changes, and spools them as soon as a block is full or linger_seconds have passed since it last did.

    So a lane has one block for each linger_seconds, and what comes after a quiet moment waits for nothing.

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
    _rested: float = float("-inf")
    _moved: float | None = None
    _tail_spooled: bool = False
    _schemas: dict[int, TableSchema] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._durable = self.end

    def take(self, events: Sequence[Event]) -> None:
        """Gather events in order; what fills a block is spooled at once."""
        settled = _last_commit(events)
        for place, event in enumerate(events):
            if isinstance(event, Change | Rejected):
                self._change(event)
            elif isinstance(event, Run):
                self._run(event)
            elif isinstance(event, Commit):
                self._commit(event)
            elif isinstance(event, Keepalive):
                self._keepalive(event)
            if self.gatherer.full and place >= settled:
                self._overflow()

    def due_in(self) -> float:
        """Seconds until something is to be spooled; with nothing at hand, as long as a stop may go unheard.

        Behind a spooled tail nothing is due before the transaction's commit comes. To say 0 there would be to poll
        without waiting, for as long as the transaction takes.
        """
        now = self.clock()
        waits = [UNHEARD_SECONDS]
        if self.gatherer.changes:
            waits.append(self.linger_seconds if self._tail_spooled else self._rested + self.linger_seconds - now)
        if self._moved is not None and not self._tail_spooled:
            waits.append(self._moved + IDLE_NOTE_SECONDS - now)
        return max(0.0, min(waits))

    def flush_if_due(self) -> None:
        now = self.clock()
        lingered = self.gatherer.changes and now - self._rested >= self.linger_seconds
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

    def _change(self, change: Change | Rejected) -> None:
        lane = lanes.lane(change, self.lanes_of(change.table))
        self.gatherer.add(Lane(change.table, lane), change)
        self._note_change(change.schema, 1)

    def _run(self, run: Run) -> None:
        for lane, part in lanes.split(run, self.lanes_of(run.table)):
            self.gatherer.add(Lane(run.table, lane), part)
        self._note_change(run.schema, run.count)

    def _note_change(self, schema: TableSchema, count: int) -> None:
        self._schemas[id(schema)] = schema
        self.captured += count
        failpoints.reach("capture.changed")

    def _commit(self, commit: Commit) -> None:
        self.gatherer.commit()
        known = Known(commit.lsn, commit.committed_at) if commit.changes else self.end.last
        self.end = DurableEnd(self.end.era, commit.lsn, commit.end_lsn, commit.committed_at, known)
        self._note_move()
        if self._tail_spooled:
            self._tail_spooled = False
            self.flush()

    def _keepalive(self, keepalive: Keepalive) -> None:
        """A transaction may still commit exactly at a keepalive's position: complete is what lies below it."""
        if keepalive.lsn - 1 > self.end.lsn:
            self.end = DurableEnd(self.end.era, keepalive.lsn - 1, keepalive.lsn, time.time_ns() // 1000, self.end.last)
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
        self._rested = self.clock()
        if not self.gatherer.changes:
            self._schemas.clear()


def _last_commit(events: Sequence[Event]) -> int:
    """Before the last commit behind runs nothing may be cut: they hold changes of several transactions. -1: no runs."""
    if not any(isinstance(event, Run) for event in events):
        return -1
    return max((place for place, event in enumerate(events) if isinstance(event, Commit)), default=-1)
