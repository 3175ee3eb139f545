"""`make bench-agent`: the agent beside pg_recvlogical and Debezium Server, on one database and one workload.

In each round a workload is written once, and each drains it from a slot of its own into a Kinesis that takes
everything, in a process of its own whose ceiling is measured first. CPU is that of the agent from its first look at the
stream to the last acceptance. Parts run alone with --only; each writes its figures to bench/results/agent.json as it
has them.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import fastavro
from rich.console import Console

from bench import agent_source, null_kinesis
from bench.agent_contenders import (
    STEADY_AFTER,
    Drained,
    built_debezium,
    cpu_of,
    debezium,
    drained_by_debezium,
    drained_by_recvlogical,
    home,
    until,
)
from bench.agent_source import ROW, ROW_VALUES, BenchSource, Workload
from bench.harness import Row, report
from bench.null_kinesis import NullKinesis
from localaws.process import LocalAws
from localaws.process import running as aws_running
from producer.kinesis import KinesisStream, Record
from producer.settings import SpoolSettings
from schemas import block as blocks
from schemas.registry import Registry

_HEAPS: Final = ("96m", "128m", "192m", "256m", "384m", "512m")
_OF_ITS_RATE: Final = 0.95
_LATENCY_RATE: Final = 500
_POLL_MS: Final = 10
_MIB: Final = 1024 * 1024
console: Final = Console(stderr=True)


@dataclass(frozen=True)
class Bench:
    """What every part works with. jar: Debezium Server's; None leaves it out."""

    source: BenchSource
    aws: LocalAws
    kinesis: NullKinesis
    jar: Path | None
    changes: int
    runs: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=400_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the latency and the idle part")
    parser.add_argument("--without", choices=["debezium"])
    parser.add_argument("--only", choices=list(PARTS), action="append", help="run this part alone")
    options = parser.parse_args()
    chosen = options.only or list(PARTS)
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder,
        agent_source.running() as source,
        null_kinesis.running() as kinesis,
        aws_running(Path(folder) / "aws") as aws,
    ):
        _make_tables(aws.client("dynamodb"))
        jar = None
        if options.without is None and {"drain", "heap", "latency"} & set(chosen):
            console.print("building Debezium Server")
            (Path(folder) / "debezium").mkdir()
            jar = built_debezium(Path(folder) / "debezium")
        bench = Bench(source, aws, kinesis, jar, options.changes, options.runs, options.seconds)
        for part in chosen:
            console.print(f"part {part}")
            report("agent", [*PARTS[part](bench)])


def _make_tables(dynamodb: Any) -> None:
    for name, keys in (("schemas", "subject:S version:N"), ("sources", "source:S item:S")):
        pairs = [key.split(":") for key in keys.split()]
        dynamodb.create_table(
            TableName=f"headrace-{name}",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in pairs],
            KeySchema=[
                {"AttributeName": key, "KeyType": role} for (key, _), role in zip(pairs, ("HASH", "RANGE"), strict=True)
            ],
        )


# ---- parts


def _ceiling(bench: Bench) -> Iterator[Row]:
    """What the null Kinesis takes from a client that does nothing else."""
    stream = KinesisStream(bench.aws.client("kinesis", endpoint_url=bench.kinesis.endpoint), "bench")
    for size, many in ((1_000, 500), (400_000, 20)):
        records = [Record(bytes(size), "k", "0")] * many
        rates = []
        for _ in range(bench.runs):
            started = time.monotonic()
            for _ in range(10):
                stream.put(records)
            rates.append(round(10 * many / (time.monotonic() - started)))
        yield Row(f"null Kinesis, records of {size} B", "records / s", tuple(rates), part="ceiling")


