"""The spool: the agent's durable queue of blocks, one SQLite file.

Line 1 of the design: what `append` has returned from is on disk, and only then may the source hear of it.
Line 2: a block counts as accepted only after Kinesis said so; a lost `accepted` costs a duplicate, never a row.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from producer import failpoints
from producer.blocks import Lane, PackedBlock
from producer.errors import AnotherAgent, SpoolBroken
from schemas.block import Kind
from schemas.change_record import TableSchema
from schemas.control import LaneEnd
from schemas.position import Position

_DATA: Final = (Kind.DATA.value, Kind.REJECT.value)

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS schemas (
    fingerprint BLOB PRIMARY KEY, avro TEXT NOT NULL, registered INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lanes (
    era INTEGER NOT NULL, tbl TEXT NOT NULL, lane TEXT NOT NULL,
    last_lsn INTEGER, last_idx INTEGER, accepted_lsn INTEGER, accepted_idx INTEGER,
    PRIMARY KEY (era, tbl, lane)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, lane TEXT NOT NULL, kind TEXT NOT NULL,
    fingerprint BLOB NOT NULL, era INTEGER NOT NULL, prev_lsn INTEGER, prev_idx INTEGER,
    first_lsn INTEGER NOT NULL, first_idx INTEGER NOT NULL, last_lsn INTEGER NOT NULL, last_idx INTEGER NOT NULL,
    first_at INTEGER NOT NULL, count INTEGER NOT NULL, size INTEGER NOT NULL, state INTEGER NOT NULL,
    data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS queued ON blocks (tbl, lane, id) WHERE state IN (1, 3);
CREATE INDEX IF NOT EXISTS pending ON blocks (era, first_lsn, first_at) WHERE state = 1 AND kind IN ('data', 'reject');
CREATE INDEX IF NOT EXISTS spent ON blocks (id) WHERE state = 2;
CREATE INDEX IF NOT EXISTS tail ON blocks (id) WHERE state = 0;
CREATE TABLE IF NOT EXISTS snapshots (
    snapshot INTEGER PRIMARY KEY, era INTEGER NOT NULL, tbl TEXT NOT NULL, low INTEGER NOT NULL,
    state TEXT NOT NULL, attempt INTEGER NOT NULL);
"""


class State(IntEnum):
    """A block's way. TAIL: its transaction has not committed. AGAIN: accepted once, and asked for once more."""

    TAIL = 0
    READY = 1
    ACCEPTED = 2
    AGAIN = 3


