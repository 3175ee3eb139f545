"""The agent as a process between a real PostgreSQL and the laptop's Kinesis."""

from __future__ import annotations

import signal

import pytest

from producer import failpoints

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


@pytest.mark.parametrize("name", ["spool.after_commit", "sender.before_put", "sender.after_put", "source.confirmed"])
def test_a_kill_in_mid_stream_loses_nothing_and_doubles_nothing(rig, name):
    """The same for the twentieth time a line is crossed, inside a transaction larger than a block."""
    rig.sql(SETUP)
    agent = rig.start(failpoint=f"{name}:20")
    rig.sql("INSERT INTO accounts SELECT n, 0, md5(n::text) FROM generate_series(10001, 14000) n")
    while agent.poll() is None:
        rig.sql(TRANSFER.format(one=1, other=2))
    assert agent.returncode == -signal.SIGKILL, rig.log
    rig.sql(WORK)
    rig.start()
    assert _lake(rig.until_complete()) == _source(rig)
