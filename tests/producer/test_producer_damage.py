"""Damage of the spool's file, under a running agent and while it is stopped: nothing of it is sent or passed over."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing

import pytest

from schemas.block import datums
from schemas.control import decode_reject
from tests.producer.conftest import PATIENCE_SECONDS
from tests.producer.gate import Gate

pytestmark = pytest.mark.slow

ROWS = 12_000
FILL = "INSERT INTO t SELECT n, (SELECT string_agg(md5((n * 31 + m)::text), '') FROM generate_series(1, 12) m) \
FROM generate_series({}, {}) n"
"""About 5 MB that do not compress: more than SQLite keeps in memory."""


@pytest.fixture
def outage(rig):
    """A rig behind a gate, its agent running, the table's snapshot taken."""
    gate = Gate(rig.aws.port)
    rig.kinesis_url, rig.block_bytes = f"http://127.0.0.1:{gate.port}", 64 * 1024
    rig.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    gate.open()
    yield rig, gate
    gate.shut()


def _fill(rig) -> None:
    """In transactions of a thousand, so that blocks begin and end between them."""
    for first in range(1, ROWS + 1, 1000):
        rig.sql(FILL.format(first, first + 999))


def _pending(rig, kind: str = "data") -> list[tuple[int, bytes, int, int]]:
    with closing(sqlite3.connect(f"file:{rig.folder}/spool.db?mode=ro", uri=True)) as db:
        return db.execute(
            "SELECT id, data, count, first_lsn FROM blocks WHERE state = 3 AND kind = ? ORDER BY id", (kind,)
        ).fetchall()


def _await_told(rig) -> None:
    """Until all of it lies in the spool, and the source knows."""
    end = rig.sql("SELECT pg_current_wal_insert_lsn()")
    rig.sql("SELECT pg_logical_emit_message(true, 'test', 'past the last change')")
    slot = f"SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE database = '{rig.name}'"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while rig.sql(slot) != "t":
        assert time.monotonic() < deadline, rig.log[-3000:]
        time.sleep(0.2)
    assert sum(count for _, _, count, _ in _pending(rig)) == ROWS


def _flip(rig, data: bytes) -> None:
    """A bit in the middle of a block's bytes, wherever the spool's files have them."""
    needle, found = data[len(data) // 2 :][:64], 0
    for name in ("spool.db", "spool.db-wal"):
        path = rig.folder / name
        if not path.exists():
            continue
        content = path.read_bytes()
        at = content.find(needle)
        while at >= 0:
            found += 1
            with path.open("r+b") as file:
                file.seek(at + 5)
                file.write(bytes([content[at + 5] ^ 0x10]))
            at = content.find(needle, at + 1)
    assert found


def _checkpoint(rig) -> None:
    """What an agent stopped in order does: to SQLite a damaged -wal ends there."""
    with closing(sqlite3.connect(rig.folder / "spool.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _ids(arrived) -> set[int]:
    return {row["id"] for row in arrived.rows.get("t", [])}


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_what_the_source_has_forgotten_is_declared(outage, stopped):
    """The block's place goes to the lake as a reject, which it takes for a hole; everything else arrives, in order, and
    a snapshot brings the rows."""
    rig, gate = outage
    agent = rig.start()
    rig.until(lambda seen: seen.snapshotted)
    gate.shut()
    _fill(rig)
    _await_told(rig)
    if stopped:
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(PATIENCE_SECONDS) == 0
        assert not any(log.stat().st_size for log in rig.folder.glob("spool.db-wal"))
    _, data, count, _ = _pending(rig)[1]
    _flip(rig, data)
    if stopped:
        agent = rig.start()
    gate.open()
    arrived = rig.until_complete()
    (reject,) = arrived.rejects
    assert f"{count} changes were damaged" in decode_reject(datums(reject)).reason
    assert len(_ids(arrived)) == len(arrived.rows["t"]) == ROWS - count
    assert arrived.lanes["t", "0"].mark >= reject.last > reject.first
    status = rig.status()
    assert (status["lost_blocks"], status["refetched_blocks"], status["healthy"]) == (1, 0, True)
    assert any("damaged" in warning for warning in status["warnings"])
    _ask_for_a_snapshot(rig)
    rig.until(lambda seen: len(seen.whole_snapshots("t")) == 2)
    assert rig.read().state("t").keys() == set(range(1, ROWS + 1))
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(PATIENCE_SECONDS) == 0


def test_what_the_source_still_has_is_captured_again(outage):
    """Killed before the source was told: the damaged block and all behind it come again, as if nothing had been."""
    rig, gate = outage
    agent = rig.start(failpoint="spool.after_commit:30")
    rig.until(lambda seen: seen.snapshotted)
    gate.shut()
    while agent.poll() is None:
        rig.sql("INSERT INTO t SELECT coalesce(max(id), 0) + 1, repeat('x', 100) FROM t")
    assert agent.returncode == -signal.SIGKILL
    rows = int(rig.sql("SELECT count(*) FROM t"))
    told = int(rig.sql(f"SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE database = '{rig.name}'"))
    _, data, _, first_lsn = _pending(rig)[-1]
    assert first_lsn >= told
    _checkpoint(rig)
    _flip(rig, data)
    gate.open()
    rig.start()
    arrived = rig.until_complete()
    assert sorted(row["id"] for row in arrived.rows["t"]) == list(range(1, rows + 1))
    assert arrived.rejects == []
    status = rig.status()
    assert (status["lost_blocks"], status["refetched_blocks"] > 0) == (0, True)


def test_a_damaged_snapshot_is_taken_again(outage):
    """A repair's, which nobody would miss otherwise: the table has a whole snapshot."""
    rig, _ = outage
    rig.sql(FILL.format(1, 1000))
    agent = rig.start(failpoint="snapshot.ended:2")
    rig.until(lambda seen: seen.snapshotted)
    _ask_for_a_snapshot(rig)
    assert agent.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    ((_, data, _, _),) = _pending(rig, "snapshot_end")
    _checkpoint(rig)
    _flip(rig, data)
    rig.start()
    arrived = rig.until(lambda seen: len(seen.whole_snapshots("t")) == 2)
    assert [end.snapshot for _, _, end in arrived.ends] == [1_000_001, 1_000_003]
    assert arrived.state("t").keys() == set(range(1, 1001))


def _ask_for_a_snapshot(rig) -> None:
    rig.aws.client("dynamodb").put_item(
        TableName="headrace-sources",
        Item={
            "source": {"S": rig.name},
            "item": {"S": "request:again"},
            "kind": {"S": "resnapshot"},
            "table": {"S": "t"},
        },
    )
