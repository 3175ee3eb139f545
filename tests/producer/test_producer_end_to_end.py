"""The agent as a process between a real PostgreSQL and the laptop's Kinesis."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace

import psycopg
import pytest

from producer import failpoints
from producer.errors import AnotherAgent, ContinuityBroken
from tests.producer.conftest import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

SETUP = """
CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL, note text);
INSERT INTO accounts SELECT n, 0, repeat('x', 50) FROM generate_series(1, 300) n;
"""
TRANSFER = """
BEGIN;
UPDATE accounts SET balance = balance - 1 WHERE id = {one};
UPDATE accounts SET balance = balance + 1 WHERE id = {other};
COMMIT;
"""
WORK = (
    "".join(TRANSFER.format(one=n, other=n + 100) for n in range(1, 60))
    + """
INSERT INTO accounts SELECT n, 0, md5(n::text) FROM generate_series(1001, 1400) n;
DELETE FROM accounts WHERE id BETWEEN 200 AND 250;
"""
)


def _source(rig) -> dict[int, tuple[int, str]]:
    lines = rig.sql("SELECT id, balance, note FROM accounts").splitlines()
    return {int(line.split("|")[0]): (int(line.split("|")[1]), line.split("|")[2]) for line in lines}


def _lake(arrived) -> dict[int, tuple[int, str]]:
    return {key: (row["balance"], row["note"]) for key, row in arrived.state("accounts").items()}


def _work_until_killed(rig, agent, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while agent.poll() is None:
        assert time.monotonic() < deadline, f"the failpoint was not reached\n{rig.log}"
        rig.sql(TRANSFER.format(one=1, other=2))
    assert agent.returncode == -signal.SIGKILL, rig.log


def test_every_change_arrives_once_in_order(rig):
    """Snapshot and changes together are the source's rows, and SIGTERM ends the agent with status 0."""
    rig.lanes = 3
    rig.sql(SETUP)
    agent = rig.start()
    rig.until(lambda seen: seen.snapshotted)
    rig.sql(WORK)
    arrived = rig.until_complete()
    assert _lake(arrived) == _source(rig)
    assert len({lane for table, lane in arrived.lanes if not lane.startswith("s")}) == 3
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(PATIENCE_SECONDS) == 0, rig.log


@pytest.mark.parametrize("name", failpoints.NAMES)
def test_a_kill_anywhere_loses_nothing_and_doubles_nothing(rig, name):
    """Killed at a failpoint while work goes on, and started again, the agent goes on as if nothing had been."""
    rig.sql(SETUP)
    agent = rig.start(failpoint=name)
    _work_until_killed(rig, agent)
    rig.sql(WORK)
    rig.start()
    assert _lake(rig.until_complete()) == _source(rig)


@pytest.mark.parametrize("place", ["spool.before_commit:8", "spool.after_commit:8", "sender.after_put:100"])
def test_a_kill_inside_a_large_transaction_discards_its_tail(rig, place):
    """A transaction larger than a block is spooled as it comes; killed before its Commit, it comes again, whole.

    It waits for the agent, which otherwise spools and sends little: so many times only what the transaction brings.
    """
    rig.sql(SETUP)
    first = rig.start()
    rig.until(lambda seen: seen.snapshotted)
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE_SECONDS) == 0, rig.log
    rig.sql("INSERT INTO accounts SELECT n, 0, md5(n::text) FROM generate_series(10001, 80000) n")
    assert rig.start(failpoint=place).wait(PATIENCE_SECONDS) == -signal.SIGKILL
    rig.sql(WORK)
    rig.start()
    arrived = rig.until_complete()
    assert _lake(arrived) == _source(rig)
    assert ("tail discarded" in rig.log) == place.startswith("spool")


def test_a_lost_spool_stops_the_agent_until_a_new_era_is_asked_for(rig):
    """Without its spool the agent names the break and the remedy; with --new-era it begins again with snapshots."""
    rig.sql(SETUP)
    first = rig.start()
    rig.until_complete()
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE_SECONDS) == 0, rig.log
    for file in rig.folder.glob("spool.db*"):
        file.unlink()
    assert rig.start().wait(PATIENCE_SECONDS) == ContinuityBroken.exit_code
    assert "--new-era" in rig.log
    rig.sql(WORK)
    rig.start("--new-era")
    arrived = rig.until(lambda seen: [p for p in seen.progress if p.era == 2] and len(seen.ends) == 2)
    assert _lake(rig.until_complete()) == _source(rig)
    assert {announced.snapshot for announced in arrived.progress[-1].snapshots} == {2_000_001}


def test_a_second_agent_of_the_same_source_stops(rig):
    """Two spools, one source: the second agent says that another one lives, and ends with its own exit status."""
    rig.sql(SETUP)
    rig.start()
    rig.until(lambda seen: seen.snapshotted)
    other = replace(rig, folder=rig.folder / "other", processes=rig.processes)
    other.folder.mkdir()
    assert other.start("--new-era").wait(PATIENCE_SECONDS) == AnotherAgent.exit_code
    assert "another agent lives" in other.log


