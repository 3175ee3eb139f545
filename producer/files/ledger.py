"""The ledger: which files were taken, in which order, and how far the source may forget. One SQLite file.

A file's number is its place in the order of the source and stands for its position: it is on disk before a row of the
file is handed on, so that a restart hands on the same rows at the same positions.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

LSN_STEP: Final = 8
"""From one number's position to the next: a snapshot stands one below a position, where no file can."""


class Kind(StrEnum):
    FILE = "file"
    CHANGED = "changed"  # a file that was taken has other content now
    POINT = "point"  # the point of a snapshot


@dataclass(frozen=True)
class Seen:
    """A file as it was found: its path below the folder, bytes, and when it was written, nanoseconds since 1970."""

    path: str
    size: int
    written_ns: int


@dataclass(frozen=True)
class Entry:
    """A number that was given. taken_at: microseconds since 1970. digest: of the content, in hexadecimal.

    archived: whether the file lies in the archive.
    """

    number: int
    kind: Kind
    table: str
    seen: Seen
    digest: str
    taken_at: int
    archived: bool = False

    @property
    def lsn(self) -> int:
        return self.number * LSN_STEP


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, lake_table TEXT NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL,
    written_ns INTEGER NOT NULL, digest TEXT NOT NULL, taken_at INTEGER NOT NULL, archived INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS columns (
    lake_table TEXT NOT NULL, place INTEGER NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL,
    PRIMARY KEY (lake_table, place)
) WITHOUT ROWID;
"""
_FIELDS: Final = "number, kind, lake_table, path, size, written_ns, digest, taken_at, archived"


class Ledger:
    """Every write is on disk when the call returns. May be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (uuid.uuid4().hex,))
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('confirmed', ?)", (str(LSN_STEP),))

    @property
    def id(self) -> str:
        return self._meta("id")

    @property
    def confirmed(self) -> int:
        """The position that the source was told of last; it never goes back."""
        return int(self._meta("confirmed"))

    @property
    def next_lsn(self) -> int:
        """Where the next number will stand: all positions below it are given."""
        with self._lock:
            row = self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM entries").fetchone()
        return int(row[0]) * LSN_STEP

    def confirm(self, lsn: int) -> None:
        with self._writing():
            self._db.execute(
                "UPDATE meta SET value = ? WHERE name = 'confirmed' AND CAST(value AS INTEGER) < ?", (str(lsn), lsn)
            )

    def add(self, kind: Kind, table: str, seen: Seen, digest: str, taken_at: int) -> Entry:
        """Gives the next number."""
        with self._writing():
            row = self._db.execute(
                f"INSERT INTO entries ({_FIELDS}) SELECT coalesce(max(number), 0) + 1, ?, ?, ?, ?, ?, ?, ?, 0 "
                "FROM entries RETURNING number",
                (kind.value, table, seen.path, seen.size, seen.written_ns, digest, taken_at),
            ).fetchone()
        return Entry(row[0], kind, table, seen, digest, taken_at)

    def amend(self, number: int, seen: Seen, digest: str) -> None:
        """A file that was taken is found in another state: nothing of it was handed on, or its content is the same."""
        with self._writing():
            self._db.execute(
                "UPDATE entries SET size = ?, written_ns = ?, digest = ? WHERE number = ?",
                (seen.size, seen.written_ns, digest, number),
            )

    def archived(self, number: int) -> None:
        with self._writing():
            self._db.execute("UPDATE entries SET archived = 1 WHERE number = ?", (number,))

    def behind(self, lsn: int) -> Entry | None:
        """The first entry whose position is above lsn."""
        return next(self._entries("lsn > ? ORDER BY number LIMIT 1", lsn), None)

    def files(self, table: str, below_lsn: int) -> list[Entry]:
        """The table's files below a position, in order."""
        return list(self._entries("kind = 'file' AND lake_table = ? AND lsn < ? ORDER BY number", table, below_lsn))

    def waiting_for_archive(self, below_lsn: int) -> list[Entry]:
        return list(self._entries("kind = 'file' AND NOT archived AND lsn < ? ORDER BY number", below_lsn))

    def in_folder(self) -> dict[str, Entry]:
        """The newest entry of every path in the folder."""
        return {entry.seen.path: entry for entry in self._entries("kind <> 'point' AND NOT archived ORDER BY number")}

    def columns(self, table: str) -> dict[str, str]:
        """Types by name, in the order in which the columns were first seen."""
        with self._lock:
            rows = self._db.execute("SELECT name, type FROM columns WHERE lake_table = ? ORDER BY place", (table,))
            return dict(rows.fetchall())

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        """Columns behind those that are known; what another thread added meanwhile stays as it is."""
        with self._writing():
            rows = self._db.execute("SELECT name FROM columns WHERE lake_table = ?", (table,)).fetchall()
            known = {row[0] for row in rows}
            new = [(name, kind) for name, kind in columns.items() if name not in known]
            self._db.executemany(
                "INSERT INTO columns VALUES (?, ?, ?, ?)",
                [(table, len(known) + at, name, kind) for at, (name, kind) in enumerate(new)],
            )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _entries(self, condition: str, *values: object) -> Iterator[Entry]:
        query = f"SELECT {_FIELDS} FROM (SELECT *, number * {LSN_STEP} AS lsn FROM entries) WHERE {condition}"
        with self._lock:
            rows: Sequence[tuple[int, str, str, str, int, int, str, int, int]]
            rows = self._db.execute(query, values).fetchall()
        for number, kind, table, path, size, written_ns, digest, taken_at, archived in rows:
            seen = Seen(path, size, written_ns)
            yield Entry(number, Kind(kind), table, seen, digest, taken_at, bool(archived))

    def _meta(self, name: str) -> str:
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
