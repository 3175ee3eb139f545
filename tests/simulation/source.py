"""The simulated source: two keyed tables, transactions over both, and every state that they were ever in."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from schemas.position import Position

ERA = 1
TABLES = ("accounts", "orders")
KEYS = 8
LANES = 2

Rows = dict[int, str]


class Row(NamedTuple):
    """A change, or a row read by a snapshot (op r). A truncate (op t) has key -1."""

    position: Position
    op: str
    key: int
    value: str


def lane_of(row: Row) -> str:
    return "0" if row.op == "t" else str(row.key % LANES)


class Source:
    """`wal_end` is where the next thing is written: a transaction may commit exactly there."""

    def __init__(self) -> None:
        self.wal_end = 10
        self.tables: dict[str, Rows] = {name: {} for name in TABLES}
        self._states: list[tuple[int, dict[str, Rows]]] = [(0, {name: {} for name in TABLES})]

    def commit(self, random: Random) -> list[tuple[str, Row]]:
        """One transaction; its changes in order, each with its table."""
        lsn = self.wal_end + random.choice((0, 0, 3))
        self.wal_end = lsn + random.randint(1, 4)
        changes = [self._change(random, Position(ERA, lsn, idx)) for idx in range(random.randint(1, 5))]
        self._states.append((lsn, {name: dict(rows) for name, rows in self.tables.items()}))
        return changes

    def create_slot(self) -> int:
        """A consistent point: what the tables hold now is complete below it. The slot itself writes to the log."""
        point = self.wal_end
        self.wal_end += 1
        return point

    def at(self, lsn: int) -> dict[str, Rows]:
        """The tables behind the last transaction at or below the position."""
        return next(state for committed, state in reversed(self._states) if committed <= lsn)

    def _change(self, random: Random, position: Position) -> tuple[str, Row]:
        table, key, chance = random.choice(TABLES), random.randrange(KEYS), random.random()
        rows, value = self.tables[table], str(position)
        if chance < 0.03:
            rows.clear()
            return table, Row(position, "t", -1, "")
        if chance < 0.25:
            rows.pop(key, None)
            return table, Row(position, "d", key, "")
        rows[key] = value
        return table, Row(position, "u", key, value)
