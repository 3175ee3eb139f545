"""The book of snapshots, in the spool: which were announced, their groups, and how far each has come."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from producer.groups import Group, Plan
from producer.spool_file import SpoolFile


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of a table: announced, running, ended or abandoned. rows: an estimate, once it was cut into groups."""

    snapshot: int
    era: int
    table: str
    low: int
    state: str = "announced"
    rows: int | None = None

    @property
    def unfinished(self) -> bool:
        return self.state in ("announced", "running")


@dataclass(frozen=True, slots=True)
class Piece:
    """A group of a snapshot. attempt: how often it was begun. rows: how many it had, once it has ended."""

    snapshot: int
    number: int
    group: Group
    attempt: int
    rows: int | None


class SnapshotBook:
    """Every change of it is durable when the method returns."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file

    def add(self, snapshot: Snapshot) -> None:
        """Remember an announced snapshot; an unfinished one of the same table is abandoned for it."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE snapshots SET state = 'abandoned' WHERE tbl = ? AND state IN ('announced', 'running')",
                (snapshot.table,),
            )
            values = (snapshot.snapshot, snapshot.era, snapshot.table, snapshot.low, snapshot.state, snapshot.rows)
            db.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?)", values)

        self._file.write(work)

    def abandon(self, snapshot: int) -> None:
        """Give a snapshot up, unless it has ended."""
        sql = "UPDATE snapshots SET state = 'abandoned' WHERE snapshot = ? AND state <> 'ended'"
        self._file.write(lambda db: db.execute(sql, (snapshot,)))

    def cut(self, snapshot: int, plan: Plan) -> None:
        """Fix the groups of a snapshot, for good: a restart goes on with these."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE snapshots SET state = 'running', rows = ? WHERE snapshot = ?", (plan.rows, snapshot))
            db.executemany(
                "INSERT INTO groups (snapshot, number, bounds) VALUES (?, ?, ?)",
                [(snapshot, number, group.to_json()) for number, group in enumerate(plan.groups)],
            )

        self._file.write(work)

    def begin_attempt(self, piece: Piece) -> int:
        """The number of the attempt at a group that begins now, from 1."""
        where = (piece.snapshot, piece.number)
        sql = "UPDATE groups SET attempt = attempt + 1 WHERE snapshot = ? AND number = ?"
        self._file.write(lambda db: db.execute(sql, where))
        ((attempt,),) = self._file.read("SELECT attempt FROM groups WHERE snapshot = ? AND number = ?", where)
        return int(attempt)

    def all(self) -> tuple[Snapshot, ...]:
        """Every snapshot that was ever announced, oldest first."""
        rows = self._file.read("SELECT snapshot, era, tbl, low, state, rows FROM snapshots ORDER BY snapshot")
        return tuple(Snapshot(*row) for row in rows)

    def pieces(self, snapshot: int) -> tuple[Piece, ...]:
        """The groups of a snapshot, in order; none before it was cut."""
        rows = self._file.read(
            "SELECT number, bounds, attempt, rows FROM groups WHERE snapshot = ? ORDER BY number", (snapshot,)
        )
        return tuple(Piece(snapshot, row[0], Group.from_json(row[1]), row[2], row[3]) for row in rows)


def end_piece(db: sqlite3.Connection, piece: Piece, rows: int) -> None:
    """A group was read to its end; with the last one the snapshot has ended, unless it was abandoned meanwhile."""
    db.execute("UPDATE groups SET rows = ? WHERE snapshot = ? AND number = ?", (rows, piece.snapshot, piece.number))
    db.execute(
        "UPDATE snapshots SET state = 'ended' WHERE snapshot = ?1 AND state = 'running'"
        " AND NOT EXISTS (SELECT 1 FROM groups WHERE snapshot = ?1 AND rows IS NULL)",
        (piece.snapshot,),
    )
