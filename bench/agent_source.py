"""The source of the agent's benchmark, and its workloads: written once a round, drained by every contender."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg

from ops.postgres_server import PostgresServer
from producer.postgres.identity import prepare
from producer.postgres.source import PostgresSource, TableChoice

PUBLICATION: Final = "bench"
_SETTINGS: Final = {
    "fsync": "off",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "max_replication_slots": "60",
    "max_wal_senders": "20",
    "autovacuum": "off",
}
_slots = count(1)

ROW: Final = """
    id bigint PRIMARY KEY, cust_id int, status smallint, qty int, amount numeric(12,2), price float8, active boolean,
    code text, name text, email text, note text, created timestamptz, cts bigint, day date"""
"""Fourteen columns, about 240 bytes."""

ROW_VALUES: Final = """
    n, n % 100003, n % 5, n % 90, (n % 1000000) * 1.37, n * 0.25, n % 3 = 0,
    'C' || lpad((n % 10000)::text, 8, '0'), 'customer ' || n % 50000, 'user' || n % 50000 || '@example.com',
    md5(n::text) || md5((n + 1)::text), now() - make_interval(secs => n % 100000), n * 1000,
    current_date - (n % 3000)::int"""


@dataclass(frozen=True)
class Workload:
    """A database with `tables` empty tables, published, whose agent has the slot `slot`; what to write there."""

    dbname: str
    slot: str
    tables: int
    write: Callable[[psycopg.Connection[Any]], int]


@dataclass
class BenchSource:
    server: PostgresServer
    _databases: Iterator[int] = field(default_factory=lambda: count(1))

    def dsn(self, dbname: str) -> str:
        return self.server.dsn_of(dbname)

    def database(self, *statements: str) -> str:
        """A database with these tables, the publications that the agent makes of them, and the slot `base_NAME`."""
        dbname = f"bench_{next(self._databases)}"
        with self.server.connect() as connection:
            connection.execute(f"CREATE DATABASE {dbname}".encode())
        with self.connect(dbname) as connection:
            for statement in statements:
                connection.execute(statement.encode())
        chosen = (TableChoice("public.*"),)
        prepare(PostgresSource("bench", self.dsn(dbname), f"base_{dbname}", PUBLICATION, chosen))
        return dbname

    @contextmanager
    def connect(self, dbname: str) -> Iterator[psycopg.Connection[Any]]:
        with self.server.connect(dbname) as connection:
            yield connection

    def workload(self, made: Sequence[str], write: Callable[[psycopg.Connection[Any]], int]) -> Workload:
        dbname = self.database(*made)
        tables = sum(statement.startswith("CREATE TABLE") for statement in made)
        return Workload(dbname, f"base_{dbname}", tables, write)

    def write(self, workload: Workload) -> int:
        """Writes the workload; the tables are empty again behind it. How many changes it is."""
        with self.connect(workload.dbname) as connection:
            changes = workload.write(connection)
            names = connection.execute(b"SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'")
            connection.execute(f"TRUNCATE {(names.fetchone() or [''])[0]}".encode())
            connection.execute(b"CHECKPOINT")
        return changes + workload.tables

    def copied_slot(self, workload: Workload) -> str:
        """A slot that stands where the agent's does."""
        slot = f"copy_{next(_slots)}"
        with self.connect(workload.dbname) as connection:
            connection.execute(b"SELECT pg_copy_logical_replication_slot(%s, %s)", [workload.slot, slot])
        return slot

    def drop_slot(self, dbname: str, slot: str) -> None:
        with self.connect(dbname) as connection:
            connection.execute(
                b"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active",
                [slot],
            )
            for _ in range(200):
                try:
                    connection.execute(b"SELECT pg_drop_replication_slot(%s)", [slot])
                    return
                except psycopg.errors.ObjectInUse:
                    connection.execute(b"SELECT pg_sleep(0.05)")

    def lsn(self, dbname: str) -> str:
        with self.connect(dbname) as connection:
            row = connection.execute(b"SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return str(row[0])


@contextmanager
def running() -> Iterator[BenchSource]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-pg-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "server", settings=_SETTINGS).start()
        try:
            yield BenchSource(server)
        finally:
            server.stop("immediate")


# ---- workloads


