"""What a walsender promises: the real one and the fake one, by the same tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg
import pytest
from psycopg import sql

from producer.change import Begin, Change, Commit, Event, Keepalive
from producer.postgres import messages
from producer.postgres.catalog import Catalog, SessionCatalog
from producer.postgres.connection import OrdinaryConnection, Replication, connect
from producer.postgres.decoder import Decoder
from producer.postgres.fakes import FakeCatalog, FakeDatabase, Values
from producer.postgres.identity import identify, prepare
from producer.postgres.rows import RowEncoder, row_encoder
from producer.postgres.source import PostgresSource
from producer.postgres.streamed import Receiving
from producer.postgres.transcode import Transcoder
from schemas.change_record import lake_table_name

Datum = Callable[..., dict[str, Any]]


class Database(Protocol):
    """Both kinds, as the contract needs them."""

    catalog: Catalog

    def create(self, name: str, columns: Mapping[str, str], key: Sequence[str]) -> None: ...
    def add_column(self, name: str, column: str, type_name: str) -> None: ...
    def transaction(self) -> Any: ...
    def insert(self, name: str, values: Values) -> None: ...
    def update(self, name: str, where: Values, values: Values) -> None: ...
    def delete(self, name: str, where: Values) -> None: ...
    def truncate(self, *names: str) -> None: ...
    def replication(self, start_lsn: int = 0) -> Receiving: ...
    @property
    def confirmed_lsn(self) -> int: ...
    @property
    def current_lsn(self) -> int: ...


class Fake(FakeDatabase):
    catalog: Catalog = FakeCatalog()


class Real:
    """A PostgreSQL with a slot, behind the fake's interface."""

    def __init__(self, upstream: Any) -> None:
        self._upstream = upstream
        self._session: OrdinaryConnection = connect(upstream.source.dsn)
        self.catalog: Catalog = SessionCatalog(self._session)

    def create(self, name: str, columns: Mapping[str, str], key: Sequence[str]) -> None:
        body = ", ".join(f"{column} {type_name}" for column, type_name in columns.items())
        self._upstream.run(f"CREATE TABLE {name} ({body}, PRIMARY KEY ({', '.join(key)}))")
        prepare(self._upstream.source)

    def add_column(self, name: str, column: str, type_name: str) -> None:
        self._upstream.run(f"ALTER TABLE {name} ADD {column} {type_name}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with psycopg.connect(self._upstream.source.dsn) as self._writer:
            self._writer.execute("SET LOCAL synchronous_commit = on")  # a position counts once it is flushed
            yield

    def insert(self, name: str, values: Values) -> None:
        self._do("INSERT INTO {} SELECT * FROM jsonb_populate_record(NULL::{}, {})", name, values)

    def update(self, name: str, where: Values, values: Values) -> None:
        pairs = sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(c), v) for c, v in values.items())
        self._writer.execute(sql.SQL("UPDATE {} SET {} WHERE {}").format(sql.Identifier(name), pairs, _where(where)))

    def delete(self, name: str, where: Values) -> None:
        self._writer.execute(sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(name), _where(where)))

    def truncate(self, *names: str) -> None:
        self._writer.execute(f"TRUNCATE {', '.join(names)}".encode())

    def replication(self, start_lsn: int = 0) -> Receiving:
        source = self._upstream.source
        options = {"proto_version": "1"}
        return Replication(source.dsn, source.slot, (source.publication, source.append_publication), start_lsn, options)

    @property
    def confirmed_lsn(self) -> int:
        slot = identify(self._upstream.source).slot
        assert slot is not None
        return slot.confirmed_lsn

    @property
    def current_lsn(self) -> int:
        return identify(self._upstream.source).current_lsn

    def _do(self, statement: str, name: str, values: Values) -> None:
        table = sql.Identifier(name)
        row = sql.Literal(psycopg.types.json.Jsonb(dict(values)))
        self._writer.execute(sql.SQL(statement).format(table, table, row))


def _where(where: Values) -> sql.Composable:
    pairs = [sql.SQL("{} = {}").format(sql.Identifier(column), value) for column, value in where.items()]
    return sql.SQL(" AND ").join(pairs) if pairs else sql.SQL("true")


SHOP = PostgresSource("shop", "", "", "", ())


@pytest.fixture(params=["fake", "real"])
def database(request: pytest.FixtureRequest) -> Database:
    """Two tables, `a` and `b`."""
    database: Database = Fake() if request.param == "fake" else Real(request.getfixturevalue("upstream"))
    database.create("a", {"id": "integer", "v": "text"}, ["id"])
    database.create("b", {"x": "integer", "y": "integer"}, ["x", "y"])
    return database


