"""What becomes of the agent when its PostgreSQL crashes, is restored from a copy, or is replaced by a standby."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress

import pytest

from ops.errors import PostgresFailed
from ops.postgres_server import PostgresServer
from producer.errors import ContinuityBroken, SourceRefused
from tests.producer.conftest import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

SETUP = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT n, 0 FROM generate_series(1, 100) n;"


def _same(rig, arrived) -> bool:
    lines = rig.sql("SELECT id, v FROM t").splitlines()
    source = {int(line.split("|")[0]): int(line.split("|")[1]) for line in lines}
    return {key: row["v"] for key, row in arrived.state("t").items()} == source


def _insert(rig, low: int) -> None:
    rig.sql(f"INSERT INTO t SELECT n, n FROM generate_series({low}, {low} + 49) n; UPDATE t SET v = v + 1 WHERE id < 9")


def _kill(server: PostgresServer) -> None:
    """A power failure for the server alone: the postmaster is killed, and its children see that it is gone."""
    os.kill(server.pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while server.pid is not None:
        assert time.monotonic() < deadline


def _start(server: PostgresServer, seconds: float = PATIENCE_SECONDS) -> None:
    """Starts a server whose killed predecessor's children may still be going."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(PostgresFailed):
            server.start()
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _back_up(server: PostgresServer) -> None:
    server.stop("fast")
    subprocess.run(["cp", "-a", str(server.folder / "data"), str(server.folder / "backup")], check=True)
    server.start()


def _restore(server: PostgresServer) -> None:
    server.stop("fast")
    shutil.rmtree(server.folder / "data")
    (server.folder / "backup").rename(server.folder / "data")
    server.start()


def test_a_restarted_and_a_crashed_server_are_waited_for(own_rig):
    """The agent goes on by itself: nothing is missing, nothing is there twice."""
    rig = own_rig
    rig.sql(SETUP)
    agent = rig.start()
    rig.until_complete()
    _insert(rig, 1000)
    rig.postgres.stop("fast")
    rig.postgres.start()
    _insert(rig, 2000)
    _kill(rig.postgres)
    _start(rig.postgres)
    _insert(rig, 3000)
    assert _same(rig, rig.until_complete())
    assert agent.poll() is None, rig.log


def test_a_restored_copy_is_refused_until_a_new_era(own_rig):
    """Its log ends before the spool's: other changes would come at positions that the lake knows already."""
    rig = own_rig
    rig.sql(SETUP)
    agent = rig.start()
    rig.until_complete()
    _back_up(rig.postgres)
    _insert(rig, 1000)
    rig.until_complete()
    _restore(rig.postgres)
    assert agent.wait(PATIENCE_SECONDS) == ContinuityBroken.exit_code
    assert "restored from a backup" in rig.log
    _insert(rig, 5000)
    rig.start("--new-era")
    assert _same(rig, rig.until(lambda seen: len(seen.whole_snapshots("t")) == 2) and rig.until_complete())


def test_a_restored_copy_that_has_moved_on_is_found_by_its_history(own_rig):
    """Nobody looked until it had written past the spool's end: other transactions stand at positions spooled before."""
    rig = own_rig
    rig.sql(SETUP)
    agent = rig.start()
    rig.until_complete()
    _back_up(rig.postgres)
    _insert(rig, 1000)
    rig.until_complete()
    agent.terminate()
    assert agent.wait(PATIENCE_SECONDS) == 0
    _restore(rig.postgres)
    for low in range(5000, 6000, 100):
        _insert(rig, low)
    assert rig.start().wait(PATIENCE_SECONDS) == ContinuityBroken.exit_code
    assert "has another history than the spool" in rig.log
    rig.start("--new-era")
    assert _same(rig, rig.until(lambda seen: len(seen.whole_snapshots("t")) == 2) and rig.until_complete())