def plain(source: BenchSource, changes: int) -> Workload:
    """Inserts, updates and deletes of one table, 60, 30 and 10 in a hundred, 1,000 rows a transaction."""

    def write(connection: psycopg.Connection[Any]) -> int:
        done = 0
        for first in range(0, changes * 6 // 10, 1000):
            rows = f"generate_series({first + 1}::bigint, {first + 1000}) n"
            connection.execute(f"INSERT INTO t SELECT {ROW_VALUES} FROM {rows}".encode())
            connection.execute(
                b"UPDATE t SET qty = qty + 1, note = md5(note) WHERE id > %s AND id <= %s", [first, first + 500]
            )
            connection.execute(b"DELETE FROM t WHERE id > %s AND id <= %s", [first, first + 166])
            done += 1666
        return done

    return source.workload([f"CREATE TABLE t ({ROW})"], write)


SMALL: Final = 20


def general(source: BenchSource, changes: int) -> Workload:
    """The hard cases, a quarter each: updates that leave a TOASTed value, whole old rows, wide numerics with arrays and
    other types of many parts, many small tables in turn."""
    made = [
        "CREATE TABLE toasted (id int PRIMARY KEY, n int, at timestamptz, note text, big text)",
        "ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL",
        "CREATE TABLE whole (id int PRIMARY KEY, n int, at timestamptz, note text, amount numeric(12,2))",
        "ALTER TABLE whole REPLICA IDENTITY FULL",
        "CREATE TABLE wide (id int PRIMARY KEY, amount numeric(38,10), list int[], tags text[], who uuid,"
        " took interval, body jsonb, any_ numeric, at time)",
        *(f"CREATE TABLE small_{n} (id int PRIMARY KEY, n int, v text)" for n in range(SMALL)),
    ]

    def write(connection: psycopg.Connection[Any]) -> int:
        part = changes // 4
        rows = min(2000, part)
        connection.execute(
            b"INSERT INTO toasted SELECT n, 0, now(), 'note ' || n, repeat(md5(n::text), 100)"
            b" FROM generate_series(1, %s) n", [rows],
        )  # fmt: skip
        connection.execute(
            b"INSERT INTO whole SELECT n, 0, now(), 'note ' || n, n FROM generate_series(1, %s) n", [rows]
        )
        done = 2 * rows
        for _ in range(max(1, part // rows)):
            connection.execute(b"UPDATE toasted SET n = n + 1, at = now()")
            connection.execute(b"UPDATE whole SET n = n + 1, amount = amount * 1.01")
            done += 2 * rows
        for first in range(0, part, 1000):
            connection.execute(
                "INSERT INTO wide SELECT n, n * 123456789012345678.123, ARRAY[n, 2, NULL, 4], ARRAY['a', 'b ' || n],"
                " md5(n::text)::uuid, make_interval(hours => n % 50), jsonb_build_object('n', n), n * 1.5,"
                f" make_time(n % 24, n % 60, 1.5) FROM generate_series({first}, {first + 999}) n".encode()
            )
            done += 1000
        connection.execute(
            f"""DO $$ BEGIN FOR n IN 1..{part // SMALL} LOOP
                {" ".join(f"INSERT INTO small_{m} VALUES (n, {m}, 'value ' || n);" for m in range(SMALL))}
                IF n % 10 = 0 THEN COMMIT; END IF; END LOOP; END $$""".encode()
        )
        return done + part // SMALL * SMALL

    return source.workload(made, write)


MANY: Final = 200
_SHAPES: Final = (
    ("id int PRIMARY KEY, n int, v text", "n, n * 2, 'value ' || n"),
    ("id bigint PRIMARY KEY, at timestamptz, amount numeric(12,2)", "n, now(), n * 1.1"),
    ("v text, id int PRIMARY KEY, ok boolean, day date", "'value ' || n, n, n % 2 = 0, current_date"),
    ("id int PRIMARY KEY, f float8, a text, b text, at timestamptz", "n, n * 0.5, 'a', 'bb ' || n, now()"),
    ("id int PRIMARY KEY, j jsonb, small smallint", "n, jsonb_build_object('n', n), n % 100"),
)


def many_tables(source: BenchSource, changes: int) -> Workload:
    """Transactions of five inserts, each into one of 200 tables of five shapes."""
    made = [f"CREATE TABLE m_{n} ({_SHAPES[n % 5][0]})" for n in range(MANY)]

    def write(connection: psycopg.Connection[Any]) -> int:
        dice = random.Random(7)
        done = 0
        for batch in range(max(1, changes // 1000)):
            statements = []
            for number in range(200):
                n = batch * 200 + number
                inserts = [
                    f"INSERT INTO m_{table} SELECT {_SHAPES[table % 5][1]} FROM (VALUES ({n})) x (n);"
                    for table in dice.sample(range(MANY), 5)
                ]
                statements.append("BEGIN;" + "".join(inserts) + "COMMIT;")
                done += 5
            connection.execute("".join(statements).encode())
        return done

    return source.workload(made, write)