def _drain(bench: Bench) -> Iterator[Row]:
    """The plain workload, contender after contender, run after run."""
    ours, peer, other = _drained(bench, agent_source.plain(bench.source, bench.changes), bench.jar)
    yield from _rows("drain", "drain", ours, peer, "at least pg_recvlogical", lambda us, them: us >= them)
    yield Row("drain, CPU", "us / change", _of(ours, "cpu"), _of(peer, "cpu"), "pg_recvlogical", "<= 6",
              _median(ours, "cpu") <= 6, "drain")  # fmt: skip
    yield Row("memory", "MiB", _memory(ours), _memory(peer), "pg_recvlogical", part="drain")
    if not other:
        return
    steady = f"Debezium Server after {STEADY_AFTER:,} changes"
    rate, cpu = _median(other, "steady_rate"), _median(other, "steady_cpu")
    yield Row("drain, beside Debezium", "changes / s", _of(ours, "rate"), _of(other, "rate"), "Debezium Server",
              part="drain")  # fmt: skip
    yield Row("drain, beside Debezium's steady state", "changes / s", _of(ours, "rate"), _of(other, "steady_rate"),
              steady, ">= 6 x", _median(ours, "rate") >= 6 * rate, "drain")  # fmt: skip
    yield Row("CPU, beside Debezium's steady state", "us / change", _of(ours, "cpu"), _of(other, "steady_cpu"), steady,
              "<= 1/8", _median(ours, "cpu") <= cpu / 8, "drain")  # fmt: skip
    yield Row("CPU, beside Debezium", "us / change", _of(ours, "cpu"), _of(other, "cpu"), "Debezium Server",
              part="drain")  # fmt: skip
    sent = _median(other, "bytes")
    yield Row("record data", "B / change", _of(ours, "bytes"), _of(other, "bytes"), "Debezium Server", "<= 1/7",
              _median(ours, "bytes") <= sent / 7, "drain")  # fmt: skip
    yield Row("memory, beside Debezium's default heap", "MiB", _memory(ours), _memory(other), "Debezium Server",
              part="drain")  # fmt: skip


def _heap(bench: Bench) -> Iterator[Row]:
    """Debezium in the smallest heap that keeps most of its rate: that is the memory it needs."""
    if bench.jar is None:
        return
    workload = agent_source.plain(bench.source, bench.changes)
    with home(bench.source, workload.dbname, workload.slot, bench.aws, bench.kinesis) as place:
        place.begin(workload.tables)
        slots = {heap: bench.source.copied_slot(workload) for heap in (None, *_HEAPS)}
        changes = bench.source.write(workload)
        ours = place.drain(changes, bench.kinesis)
    free = drained_by_debezium(bench.source, workload, slots[None], changes, bench.kinesis, bench.jar)
    for heap in _HEAPS:
        try:
            small = drained_by_debezium(bench.source, workload, slots[heap], changes, bench.kinesis, bench.jar, heap)
        except RuntimeError as error:
            console.print(f"heap {heap}: {str(error)[:200]}")
            continue
        console.print(f"heap {heap}: {small.steady_rate:.0f}/s of {free.steady_rate:.0f}/s")
        if small.steady_rate >= _OF_ITS_RATE * free.steady_rate:
            peer = f"Debezium Server, -Xmx{heap}"
            met = ours.peak_bytes <= small.peak_bytes / 10
            yield Row("memory, beside the smallest heap at 95% of the rate", "MiB", _memory([ours]), _memory([small]),
                      peer, "<= 1/10", met, "heap")  # fmt: skip
            return


def _general(bench: Bench) -> Iterator[Row]:
    workload = agent_source.general(bench.source, bench.changes)
    yield from _against_bound(
        bench, workload, "general", "TOAST, old rows, wide numerics, arrays, small tables", 60_000
    )


def _tables(bench: Bench) -> Iterator[Row]:
    workload = agent_source.many_tables(bench.source, bench.changes)
    yield from _against_bound(bench, workload, "tables", "200 tables in transactions of five changes", 80_000)


def _against_bound(bench: Bench, workload: Workload, part: str, measure: str, bound: int) -> Iterator[Row]:
    ours, peer, _ = _drained(bench, workload, None)
    yield from _rows(part, measure, ours, peer, f">= {bound:,}", lambda us, _: us >= bound)
    yield Row(f"{measure}, CPU", "us / change", _of(ours, "cpu"), _of(peer, "cpu"), "pg_recvlogical", part=part)


def _snapshot(bench: Bench) -> Iterator[Row]:
    """A table by two readers, beside COPY of its halves by two sessions into nothing."""
    rows = 4 * bench.changes
    dbname = bench.source.database(f"CREATE TABLE t ({ROW})")
    with bench.source.connect(dbname) as connection:
        connection.execute(f"INSERT INTO t SELECT {ROW_VALUES} FROM generate_series(1::bigint, {rows}) n".encode())
        connection.execute(b"VACUUM ANALYZE t")
    ours, cpu, peer = [], [], []
    for run in range(bench.runs):
        peer.append(round(rows / _copied(bench.source, dbname, rows)))
        rate, used = _snapshotted(bench, dbname, rows, f"snap_{run}")
        ours.append(round(rate))
        cpu.append(round(used, 2))
    yield Row("snapshot, two readers", "rows / s", tuple(ours), tuple(peer), "COPY TO, two sessions", ">= 300,000",
              statistics.median(ours) >= 300_000, "snapshot")  # fmt: skip
    yield Row("snapshot, CPU", "us / row", tuple(cpu), part="snapshot")


