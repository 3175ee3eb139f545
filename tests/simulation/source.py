"""The simulated source: two tables with a key and one without, transactions over all, and every state they were in."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from schemas.position import Line, Position

TABLES = ("accounts", "orders", "events")
KEYLESS = "events"
KEYS = 8
NO_KEY = -2
_FIRST = 80

Value = tuple[str, str | None]
"""What a row holds: a small column, and a large one whose value may be unknown (None)."""

Rows = dict[int | Position, Value]
"""The rows of a table by key; of one without a key by their position, which nobody but this dictionary looks at."""


class Row(NamedTuple):
    """A change, or a row read by a snapshot (op r). A truncate (op t) has key -1. Without a key, a delete names the row
    that it takes by its value.

    big: None where the update left the value out. moved: the row had another key, whose delete is just below.
    """

    position: Position
    op: str
    key: int
    value: str
    big: str | None = ""
    moved: bool = False

    @property
    def identity(self) -> int | Position:
        return self.position if self.key == NO_KEY else self.key


@dataclass(frozen=True)
class Transaction:
    """What a commit changed, in order. versions: the structure of each table then."""

    lsn: int
    changes: tuple[tuple[str, Row], ...]
    versions: dict[str, int]


@dataclass
class Source:
    """`wal_end` is where the next thing is written: a transaction may commit exactly there.

    Positions are multiples of 8, as PostgreSQL's are: no transaction commits at C - 1, where a snapshot's rows stand.

    wal: the transactions since the slot was made, in this era.
    """

    era: int = 1
    wal_end: int = _FIRST
    tables: dict[str, Rows] = field(default_factory=lambda: {name: {} for name in TABLES})
    versions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 1))
    wal: list[Transaction] = field(default_factory=list)
    _states: list[tuple[Line, dict[str, Rows]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._remember(Line(0, 0))

    def commit(self, random: Random) -> Transaction:
        """One transaction; the structure of a table may change before it."""
        if random.random() < 0.04:
            self.versions[random.choice(TABLES)] += 1
        lsn = self.wal_end + random.choice((0, 0, 24))
        self.wal_end = lsn + 8 * random.randint(1, 4)
        changes: list[tuple[str, Row]] = []
        for _ in range(random.randint(1, 5)):
            changes += self._change(random, Position(self.era, lsn, len(changes)))
        self._remember(Line(self.era, lsn))
        self.wal.append(Transaction(lsn, tuple(changes), dict(self.versions)))
        return self.wal[-1]

    def create_slot(self) -> int:
        """A consistent point: what the tables hold now is complete below it. The slot itself writes to the log."""
        point = self.wal_end
        self.wal_end += 8
        return point

    def raise_era(self, random: Random) -> None:
        """Another system, whose log may begin anew; nothing is known of the transactions before it."""
        self.era += 1
        self.wal.clear()
        if random.random() < 0.5:
            self.wal_end = _FIRST

    def at(self, line: Line) -> dict[str, Rows]:
        """The tables behind the last transaction at or below the line."""
        return next(state for committed, state in reversed(self._states) if committed <= line)

    def _remember(self, line: Line) -> None:
        self._states.append((line, {name: dict(rows) for name, rows in self.tables.items()}))

    def _change(self, random: Random, position: Position) -> list[tuple[str, Row]]:
        table, key, chance = random.choice(TABLES), random.randrange(KEYS), random.random()
        rows, value = self.tables[table], f"{position} v{self.versions[table]}"
        if chance < 0.03:
            rows.clear()
            return [(table, Row(position, "t", -1, ""))]
        if table == KEYLESS:
            if chance < 0.3 and rows:
                value, _ = rows.pop(random.choice(list(rows)))
                return [(table, Row(position, "d", NO_KEY, value))]
            value = random.choice("xyz")  # rows without a key may be alike
            rows[position] = (value, "")
            return [(table, Row(position, "c", NO_KEY, value))]
        if chance < 0.2:
            rows.pop(key, None)
            return [(table, Row(position, "d", key, ""))]
        if chance < 0.35 and rows:
            return [(table, row) for row in self._move(random, rows, position, value)]
        kept = key in rows and random.random() < 0.6
        rows[key] = (value, rows[key][1] if kept else value)
        return [(table, Row(position, "u", key, value, None if kept else value))]

    def _move(self, random: Random, rows: Rows, position: Position, value: str) -> list[Row]:
        """A change of the key, to one that no row has: a delete, and an insert that may leave the large value out."""
        free = [key for key in range(KEYS) if key not in rows]
        if not free:
            return []
        old = random.choice([key for key in rows if isinstance(key, int)])
        new, kept = random.choice(free), random.random() < 0.7
        _, big = rows.pop(old)
        rows[new] = (value, big if kept else value)
        behind = Position(position.era, position.lsn, position.idx + 1)
        return [
            Row(position, "d", old, ""),
            Row(behind, "u", new, value, None if kept else value, moved=True),
        ]
