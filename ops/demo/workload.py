"""The load: pgbench at a fixed rate, and changes of every kind on the table that uses every type."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any, Final

import psycopg

from ops import shop
from ops.demo.repeating import Repeating
from ops.errors import OpsError
from ops.postgres_server import PostgresServer

_CLIENTS: Final = 2


class Pgbench:
    """pgbench's standard transactions at a fixed rate, for a fixed time, in a process of its own."""

    def __init__(self, server: PostgresServer, database: str, rate: float, seconds: float, log_path: Path) -> None:
        words = ["-n", "-c", str(_CLIENTS), "-j", "1", "-R", f"{rate:g}", "-T", str(round(seconds))]
        self._log_path = log_path
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [server.bin("pgbench"), *words, server.dsn_of(database)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def finish(self) -> None:
        """Waits for its end. Raises OpsError where a transaction failed."""
        if self._process.wait() != 0:
            raise OpsError(f"pgbench failed: {self._log_path.read_text(errors='replace')[-1000:]}")

    def stop(self) -> None:
        if self.running:
            self._process.terminate()
            self._process.wait()


class EveryType(Repeating):
    """One small transaction at a time: inserts, updates, deletes and key changes, by a seeded die.

    Updates leave the long text alone, so the source does not send it; a key change carries it over nevertheless.
    """

    def __init__(self, dsn: str, seed: int, every_seconds: float = 0.2, first_id: int = 200) -> None:
        super().__init__("every-type", every_seconds)
        self._dsn = dsn
        self._random = random.Random(seed)
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._last_id = first_id
        self._ids = list(range(1, first_id + 1))
        self._has_new_column = False

    def step(self) -> None:
        with self._connected().transaction():
            for _ in range(self._random.randint(1, 4)):
                self._change()

    def add_column(self) -> None:
        """ALTER TABLE in mid-stream; what is written from now on fills the column now and then."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE every_type ADD COLUMN added_later numeric(9,3)")
        self._has_new_column = True

    def truncate(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("TRUNCATE every_type")

    def stop(self) -> None:
        super().stop()
        if self._connection is not None:
            self._connection.close()

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = psycopg.connect(self._dsn, autocommit=True)
        return self._connection

    def _change(self) -> None:
        """Ids of rows that a truncate took away are chosen too: a statement that meets no row is no change."""
        kind = self._random.choices(("insert", "update", "delete", "rekey"), (5, 8, 2, 1))[0]
        if kind == "insert" or not self._ids:
            self._last_id += 1
            self._ids.append(self._last_id)
            self._execute(shop.insert_sql(), self._row())
        elif kind == "update":
            self._update(self._random.choice(self._ids))
        elif kind == "delete":
            self._execute("DELETE FROM every_type WHERE id = %s", [self._take()])
        else:
            self._last_id += 1
            self._execute("UPDATE every_type SET id = %s WHERE id = %s", [self._last_id, self._take()])
            self._ids.append(self._last_id)

    def _take(self) -> int:
        return self._ids.pop(self._random.randrange(len(self._ids)))

    def _row(self) -> list[Any]:
        return [self._last_id, *(self._random.choice(column.samples) for column in shop.EVERY_TYPE)]

    def _update(self, identity: int) -> None:
        columns = self._random.sample([c for c in shop.EVERY_TYPE if c.name != "a_long_text"], 3)
        sets = [f"{column.name} = %s::text::{column.type}" for column in columns]
        values: list[Any] = [self._random.choice(column.samples) for column in columns]
        if self._has_new_column:
            sets.append("added_later = %s")
            values.append(self._random.choice((None, "0.001", "-999999.999")))
        self._execute(f"UPDATE every_type SET {', '.join(sets)} WHERE id = %s", [*values, identity])

    def _execute(self, sql: str, values: list[Any]) -> None:
        self._connected().execute(sql.encode(), values)
