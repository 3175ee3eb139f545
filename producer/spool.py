"""The spool: the agent's durable queue of blocks, one SQLite file.

Line 1 of the design: what `append` has returned from is on disk, and only then may the source hear of it.
Line 2: a block counts as accepted only after Kinesis said so; a lost `accepted` costs a duplicate, never a row.
"""

from __future__ import annotations

import fcntl
import json
import logging
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from producer import failpoints, snapshot_book, spool_file, structures
from producer.blocks import Lane, PackedBlock
from producer.continuity import Known
from producer.damage import Damage, Lost
from producer.errors import AnotherAgent, SpoolBroken, SpoolDamaged
from producer.snapshot_book import Piece, Snapshot, SnapshotBook
from producer.spool_file import DATA, State
from producer.tally import Tally, Totals
from schemas.block import Kind
from schemas.change_record import TableSchema
from schemas.control import LaneEnd
from schemas.position import Line, Position

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DurableEnd:
    """Up to where the source is spooled in whole transactions.

    lsn: every transaction that commits at or below it is spooled. flushed: what the source may be told.
    at: the source's clock there, microseconds since 1970. last: the last transaction with changes, None before the
    era's first.
    """

    era: int
    lsn: int
    flushed: int
    at: int
    last: Known | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """A block that waits to be sent."""

    id: int
    lane: Lane
    kind: Kind
    fingerprint: bytes
    last: Position
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class View:
    """What a progress record may speak of, read at one moment.

    pending: (era, lsn, microseconds since 1970) of the first change that was not accepted yet.
    """

    durable: DurableEnd | None
    pending: tuple[int, int, int] | None
    ends: tuple[LaneEnd, ...]
    snapshots: tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True)
class Resent:
    """How many blocks are sent once more, and how many would have been but are damaged."""

    blocks: int
    damaged: int


