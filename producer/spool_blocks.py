"""The blocks in the spool's file, and what their lanes end at. Who writes holds the transaction (`db`)."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from producer.blocks import Lane, PackedBlock
from producer.errors import SpoolDamaged
from producer.spool_file import SpoolFile
from schemas.block import Kind
from schemas.control import LaneEnd
from schemas.position import Position

DATA: Final = (Kind.DATA.value, Kind.REJECT.value)


class State(IntEnum):
    """A block's way. TAIL: its transaction has not committed. AGAIN: accepted once, and asked for once more.

    SQLite stores 0 and 1 in no byte and these in one: so a row keeps its size from state to state, and SQLite writes
    the page with the state in place of the block's bytes once more.
    """

    TAIL = 2
    READY = 3
    ACCEPTED = 4
    AGAIN = 5


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


def checksum(data: bytes) -> int:
    return zlib.crc32(data)


def insert(db: sqlite3.Connection, blocks: Sequence[PackedBlock], state: State) -> None:
    """Blocks, in order. Those that are sendable move the ends of their lanes."""
    db.executemany(
        "INSERT INTO blocks (tbl, lane, kind, fingerprint, era, prev_lsn, prev_idx, first_lsn, first_idx, last_lsn,"
        " last_idx, first_at, count, size, checksum, state, data)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_row(block, state) for block in blocks],
    )
    if state is State.READY:
        ends = {block.lane: block.last for block in blocks if block.kind.value in DATA}
        for lane, last in ends.items():
            _move_end(db, lane, last)


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
        checksum(block.data),
        state,
        block.data,
    )


def settle(db: sqlite3.Connection) -> None:
    """The open transaction has committed: its tail is sendable, and moves the ends of its lanes."""
    rows = db.execute(
        "SELECT era, tbl, lane, max(id), last_lsn, last_idx FROM blocks WHERE state = 2 GROUP BY era, tbl, lane"
    ).fetchall()
    for era, table, lane, _, lsn, idx in rows:
        _move_end(db, Lane(table, lane), Position(era, lsn, idx))
    db.execute("UPDATE blocks SET state = 3 WHERE state = 2")


def _move_end(db: sqlite3.Connection, lane: Lane, last: Position) -> None:
    db.execute(
        "INSERT INTO lanes (era, tbl, lane, last_lsn, last_idx) VALUES (?1, ?2, ?3, ?4, ?5)"
        " ON CONFLICT DO UPDATE SET last_lsn = ?4, last_idx = ?5 WHERE (last_lsn, last_idx) < (?4, ?5)",
        (last.era, lane.table, lane.name, last.lsn, last.idx),
    )


def accept(db: sqlite3.Connection, lane: Lane, last: Position) -> None:
    db.execute(
        "UPDATE lanes SET accepted_lsn = ?, accepted_idx = ? WHERE era = ? AND tbl = ? AND lane = ?",
        (last.lsn, last.idx, last.era, lane.table, lane.name),
    )


def cut_back(db: sqlite3.Connection, era: int, cut: int) -> None:
    """Forget the era's changes from the LSN `cut` on: their blocks, and what their lanes ended at because of them."""
    kinds = "kind IN ('data', 'reject')"
    firsts = db.execute(
        f"SELECT tbl, lane, prev_lsn, prev_idx, min(id) FROM blocks WHERE era = ? AND last_lsn >= ? AND {kinds}"
        " GROUP BY tbl, lane",
        (era, cut),
    ).fetchall()
    for table, lane, lsn, idx, _ in firsts:
        key = (era, table, lane)
        if lsn is None:
            db.execute("DELETE FROM lanes WHERE era = ? AND tbl = ? AND lane = ?", key)
        else:
            where = "WHERE era = ? AND tbl = ? AND lane = ?"
            db.execute(f"UPDATE lanes SET last_lsn = ?, last_idx = ? {where}", (lsn, idx, *key))
    db.execute(f"DELETE FROM blocks WHERE era = ? AND last_lsn >= ? AND {kinds}", (era, cut))


def delete(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    db.executemany("DELETE FROM blocks WHERE id = ?", [(number,) for number in ids])


def mark(db: sqlite3.Connection, ids: Sequence[int], state: State) -> None:
    db.executemany("UPDATE blocks SET state = ? WHERE id = ?", [(state, number) for number in ids])


def head(file: SpoolFile, lane: Lane) -> Queued | None:
    """The oldest block of a lane that is to be sent. Raises SpoolDamaged where its bytes are not those written."""
    rows = file.read(
        "SELECT id, kind, fingerprint, era, last_lsn, last_idx, count, checksum, data FROM blocks"
        " WHERE tbl = ? AND lane = ? AND state IN (3, 5) ORDER BY id LIMIT 1",
        (lane.table, lane.name),
    )
    if not rows:
        return None
    number, kind, fingerprint, era, lsn, idx, count, written, data = rows[0]
    last = Position(era, lsn, idx)
    if checksum(data) != written:
        raise SpoolDamaged(f"{file.path}: the block of {lane} that ends at {last} is damaged")
    return Queued(number, lane, Kind(kind), fingerprint, last, count, data)


def state(file: SpoolFile, block_id: int) -> State:
    ((found,),) = file.read("SELECT state FROM blocks WHERE id = ?", (block_id,))
    return State(found)


def tail_lanes(file: SpoolFile) -> list[Lane]:
    """The lane of each block of the open transaction's tail."""
    return [Lane(table, lane) for table, lane in file.read("SELECT tbl, lane FROM blocks WHERE state = 2")]


def oldest_accepted(file: SpoolFile, limit: int) -> list[tuple[int, int]]:
    """Ids and bytes."""
    return [
        (number, size)
        for number, size in file.read("SELECT id, size FROM blocks WHERE state = 4 ORDER BY id LIMIT ?", (limit,))
    ]


def stored(file: SpoolFile) -> tuple[list[tuple[Any, ...]], int]:
    """What is to be sent (table, lane, blocks, bytes), and the bytes of all blocks."""
    queued = file.read("SELECT tbl, lane, count(*), sum(size) FROM blocks WHERE state IN (3, 5) GROUP BY tbl, lane")
    ((total,),) = file.read("SELECT coalesce(sum(size), 0) FROM blocks")
    return queued, total


def pending(file: SpoolFile) -> tuple[Any, ...] | None:
    """Era, LSN and time (microseconds since 1970) of the first change that was not accepted yet."""
    rows = file.read(
        "SELECT era, first_lsn, first_at FROM blocks INDEXED BY pending"
        " WHERE state = 3 AND kind IN ('data', 'reject') ORDER BY era, first_lsn LIMIT 1"
    )
    return rows[0] if rows else None


def ends(file: SpoolFile, era: int) -> dict[Lane, Position]:
    """The last position of every data lane of the era."""
    rows = file.read("SELECT tbl, lane, last_lsn, last_idx FROM lanes WHERE era = ?", (era,))
    return {Lane(table, lane): Position(era, lsn, idx) for table, lane, lsn, idx in rows}


def accepted_ends(file: SpoolFile, era: int) -> tuple[LaneEnd, ...]:
    """The last position of every data lane of the era that Kinesis has."""
    rows = file.read(
        "SELECT tbl, lane, accepted_lsn, accepted_idx FROM lanes WHERE era = ? AND accepted_lsn IS NOT NULL", (era,)
    )
    return tuple(LaneEnd(table, lane, Position(era, lsn, idx)) for table, lane, lsn, idx in rows)