def test_a_request_is_answered_while_changes_flow(rig):
    """A resend puts the blocks into the stream once more; a resnapshot takes a newer snapshot of the table."""
    rig.sql(SETUP)
    rig.start()
    rig.until(lambda seen: seen.snapshotted)
    rig.sql(WORK)
    arrived = rig.until_complete()
    last = arrived.lanes["accounts", "0"].mark
    for name, more in (("resend", {"lane": {"S": "0"}, "last": {"S": json.dumps(last)}}), ("resnapshot", {})):
        item = {"source": {"S": rig.name}, "item": {"S": f"request:{name}"}, "kind": {"S": name}, **more}
        rig.aws.client("dynamodb").put_item(TableName="headrace-sources", Item={**item, "table": {"S": "accounts"}})
    arrived = rig.until(lambda seen: seen.duplicates > arrived.duplicates and len(seen.ends) == 2)
    assert _lake(arrived) == _source(rig)


def _large(rig) -> None:
    rig.group_bytes = 65536
    rig.sql(SETUP + "INSERT INTO accounts SELECT n, 0, md5(n::text) FROM generate_series(20001, 24000) n;")


@pytest.mark.parametrize("failpoint", ["snapshot.cut", "snapshot.rows:3", "snapshot.ended:2"])
def test_a_snapshot_goes_on_at_a_group(rig, failpoint):
    """Killed between groups, or within one, the agent reads again what had not ended, and no group that had."""
    _large(rig)
    agent = rig.start(failpoint=failpoint)
    _work_until_killed(rig, agent)
    ended = {end.group for _, _, end in rig.read().ends}
    rig.sql(WORK)
    rig.start()
    arrived = rig.until_complete()
    assert _lake(arrived) == _source(rig)
    ends = [end for _, _, end in arrived.ends]
    assert len(ends) == ends[0].groups > 3
    assert len({end.consistent_point for end in ends}) == len(ends)
    assert all(end.attempt == 1 for end in ends if end.group in ended)
    if failpoint.startswith("snapshot.rows"):
        assert any(end.attempt == 2 for end in ends)


def test_tables_come_and_are_renamed_while_the_agent_runs(rig):
    """A table that is created is published and read; a renamed one goes on in its lake table, after a restart too.

    The new one has a column that only comes as text: the stream begins again in text, and nothing is lost or doubled.
    """
    rig.look_seconds = 1.0
    rig.sql(SETUP)
    first = rig.start()
    rig.until(lambda seen: "accounts" in seen.snapshotted)
    rig.sql("CREATE TABLE kinds (id int PRIMARY KEY, kind regtype); INSERT INTO kinds VALUES (1, 'int')")
    rig.sql("ALTER TABLE accounts RENAME TO konten; UPDATE konten SET note = 'renamed' WHERE id = 7")
    rig.until(lambda seen: "kinds" in seen.snapshotted)
    rig.sql("INSERT INTO kinds VALUES (2, 'text'); UPDATE kinds SET kind = 'date' WHERE id = 1")
    rig.until(lambda seen: len(seen.rows.get("kinds", [])) == 2)
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE_SECONDS) == 0, rig.log
    rig.sql("UPDATE konten SET note = 'again' WHERE id = 8")
    rig.start()
    arrived = rig.until(lambda seen: any(row["note"] == "again" for row in seen.rows.get("accounts", [])))
    arrived.check_progress()
    assert {row["id"]: row["kind"] for row in arrived.state("kinds").values()} == {1: "date", 2: "text"}
    notes = {key: row["note"] for key, row in arrived.state("accounts").items() if row["note"][0] != "x"}
    assert notes == {7: "renamed", 8: "again"}
    assert "going on in text" in rig.log
    assert set(arrived.snapshotted) == {"accounts", "kinds"}


def test_a_kill_while_a_streamed_transaction_waits_for_its_commit(rig):
    """What lies on disk of it is worth nothing: the source sends it again, and it arrives once, at its commit."""
    rig.streaming = True
    rig.sql(f"ALTER DATABASE {rig.name} SET logical_decoding_work_mem = '64kB'")
    rig.sql(SETUP)
    agent = rig.start()
    rig.until(lambda seen: "accounts" in seen.snapshotted)
    with psycopg.connect(rig.postgres.dsn_of(rig.name)) as session:
        session.execute("INSERT INTO accounts SELECT n, 0, md5(n::text) FROM generate_series(10001, 40000) n")
        rig.sql(TRANSFER.format(one=1, other=2))
        waiting = rig.folder / "spool.db.streamed"
        rig.until(lambda seen: len(seen.rows.get("accounts", [])) == 2)
        assert sum(file.stat().st_size for file in waiting.iterdir()) > 1_000_000
        agent.kill()
        agent.wait()
        rig.start()
        rig.sql(TRANSFER.format(one=3, other=4))
        arrived = rig.until(lambda seen: len(seen.rows.get("accounts", [])) == 4)
    arrived = rig.until_complete()
    assert len(arrived.rows["accounts"]) == 30_004
    assert _lake(arrived) == _source(rig)