def read(database: Database, replication: Receiving, after_lsn: int = 0, most: int = 100) -> list[Event]:
    """The events up to the database's current position, which a keepalive tells.

    Transactions without a change are left out: before 15 the source tells them.
    """

    def describe(relation: messages.Relation) -> RowEncoder:
        name = lake_table_name(relation.namespace, relation.name)
        return row_encoder(SHOP, name, relation, database.catalog, append_only=False)

    transcoder = Transcoder(Decoder(1, after_lsn, describe), lambda _: False)
    target = database.current_lsn
    events: list[Event] = []
    for _ in range(200):
        events += transcoder.events(replication.receive(0.5, most))
        if any(isinstance(event, Keepalive) and event.lsn >= target for event in events):
            empty = {event.lsn for event in events if isinstance(event, Commit) and not event.changes}
            return [
                event
                for event in events
                if not isinstance(event, Keepalive) and not (isinstance(event, Begin | Commit) and event.lsn in empty)
            ]
    raise AssertionError(f"the stream never reached {target}: {events}")


def once(database: Database, after_lsn: int = 0, most: int = 100) -> list[Event]:
    replication = database.replication()
    try:
        return read(database, replication, after_lsn, most)
    finally:
        replication.close()


def told(events: list[Event], datum: Datum) -> list[tuple[Any, ...]]:
    changes = [event for event in events if isinstance(event, Change)]
    return [(c.table, c.op, *(datum(c)[column.name] for column in c.schema.columns)) for c in changes]


def test_every_kind_of_change(database: Database, datum: Datum) -> None:
    """In the order in which they were made: nulls, key changes as a delete and an insert, one truncate a table."""
    with database.transaction():
        database.insert("a", {"id": 1, "v": "é"})
        database.insert("a", {"id": 2, "v": None})
        database.insert("b", {"x": 1, "y": 2})
    with database.transaction():
        database.update("a", {"id": 1}, {"v": "w"})
        database.update("a", {"id": 2}, {"id": 3})
        database.update("b", {}, {"y": 7})
        database.delete("a", {"id": 1})
    with database.transaction():
        database.truncate("a", "b")
    assert told(once(database), datum) == [
        *[("a", "c", 1, "é"), ("a", "c", 2, None), ("b", "c", 1, 2)],
        *[("a", "u", 1, "w"), ("a", "d", 2, None), ("a", "c", 3, None), ("b", "d", 1, 2), ("b", "c", 1, 7)],
        ("a", "d", 1, None),
        *[("a", "t", None, None), ("b", "t", None, None)],
    ]


def test_positions_rise_and_commits_count(database: Database) -> None:
    """All changes of a transaction carry its commit's position, which is above every one before it."""
    for turn in range(3):
        with database.transaction():
            database.insert("a", {"id": turn, "v": ""})
            database.update("a", {"id": turn}, {"v": "x"})
    events = once(database, most=2)
    commits = [event for event in events if isinstance(event, Commit)]
    positions = [event.position for event in events if isinstance(event, Change)]
    assert [commit.changes for commit in commits] == [2, 2, 2]
    assert [tuple(position) for position in positions] == [(1, c.lsn, idx) for c in commits for idx in (0, 1)]
    assert [c.lsn < c.end_lsn for c in commits] == [True] * 3
    assert sorted(c.lsn for c in commits) == [c.lsn for c in commits]


def test_what_was_rolled_back_is_not_there(database: Database, datum: Datum) -> None:
    """Nor does it take anything from what follows."""

    class Changed(Exception): ...

    with pytest.raises(Changed), database.transaction():
        database.insert("a", {"id": 1, "v": "gone"})
        raise Changed
    with database.transaction():
        database.insert("a", {"id": 1, "v": "kept"})
    assert told(once(database), datum) == [("a", "c", 1, "kept")]


def test_what_was_not_confirmed_comes_again(database: Database) -> None:
    """The same events, to the byte; behind a confirmed commit the stream begins with the next transaction."""
    for number in range(3):
        with database.transaction():
            database.insert("a", {"id": number, "v": ""})
    before = database.confirmed_lsn
    first = once(database)
    assert once(database) == first
    assert database.confirmed_lsn == before
    commits = [event for event in first if isinstance(event, Commit)]
    replication = database.replication()
    replication.confirm(commits[0].end_lsn)
    replication.close()
    assert database.confirmed_lsn == commits[0].end_lsn
    assert once(database) == first[first.index(commits[0]) + 1 :]
    assert once(database, after_lsn=commits[1].lsn) == first[first.index(commits[1]) + 1 :]


def test_a_new_column_is_announced_before_its_first_value(database: Database, datum: Datum) -> None:
    """Changes before it keep the structure that they were written under."""
    with database.transaction():
        database.insert("a", {"id": 1, "v": "x"})
    database.add_column("a", "w", "integer")
    with database.transaction():
        database.insert("a", {"id": 2, "v": "y", "w": 5})
    assert told(once(database), datum) == [("a", "c", 1, "x"), ("a", "c", 2, "y", 5)]


def test_a_stream_goes_on_with_what_commits_while_it_runs(database: Database, datum: Datum) -> None:
    """Without a new connection."""
    replication = database.replication()
    try:
        assert read(database, replication) == []
        with database.transaction():
            database.insert("b", {"x": 1, "y": 1})
        assert told(read(database, replication), datum) == [("b", "c", 1, 1)]
    finally:
        replication.close()
