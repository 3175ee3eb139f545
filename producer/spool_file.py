"""The spool's SQLite file: its tables, its lock, and the two ways to commit to it."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from producer.errors import AnotherAgent, SpoolBroken

_VERSION: Final = 3
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
CREATE INDEX IF NOT EXISTS queued ON blocks (tbl, lane, id) WHERE state IN (3, 5);
CREATE INDEX IF NOT EXISTS pending ON blocks (era, first_lsn, first_at) WHERE state = 3 AND kind IN ('data', 'reject');
CREATE INDEX IF NOT EXISTS spent ON blocks (id) WHERE state = 4;
CREATE INDEX IF NOT EXISTS tail ON blocks (id) WHERE state = 2;
CREATE TABLE IF NOT EXISTS snapshots (
    snapshot INTEGER PRIMARY KEY, era INTEGER NOT NULL, tbl TEXT NOT NULL, low INTEGER NOT NULL,
    state TEXT NOT NULL, rows INTEGER);
CREATE TABLE IF NOT EXISTS groups (
    snapshot INTEGER NOT NULL, number INTEGER NOT NULL, bounds TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, rows INTEGER, PRIMARY KEY (snapshot, number)) WITHOUT ROWID;
"""


def in_use(path: Path) -> bool:
    """Whether an agent that runs has this spool."""
    try:
        with path.with_name(path.name + ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nobody has made it yet, or it is another user's: then the spool is not ours to begin with
        pass
    return False


class SpoolFile:
    """One process at a time, any number of threads. Raises AnotherAgent where another process holds the file, and
    SpoolBroken where it cannot be read or is of another version.

    Two connections: one fsyncs each commit; the other leaves that to the next checkpoint.
    lock: held by whoever decides by what it reads. writes: grows with every change.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_file = path.with_name(path.name + ".lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock_file.close()
            raise AnotherAgent(f"{path}: another agent uses this spool; stop it first") from None
        path.touch(mode=0o600)  # it holds rows; SQLite gives the files beside it the same rights
        self.path = path
        self.lock = threading.RLock()
        self.writes = 0
        try:
            self._durable = _connect(path, "FULL")
            self._relaxed = _connect(path, "NORMAL")
        except BaseException:
            self._lock_file.close()
            raise

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self.lock:
                return self._durable.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise _broken(self.path, error) from error

    def write(self, work: Callable[[sqlite3.Connection], object], *, fsync: bool = True) -> None:
        """Run work in one transaction: all of it or nothing. Durable on return, unless `fsync` is off."""
        try:
            with self.lock, self._durable if fsync else self._relaxed as db:
                self.writes += 1
                db.execute("BEGIN IMMEDIATE")
                work(db)
        except sqlite3.Error as error:
            raise SpoolBroken(f"the spool cannot be written: {error}; nothing was confirmed to the source") from error

    def close(self) -> None:
        with self.lock:
            self._relaxed.close()
            self._durable.close()
            self._lock_file.close()


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
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
        raise _broken(path, error) from error
    return connection


def _broken(path: Path, error: sqlite3.Error) -> SpoolBroken:
    return SpoolBroken(
        f"{path}: the spool cannot be read: {error}. Nothing was passed over. Bring the file back whole; or move it"
        " away and start once with --new-era"
    )
