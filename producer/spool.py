"""The spool: the agent's durable queue of blocks, one SQLite file.

Line 1 of the design: what `append` has returned from is on disk, and only then may the source hear of it.
Line 2: a block counts as accepted only after Kinesis said so; a lost `accepted` costs a duplicate, never a row.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from producer import failpoints, snapshot_book, spool_blocks, spool_schemas, structures
from producer.blocks import Lane, PackedBlock
from producer.damage import Damage, Lost
from producer.durable_end import DurableEnd
from producer.snapshot_book import Piece, Snapshot, SnapshotBook
from producer.spool_blocks import DATA, Queued, State
from producer.spool_file import SpoolFile
from producer.spool_schemas import SpoolSchemas
from producer.tally import Tally, Totals
from schemas.block import Kind
from schemas.change_record import TableSchema
from schemas.control import LaneEnd
from schemas.position import Line, Position

log = logging.getLogger(__name__)


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
    """Safe to use from several threads. One process at a time: the file is locked. Raises AnotherAgent, SpoolBroken."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._file = SpoolFile(path)
        self._lock = self._file.lock
        self._max_bytes = max_bytes
        self.schemas = SpoolSchemas(self._file)
        self.book = SnapshotBook(self._file)
        self._damage = Damage(self._file)
        self._tally = Tally()
        self.arrival = threading.Condition()
        if self.meta("spool") is None:
            self.note(spool=uuid.uuid4().hex)
        self._count_stored()

    @property
    def writes(self) -> int:
        """Grows with every change of what the spool holds or knows."""
        return self._file.writes

    def checkpoint(self) -> None:
        """Bring all that SQLite's log holds into the file itself. There damage costs the block that it hits, and each
        block's checksum finds it; a log that is damaged ends there for SQLite, at the next start."""
        self._file.read("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._file.close()

    # ---- what the agent remembers

    def meta(self, key: str) -> str | None:
        rows = self._file.read("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def note(self, **values: str) -> None:
        """Remember values durably, all of them or none."""
        self._file.write(lambda db: _note(db, values))

    def count_up(self, key: str) -> int:
        """The next number of a counter, from 1; it is never given again."""
        with self._lock:
            number = int(self.meta(key) or 0) + 1
            self.note(**{key: str(number)})
        return number

    def durable_end(self) -> DurableEnd | None:
        """None until the era is open."""
        text = self.meta("durable_end")
        return None if text is None else DurableEnd.from_json(text)

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
            _note(db, {"era": str(era), **values})
            db.execute("DELETE FROM meta WHERE key = 'durable_end'")
            db.execute("UPDATE snapshots SET state = 'abandoned' WHERE era < ? AND state <> 'ended'", (era,))
            if end is not None:
                _note(db, {"durable_end": end.to_json()})

        self._file.write(work)

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
        fresh = self.schemas.fresh(schemas)

        def work(db: sqlite3.Connection) -> None:
            spool_schemas.insert(db, fresh)
            spool_blocks.insert(db, blocks, state)
            structures.follow(db, blocks, schemas)
            failpoints.reach("spool.before_commit")
            if durable is not None:
                spool_blocks.settle(db)
                _note(db, {"durable_end": durable.to_json()})

        with self._lock:
            settled = None if durable is None else spool_blocks.tail_lanes(self._file)
            self._file.write(work)
            self.schemas.written(fresh)
            self._tally.changes(blocks, settled)
            if durable is not None:
                self._arrived()
        failpoints.reach("spool.after_commit")

    def discard_tail(self) -> int:
        """Drop blocks of a transaction whose Commit was not spooled: it will be captured again, whole."""
        with self._lock:
            ((count,),) = self._file.read("SELECT count(*) FROM blocks WHERE state = 2")
            self._file.write(lambda db: db.execute("DELETE FROM blocks WHERE state = 2"))
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
                spool_blocks.cut_back(db, era, cut)
                _note(db, {"durable_end": again.to_json(), "furthest": json.dumps(furthest)})

            self._file.write(work)
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
        fresh = self.schemas.fresh(schemas)

        def work(db: sqlite3.Connection) -> None:
            spool_schemas.insert(db, fresh)
            spool_blocks.insert(db, blocks, State.READY)
            structures.follow(db, blocks, schemas)
            if ends is not None:
                snapshot_book.end_piece(db, *ends)

        with self._lock:
            self._file.write(work)
            self.schemas.written(fresh)
            self._tally.rows(blocks)
            self._arrived()

    def restructured(self) -> list[tuple[str, str]]:
        """Tables that a change of their structure asks a snapshot of, each with what `settle` takes."""
        return structures.restructured(self._file)

    def settle(self, table: str, structure: str) -> None:
        """That snapshot is announced."""
        self._file.write(lambda db: structures.settle(db, table, structure))

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
        return spool_blocks.head(self._file, lane)

    def accepted(self, blocks: Sequence[Queued]) -> None:
        """Kinesis has taken these blocks. They stay, for a resend, as long as there is room."""
        with self._lock:
            states = {block.id: spool_blocks.state(self._file, block.id) for block in blocks}

            def work(db: sqlite3.Connection) -> None:
                spool_blocks.mark(db, [block.id for block in blocks], State.ACCEPTED)
                for block in blocks:
                    if block.kind.value in DATA and states[block.id] is State.READY:
                        spool_blocks.accept(db, block.lane, block.last)

            self._file.write(work, fsync=False)
            for block in blocks:
                first = block.kind is Kind.DATA and states[block.id] is State.READY
                self._tally.accepted(block.lane, len(block.data), block.count if first else 0)
            self._prune()

    def resend(self, lane: Lane, after: Position | None, last: Position) -> Resent:
        """Queue the accepted blocks that hold positions in (after, last] once more. Damaged ones are no use, and go."""
        low = after or Position(last.era, -1, -1)
        where = (
            "state = 4 AND tbl = ? AND lane = ? AND era = ? AND (last_lsn, last_idx) > (?, ?)"
            " AND (prev_lsn IS NULL OR (prev_lsn, prev_idx) < (?, ?))"
        )
        values = (lane.table, lane.name, last.era, low.lsn, low.idx, last.lsn, last.idx)
        with self._lock:
            damaged = [row.id for row in self._damage.damaged(where, values)]
            self._delete(damaged)
            rows = self._file.read(f"SELECT id, size FROM blocks WHERE {where}", values)
            self._file.write(lambda db: spool_blocks.mark(db, [row[0] for row in rows], State.AGAIN))
            self._tally.again(lane, [size for _, size in rows])
            self._arrived()
        return Resent(len(rows), len(damaged))

    # ---- looking

    def ends(self, era: int) -> dict[Lane, Position]:
        """The last position of every data lane of the era: what the next block's `prev` is."""
        return spool_blocks.ends(self._file, era)

    def view(self) -> View:
        """What was durable and accepted at one moment."""
        with self._lock:
            durable = self.durable_end()
            return View(
                durable=durable,
                pending=spool_blocks.pending(self._file),
                ends=spool_blocks.accepted_ends(self._file, 0 if durable is None else durable.era),
                snapshots=self.book.all(),
            )

    def totals(self) -> Totals:
        with self._lock:
            return self._tally.totals()

    # ---- within

    def _count_stored(self) -> None:
        self._tally.found(*spool_blocks.stored(self._file))

    def _arrived(self) -> None:
        """Something can be sent."""
        with self.arrival:
            self.arrival.notify_all()

    def _prune(self) -> None:
        """Let the oldest accepted blocks go while the spool is over its bound."""
        while self._tally.spool_bytes > self._max_bytes:
            rows = spool_blocks.oldest_accepted(self._file, 100)
            if not rows:
                return
            self._delete([number for number, _ in rows], fsync=False)
            self._tally.spool_bytes -= sum(size for _, size in rows)

    def _delete(self, ids: Sequence[int], *, fsync: bool = True) -> None:
        self._file.write(lambda db: spool_blocks.delete(db, ids), fsync=fsync)


def _note(db: sqlite3.Connection, values: Mapping[str, str]) -> None:
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())
