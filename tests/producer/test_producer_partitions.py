"""What comes with a partition is in no stream: the agent sees it, and reads the table again."""

from __future__ import annotations

import pytest

from tests.producer.conftest import PATIENCE_SECONDS

pytestmark = pytest.mark.slow


def test_rows_of_an_attached_partition_arrive(rig):
    """Attached under a running agent, and while it is stopped: a snapshot brings the rows without being asked for."""
    rig.tables, rig.look_seconds = ("public.t",), 1.0
    rig.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE t0 PARTITION OF t FOR VALUES FROM (0) TO (10); INSERT INTO t VALUES (1, 'a')"
    )
    agent = rig.start()
    rig.until(lambda seen: seen.snapshotted)
    path = rig.folder / "spool.db.partitions.json"
    rig.until(lambda _: path.exists())  # it has looked twice
    rig.sql(_attach(1))
    rig.until(lambda seen: len(seen.whole_snapshots("t")) == 2)
    assert rig.read().state("t").keys() == {1, 15}
    rig.until(lambda _: '"t1"' in path.read_text())
    agent.terminate()
    assert agent.wait(PATIENCE_SECONDS) == 0
    rig.sql(_attach(2))
    rig.start()
    rig.until(lambda seen: len(seen.whole_snapshots("t")) == 3)
    assert rig.read().state("t").keys() == {1, 15, 25}


def _attach(number: int) -> str:
    return (
        f"BEGIN; CREATE TABLE t{number} (LIKE t); INSERT INTO t{number} VALUES ({number}5, 'b');"
        f"ALTER TABLE t ATTACH PARTITION t{number} FOR VALUES FROM ({number}0) TO ({number + 1}0); COMMIT"
    )