class Spool:
    """Safe to use from several threads. One process at a time: the file beside it is locked.

    Two connections: one fsyncs each commit; the other, for acceptances, leaves that to the next checkpoint.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = path.with_name(path.name + ".lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock_file.close()
            raise AnotherAgent(f"{path}: another agent uses this spool; stop it first") from None
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._path = path
        try:
            self._durable = spool_file.connect(path, "FULL")
            self._relaxed = spool_file.connect(path, "NORMAL")
        except BaseException:
            self._lock_file.close()
            raise
        self._written_schemas: set[bytes] = set()
        self.writes = 0
        """Grows with every change of what the spool holds or knows."""
        self.book = SnapshotBook(self._write, self._read)
        self._damage = Damage(path, self._write, self._read)
        self._tally = Tally()
        self.arrival = threading.Condition()
        if self.meta("spool") is None:
            self.note(spool=uuid.uuid4().hex)
        self._count_stored()

    def checkpoint(self) -> None:
        """Bring all that SQLite's log holds into the file itself. There damage costs the block that it hits, and each
        block's checksum finds it; a log that is damaged ends there for SQLite, at the next start."""
        self._read("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        with self._lock:
            self._relaxed.close()
            self._durable.close()
            self._lock_file.close()

    # ---- what the agent remembers

    def meta(self, key: str) -> str | None:
        rows = self._read("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def note(self, **values: str) -> None:
        """Remember values durably, all of them or none."""
        self._write(lambda db: spool_file.note(db, values))

    def count_up(self, key: str) -> int:
        """The next number of a counter, from 1; it is never given again."""
        with self._lock:
            number = int(self.meta(key) or 0) + 1
            self.note(**{key: str(number)})
        return number

    def durable_end(self) -> DurableEnd | None:
        """None until the era is open."""
        text = self.meta("durable_end")
        return None if text is None else _durable_end(text)

    def line(self) -> Line | None:
        """How far whole transactions ever were spooled, in its era. What is captured again takes nothing back: an older
        state of the file is known by its line."""
        end = self.durable_end()
        if end is None:
            return None
        return max(Line(end.era, end.lsn), Line(*json.loads(self.meta("furthest") or "[0, 0]")))

    def open_era(self, era: int, end: DurableEnd | None, **values: str) -> None:
        """Begin an era, with its end where the slot exists already. What earlier eras left is still sent first."""

        def work(db: sqlite3.Connection) -> None:
            spool_file.note(db, {"era": str(era), **values})
            db.execute("DELETE FROM meta WHERE key = 'durable_end'")
            db.execute("UPDATE snapshots SET state = 'abandoned' WHERE era < ? AND state <> 'ended'", (era,))
            if end is not None:
                spool_file.note(db, {"durable_end": _text(end)})

        self._write(work)

    # ---- filling

    def append(
        self,
        blocks: Sequence[PackedBlock],
        *,
        durable: DurableEnd | None,
        schemas: Iterable[TableSchema] = (),
    ) -> None:
        """Spool data blocks in one transaction; when this returns they are on disk.

        With `durable`, they and every earlier tail end in a committed transaction: all become sendable, and the
        lanes' ends move. Without, they are the tail of an open one, which a restart discards.
        """
        state = State.TAIL if durable is None else State.READY
        schemas = tuple(schemas)
        fresh = self._fresh(schemas)

        def work(db: sqlite3.Connection) -> None:
            spool_file.insert_schemas(db, fresh)
            spool_file.insert(db, blocks, state)
            structures.follow(db, blocks, schemas)
            failpoints.reach("spool.before_commit")
            if durable is not None:
                spool_file.settle(db)
                spool_file.note(db, {"durable_end": _text(durable)})

        with self._lock:
            settled = None if durable is None else self._tails()
            self._write(work)
            self._written_schemas.update(schema.fingerprint() for schema in fresh)
            self._tally.changes(blocks, settled)
            if durable is not None:
                self._arrived()
        failpoints.reach("spool.after_commit")

    def discard_tail(self) -> int:
        """Drop blocks of a transaction whose Commit was not spooled: it will be captured again, whole."""
        with self._lock:
            ((count,),) = self._read("SELECT count(*) FROM blocks WHERE state = 0")
            self._write(lambda db: db.execute("DELETE FROM blocks WHERE state = 0"))
            self._count_stored()
        return int(count)

    def give_back_damaged(self, confirmed: int) -> int:
        """Drop damaged blocks that the source still has, and all behind them, so that they are captured again. While
        nothing is captured or on its way to Kinesis.

        confirmed: what the source was told; what commits at or above it is sent again. Returns how many blocks went.
        """
        end = self.durable_end()
        if end is None:
            return 0
        era = end.era
        with self._lock:
            cut = self._damage.cut(era, confirmed)
            if cut is None:
                return 0
            again = DurableEnd(era, cut - 1, confirmed, end.at)
            furthest, before = self.line(), self._tally.pending_blocks

            def work(db: sqlite3.Connection) -> None:
                spool_file.cut_back(db, era, cut)
                spool_file.note(db, {"durable_end": _text(again), "furthest": json.dumps(furthest)})

            self._write(work)
            self._count_stored()
            count = before - self._tally.pending_blocks
            self._tally.refetched_blocks += count
        log.warning("damaged blocks are captured again", extra={"blocks": count, "from_lsn": cut})
        return count

    def declare_damaged(self, source: str, *, leave_out: bool = False) -> Lost:
        """Give up every damaged block that waits (see Damage.declare). While nothing is on its way to Kinesis."""
        with self._lock:
            lost = self._damage.declare(source, datetime.now(UTC), leave_out=leave_out)
            self._count_stored()
            self._tally.lost_blocks += lost.blocks
        return lost

    def append_snapshot(
        self,
        blocks: Sequence[PackedBlock],
        *,
        ends: tuple[Piece, int] | None = None,
        schemas: Iterable[TableSchema] = (),
    ) -> None:
        """Spool blocks of a snapshot's lane, sendable at once; `ends` names the group that they complete, of how many
        rows."""
        schemas = tuple(schemas)
        fresh = self._fresh(schemas)

        def work(db: sqlite3.Connection) -> None:
            spool_file.insert_schemas(db, fresh)
            spool_file.insert(db, blocks, State.READY)
            structures.follow(db, blocks, schemas)
            if ends is not None:
                snapshot_book.end_piece(db, *ends)

        with self._lock:
            self._write(work)
            self._written_schemas.update(schema.fingerprint() for schema in fresh)
            self._tally.rows(blocks)
            self._arrived()

    def restructured(self) -> list[tuple[str, str]]:
        """Tables that a change of their structure asks a snapshot of, each with what `settle` takes."""
        return structures.restructured(self._read)

    def settle(self, table: str, structure: str) -> None:
        """That snapshot is announced."""
        self._write(lambda db: structures.settle(db, table, structure))

    def full(self, share: float = 1.0) -> bool:
        """Whether blocks that could be sent fill that share of the spool: capture waits until some were accepted.

        The tail of an open transaction does not count: it can go only once its Commit was captured.
        """
        return self._tally.pending_bytes - self._tally.tail_bytes >= self._max_bytes * share

    # ---- draining

    def lanes_with_blocks(self) -> list[Lane]:
        """Lanes that have something to send."""
        with self._lock:
            return [lane for lane, count in self._tally.queued.items() if count > 0]

    def head(self, lane: Lane) -> Queued | None:
        """The oldest block of a lane that is to be sent. Raises SpoolDamaged where its bytes are not those written."""
        rows = self._read(
            "SELECT id, kind, fingerprint, era, last_lsn, last_idx, count, checksum, data FROM blocks"
            " WHERE tbl = ? AND lane = ? AND state IN (1, 3) ORDER BY id LIMIT 1",
            (lane.table, lane.name),
        )
        if not rows:
            return None
        number, kind, fingerprint, era, lsn, idx, count, checksum, data = rows[0]
        last = Position(era, lsn, idx)
        if spool_file.checksum(data) != checksum:
            raise SpoolDamaged(f"{self._path}: the block of {lane} that ends at {last} is damaged")
        return Queued(number, lane, Kind(kind), fingerprint, last, count, data)

    def accepted(self, blocks: Sequence[Queued]) -> None:
        """Kinesis has taken these blocks. They stay, for a resend, as long as there is room."""
        with self._lock:
            states = {block.id: self._state(block.id) for block in blocks}

            def work(db: sqlite3.Connection) -> None:
                db.executemany("UPDATE blocks SET state = 2 WHERE id = ?", [(block.id,) for block in blocks])
                for block in blocks:
                    if block.kind.value in DATA and states[block.id] is State.READY:
                        spool_file.accept(db, block.lane, block.last)

            self._write(work, self._relaxed)
            for block in blocks:
                first = block.kind is Kind.DATA and states[block.id] is State.READY
                self._tally.accepted(block.lane, len(block.data), block.count if first else 0)
            self._prune()

    def resend(self, lane: Lane, after: Position | None, last: Position) -> Resent:
        """Queue the accepted blocks that hold positions in (after, last] once more. Damaged ones are no use, and go."""
        low = after or Position(last.era, -1, -1)
        where = (
            "state = 2 AND tbl = ? AND lane = ? AND era = ? AND (last_lsn, last_idx) > (?, ?)"
            " AND (prev_lsn IS NULL OR (prev_lsn, prev_idx) < (?, ?))"
        )
        values = (lane.table, lane.name, last.era, low.lsn, low.idx, last.lsn, last.idx)
        with self._lock:
            damaged = [row.id for row in self._damage.damaged(where, values)]
            self._delete(damaged)
            rows = self._read(f"SELECT id, size FROM blocks WHERE {where}", values)
            self._write(lambda db: _mark_again(db, [row[0] for row in rows]))
            self._tally.again(lane, [size for _, size in rows])
            self._arrived()
        return Resent(len(rows), len(damaged))

    # ---- schemas

    def unregistered(self, fingerprint: bytes) -> TableSchema | None:
        """The schema to register before a block under it goes; None when that is done."""
        rows = self._read("SELECT avro FROM schemas WHERE fingerprint = ? AND registered = 0", (fingerprint,))
        return TableSchema.from_avro(json.loads(rows[0][0])) if rows else None

    def registered(self, fingerprint: bytes) -> None:
        self._write(lambda db: db.execute("UPDATE schemas SET registered = 1 WHERE fingerprint = ?", (fingerprint,)))

    # ---- looking

    def ends(self, era: int) -> dict[Lane, Position]:
        """The last position of every data lane of the era: what the next block's `prev` is."""
        rows = self._read("SELECT tbl, lane, last_lsn, last_idx FROM lanes WHERE era = ?", (era,))
        return {Lane(table, lane): Position(era, lsn, idx) for table, lane, lsn, idx in rows}

    def view(self) -> View:
        """What was durable and accepted at one moment."""
        with self._lock:
            durable = self.durable_end()
            pending = self._read(
                "SELECT era, first_lsn, first_at FROM blocks INDEXED BY pending"
                " WHERE state = 1 AND kind IN ('data', 'reject') ORDER BY era, first_lsn LIMIT 1"
            )
            rows = self._read(
                "SELECT tbl, lane, accepted_lsn, accepted_idx FROM lanes WHERE era = ? AND accepted_lsn IS NOT NULL",
                (0 if durable is None else durable.era,),
            )
            snapshots = self.book.all()
        era = 0 if durable is None else durable.era
        return View(
            durable=durable,
            pending=pending[0] if pending else None,
            ends=tuple(LaneEnd(table, lane, Position(era, lsn, idx)) for table, lane, lsn, idx in rows),
            snapshots=snapshots,
        )

    def totals(self) -> Totals:
        with self._lock:
            return self._tally.totals()

    # ---- within

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._durable.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise spool_file.broken(self._path, error) from error

    def _write(
        self, work: Callable[[sqlite3.Connection], object], connection: sqlite3.Connection | None = None
    ) -> None:
        try:
            with self._lock, connection or self._durable as db:
                self.writes += 1
                db.execute("BEGIN IMMEDIATE")
                work(db)
        except sqlite3.Error as error:
            raise SpoolBroken(f"the spool cannot be written: {error}; nothing was confirmed to the source") from error

    def _fresh(self, schemas: Iterable[TableSchema]) -> list[TableSchema]:
        """Those that this process has not written yet."""
        return [schema for schema in schemas if schema.fingerprint() not in self._written_schemas]

    def _delete(self, ids: Sequence[int], connection: sqlite3.Connection | None = None) -> None:
        keys = [(number,) for number in ids]
        self._write(lambda db: db.executemany("DELETE FROM blocks WHERE id = ?", keys), connection)

    def _count_stored(self) -> None:
        queued = self._read(
            "SELECT tbl, lane, count(*), sum(size) FROM blocks WHERE state IN (1, 3) GROUP BY tbl, lane"
        )
        ((total,),) = self._read("SELECT coalesce(sum(size), 0) FROM blocks")
        self._tally.found(queued, total)

    def _tails(self) -> list[Lane]:
        return [Lane(table, lane) for table, lane in self._read("SELECT tbl, lane FROM blocks WHERE state = 0")]

    def _arrived(self) -> None:
        """Something can be sent."""
        with self.arrival:
            self.arrival.notify_all()

    def _state(self, block_id: int) -> State:
        ((state,),) = self._read("SELECT state FROM blocks WHERE id = ?", (block_id,))
        return State(state)

    def _prune(self) -> None:
        """Let the oldest accepted blocks go while the spool is over its bound."""
        while self._tally.spool_bytes > self._max_bytes:
            rows = self._read("SELECT id, size FROM blocks WHERE state = 2 ORDER BY id LIMIT 100")
            if not rows:
                return
            self._delete([row[0] for row in rows], self._relaxed)
            self._tally.spool_bytes -= sum(row[1] for row in rows)


def _mark_again(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    db.executemany("UPDATE blocks SET state = 3 WHERE id = ?", [(number,) for number in ids])


def _text(end: DurableEnd) -> str:
    return json.dumps([end.era, end.lsn, end.flushed, end.at, end.last])


def _durable_end(text: str) -> DurableEnd:
    era, lsn, flushed, at, last = json.loads(text)
    return DurableEnd(era, lsn, flushed, at, None if last is None else Known(*last))
