"""Snapshots: the initial load, a new era and a repair are the same thing.

Announce, wait until the announcement was accepted, and only then fix the points at which the table is read: readers
hold their fold line below them from then on. A large table is read group by group, each under a point of its own, so
that nothing holds back the source's vacuum for long, and a crash costs one group.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from producer import failpoints
from producer.blocks import Item
from producer.control_lane import ControlLane
from producer.errors import SnapshotVoid, SourceRefused, SourceUnreachable
from producer.groups import Group, Plan
from producer.settings import SnapshotSettings
from producer.snapshot_book import Piece, Snapshot
from producer.snapshot_pieces import PieceWriter
from producer.spool import Spool
from schemas.change_record import TableSchema

log = logging.getLogger(__name__)

SNAPSHOTS_PER_ERA = 1_000_000
_LOOK_SECONDS = 0.2
_IDLE_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class OpenSnapshot:
    """A group of a table as of its consistent point; the rows can be read once."""

    consistent_point: int
    schema: TableSchema
    rows: Iterator[Item]


class SnapshotSource(Protocol):
    """What can be read in pieces: tables by their lake names, and the source's current position."""

    def tables(self) -> Sequence[str]: ...

    def current_lsn(self) -> int: ...

    def plan(self, table: str, group_bytes: int) -> Plan:
        """The groups that together are the table."""
        ...

    def open(self, table: str, group: Group) -> AbstractContextManager[OpenSnapshot]: ...

    def busy(self) -> str | None:
        """Why reading had better wait; None when the source has room for it."""
        ...


@dataclass(frozen=True)
class SnapshotProgress:
    """How far a snapshot has come. rows_expected and seconds_left are estimates, None where nothing is known yet."""

    table: str
    snapshot: int
    groups: int
    groups_done: int
    rows_done: int
    rows_expected: int | None
    seconds_left: float | None


