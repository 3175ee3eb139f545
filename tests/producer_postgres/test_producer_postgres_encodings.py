"""Databases that are not in UTF-8: what arrives is UTF-8 all the same, or is rejected with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from producer.change import Change, Commit, Event, Rejected, Run
from producer.postgres.capture import Capture, Transfer
from producer.postgres.identity import prepare
from producer.postgres.snapshot import open_snapshot

Datum = Callable[..., dict[str, Any]]


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoded(request: pytest.FixtureRequest, upstream: Any) -> Iterator[tuple[Any, str]]:
    """A source in a database of another encoding."""
    dbname = f"{upstream.dbname}_{request.param.lower()}"
    with upstream.server.connect() as connection:
        connection.execute(
            f"CREATE DATABASE {dbname} ENCODING '{request.param}' LOCALE 'C' TEMPLATE template0".encode()
        )
    upstream.source = replace(upstream.source, dsn=upstream.server.dsn_of(dbname), slot=f"headrace_{dbname}")
    yield upstream, request.param
    with upstream.server.connect() as connection:
        connection.execute(f"DROP DATABASE {dbname} WITH (FORCE)".encode())


def run(up: Any, *statements: bytes) -> None:
    """As bytes: what the client's encoding says is what the database stores."""
    with closing(psycopg.connect(up.source.dsn, autocommit=True)) as session:
        session.execute(b"SET client_encoding = 'LATIN1'")
        for statement in statements:
            session.pgconn.exec_(statement)


def until_commit(up: Any, binary: bool, least: int) -> list[Event]:
    events: list[Event] = []
    with Capture(up.source, era=1, after_lsn=0, transfer=Transfer(binary), least=least) as capture:
        for _ in range(60):
            events += capture.poll(0.5)
            if any(isinstance(event, Commit) and event.changes for event in events):
                return events
    raise AssertionError(f"nothing came: {events}")


def singly(event: Event) -> Iterator[Change | Rejected]:
    """The changes in an event."""
    if isinstance(event, Change | Rejected):
        yield event
    elif isinstance(event, Run):
        for at in range(event.count):
            one = event.part(at, at + 1)
            yield Change(one.table, one.schema, "c", b"", one.position(0), 0, one.datums)


@pytest.mark.parametrize(
    ("binary", "least"), [(False, 9), (True, 9), (True, 1)], ids=["text", "binary", "many at once"]
)
def test_text_arrives_as_utf8_or_not_at_all(encoded: tuple[Any, str], datum: Datum, binary: bool, least: int) -> None:
    """LATIN1 is converted, names too; in SQL_ASCII nobody knows what bytes mean: what is no UTF-8 is rejected."""
    up, encoding = encoded
    name = "größe".encode("latin-1") if encoding == "LATIN1" else b"size"
    run(up, b"CREATE TABLE a (id int PRIMARY KEY, %s text, b text[])" % name)
    tables = [table.name for table in prepare(up.source).tables]
    assert tables == ["a"]
    value = "Käse".encode("latin-1")
    run(up, b"INSERT INTO a VALUES (1, '%s', ARRAY['%s']), (2, 'plain', NULL)" % (value, value))
    events = until_commit(up, binary, least)
    streamed = sorted((item for event in events for item in singly(event)), key=lambda item: item.position)
    with open_snapshot(up.source, "public", "a", era=1) as snapshot:
        read = list(snapshot.rows)
    with psycopg.connect(up.source.dsn, autocommit=True) as session:
        session.execute(
            "SELECT pg_drop_replication_slot(%s) FROM pg_replication_slots WHERE NOT active", (up.source.slot,)
        )
    for first, second in (streamed, read):
        assert isinstance(second, Change)
        if encoding == "LATIN1":
            assert isinstance(first, Change)
            assert first.schema.columns[1].source_name == "größe"
            record = datum(first)
            assert (record[first.schema.columns[1].name], record["b"]) == ("Käse", ["Käse"])
        else:
            assert isinstance(first, Rejected)
            assert "utf-8" in first.reason
            assert first.key_text == "id=1"
