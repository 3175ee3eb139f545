"""Transactions of every kind, kept by the source until they commit or streamed before: what arrives is the same."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from producer.change import Begin, Change, Commit, Event
from producer.errors import SourceProtocolBroken
from producer.postgres.connection import XLOG_HEADER, Payload, xlog_data
from producer.postgres.source import TableChoice
from producer.postgres.streamed import Unstreamed
from tests.producer_postgres import large_transaction

Make = Callable[..., Any]
Datum = Callable[..., dict[str, Any]]
MANY = 3000
"""Rows that are more than the test server's logical_decoding_work_mem."""


@pytest.fixture(params=[False, True], ids=["kept", "streamed"])
def source(request: pytest.FixtureRequest, prepared: Make, tmp_path: Path) -> Make:
    """As `prepared`, for a stream of whole transactions and for one of transactions under way."""

    def make(*statements: str) -> Any:
        up = prepared(*statements)
        if request.param:
            up.source = replace(up.source, streamed=tmp_path / "streamed")
        return up

    return make


def changes(events: list[Event]) -> list[Change]:
    return [event for event in events if isinstance(event, Change)]


def is_whole(events: list[Event]) -> bool:
    """Begin, changes, Commit, again and again; positions rise."""
    inside = False
    for event in events:
        if isinstance(event, Begin | Commit):
            assert inside == isinstance(event, Commit)
            inside = not inside
        else:
            assert inside
    positions = [change.position for change in changes(events)]
    return not inside and positions == sorted(positions) and len(set(positions)) == len(positions)


def test_what_was_rolled_back_never_arrives(source: Make, datum: Datum) -> None:
    """Sub-transactions within a large one, nested, with a change of structure in the one that is gone."""
    up = source("CREATE TABLE a (id int PRIMARY KEY, v text)")
    rows = "INSERT INTO a SELECT n, 'x' FROM generate_series({}, {}) n;"
    with up.capturing() as drain:
        up.run(
            "BEGIN;"
            + rows.format(1, MANY)
            + "SAVEPOINT one;"
            + rows.format(MANY + 1, 2 * MANY)
            + "SAVEPOINT two; ALTER TABLE a ADD w int DEFAULT 7;"
            + rows.format(2 * MANY + 1, 3 * MANY).replace("'x'", "'x', 8")
            + "ROLLBACK TO two; INSERT INTO a VALUES (-1, 'y'); ROLLBACK TO one;"
            + "INSERT INTO a VALUES (-2, 'z'); SAVEPOINT three;"
            + rows.format(4 * MANY + 1, 5 * MANY)
            + "RELEASE three; COMMIT",
            "BEGIN;" + rows.format(6 * MANY + 1, 7 * MANY) + "ROLLBACK",
        )
        events = drain()
    assert is_whole(events)
    ids = [datum(change)["id"] for change in changes(events)]
    assert ids == [*range(1, MANY + 1), -2, *range(4 * MANY + 1, 5 * MANY + 1)]


def test_transactions_that_run_beside_each_other_arrive_one_after_the_other(source: Make, datum: Datum) -> None:
    """In the order of their commits, each with the structure it was written under."""
    up = source("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)")
    with up.capturing() as drain, psycopg.connect(up.source.dsn) as one, psycopg.connect(up.source.dsn) as two:
        for turn in range(3):
            low, high = turn * MANY, (turn + 1) * MANY - 1
            one.execute(f"INSERT INTO a SELECT generate_series({low}, {high})".encode())
            two.execute(f"INSERT INTO b SELECT generate_series({low}, {high})".encode())
            up.run(f"INSERT INTO a VALUES (-{turn + 1})")
        two.commit()
        one.commit()
        events = drain()
    assert is_whole(events)
    found = [(change.table, datum(change)["id"]) for change in changes(events)]
    lone = [("a", -1), ("a", -2), ("a", -3)]
    streamed = up.query(f"SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = '{up.source.slot}'")
    assert streamed == [(2 if up.source.streamed else 0,)]
    assert found == [*lone, *(("b", n) for n in range(3 * MANY)), *(("a", n) for n in range(3 * MANY))]


def test_a_prepared_transaction_arrives_when_it_is_committed(source: Make, datum: Datum) -> None:
    """Behind what commits between; one that is rolled back never does."""
    up = source("CREATE TABLE a (id int PRIMARY KEY)")
    with up.capturing() as drain:
        up.run(
            f"BEGIN; INSERT INTO a SELECT generate_series(1, {MANY}); PREPARE TRANSACTION '{up.dbname}_one'",
            f"BEGIN; INSERT INTO a SELECT generate_series(-{MANY}, -1); PREPARE TRANSACTION '{up.dbname}_two'",
            "INSERT INTO a VALUES (0)",
            f"ROLLBACK PREPARED '{up.dbname}_two'",
            f"COMMIT PREPARED '{up.dbname}_one'",
        )
        events = drain()
    assert is_whole(events)
    assert [datum(change)["id"] for change in changes(events)] == [0, *range(1, MANY + 1)]


