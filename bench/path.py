"""`make bench-path`: the whole path, in place: changes a second, bytes a change, CPU seconds a million changes.

A stack as `headrace up` makes it. Each run updates every row of pgbench_accounts (4 columns, 96 bytes of filler) in
transactions of 1,000 rows, as fast as the source takes them, and waits until the last of them is visible at the cut.
CPU is that of the agent, of the streaming job (JVM and Python) and of one fold; the peer of the agent is
pg_recvlogical, which drains the same changes from a slot of its own afterwards.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import psycopg
from rich.console import Console

from bench.harness import Row, TreeCpu, report
from ops import stack, up
from ops.demo import measures
from ops.stack import Stack
from ops.waiting import until
from schemas.position import parse_lsn

STACK: Final = "bench"
TRANSACTION_ROWS: Final = 1_000
_PEER_SLOT: Final = "bench_peer"
_PUBLICATION: Final = "bench_peer"
_WAIT_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Measured:
    """One run: seconds from the first commit to visible at the cut, CPU seconds of each stage."""

    changes: int
    seconds: float
    agent_cpu: float
    stream_cpu: float
    peer_cpu: float
    peer_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    console = Console(stderr=True)
    stack.remove(STACK)
    made = stack.create(STACK)
    try:
        up.start(made, console.print)
        up.await_views(made, console.print)
        _peer_slot(made)
        measured = [_run(made, number) for number in range(runs)]
        wire = measures.wire(made.aws.client("kinesis"), made.names.stream)
    finally:
        made.stop()
    report("path", _rows(measured, wire.bytes_per_change))


def _rows(measured: list[Measured], bytes_per_change: float | None) -> list[Row]:
    def million(pick: str) -> tuple[float, ...]:
        return tuple(round(getattr(run, pick) / run.changes * 1e6, 2) for run in measured)

    return [
        Row("agent CPU", "s / million changes", million("agent_cpu"), million("peer_cpu"), "pg_recvlogical"),
        Row("streaming job CPU, its clock included", "s / million changes", million("stream_cpu")),
        Row("whole path", "changes / s", tuple(round(run.changes / run.seconds, 1) for run in measured)),
        Row(
            "drain by the peer",
            "changes / s",
            (),
            tuple(round(run.changes / run.peer_seconds, 1) for run in measured),
            "pg_recvlogical",
        ),
        Row("wire", "bytes / change", () if bytes_per_change is None else (round(bytes_per_change, 1),)),
    ]


def _run(made: Stack, number: int) -> Measured:
    agent = made.processes.get("agent")
    assert agent is not None
    with psycopg.connect(made.facts.dsn, autocommit=True) as connection:
        accounts = _one(connection, "SELECT count(*) FROM pgbench_accounts")
        with TreeCpu(agent.pid) as agent_cpu, TreeCpu(_stream_pid(made)) as stream_cpu:
            started = time.monotonic()
            for low in range(0, accounts, TRANSACTION_ROWS):
                connection.execute(
                    "UPDATE pgbench_accounts SET abalance = abalance + %s WHERE aid > %s AND aid <= %s",
                    [number + 1, low, low + TRANSACTION_ROWS],
                )
            end = parse_lsn(str(_text(connection, "SELECT pg_current_wal_insert_lsn()")))
            until(lambda: _cut_lsn(made) >= end - 1, "the changes to be visible at the cut", _WAIT_SECONDS, 0.2)
            seconds = time.monotonic() - started
        peer_cpu, peer_seconds = _drain_by_peer(made, _text(connection, "SELECT pg_current_wal_insert_lsn()"))
    return Measured(accounts, seconds, agent_cpu.seconds, stream_cpu.seconds, peer_cpu, peer_seconds)


def _cut_lsn(made: Stack) -> int:
    rows = made.athena().run(f'SELECT lsn FROM "{made.source}_cut".watermark').rows
    return int(rows[0][0] or 0)


def _stream_pid(made: Stack) -> int:
    """The process of the streaming job's run, by what the laptop's Glue wrote down of it."""
    runs = made.aws.client("glue").get_job_runs(JobName=made.names.stream_job)["JobRuns"]
    active = next(run["Id"] for run in runs if run["JobRunState"] == "RUNNING")
    return int(json.loads((made.aws_state / "glue_runs" / active / "run.json").read_text())["process_id"])


def _peer_slot(made: Stack) -> None:
    with psycopg.connect(made.facts.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE PUBLICATION {_PUBLICATION} FOR TABLE pgbench_accounts".encode())
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [_PEER_SLOT])


def _drain_by_peer(made: Stack, end: str) -> tuple[float, float]:
    """CPU and wall seconds of pg_recvlogical for the same changes, from its own slot, up to `end`."""
    command = [
        str(Path(made.postgres.bin("pg_recvlogical"))), "--dbname", made.facts.dsn, "--slot", _PEER_SLOT, "--start",
        "--endpos", end, "--file", "/dev/null", "--no-loop",
        "--option", "proto_version=1", "--option", f"publication_names={_PUBLICATION}",
    ]  # fmt: skip
    started = time.monotonic()
    child = subprocess.Popen(command)
    with psycopg.connect(made.facts.dsn, autocommit=True) as connection:  # so that the end is reached on a quiet source
        connection.execute("SELECT pg_logical_emit_message(false, 'bench', '')")
    process = psutil.Process(child.pid)
    used = 0.0
    while child.poll() is None:
        times = process.cpu_times()
        used = times.user + times.system
        time.sleep(0.02)
    return used, time.monotonic() - started


def _one(connection: psycopg.Connection[tuple[int]], sql: str) -> int:
    return int(_text(connection, sql))


def _text(connection: psycopg.Connection[tuple[int]], sql: str) -> str:
    row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return str(row[0])


if __name__ == "__main__":
    main()
