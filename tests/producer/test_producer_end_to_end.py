"""The agent as a process between a real PostgreSQL and the laptop's Kinesis."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest

from producer import failpoints
from producer.errors import AnotherAgent, ContinuityBroken

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
    assert agent.wait(20) == 0, rig.log


@pytest.mark.parametrize("name", failpoints.NAMES)
def test_a_kill_anywhere_loses_nothing_and_doubles_nothing(rig, name):
    """Killed at a failpoint while work goes on, and started again, the agent goes on as if nothing had been."""
    rig.sql(SETUP)
    agent = rig.start(failpoint=name)
    while agent.poll() is None:
        rig.sql(TRANSFER.format(one=1, other=2))
    assert agent.returncode == -signal.SIGKILL, rig.log
    rig.sql(WORK)
    rig.start()
    assert _lake(rig.until_complete()) == _source(rig)


@pytest.mark.parametrize("name", ["spool.before_commit", "spool.after_commit", "sender.after_put"])
def test_a_kill_inside_a_large_transaction_discards_its_tail(rig, name):
    """A transaction larger than a block is spooled as it comes; killed before its Commit, it comes again, whole."""
    rig.sql(SETUP)
    agent = rig.start(failpoint=f"{name}:25")
    rig.until(lambda seen: seen.snapshotted)
    rig.sql("INSERT INTO accounts SELECT n, 0, md5(n::text) FROM generate_series(10001, 20000) n")
    while agent.poll() is None:
        rig.sql(TRANSFER.format(one=1, other=2))
    assert agent.returncode == -signal.SIGKILL, rig.log
    rig.sql(WORK)
    rig.start()
    arrived = rig.until_complete()
    assert _lake(arrived) == _source(rig)
    assert ("tail discarded" in rig.log) == name.startswith("spool")


def test_a_lost_spool_stops_the_agent_until_a_new_era_is_asked_for(rig):
    """Without its spool the agent names the break and the remedy; with --new-era it begins again with snapshots."""
    rig.sql(SETUP)
    first = rig.start()
    rig.until_complete()
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0, rig.log
    for file in rig.folder.glob("spool.db*"):
        file.unlink()
    assert rig.start().wait(20) == ContinuityBroken.exit_code
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
    assert other.start("--new-era").wait(30) == AnotherAgent.exit_code
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
