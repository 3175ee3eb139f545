"""The spool's SQLite file: its tables, and the statements that change them. Who calls holds the transaction."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from producer.blocks import Lane, PackedBlock
from producer.errors import SpoolBroken
from schemas.block import Kind
from schemas.change_record import TableSchema
from schemas.position import Position

DATA: Final = (Kind.DATA.value, Kind.REJECT.value)

_VERSION: Final = 2
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
    first_at INTEGER NOT NULL, count INTEGER NOT NULL, size INTEGER NOT NULL, checksum INTEGER NOT NULL,
    state INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS queued ON blocks (tbl, lane, id) WHERE state IN (1, 3);
CREATE INDEX IF NOT EXISTS pending ON blocks (era, first_lsn, first_at) WHERE state = 1 AND kind IN ('data', 'reject');
CREATE INDEX IF NOT EXISTS spent ON blocks (id) WHERE state = 2;
CREATE INDEX IF NOT EXISTS tail ON blocks (id) WHERE state = 0;
CREATE TABLE IF NOT EXISTS snapshots (
    snapshot INTEGER PRIMARY KEY, era INTEGER NOT NULL, tbl TEXT NOT NULL, low INTEGER NOT NULL,
    state TEXT NOT NULL, rows INTEGER);
CREATE TABLE IF NOT EXISTS groups (
    snapshot INTEGER NOT NULL, number INTEGER NOT NULL, bounds TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, rows INTEGER, PRIMARY KEY (snapshot, number)) WITHOUT ROWID;
"""


class State(IntEnum):
    """A block's way. TAIL: its transaction has not committed. AGAIN: accepted once, and asked for once more."""

    TAIL = 0
    READY = 1
    ACCEPTED = 2
    AGAIN = 3


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """A connection to the file, whose tables are made on first use. Raises SpoolBroken for any other file."""
    try:
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and version != _VERSION:
            raise SpoolBroken(
                f"{path}: of another version of the agent ({version}, this one writes {_VERSION}). Let that one send"
                " what is in it; then move the file away and start once with --new-era"
            )
        connection.executescript(f"PRAGMA user_version = {_VERSION}; {_TABLES}")
    except sqlite3.Error as error:
        raise broken(path, error) from error
    return connection


def broken(path: Path, error: sqlite3.Error) -> SpoolBroken:
    return SpoolBroken(
        f"{path}: the spool cannot be read: {error}. Nothing was passed over. Bring the file back whole; or move it"
        " away and start once with --new-era"
    )


def checksum(data: bytes) -> int:
    return zlib.crc32(data)


def note(db: sqlite3.Connection, values: Mapping[str, str]) -> None:
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def insert_schemas(db: sqlite3.Connection, schemas: Iterable[TableSchema]) -> None:
    rows = [(schema.fingerprint(), json.dumps(schema.to_avro())) for schema in schemas]
    db.executemany("INSERT OR IGNORE INTO schemas (fingerprint, avro) VALUES (?, ?)", rows)


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
        "SELECT era, tbl, lane, max(id), last_lsn, last_idx FROM blocks WHERE state = 0 GROUP BY era, tbl, lane"
    ).fetchall()
    for era, table, lane, _, lsn, idx in rows:
        _move_end(db, Lane(table, lane), Position(era, lsn, idx))
    db.execute("UPDATE blocks SET state = 1 WHERE state = 0")


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
