"""`--check`: every part that the agent needs, tried without changing anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def check(rig, config: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "producer", "--config", str(config), "--check"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **rig.aws.environment()},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_part_is_said_to_be_ready_and_nothing_is_changed(rig) -> None:
    rig.sql("CREATE TABLE t (id int PRIMARY KEY)")
    status, said = check(rig, rig.config)
    assert (status, said.count("ok "), "failed" in said) == (0, 6, False), said
    assert rig.sql("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == "0"
    assert rig.sql("SELECT count(*) FROM pg_publication") == "0"


def test_a_running_agent_of_the_same_configuration_is_no_stranger(rig) -> None:
    """It reads the slot and has the spool; what a pattern means and cannot be captured is named, and no failure."""
    rig.sql("CREATE TABLE t (id int PRIMARY KEY)")
    rig.sql("CREATE TABLE keyless (id int)")
    rig.start()
    rig.until(lambda seen: "t" in seen.snapshotted)
    status, said = check(rig, rig.config)
    assert (status, "failed" in said) == (0, False), said
    assert "ok      agent: it runs" in said
    assert "ready, 1 tables: t\n        left out: table public.keyless has no key" in said


def test_all_that_is_missing_is_said_at_once(rig) -> None:
    """Each with what mends it; the status is that of the first."""
    rig.sql("CREATE TABLE t (id int)")
    config = rig.config
    config.write_text(
        config.read_text()
        .replace(f'stream = "{rig.name}"', 'stream = "nowhere"\ndynamodb_prefix = "no"')
        .replace(f"{rig.folder}/spool.db", f"{rig.folder}/missing/spool.db")
    )
    status, said = check(rig, config)
    assert status == 9, said
    for part in ("mkdir -p", "ADD PRIMARY KEY", "Kinesis stream nowhere: not found", "table no-sources", "no-schemas"):
        assert part in said
    assert said.count("failed ") == 5