def test_a_transaction_without_a_captured_change_is_nothing(source: Make) -> None:
    """Of another table, of nothing at all, of messages only, transactional or not."""
    up = source("CREATE TABLE a (id int PRIMARY KEY)", "CREATE SCHEMA s", "CREATE TABLE s.other (id int)")
    with up.capturing() as drain:
        up.run(
            "INSERT INTO s.other VALUES (1)",
            "BEGIN; SELECT txid_current(); COMMIT",
            "SELECT pg_logical_emit_message(true, 'app', 'said')",
            "SELECT pg_logical_emit_message(false, 'app', 'said')",
            "BEGIN; SELECT pg_logical_emit_message(true, 'app', 'said'); INSERT INTO a VALUES (1); COMMIT",
        )
        events = drain()
    assert is_whole(events)
    assert [event.changes for event in events if isinstance(event, Commit) and event.changes] == [1]


def test_changes_of_another_origin_arrive_too(source: Make, datum: Datum) -> None:
    """What a subscription of the source wrote is a change as any other."""
    up = source("CREATE TABLE a (id int PRIMARY KEY)")
    with up.capturing() as drain:
        up.run(f"SELECT pg_replication_origin_create('{up.dbname}')")
        with psycopg.connect(up.source.dsn, autocommit=True) as session:
            session.execute("SELECT pg_replication_origin_session_setup(%s)", (up.dbname,))
            session.execute("INSERT INTO a VALUES (1)")
            session.execute(f"INSERT INTO a SELECT generate_series(2, {MANY})".encode())
        events = drain()
    up.run(f"SELECT pg_replication_origin_drop('{up.dbname}')")
    assert is_whole(events)
    assert [datum(change)["id"] for change in changes(events)] == list(range(1, MANY + 1))


def test_a_streamed_transaction_is_passed_over_whole_too(source: Make) -> None:
    """A restart behind its commit gives nothing of it again."""
    up = source("CREATE TABLE a (id int PRIMARY KEY)")
    up.run(f"INSERT INTO a SELECT generate_series(1, {MANY})")
    with up.capturing() as drain:
        first = drain()
    commit = first[-1]
    assert isinstance(commit, Commit)
    with up.capturing(after_lsn=commit.lsn) as drain:
        assert drain() == []


class Scripted:
    """A replication that gives what it was told."""

    def __init__(self, *messages: bytes) -> None:
        self.arrived: list[Payload] = [xlog_data(1, message) for message in messages]

    def receive(self, wait_seconds: float, most: int) -> list[Payload]:
        taken, self.arrived = self.arrived[:most], self.arrived[most:]
        return taken

    def confirm(self, lsn: int) -> None: ...

    def close(self) -> None: ...


def streamed(xid: int, *messages: bytes) -> list[bytes]:
    return [b"S" + struct.pack(">IB", xid, 1), *messages, b"E"]


def insert(xid: int, size: int) -> bytes:
    return b"I" + struct.pack(">I", xid) + bytes(size)


COMMIT = b"c" + struct.pack(">IBQQq", 7, 0, 100, 101, 5)


@pytest.mark.parametrize("most", [1, 2, 100])
def test_a_replay_comes_in_portions(tmp_path: Path, most: int) -> None:
    """Never more than was asked for, in order, what follows behind it, and nothing stays on disk."""
    script = Scripted(
        *streamed(7, insert(7, 3), insert(8, 3), insert(7, 4)), b"A" + struct.pack(">II", 7, 8), COMMIT, b"x"
    )
    stream = Unstreamed(script, tmp_path / "streamed")
    found: list[bytes] = []
    while (portion := stream.receive(0, most)) or script.arrived:
        assert len(portion) <= most
        found += [bytes(payload[XLOG_HEADER:]) for payload in portion]
    assert [message[:1] for message in found] == [b"B", b"I", b"I", b"C", b"x"]
    assert [len(message) for message in found[1:3]] == [4, 5]
    assert list((tmp_path / "streamed").iterdir()) == []


@pytest.mark.parametrize("messages", [[COMMIT], [b"A" + struct.pack(">II", 9, 8)], [b"S\0"], [b"c\0\0"]])
def test_a_streamed_message_out_of_place_stops(tmp_path: Path, messages: list[bytes]) -> None:
    """The end of a transaction that never began, messages cut short."""
    with pytest.raises(SourceProtocolBroken):
        Unstreamed(Scripted(*messages), tmp_path / "streamed").receive(0, 10)


def test_a_large_transaction_takes_no_more_memory_than_blocks(source: Make, tmp_path: Path) -> None:
    """It is spooled as it comes, in far less memory than its rows take. `make large-transaction` does a million."""
    rows = 80_000
    up = source("CREATE TABLE a (n int PRIMARY KEY, v text)")
    up.source = up.choose(TableChoice("public.a"))
    up.run(large_transaction.fill(rows))
    taken = large_transaction.in_a_process(up.source, tmp_path / "spool.db", rows)
    assert taken.changes == rows
    assert taken.blocks > 5
    assert taken.most_bytes - taken.before_bytes < 40 * 1024**2 < rows * large_transaction.ROW_BYTES