def test_a_promoted_standby_goes_on_once_continuity_is_proven(own_rig):
    """Its failover slot stands where the agent's did: with the operator's word the era goes on, without a snapshot."""
    rig = own_rig
    primary = rig.postgres
    rig.sql(SETUP)
    agent = rig.start()
    rig.until_complete()
    standby = _standby_of(primary)
    _insert(rig, 1000)
    rig.until_complete()
    _sync_slots(rig, standby)
    primary.stop("fast")
    standby.psql("SELECT pg_promote()")
    rig.postgres = standby
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(PATIENCE_SECONDS) == 0, rig.log
    assert rig.start().wait(PATIENCE_SECONDS) == ContinuityBroken.exit_code
    assert "--prove-continuity" in rig.log
    _insert(rig, 2000)
    rig.start("--prove-continuity")
    arrived = rig.until_complete()
    assert _same(rig, arrived)
    assert ({progress.era for progress in arrived.progress}, len(arrived.whole_snapshots("t"))) == ({1}, 1)


def _standby_of(primary: PostgresServer) -> PostgresServer:
    folder = primary.folder.parent / "standby"
    folder.mkdir()
    subprocess.run(
        [
            *(primary.bin("pg_basebackup"), "-d", primary.dsn, "-D", str(folder / "data"), "-c", "fast"),
            *("-R", "-C", "-S", "standby", "-X", "stream"),
        ],
        check=True,
        capture_output=True,
    )
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534:65534", str(folder / "data")], check=True)
    settings = {**primary.settings, "hot_standby_feedback": "on", "primary_conninfo": primary.dsn}
    return PostgresServer(folder, settings=settings).start()


def _sync_slots(rig, standby: PostgresServer, seconds: float = PATIENCE_SECONDS) -> None:
    """Until the standby has the agent's slot: once the slot needs nothing that the standby may have cleaned away."""
    ready = f"SELECT 1 FROM pg_replication_slots WHERE slot_name = 'headrace_{rig.name}' AND synced AND NOT temporary"
    deadline = time.monotonic() + seconds
    while not standby.psql(ready):
        assert time.monotonic() < deadline, standby.log_path.read_text()[-3000:]
        rig.sql("SELECT pg_log_standby_snapshot(), pg_logical_emit_message(false, 'test', 'on')")
        standby.psql("SELECT pg_sync_replication_slots()")


def test_a_slot_that_somebody_advanced_is_a_loss(own_rig):
    """What lies between the spool's end and the slot will never come: named, and mended by a new era only."""
    rig = own_rig
    rig.sql(SETUP)
    agent = rig.start()
    rig.until_complete()
    agent.terminate()
    assert agent.wait(PATIENCE_SECONDS) == 0
    _insert(rig, 1000)
    rig.sql(f"SELECT pg_replication_slot_advance('headrace_{rig.name}', pg_current_wal_lsn())")
    assert rig.start().wait(PATIENCE_SECONDS) == ContinuityBroken.exit_code
    assert "what lies between is lost" in rig.log
    assert rig.start("--prove-continuity").wait(PATIENCE_SECONDS) == ContinuityBroken.exit_code
    rig.start("--new-era")
    assert _same(rig, rig.until(lambda seen: len(seen.whole_snapshots("t")) == 2) and rig.until_complete())


def test_an_invalidated_slot_is_a_loss(own_rig):
    """The source kept as much log as it may and dropped the rest: the slot has to go, by order, before a new era."""
    rig = own_rig
    rig.sql(SETUP)
    agent = rig.start()
    rig.until_complete()
    agent.terminate()
    assert agent.wait(PATIENCE_SECONDS) == 0
    rig.postgres.psql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    rig.postgres.psql("SELECT pg_reload_conf()")
    lost = f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'headrace_{rig.name}'"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while rig.sql(lost) != "lost":
        assert time.monotonic() < deadline, rig.sql(lost)
        rig.sql("SELECT pg_logical_emit_message(false, 'test', 'on'), pg_switch_wal()")
        rig.sql("CHECKPOINT")
    assert rig.start().wait(PATIENCE_SECONDS) == SourceRefused.exit_code
    assert "was invalidated, changes are lost" in rig.log
    assert rig.start("--drop-slot").wait(PATIENCE_SECONDS) == 0
    rig.start("--new-era")
    assert _same(rig, rig.until(lambda seen: len(seen.whole_snapshots("t")) == 2) and rig.until_complete())
