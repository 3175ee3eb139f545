"""Damage of the spool: what becomes of blocks whose bytes are not those that were written. They are never sent.

What the source still has is captured again. What it has forgotten is lost: in its place goes a reject over the same
positions, which the lake's chain takes for what it is, a hole with its reason.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from producer.blocks import Lane
from producer.continuity import NEW_ERA
from producer.errors import SpoolBroken
from producer.spool_blocks import DATA, State, checksum
from producer.spool_file import SpoolFile
from schemas import block as wire
from schemas.block import NO_SCHEMA, Kind
from schemas.control import Reject, encode_reject, parse_snapshot_lane
from schemas.position import Position

log = logging.getLogger(__name__)

_ROW = "id, tbl, lane, kind, state, era, prev_lsn, prev_idx, first_lsn, first_idx, last_lsn, last_idx, count, checksum"


class _Row(NamedTuple):
    id: int
    table: str
    lane: str
    kind: str
    state: int
    era: int
    prev_lsn: int | None
    prev_idx: int | None
    first_lsn: int
    first_idx: int
    last_lsn: int
    last_idx: int
    changes: int
    checksum: int

    @property
    def prev(self) -> Position | None:
        return (
            None if self.prev_lsn is None or self.prev_idx is None else Position(self.era, self.prev_lsn, self.prev_idx)
        )

    @property
    def first(self) -> Position:
        return Position(self.era, self.first_lsn, self.first_idx)

    @property
    def last(self) -> Position:
        return Position(self.era, self.last_lsn, self.last_idx)


@dataclass(frozen=True)
class Lost:
    """What had to be declared: blocks of changes, and the tables whose snapshots are to be taken anew."""

    blocks: int = 0
    changes: int = 0
    tables: frozenset[str] = frozenset()


class Damage:
    """To be used while nothing is being sent."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file

    def damaged(self, where: str, values: Sequence[Any] = ()) -> list[_Row]:
        """Blocks whose bytes are not those written, oldest first. Reads the bytes of one at a time."""
        rows = [_Row(*row) for row in self._file.read(f"SELECT {_ROW} FROM blocks WHERE {where} ORDER BY id", values)]
        return [row for row in rows if not self._whole(row)]

    def _whole(self, row: _Row) -> bool:
        ((data,),) = self._file.read("SELECT data FROM blocks WHERE id = ?", (row.id,))
        return checksum(data) == row.checksum

    def cut(self, era: int, confirmed: int) -> int | None:
        """From which LSN on everything can be captured again so that no damage is left there; None where there is none,
        or where Kinesis has something behind it: blocks of other sizes would come at positions that the lake knows.

        confirmed: what the source was told; what commits at or above it is sent again.
        """
        waiting = "state = 3 AND kind IN ('data', 'reject') AND era = ? AND first_lsn >= ?"
        found = self.damaged(waiting, (era, confirmed))
        if not found:
            return None
        cut = min(row.first_lsn for row in found)
        behind = self._file.read(
            "SELECT DISTINCT state FROM blocks WHERE era = ? AND last_lsn >= ? AND kind IN ('data', 'reject')",
            (era, cut),
        )
        return None if {State.ACCEPTED, State.AGAIN} & {state for (state,) in behind} else cut

    def declare(self, source: str, now: datetime, *, leave_out: bool = False) -> Lost:
        """Give up every damaged block that waits. Raises SpoolBroken where not even its place can be told.

        A resend is dropped, the lake has its hole already; of a snapshot the whole, for another one to be taken.
        leave_out: drop what has no place, for an era that ends here.
        """
        blocks = changes = 0
        tables: set[str] = set()
        for row in self.damaged("state IN (3, 5)"):
            snapshot = parse_snapshot_lane(row.lane)
            log.error(
                "a damaged block is not sent",
                extra={"table": row.table, "lane": row.lane, "through": str(row.last), "changes": row.changes},
            )
            if snapshot is not None:
                self._file.write(lambda db, row=row, snapshot=snapshot: _void(db, row, snapshot[0]))  # type: ignore[misc]
                tables.add(row.table)
            elif row.state == State.AGAIN:
                self._file.write(lambda db, row=row: _delete(db, row))  # type: ignore[misc]
            elif self._has_its_place(row):
                self._file.write(lambda db, row=row: _reject(db, row, source, now))  # type: ignore[misc]
                blocks, changes = blocks + 1, changes + row.changes
            elif leave_out:
                self._file.write(lambda db, row=row: _delete(db, row))  # type: ignore[misc]
            else:
                raise SpoolBroken(
                    f"{self._file.path}: the block of {Lane(row.table, row.lane)} that ends at {row.last} is damaged,"
                    f" and so is what the file says of it: a loss that cannot be told in its place. To go on, {NEW_ERA}"
                )
        return Lost(blocks, changes, frozenset(tables))

    def _has_its_place(self, row: _Row) -> bool:
        """Whether the chain around a block says the same of it as its own row, which no checksum covers."""
        where = (row.table, row.lane, row.era, row.id)
        waiting = (
            "SELECT {} FROM blocks WHERE tbl = ? AND lane = ? AND era = ? AND state = 3 AND id {} ? ORDER BY id {}"
        )
        before = self._file.read(waiting.format("last_lsn, last_idx", "<", "DESC LIMIT 1"), where)
        behind = self._file.read(waiting.format("prev_lsn, prev_idx", ">", "LIMIT 1"), where)
        ends = self._file.read(
            "SELECT accepted_lsn, accepted_idx, last_lsn, last_idx FROM lanes WHERE tbl = ? AND lane = ? AND era = ?",
            where[:3],
        )
        if not ends:
            return False
        prev, last = before[0] if before else ends[0][:2], behind[0] if behind else ends[0][2:]
        return prev == (row.prev_lsn, row.prev_idx) and last == (row.last_lsn, row.last_idx) and row.kind in DATA


def _void(db: sqlite3.Connection, row: _Row, snapshot: int) -> None:
    db.execute("DELETE FROM blocks WHERE tbl = ? AND lane = ? AND state IN (3, 5)", (row.table, row.lane))
    db.execute("UPDATE snapshots SET state = 'abandoned' WHERE snapshot = ?", (snapshot,))


def _delete(db: sqlite3.Connection, row: _Row) -> None:
    db.execute("DELETE FROM blocks WHERE id = ?", (row.id,))


def _reject(db: sqlite3.Connection, row: _Row, source: str, now: datetime) -> None:
    reason = f"{row.changes} changes were damaged in the agent's spool, and the source has forgotten them"
    block = wire.build(
        Kind.REJECT,
        source,
        row.table,
        row.lane,
        schema=NO_SCHEMA,
        prev=row.prev,
        first=row.first,
        last=row.last,
        count=1,
        created_at=now,
        datums=encode_reject(Reject(op="u", key=None, reason=reason, raw=None)),
    )
    data = wire.encode(block)
    db.execute(
        "UPDATE blocks SET kind = ?, fingerprint = ?, count = 1, size = ?, checksum = ?, data = ? WHERE id = ?",
        (Kind.REJECT.value, NO_SCHEMA, len(data), checksum(data), data, row.id),
    )
