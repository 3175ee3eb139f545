"""A real PostgreSQL for the tests of the capture: one server, a database of its own for every test."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import fastavro
import psycopg
import pytest

from ops.postgres_server import PostgresServer
from producer.change import Begin, Change, Commit, Event, Keepalive
from producer.postgres.capture import Capture, Transfer
from producer.postgres.identity import prepare
from producer.postgres.source import PostgresSource, TableChoice

_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "max_replication_slots": "40",
    "max_wal_senders": "40",
    "max_prepared_transactions": "5",
    "logical_decoding_work_mem": "64kB",
}
_numbers = count(1)


def _programs() -> dict[str, Path]:
    """HEADRACE_POSTGRES_BIN: the folder of another PostgreSQL's programs, to run these tests against it."""
    folder = os.environ.get("HEADRACE_POSTGRES_BIN")
    return {"programs": Path(folder)} if folder else {}


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    # Not under tmp_path: pytest closes its folder to others, and as root the server runs as nobody.
    with tempfile.TemporaryDirectory(prefix="headrace-pg-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "server", settings=_SETTINGS, **_programs()).start()
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture(scope="session")
def server_version(server: PostgresServer) -> int:
    with server.connect() as connection:
        return connection.info.server_version


@dataclass
class Upstream:
    """One database with its source."""

    server: PostgresServer
    dbname: str
    source: PostgresSource

    def run(self, *statements: str) -> None:
        """Each statement in a transaction of its own, unless it opens one."""
        with psycopg.connect(self.source.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.source.dsn, autocommit=True) as connection:
            return connection.execute(sql.encode()).fetchall()

    def choose(self, *choices: TableChoice) -> PostgresSource:
        self.source = replace(self.source, tables=choices)
        return self.source

    @contextmanager
    def capturing(
        self,
        *,
        after_lsn: int = 0,
        era: int = 1,
        binary: bool = True,
        least: int = sys.maxsize,
        transfer: Transfer | None = None,
    ) -> Iterator[Callable[[], list[Event]]]:
        """Gives a function that returns the events up to now, keepalives left out; one by one where `least` is as
        large as can be."""
        transfer = transfer or Transfer(binary)
        with Capture(self.source, era=era, after_lsn=after_lsn, transfer=transfer, least=least) as capture:
            yield lambda: self._drain(capture)

    def _drain(self, capture: Capture) -> list[Event]:
        """Everything before a mark of our own: an empty table's truncate, whose events are left out."""
        self.run("TRUNCATE headrace_tests_mark")
        events: list[Event] = []
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            events += capture.poll(0.5)
            marks = [place for place, event in enumerate(events) if _is_mark(event)]
            if marks and any(isinstance(event, Commit) for event in events[marks[0] :]):
                before = events[: marks[0]]
                if isinstance(before[-1], Begin):  # the mark's own; where many are decoded at once it is left out
                    before.pop()
                return [event for event in before if not isinstance(event, Keepalive)]
        raise AssertionError(f"the mark did not come: {events}")


def _is_mark(event: Event) -> bool:
    return isinstance(event, Change) and event.table == "headrace_tests_mark"


@pytest.fixture
def upstream(server: PostgresServer) -> Iterator[Upstream]:
    """An empty database; `headrace_tests_mark` is there for `capturing`, chosen with everything in `public`."""
    dbname = f"test_{next(_numbers)}"
    with server.connect() as connection:
        connection.execute(f"CREATE DATABASE {dbname}".encode())
    source = PostgresSource(
        "shop", server.dsn_of(dbname), f"headrace_{dbname}", f"headrace_{dbname}", (TableChoice("public.*"),)
    )
    upstream = Upstream(server, dbname, source)
    upstream.run("CREATE TABLE headrace_tests_mark (id int PRIMARY KEY)")
    yield upstream
    with server.connect() as connection:
        connection.execute(
            b"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = %s AND active",
            (dbname,),
        )
        for _ in range(3_000):
            try:
                connection.execute(
                    b"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s",
                    (dbname,),
                )
                break
            except psycopg.errors.ObjectInUse:
                time.sleep(0.02)
        connection.execute(f"DROP DATABASE {dbname} WITH (FORCE)".encode())


@pytest.fixture
def prepared(upstream: Upstream) -> Callable[..., Upstream]:
    """Runs statements that make the tables, then prepares publications and slot."""

    def make(*statements: str, append_only: tuple[str, ...] = ()) -> Upstream:
        upstream.run(*statements)
        upstream.choose(*(TableChoice(name, append_only=True) for name in append_only), TableChoice("public.*"))
        prepare(upstream.source)
        return upstream

    return make


@pytest.fixture(scope="session")
def datum() -> Callable[..., dict[str, Any]]:
    """Decodes a change's datum with fastavro, under the schema that the change carries."""

    def decode(change: Change, *, logical: bool = True) -> dict[str, Any]:
        schema = change.schema.to_avro()
        stream = io.BytesIO(change.datum)
        record = fastavro.schemaless_reader(stream, schema if logical else _plain(schema), None)
        assert stream.read() == b"", "bytes behind the datum"
        assert isinstance(record, dict)
        return record

    return decode


def _plain(schema: Any) -> Any:
    """The schema without logical types of time, whose Python forms hold less than Avro does."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if isinstance(schema, dict):
        timeless = {name: _plain(part) for name, part in schema.items()}
        if timeless.get("logicalType", "decimal") != "decimal":
            return timeless["type"]
        return timeless
    return schema
