"""What a server says that goes away in the middle of a question, or lets us wait: always a reason to try again."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest

from producer.errors import SourceUnreachable
from producer.postgres.connection import Replication, command, connect, reaching, replication_session

Make = Callable[..., Any]


def test_a_session_that_is_ended_in_a_question_is_unreachable(prepared: Make) -> None:
    up = prepared()
    with closing(connect(up.source.dsn)) as session:
        pid = session.info.backend_pid
        with pytest.raises(SourceUnreachable, match="who are you"), reaching("who are you"):
            session.execute(b"SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(SourceUnreachable), reaching("and now"):
            session.execute("SELECT 1")


def test_a_walsender_that_is_ended_is_unreachable(prepared: Make) -> None:
    """Without an SQLSTATE, which a broken connection has not."""
    up = prepared()
    session = replication_session(up.source.dsn)
    up.query(f"SELECT pg_terminate_backend({session.backend_pid})")
    with pytest.raises(SourceUnreachable), reaching("who are you"):
        for _ in range(100):
            command(session, "IDENTIFY_SYSTEM")


def test_no_statement_of_ours_waits_for_a_lock_or_runs_for_long(prepared: Make) -> None:
    """Both timeouts stand in every session, and a lock that is not to be had is tried again later."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    with closing(connect(up.source.dsn, statement_seconds=30, lock_seconds=0.1)) as session:
        timeouts = session.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
        assert timeouts.fetchone() == ("30s", "100ms")
        with psycopg.connect(up.source.dsn) as other:
            other.execute("LOCK TABLE a")
            with pytest.raises(SourceUnreachable, match="lock timeout"), reaching("a is asked for"):
                session.execute("SELECT FROM a")


def test_a_reader_that_pauses_is_not_taken_for_dead(prepared: Make) -> None:
    """A thread of its own reports for it, as often as the server's patience needs."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    dsn = f"{up.source.dsn} options='-c wal_sender_timeout=2000'"
    with closing(Replication(dsn, up.source.slot, [up.source.publication], 0, {"proto_version": "1"})) as stream:
        up.run("INSERT INTO a SELECT generate_series(1, 1000)")
        sender = f"SELECT pid FROM pg_stat_replication WHERE pid = {stream._pgconn.backend_pid}"
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert up.query(sender), "the server ended the session"
        assert stream.receive(1.0, 10)