def _snapshotted(bench: Bench, dbname: str, rows: int, slot: str) -> tuple[float, float]:
    """Rows a second from the first look at the table until the last row was spooled, and CPU a row."""
    more = f"[snapshot]\nreaders = 2\ngroup_bytes = {max(_MIB, rows * 280 // 16)}"
    with home(bench.source, dbname, slot, bench.aws, bench.kinesis, more=more) as place, place.running() as ours:
        ours.await_capture()
        began, cpu = time.time(), cpu_of(ours.process.pid)

        def ended() -> list[dict[str, Any]]:
            read = [event for event in ours.events() if event["event"] == "snapshot read"]
            return read if sum(event["rows"] for event in read) >= rows else []

        read = until("the snapshot", ended, ours.process, 0.05)
        used = cpu_of(ours.process.pid) - cpu
        last = max(_moment(event["at"]) for event in read)
    bench.source.drop_slot(dbname, slot)
    return rows / (last - began), used / rows * 1e6


def _copied(source: BenchSource, dbname: str, rows: int) -> float:
    started = time.monotonic()
    halves = [f"id <= {rows // 2}", f"id > {rows // 2}"]
    sessions = [
        subprocess.Popen(
            [str(source.server.bin("psql")), "-Xqd", source.dsn(dbname), "-c",
             f"COPY (SELECT * FROM t WHERE {half}) TO STDOUT"],
            stdout=subprocess.DEVNULL,
        )
        for half in halves
    ]  # fmt: skip
    for session in sessions:
        session.wait()
    return time.monotonic() - started


def _latency(bench: Bench) -> Iterator[Row]:
    """From commit to accepted, at a steady trickle of transactions of one row."""
    lingers = (_POLL_MS, SpoolSettings.linger_ms)
    ours: dict[int, list[list[float]]] = {linger: [] for linger in lingers}
    theirs = []
    for run in range(bench.runs):
        for linger in lingers:
            ours[linger].append(_latencies_of_agent(bench, f"lat_{run}_{linger}", linger))
        if bench.jar is not None:
            theirs.append(_latencies_of_debezium(bench, f"dlat_{run}"))
    for linger in lingers:
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            yield Row(
                f"commit to accepted at {_LATENCY_RATE} changes/s, linger {linger} ms, {name}",
                "ms",
                tuple(round(_quantile(times, share) * 1000, 1) for times in ours[linger]),
                tuple(round(_quantile(times, share) * 1000, 1) for times in theirs),
                f"Debezium Server, polling every {_POLL_MS} ms" if theirs else None,
                part="latency",
            )


def _latencies_of_agent(bench: Bench, slot: str, linger: int) -> list[float]:
    dbname = bench.source.database(f"CREATE TABLE t ({ROW})")
    more = f"linger_ms = {linger}"
    with home(bench.source, dbname, slot, bench.aws, bench.kinesis, more=more) as place, place.running() as ours:
        ours.await_snapshots(1)
        bench.kinesis.reset(keep=True)
        rows = _trickle(bench, dbname)
        until("every change", lambda: ours.accepted() >= rows, ours.process)
        registry = Registry(bench.aws.client("dynamodb"), "headrace-schemas")
        found = [moment for at, data in bench.kinesis.records() for moment in _of_block(at, data, registry)]
    bench.source.drop_slot(dbname, slot)
    assert len(found) == rows, f"{len(found)} changes came, {rows} were made"
    return found


def _of_block(at: float, data: bytes, registry: Registry) -> list[float]:
    block = blocks.decode(data)
    if block.kind is not blocks.Kind.DATA:
        return []
    schema = fastavro.parse_schema(registry.by_fingerprint(block.schema).schema.to_avro())
    stream, found = io.BytesIO(blocks.datums(block)), []
    for _ in range(block.count):
        row = fastavro.schemaless_reader(stream, schema, None)
        assert isinstance(row, dict)
        found.append(at - row["_committed_at"].timestamp())
    return found