class Snapshotter:
    """Reads tables while changes stream, `readers` groups at a time. `run` is a thread of its own."""

    def __init__(
        self,
        era: int,
        spool: Spool,
        control: ControlLane,
        source: SnapshotSource,
        settings: SnapshotSettings,
        writer: PieceWriter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._era = era
        self._spool = spool
        self._control = control
        self._source = source
        self._settings = settings
        self._writer = writer
        self._clock = clock
        self._lock = threading.Lock()
        self._reading: set[tuple[int, int]] = set()
        self._resting: dict[str, float] = {}
        self._book: tuple[int, Sequence[Snapshot]] = (-1, ())
        self._asked_at = -1
        self._failure: BaseException | None = None
        self._waiting: str | None = None
        self._looked_at = float("-inf")
        self._began: dict[int, tuple[float, float]] = {}
        self.trouble: str | None = None

    def tables(self) -> Sequence[str]:
        return self._source.tables()

    def request(self, table: str) -> None:
        """Take a new snapshot of a table; an unfinished one of it is abandoned."""
        self._announce(table)

    def run(self, stop: threading.Event) -> None:
        """Snapshot every table that this era has none of, then whatever is requested, until told to stop."""
        for number in range(self._settings.readers):
            threading.Thread(target=self._read_on, args=(stop,), name=f"snapshot-{number}", daemon=True).start()
        while not stop.is_set() and self._failure is None:
            try:
                self._announce_missing()
                self._announce_restructured()
                self._cut_announced()
                self._look_at_load()
            except SourceUnreachable as error:
                log.warning("snapshots wait for the source", extra={"cause": str(error)})
            self._rest(stop)
        if self._failure is not None:
            raise self._failure

    def _rest(self, stop: threading.Event) -> None:
        """Until the next look: longer where nothing is to be read."""
        stop.wait(_LOOK_SECONDS if self._unfinished() else _IDLE_LOOK_SECONDS)

    def _look_at_load(self) -> None:
        """Now and then, and only while there is something to read: the look costs the source a connection."""
        if not self._unfinished():
            self._waiting = None
        elif self._clock() - self._looked_at >= _RETRY_SECONDS:
            self._looked_at = self._clock()
            self._waiting = self._source.busy()

    # ---- what is to be read

    def _announce_missing(self) -> None:
        have = {s.table for s in self._all() if s.era == self._era and s.state != "abandoned"}
        for table in self._source.tables():
            if table not in have:
                self._announce(table)

    def _announce_restructured(self) -> None:
        for table, structure in self._restructured():
            log.warning("a table without a key has another structure, and is read anew", extra={"table": table})
            self._announce(table)
            self._spool.settle(table, structure)

    def _restructured(self) -> Sequence[tuple[str, str]]:
        """Looked for only where the spool was written since."""
        if self._asked_at == (now := self._spool.writes):
            return ()
        found = self._spool.restructured()
        if not found:
            self._asked_at = now
        return found

    def _announce(self, table: str) -> None:
        with self._lock:
            number = self._era * SNAPSHOTS_PER_ERA + self._spool.count_up(f"snapshots.{self._era}")
            low = self._source.current_lsn()
            self._spool.book.add(Snapshot(number, self._era, table, low))

    def _all(self) -> Sequence[Snapshot]:
        """The book, read again only where the spool was written since."""
        writes, known = self._book
        if writes != (now := self._spool.writes):
            known = self._spool.book.all()
            self._book = now, known
        return known

    def _unfinished(self) -> list[Snapshot]:
        return [s for s in self._all() if s.era == self._era and s.unfinished]

    def _cut_announced(self) -> None:
        """Fix the groups of what was announced. The announcement need not be accepted yet: no point is fixed.

        A table that is captured no more needs no snapshot.
        """
        tables = self._source.tables()
        for snapshot in self._unfinished():
            if snapshot.table not in tables:
                self._spool.book.abandon(snapshot.snapshot)
            elif snapshot.state == "announced" and self._may_try(snapshot.table):
                with self._kept_apart(snapshot):
                    plan = self._source.plan(snapshot.table, self._settings.group_bytes)
                    self._spool.book.cut(snapshot.snapshot, plan)
                    failpoints.reach("snapshot.cut")

    def next_piece(self) -> tuple[Snapshot, Piece] | None:
        """A group that may be read now, and that no other reader has: its snapshot's announcement was accepted."""
        if self._waiting is not None or not self._writer.room():
            return None
        with self._lock:
            for snapshot in self._unfinished():
                if not self._may_try(snapshot.table) or not self._control.wait_announced(snapshot.snapshot, 0):
                    continue
                for piece in self._spool.book.pieces(snapshot.snapshot):
                    if piece.rows is None and (piece.snapshot, piece.number) not in self._reading:
                        self._reading.add((piece.snapshot, piece.number))
                        return snapshot, piece
        return None

    # ---- reading

    def _read_on(self, stop: threading.Event) -> None:
        """One reader: a group after the other."""
        try:
            while not stop.is_set():
                found = self.next_piece()
                if found is None:
                    self._rest(stop)
                    continue
                snapshot, piece = found
                with self._kept_apart(snapshot):
                    self._read(snapshot, piece, stop)
                with self._lock:
                    self._reading.discard((piece.snapshot, piece.number))
        except BaseException as error:
            self._failure = error

    def _read(self, snapshot: Snapshot, piece: Piece, stop: threading.Event) -> None:
        failpoints.reach("snapshot.announced")
        self._began.setdefault(snapshot.snapshot, (self._clock(), self._fraction(snapshot)))
        attempt = self._spool.book.begin_attempt(piece)
        with self._source.open(snapshot.table, piece.group) as opened:
            count = self._writer.write(snapshot, piece, attempt, opened, stop)
        if count is not None:
            place = {"table": snapshot.table, "snapshot": snapshot.snapshot, "group": piece.number}
            log.info("snapshot read", extra={**place, "rows": count})

    @contextmanager
    def _kept_apart(self, snapshot: Snapshot) -> Iterator[None]:
        """Work on one table, whose trouble is not that of the others."""
        try:
            yield
            self.trouble = None
        except SnapshotVoid as error:
            log.warning("a snapshot begins again", extra={"table": snapshot.table, "cause": str(error)})
            self._announce(snapshot.table)
        except (SourceUnreachable, SourceRefused) as error:
            log.warning("a snapshot was interrupted", extra={"table": snapshot.table, "cause": str(error)})
            self._resting[snapshot.table] = self._clock() + _RETRY_SECONDS
            self.trouble = f"the snapshot of {snapshot.table} waits: {error}"

    def _may_try(self, table: str) -> bool:
        return self._resting.get(table, 0.0) <= self._clock()

    # ---- looking

    def progress(self) -> list[SnapshotProgress]:
        """Every snapshot of this era that has not ended."""
        return [self._progress_of(snapshot) for snapshot in self._unfinished()]

    def _progress_of(self, snapshot: Snapshot) -> SnapshotProgress:
        pieces = self._spool.book.pieces(snapshot.snapshot)
        done = [piece.rows for piece in pieces if piece.rows is not None]
        rows = sum(done) + self._writer.rows_in_flight(snapshot.snapshot)
        began = self._began.get(snapshot.snapshot)
        left = None
        if began is not None:
            at, fraction = began
            left = seconds_left(fraction, self._fraction(snapshot), self._clock() - at)
        return SnapshotProgress(snapshot.table, snapshot.snapshot, len(pieces), len(done), rows, snapshot.rows, left)

    def _fraction(self, snapshot: Snapshot) -> float:
        """How much of a snapshot is read, 0 to 1: by rows where the source knows how many, by groups otherwise."""
        pieces = self._spool.book.pieces(snapshot.snapshot)
        rows = sum(piece.rows or 0 for piece in pieces) + self._writer.rows_in_flight(snapshot.snapshot)
        if snapshot.rows:
            return min(1.0, rows / snapshot.rows)
        return sum(piece.rows is not None for piece in pieces) / max(1, len(pieces))


def seconds_left(fraction_then: float, fraction_now: float, seconds_since: float) -> float | None:
    """What the rest takes at the pace since then; None before anything has moved. Pure."""
    moved = fraction_now - fraction_then
    return seconds_since * (1.0 - fraction_now) / moved if moved > 0 else None