@dataclass(frozen=True, slots=True)
class DurableEnd:
    """Up to where the source is spooled in whole transactions.

    lsn: every transaction that commits at or below it is spooled. flushed: what the source may be told.
    at: the source's clock there, microseconds since 1970.
    """

    era: int
    lsn: int
    flushed: int
    at: int


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
class Snapshot:
    """A snapshot of a table: announced, running, ended or abandoned."""

    snapshot: int
    era: int
    table: str
    low: int
    state: str
    attempt: int


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
class Totals:
    """Counts since the agent started, and what lies in the spool now."""

    spooled_changes: int
    accepted_changes: int
    spooled_blocks: int
    accepted_blocks: int
    pending_blocks: int
    pending_bytes: int
    spool_bytes: int


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
        self._durable = _connect(path, "FULL")
        self._relaxed = _connect(path, "NORMAL")
        self._durable.executescript(_TABLES)
        self._queued: Counter[Lane] = Counter()
        self._counts: Counter[str] = Counter()
        self.arrival = threading.Condition()
        if self.meta("spool") is None:
            self.note(spool=uuid.uuid4().hex)
        self._count_stored()

    def close(self) -> None:
        with self._lock:
            self._relaxed.close()
            self._durable.close()
            self._lock_file.close()

    # ---- what the agent remembers

    def meta(self, key: str) -> str | None:
        with self._lock:
            row = self._durable.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def note(self, **values: str) -> None:
        """Remember values durably, all of them or none."""
        self._write(lambda db: _note(db, values))

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

    def open_era(self, era: int, end: DurableEnd | None, **values: str) -> None:
        """Begin an era, with its end where the slot exists already. What earlier eras left is still sent first."""

        def work(db: sqlite3.Connection) -> None:
            _note(db, {"era": str(era), **values})
            db.execute("DELETE FROM meta WHERE key = 'durable_end'")
            db.execute("UPDATE snapshots SET state = 'abandoned' WHERE era < ? AND state <> 'ended'", (era,))
            if end is not None:
                _note(db, {"durable_end": _text(end)})

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

        def work(db: sqlite3.Connection) -> None:
            _insert_schemas(db, schemas)
            _insert(db, blocks, state)
            failpoints.reach("spool.before_commit")
            if durable is not None:
                _settle(db)
                _note(db, {"durable_end": _text(durable)})

        with self._lock:
            tails = self._tails() if durable is not None else []
            self._write(work)
            self._enqueue([*tails, *((block.lane, len(block.data)) for block in blocks)], durable is not None)
            self._counts["spooled_changes"] += sum(block.count for block in blocks)
            self._counts["spooled_blocks"] += len(blocks)
        failpoints.reach("spool.after_commit")

    def discard_tail(self) -> int:
        """Drop blocks of a transaction whose Commit was not spooled: it will be captured again, whole."""
        with self._lock:
            (count,) = self._durable.execute("SELECT count(*) FROM blocks WHERE state = 0").fetchone()
            self._write(lambda db: db.execute("DELETE FROM blocks WHERE state = 0"))
            self._count_stored()
        return int(count)

    def append_snapshot(
        self, blocks: Sequence[PackedBlock], *, ends: int | None = None, schemas: Iterable[TableSchema] = ()
    ) -> None:
        """Spool blocks of a snapshot's lane, sendable at once; `ends` names the snapshot that they complete."""

        def work(db: sqlite3.Connection) -> None:
            _insert_schemas(db, schemas)
            _insert(db, blocks, State.READY)
            if ends is not None:
                db.execute("UPDATE snapshots SET state = 'ended' WHERE snapshot = ?", (ends,))

        with self._lock:
            self._write(work)
            self._enqueue([(block.lane, len(block.data)) for block in blocks], sendable=True)
            self._counts["spooled_blocks"] += len(blocks)

    def full(self) -> bool:
        """Whether blocks that were not accepted fill the spool: capture waits until some are."""
        return self._counts["pending_bytes"] >= self._max_bytes

    # ---- draining

    def lanes_with_blocks(self) -> list[Lane]:
        """Lanes that have something to send."""
        with self._lock:
            return [lane for lane, count in self._queued.items() if count > 0]

    def head(self, lane: Lane) -> Queued | None:
        """The oldest block of a lane that is to be sent."""
        with self._lock:
            row = self._durable.execute(
                "SELECT id, kind, fingerprint, era, last_lsn, last_idx, count, data FROM blocks"
                " WHERE tbl = ? AND lane = ? AND state IN (1, 3) ORDER BY id LIMIT 1",
                (lane.table, lane.name),
            ).fetchone()
        if row is None:
            return None
        return Queued(row[0], lane, Kind(row[1]), row[2], Position(row[3], row[4], row[5]), row[6], row[7])

    def accepted(self, blocks: Sequence[Queued]) -> None:
        """Kinesis has taken these blocks. They stay, for a resend, as long as there is room."""
        with self._lock:
            states = {block.id: self._state(block.id) for block in blocks}
            with self._relaxed as db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany("UPDATE blocks SET state = 2 WHERE id = ?", [(block.id,) for block in blocks])
                for block in blocks:
                    if block.kind.value in _DATA and states[block.id] is State.READY:
                        _accept(db, block)
            for block in blocks:
                self._queued[block.lane] -= 1
                self._counts["pending_bytes"] -= len(block.data)
                self._counts["accepted_blocks"] += 1
                if block.kind is Kind.DATA and states[block.id] is State.READY:
                    self._counts["accepted_changes"] += block.count
            self._prune()

    def resend(self, lane: Lane, after: Position | None, last: Position) -> int:
        """Queue the accepted blocks that hold positions in (after, last] once more; how many there are."""
        low = after or Position(last.era, -1, -1)
        with self._lock:
            rows = self._durable.execute(
                "SELECT id, size FROM blocks WHERE state = 2 AND tbl = ? AND lane = ? AND era = ?"
                " AND (last_lsn, last_idx) > (?, ?)"
                " AND (prev_lsn IS NULL OR (prev_lsn, prev_idx) < (?, ?))",
                (lane.table, lane.name, last.era, low.lsn, low.idx, last.lsn, last.idx),
            ).fetchall()
            self._write(lambda db: _mark_again(db, [row[0] for row in rows]))
            self._enqueue([(lane, size) for _, size in rows], sendable=True, stored=True)
        return len(rows)

    # ---- schemas

    def unregistered(self, fingerprint: bytes) -> TableSchema | None:
        """The schema to register before a block under it goes; None when that is done."""
        with self._lock:
            row = self._durable.execute(
                "SELECT avro FROM schemas WHERE fingerprint = ? AND registered = 0", (fingerprint,)
            ).fetchone()
        return None if row is None else TableSchema.from_avro(json.loads(row[0]))

    def registered(self, fingerprint: bytes) -> None:
        self._write(lambda db: db.execute("UPDATE schemas SET registered = 1 WHERE fingerprint = ?", (fingerprint,)))

    # ---- snapshots

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Remember an announced snapshot; an unfinished one of the same table is abandoned for it."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE snapshots SET state = 'abandoned' WHERE tbl = ? AND state IN ('announced', 'running')",
                (snapshot.table,),
            )
            values = (snapshot.snapshot, snapshot.era, snapshot.table, snapshot.low, snapshot.state, snapshot.attempt)
            db.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?)", values)

        self._write(work)

    def begin_attempt(self, snapshot: int) -> int:
        """The number of the attempt that begins now, from 1."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE snapshots SET state = 'running', attempt = attempt + 1 WHERE snapshot = ?", (snapshot,))

        with self._lock:
            self._write(work)
            row = self._durable.execute("SELECT attempt FROM snapshots WHERE snapshot = ?", (snapshot,)).fetchone()
        return int(row[0])

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Every snapshot that was ever announced, oldest first."""
        with self._lock:
            rows = self._durable.execute(
                "SELECT snapshot, era, tbl, low, state, attempt FROM snapshots ORDER BY snapshot"
            ).fetchall()
        return tuple(Snapshot(*row) for row in rows)

    # ---- looking

    def ends(self, era: int) -> dict[Lane, Position]:
        """The last position of every data lane of the era: what the next block's `prev` is."""
        with self._lock:
            rows = self._durable.execute(
                "SELECT tbl, lane, last_lsn, last_idx FROM lanes WHERE era = ?", (era,)
            ).fetchall()
        return {Lane(table, lane): Position(era, lsn, idx) for table, lane, lsn, idx in rows}

    def view(self) -> View:
        """What was durable and accepted at one moment."""
        with self._lock:
            durable = self.durable_end()
            pending = self._durable.execute(
                "SELECT era, first_lsn, first_at FROM blocks INDEXED BY pending"
                " WHERE state = 1 AND kind IN ('data', 'reject') ORDER BY era, first_lsn LIMIT 1"
            ).fetchone()
            rows = self._durable.execute(
                "SELECT tbl, lane, accepted_lsn, accepted_idx FROM lanes WHERE era = ? AND accepted_lsn IS NOT NULL",
                (0 if durable is None else durable.era,),
            ).fetchall()
            snapshots = self.snapshots()
        era = 0 if durable is None else durable.era
        return View(
            durable=durable,
            pending=pending,
            ends=tuple(LaneEnd(table, lane, Position(era, lsn, idx)) for table, lane, lsn, idx in rows),
            snapshots=snapshots,
        )

    def totals(self) -> Totals:
        with self._lock:
            counts = self._counts
            return Totals(
                spooled_changes=counts["spooled_changes"],
                accepted_changes=counts["accepted_changes"],
                spooled_blocks=counts["spooled_blocks"],
                accepted_blocks=counts["accepted_blocks"],
                pending_blocks=sum(self._queued.values()),
                pending_bytes=counts["pending_bytes"],
                spool_bytes=counts["spool_bytes"],
            )

    # ---- within

    def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        try:
            with self._lock, self._durable as db:
                db.execute("BEGIN IMMEDIATE")
                work(db)
        except sqlite3.Error as error:
            raise SpoolBroken(f"the spool cannot be written: {error}; nothing was confirmed to the source") from error

    def _count_stored(self) -> None:
        rows = self._durable.execute(
            "SELECT tbl, lane, count(*), sum(size) FROM blocks WHERE state IN (1, 3) GROUP BY tbl, lane"
        ).fetchall()
        self._queued = Counter({Lane(table, lane): count for table, lane, count, _ in rows})
        self._counts["pending_bytes"] = sum(size for *_, size in rows)
        (total,) = self._durable.execute("SELECT coalesce(sum(size), 0) FROM blocks").fetchone()
        self._counts["spool_bytes"] = total

    def _tails(self) -> list[tuple[Lane, int]]:
        rows = self._durable.execute("SELECT tbl, lane FROM blocks WHERE state = 0").fetchall()
        return [(Lane(table, lane), 0) for table, lane in rows]

    def _enqueue(self, blocks: Sequence[tuple[Lane, int]], sendable: bool, stored: bool = False) -> None:
        size = sum(size for _, size in blocks)
        self._counts["pending_bytes"] += size
        if not stored:
            self._counts["spool_bytes"] += size
        if sendable:
            self._queued.update(lane for lane, _ in blocks)
            with self.arrival:
                self.arrival.notify_all()

    def _state(self, block_id: int) -> State:
        (state,) = self._durable.execute("SELECT state FROM blocks WHERE id = ?", (block_id,)).fetchone()
        return State(state)

    def _prune(self) -> None:
        """Let the oldest accepted blocks go while the spool is over its bound."""
        while self._counts["spool_bytes"] > self._max_bytes:
            rows = self._durable.execute("SELECT id, size FROM blocks WHERE state = 2 ORDER BY id LIMIT 100").fetchall()
            if not rows:
                return
            with self._relaxed as db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany("DELETE FROM blocks WHERE id = ?", [(row[0],) for row in rows])
            self._counts["spool_bytes"] -= sum(row[1] for row in rows)


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def _note(db: sqlite3.Connection, values: Mapping[str, str]) -> None:
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def _insert_schemas(db: sqlite3.Connection, schemas: Iterable[TableSchema]) -> None:
    rows = [(schema.fingerprint(), json.dumps(schema.to_avro())) for schema in schemas]
    db.executemany("INSERT OR IGNORE INTO schemas (fingerprint, avro) VALUES (?, ?)", rows)