def _latencies_of_debezium(bench: Bench, slot: str) -> list[float]:
    assert bench.jar is not None
    dbname = bench.source.database(f"CREATE TABLE t ({ROW})")
    with bench.source.connect(dbname) as connection:
        connection.execute(b"SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        bench.kinesis.reset(keep=True)
        with debezium(bench.source, dbname, slot, bench.kinesis, bench.jar, poll=_POLL_MS) as process:
            connection.execute(f"INSERT INTO t SELECT {ROW_VALUES} FROM generate_series(-1::bigint, -1) n".encode())
            until("Debezium's first record", lambda: bench.kinesis.counts()["records"], process)
            _trickle(bench, dbname, seconds=bench.seconds / 4, first=10_000_000)  # so that its code is compiled
            _settle(bench)
            bench.kinesis.reset(keep=True)
            rows = _trickle(bench, dbname)
            until("every change", lambda: bench.kinesis.counts()["records"] >= rows, process)
            records = bench.kinesis.records()
    bench.source.drop_slot(dbname, slot)
    return [at - json.loads(data)["source"]["ts_us"] / 1e6 for at, data in records]


def _settle(bench: Bench) -> None:
    """Wait until no more records come."""
    before = -1
    while (now := int(bench.kinesis.counts()["records"])) != before:
        before = now
        time.sleep(1.0)


def _trickle(bench: Bench, dbname: str, *, seconds: float | None = None, first: int = 1) -> int:
    """Rows one by one, each in a transaction of its own, evenly; how many."""
    count = int((bench.seconds if seconds is None else seconds) * _LATENCY_RATE)
    with bench.source.connect(dbname) as connection:
        started = time.monotonic()
        for number in range(count):
            insert = f"INSERT INTO t SELECT {ROW_VALUES} FROM (VALUES ({first + number}::bigint)) x (n)"
            connection.execute(insert.encode())
            time.sleep(max(0.0, started + (number + 1) / _LATENCY_RATE - time.monotonic()))
    return count


def _idle(bench: Bench) -> Iterator[Row]:
    """CPU of an agent that has nothing to do."""
    dbname = bench.source.database(f"CREATE TABLE t ({ROW})")
    shares = []
    with home(bench.source, dbname, "idle", bench.aws, bench.kinesis) as place, place.running() as ours:
        ours.await_snapshots(1)
        time.sleep(3)
        for _ in range(bench.runs):
            cpu, started = cpu_of(ours.process.pid), time.monotonic()
            time.sleep(bench.seconds)
            shares.append(round((cpu_of(ours.process.pid) - cpu) / (time.monotonic() - started) * 100, 2))
    bench.source.drop_slot(dbname, "idle")
    yield Row("idle agent", "% of a core", tuple(shares), goal="< 0.5", met=statistics.median(shares) < 0.5,
              part="idle")  # fmt: skip


PARTS: Final[dict[str, Callable[[Bench], Iterator[Row]]]] = {
    "ceiling": _ceiling,
    "drain": _drain,
    "heap": _heap,
    "general": _general,
    "tables": _tables,
    "snapshot": _snapshot,
    "latency": _latency,
    "idle": _idle,
}


# ---- figures


def _drained(bench: Bench, workload: Workload, jar: Path | None) -> tuple[list[Drained], list[Drained], list[Drained]]:
    """Ours, pg_recvlogical's and Debezium's drains, in turn."""
    ours, peer, other = [], [], []
    with home(bench.source, workload.dbname, workload.slot, bench.aws, bench.kinesis) as place:
        place.begin(workload.tables)
        for _ in range(bench.runs):
            slots = [bench.source.copied_slot(workload) for _ in range(2)]
            changes = bench.source.write(workload)
            peer.append(drained_by_recvlogical(bench.source, workload, slots[0], changes))
            ours.append(place.drain(changes, bench.kinesis))
            if jar is not None:
                other.append(drained_by_debezium(bench.source, workload, slots[1], changes, bench.kinesis, jar))
            else:
                bench.source.drop_slot(workload.dbname, slots[1])
            console.print(f"  {ours[-1].rate:.0f}/s at {ours[-1].cpu:.2f} us, pg_recvlogical {peer[-1].rate:.0f}/s")
    return ours, peer, other


def _rows(
    part: str, measure: str, ours: Sequence[Drained], peer: Sequence[Drained], goal: str,
    met: Callable[[float, float], bool],
) -> Iterator[Row]:  # fmt: skip
    us, them = _median(ours, "rate"), _median(peer, "rate")
    yield Row(measure, "changes / s", _of(ours, "rate"), _of(peer, "rate"), "pg_recvlogical, binary", goal,
              met(us, them), part)  # fmt: skip


def _of(drains: Sequence[Drained], name: str) -> tuple[float, ...]:
    return tuple(round(getattr(drain, name), 2) for drain in drains)


def _memory(drains: Sequence[Drained]) -> tuple[float, ...]:
    return tuple(round(drain.peak_bytes / _MIB, 1) for drain in drains)


def _median(drains: Sequence[Drained], name: str) -> float:
    return statistics.median(_of(drains, name))


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
