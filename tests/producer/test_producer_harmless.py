"""What the agent asks of its source, and what it leaves there: little, and only on order."""

from __future__ import annotations

import time

import pytest

from producer.postgres.identity import reserve
from producer.postgres.source import PostgresSource
from tests.producer.conftest import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

SETUP = """
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 3000) n;
CREATE TABLE other (id int PRIMARY KEY);
"""


def _slot(rig) -> PostgresSource:
    return PostgresSource(rig.name, rig.postgres.dsn_of(rig.name), f"headrace_{rig.name}", "p", ())


def test_log_of_other_databases_is_not_kept(rig):
    """Only another database writes: keepalives move the slot on, and the source may recycle its log."""
    rig.sql(SETUP)
    rig.start()
    rig.until_complete()
    rig.postgres.psql("CREATE TABLE noise (v text)")
    try:
        for _ in range(4):
            rig.postgres.psql("INSERT INTO noise SELECT repeat(md5(n::text), 20) FROM generate_series(1, 8000) n")
        written = reserve(_slot(rig))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while reserve(_slot(rig)).held_bytes > 2_000_000:
            assert time.monotonic() < deadline, reserve(_slot(rig))
            rig.postgres.psql("SELECT pg_log_standby_snapshot()")  # what the server does by itself every 15 s
            time.sleep(0.2)
        assert written.status == "reserved"
    finally:
        rig.postgres.psql("DROP TABLE noise")


def test_connections_are_few_and_only_configured_tables_are_published(rig):
    """Two for the stream, at most two for each of the readers of a snapshot, two for looks at the source."""
    rig.group_bytes = 65536
    rig.tables = ("public.t",)
    rig.sql(SETUP)
    rig.start()
    most = 0
    while not rig.read().snapshotted:
        most = max(most, int(rig.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'headrace'")))
    assert 1 <= most <= 8
    assert rig.sql("SELECT DISTINCT tablename FROM pg_publication_tables WHERE pubname LIKE 'headrace%'") == "t"


def test_the_slot_stays_until_it_is_ordered_away(rig):
    """A stopped agent leaves it, with the log that it will need; --drop-slot ends that, and not under a running one."""
    rig.sql(SETUP)
    agent = rig.start()
    rig.until_complete()
    assert rig.start("--drop-slot").wait(PATIENCE_SECONDS) == 3
    assert "stop its agent first" in rig.log
    agent.terminate()
    assert agent.wait(PATIENCE_SECONDS) == 0
    assert reserve(_slot(rig)) is not None
    assert rig.start("--drop-slot").wait(PATIENCE_SECONDS) == 0
    assert reserve(_slot(rig)) is None
    assert rig.start().wait(PATIENCE_SECONDS) == 6
    assert "slot headrace_" in rig.log