def _insert(db: sqlite3.Connection, blocks: Sequence[PackedBlock], state: State) -> None:
    db.executemany(
        "INSERT INTO blocks (tbl, lane, kind, fingerprint, era, prev_lsn, prev_idx, first_lsn, first_idx, last_lsn,"
        " last_idx, first_at, count, size, state, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_row(block, state) for block in blocks],
    )
    if state is State.READY:
        _move_ends(db, [block for block in blocks if block.kind.value in _DATA])


def _row(block: PackedBlock, state: State) -> tuple[Any, ...]:
    return (
        block.lane.table,
        block.lane.name,
        block.kind.value,
        block.fingerprint,
        block.first.era,
        None if block.prev is None else block.prev.lsn,
        None if block.prev is None else block.prev.idx,
        block.first.lsn,
        block.first.idx,
        block.last.lsn,
        block.last.idx,
        block.first_at,
        block.count,
        len(block.data),
        state,
        block.data,
    )


def _settle(db: sqlite3.Connection) -> None:
    """The open transaction has committed: its tail is sendable, and moves the ends of its lanes."""
    rows = db.execute(
        "SELECT era, tbl, lane, max(id), last_lsn, last_idx FROM blocks WHERE state = 0 GROUP BY era, tbl, lane"
    ).fetchall()
    for era, table, lane, _, lsn, idx in rows:
        _move_end(db, Lane(table, lane), Position(era, lsn, idx))
    db.execute("UPDATE blocks SET state = 1 WHERE state = 0")


