"""An outage of Kinesis while changes arrive: the spool and the slot hold them, in little memory.

HEADRACE_OUTAGE_CHANGES=1000000, or `make outage-agent`, is the long form.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest

from schemas.block import Kind, datums, decode
from schemas.control import decode_progress
from tests.producer.conftest import PATIENCE_SECONDS
from tests.producer.gate import Gate

pytestmark = pytest.mark.slow

CHANGES = int(os.environ.get("HEADRACE_OUTAGE_CHANGES", "30000"))
MOST_BYTES = 300 * 1024 * 1024


class Memory:
    """The most that any of the rig's agents has held."""

    def __init__(self, rig) -> None:
        self._rig = rig
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            for process in list(self._rig.processes):
                if process.poll() is None:
                    try:
                        self.peak_bytes = max(self.peak_bytes, psutil.Process(process.pid).memory_info().rss)
                    except psutil.NoSuchProcess:
                        continue


def _await(holds, what: str, rig, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}\n{rig.log[-3000:]}"
        time.sleep(0.2)


def _work(rig, first: int, count: int) -> None:
    """So many changes: rows come in transactions of 1,000, half of them change, a tenth goes."""
    rows = count * 10 // 16
    rig.sql(
        f"DO $$ BEGIN FOR n IN 0..{rows // 1000} LOOP"
        f" INSERT INTO accounts SELECT {first} + m, 0, md5(m::text)"
        f" FROM generate_series(n * 1000, least(n * 1000 + 999, {rows - 1})) m; COMMIT; END LOOP; END $$;"
        f" UPDATE accounts SET balance = 1 WHERE id >= {first} AND id % 2 = 0;"
        f" DELETE FROM accounts WHERE id >= {first} AND id % 10 = 0;"
    )


def _through(rig) -> int:
    """How far the stream says that the source is complete."""
    for data in reversed(rig.records()):
        block = decode(data)
        if block.kind is Kind.PROGRESS:
            return decode_progress(datums(block)).through
    return 0


def test_an_outage_loses_nothing_and_needs_little_memory(rig):
    """Kinesis unreachable, changes arriving, the agent killed once and stopped once meanwhile: afterwards every row is
    in the stream, each lane's chain is whole, and no agent ever held more than 300 MB."""
    rig.sql("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL, note text)")
    gate = Gate(rig.aws.port)
    rig.kinesis_url, rig.block_bytes = f"http://127.0.0.1:{gate.port}", 256 * 1024
    gate.open()
    agent = rig.start()
    with Memory(rig) as memory:
        rig.until(lambda seen: seen.snapshotted)
        gate.shut()
        confirmed = f"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'headrace_{rig.name}'"
        for number, end in enumerate((signal.SIGKILL, signal.SIGTERM, None)):
            _work(rig, number * CHANGES, CHANGES // 3)
            if number == 0:  # the first part lies in the spool, and the source was told
                lsn = rig.sql("SELECT pg_current_wal_insert_lsn()").strip()
                rig.sql("SELECT pg_logical_emit_message(true, 'test', 'past the last change')")
                _await(lambda lsn=lsn: rig.sql(f"SELECT ({confirmed}) >= '{lsn}'::pg_lsn") == "t", "spooled", rig, 300)
            if end is not None:
                agent.send_signal(end)
                agent.wait(PATIENCE_SECONDS)
                agent = rig.start()
        lsn = int(rig.sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
        rig.sql("SELECT pg_logical_emit_message(true, 'test', 'past the last change')")
        assert _through(rig) < lsn
        gate.open()
        _await(lambda: _through(rig) >= lsn, "the stream to be complete", rig, 600)
    arrived = rig.read()
    arrived.check_progress()
    lake = {key: (row["balance"], row["note"]) for key, row in arrived.state("accounts").items()}
    lines = (line.split("|") for line in rig.sql("SELECT id, balance, note FROM accounts").splitlines())
    assert lake == {int(key): (int(balance), note) for key, balance, note in lines}
    assert sum(map(len, arrived.rows.values())) >= CHANGES * 0.95
    assert memory.peak_bytes < MOST_BYTES, f"{memory.peak_bytes / 1e6:.0f} MB"
    gate.shut()