def _move_ends(db: sqlite3.Connection, blocks: Sequence[PackedBlock]) -> None:
    for lane, last in {block.lane: block.last for block in blocks}.items():
        _move_end(db, lane, last)


def _move_end(db: sqlite3.Connection, lane: Lane, last: Position) -> None:
    db.execute(
        "INSERT INTO lanes (era, tbl, lane, last_lsn, last_idx) VALUES (?1, ?2, ?3, ?4, ?5)"
        " ON CONFLICT DO UPDATE SET last_lsn = ?4, last_idx = ?5 WHERE (last_lsn, last_idx) < (?4, ?5)",
        (last.era, lane.table, lane.name, last.lsn, last.idx),
    )


def _accept(db: sqlite3.Connection, block: Queued) -> None:
    db.execute(
        "UPDATE lanes SET accepted_lsn = ?, accepted_idx = ? WHERE era = ? AND tbl = ? AND lane = ?",
        (block.last.lsn, block.last.idx, block.last.era, block.lane.table, block.lane.name),
    )


def _mark_again(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    db.executemany("UPDATE blocks SET state = 3 WHERE id = ?", [(number,) for number in ids])


def _text(end: DurableEnd) -> str:
    return json.dumps([end.era, end.lsn, end.flushed, end.at])


def _durable_end(text: str) -> DurableEnd:
    era, lsn, flushed, at = json.loads(text)
    return DurableEnd(era, lsn, flushed, at)
