"""A PostgreSQL, an AWS, and an agent as a process: what the end-to-end tests of the agent stand on."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
import pytest

from glue_streaming.chain import Duplicate, Lane, Load, advance, judge
from localaws.process import LocalAws, running
from ops.postgres_server import PostgresServer
from ops.provision import dynamodb_table
from producer.change import Change
from producer.spool import Spool
from schemas.block import Block, Kind, datums, decode
from schemas.change_record import Column, TableSchema
from schemas.control import Progress, SnapshotEnd, decode_progress, decode_snapshot_end
from schemas.position import Position
from schemas.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 180
"""How long what has to happen may take on a slow machine that has other work. No wait lasts longer than its cause."""


@pytest.fixture(scope="session")
def producer_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with running(tmp_path_factory.mktemp("aws")) as server:
        for table in ("schemas", "sources"):
            dynamodb_table(server.client("dynamodb"), table, f"headrace-{table}")
        server.client("s3").create_bucket(Bucket="headrace-lake")
        yield server


@pytest.fixture(scope="session")
def producer_postgres() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="headrace-pg-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "pg", settings={"fsync": "off", "wal_level": "logical"})
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


@dataclass
class Rig:
    """One source database of its own, one stream of its own, and agents that are started and killed on them."""

    name: str
    folder: Path
    postgres: PostgresServer
    aws: LocalAws
    lanes: int = 1
    group_bytes: int = 1 << 30
    block_bytes: int = 4096
    kinesis_url: str | None = None
    tables: tuple[str, ...] = ("public.*",)
    streaming: bool = False
    look_seconds: float | None = None
    """How often the agent looks at its tables, where that is not to be as often as at a site."""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def sql(self, text: str) -> str:
        return self.postgres.psql(text, self.name)

    @property
    def config(self) -> Path:
        path = self.folder / "agent.toml"
        path.write_text(
            f"""
            [source]
            name = "{self.name}"
            dsn = "{self.postgres.dsn_of(self.name)}"
            streaming = {str(self.streaming).lower()}
            [spool]
            path = "{self.folder}/spool.db"
            linger_ms = 20
            block_bytes = {self.block_bytes}
            [aws]
            stream = "{self.name}"
            endpoint_url = "{self.aws.endpoint}"
            endpoints = {{ kinesis = "{self.kinesis_url or self.aws.endpoint}" }}
            [snapshot]
            group_bytes = {self.group_bytes}
            [health]
            port = 0
            """
            + "".join(f'[[tables]]\nname = "{name}"\nlanes = {self.lanes}\n' for name in self.tables)
        )
        return path

    def start(self, *options: str, failpoint: str = "") -> subprocess.Popen[bytes]:
        with (self.folder / "agent.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *self._agent, "--config", str(self.config), *options],
                cwd=ROOT,
                env={**os.environ, **self.aws.environment(), "HEADRACE_FAILPOINT": failpoint},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    @property
    def _agent(self) -> tuple[str, str]:
        if self.look_seconds is None:
            return "-m", "producer"
        text = "import sys; from producer import __main__, agent; agent._TABLES_SECONDS = {}; sys.exit(__main__.main())"
        return "-c", text.format(self.look_seconds)

    def status(self) -> dict[str, Any]:
        """What the agent that was started last says of itself."""
        lines = [json.loads(line) for line in self.log.splitlines() if "health page" in line]
        with urllib.request.urlopen(f"http://127.0.0.1:{lines[-1]['port']}/status") as answer:
            return dict(json.load(answer))

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def read(self) -> Arrived:
        return Arrived.of(self.records(), Registry(self.aws.client("dynamodb"), "headrace-schemas"))

    def records(self) -> list[bytes]:
        kinesis = self.aws.client("kinesis")
        found = []
        for shard in kinesis.list_shards(StreamName=self.name)["Shards"]:
            iterator = kinesis.get_shard_iterator(
                StreamName=self.name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while True:
                page = kinesis.get_records(ShardIterator=iterator)
                found += [record["Data"] for record in page["Records"]]
                iterator = page.get("NextShardIterator")
                if not iterator or page["MillisBehindLatest"] == 0:
                    break
        return found

    def until(self, holds: Callable[[Arrived], bool], seconds: float = PATIENCE_SECONDS) -> Arrived:
        deadline = time.monotonic() + seconds
        while not holds(seen := self.read()):
            assert time.monotonic() < deadline, f"{seen.summary()}\n{self.log[-4000:]}"
            time.sleep(0.3)
        return seen

    def until_complete(self, seconds: float = PATIENCE_SECONDS) -> Arrived:
        """What arrived, once progress has passed everything committed so far and a snapshot of each table ended."""
        lsn = int(self.sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
        self.sql("SELECT pg_logical_emit_message(true, 'test', 'past the last change')")
        tables = set(self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").split())
        self.until(lambda seen: seen.through >= lsn and seen.snapshotted >= tables, seconds)
        arrived = self.read()
        arrived.check_progress()
        return arrived


@dataclass
class Arrived:
    """What a reader makes of a stream: every block judged by the lake's own chain, and decoded once."""

    rows: dict[str, list[dict[str, Any]]]
    snapshot_rows: dict[tuple[str, str], list[dict[str, Any]]]
    ends: list[tuple[str, str, SnapshotEnd]]
    progress: list[Progress]
    duplicates: int
    lanes: dict[tuple[str, str], Lane]
    rejects: list[Block] = field(default_factory=list)

    @classmethod
    def of(cls, records: list[bytes], registry: Registry) -> Arrived:
        seen = cls({}, {}, [], [], 0, {})
        for data in records:
            seen.take(data, registry)
        return seen

    def take(self, data: bytes, registry: Registry) -> None:
        block = decode(data)
        if block.kind is Kind.PROGRESS:
            self.progress.append(decode_progress(datums(block)))
            return
        key = (block.table, block.lane)
        lane = self.lanes.get(key, Lane(block.lane))
        verdict = judge(lane, block.prev, block.last)
        assert isinstance(verdict, Load | Duplicate), (key, verdict, block.prev, lane.mark)
        self.lanes[key] = advance(lane, verdict, block.last)
        if isinstance(verdict, Duplicate):
            self.duplicates += 1
        elif block.kind is Kind.REJECT:
            self.rejects.append(block)
        elif block.kind is Kind.SNAPSHOT_END:
            self.ends.append((block.table, block.lane, decode_snapshot_end(datums(block))))
        else:
            rows = decoded(block, registry.by_fingerprint(block.schema).schema)
            assert len(rows) == block.count
            target = self.rows.setdefault(block.table, []) if block.kind is Kind.DATA else None
            (self.snapshot_rows.setdefault(key, []) if target is None else target).extend(rows)

    def check_progress(self) -> None:
        """No progress record speaks of what is not in the stream, and none leaves out a change it is past."""
        for record in self.progress:
            ends = {(end.table, end.lane): end.last for end in record.vector}
            assert all(self.lanes[key].mark >= last for key, last in ends.items())
        newest = max(self.progress, key=lambda record: (record.era, record.through))
        for table, rows in self.rows.items():
            for row in rows:
                if row["_era"] == newest.era and row["_lsn"] <= newest.through:
                    assert any(name == table for name, _ in ((end.table, end.lane) for end in newest.vector))

    @property
    def through(self) -> int:
        return max((record.through for record in self.progress), default=0)

    @property
    def snapshotted(self) -> set[str]:
        return {table for table, _, _ in self.ends if self.whole_snapshots(table)}

    def whole_snapshots(self, table: str) -> list[list[tuple[str, SnapshotEnd]]]:
        """Each snapshot of the table whose groups have all ended, by the lanes of those attempts; oldest first."""
        found: dict[int, dict[int, tuple[str, SnapshotEnd]]] = {}
        for name, lane, end in self.ends:
            if name == table:
                found.setdefault(end.snapshot, {})[end.group] = (lane, end)
        return [list(ends.values()) for _, ends in sorted(found.items()) if len(ends) == _groups_of(ends)]

    def state(self, table: str) -> dict[Any, dict[str, Any]]:
        """The table's rows by `id`: its newest whole snapshot, overlaid with the changes from its lowest C on."""
        state: dict[Any, dict[str, Any]] = {}
        ends = self.whole_snapshots(table)[-1]
        for lane, end in ends:
            staged = self.snapshot_rows.get((table, lane), [])
            assert len(staged) == end.count
            assert not state.keys() & {row["id"] for row in staged}
            state |= {row["id"]: row for row in staged}
        lowest = min(end.consistent_point for _, end in ends)
        changes = sorted(self.rows.get(table, []), key=lambda row: (row["_era"], row["_lsn"], row["_idx"]))
        for row in changes:
            known = state.get(row["id"])
            if row["_lsn"] < lowest or (known is not None and known["_lsn"] > row["_lsn"]):
                continue
            one_point = len(ends) == 1  # else a row may have been read at a later point than its group's neighbours
            assert not one_point or row["_op"] == "t" or (row["_op"] == "c") == (row["id"] not in state)
            if row["_op"] == "t":
                state.clear()
            elif row["_op"] == "d":
                state.pop(row["id"], None)
            else:
                state[row["id"]] = row
        return state

    def summary(self) -> str:
        rows = {table: len(found) for table, found in self.rows.items()}
        return f"rows {rows}, through {self.through:X}, ends {[(t, e.count) for t, _, e in self.ends]}"


def _groups_of(ends: dict[int, tuple[str, SnapshotEnd]]) -> int:
    return next(iter(ends.values()))[1].groups


def decoded(block: Block, schema: TableSchema) -> list[dict[str, Any]]:
    data = io.BytesIO(datums(block))
    parsed = fastavro.parse_schema(schema.to_avro())
    rows = []
    while data.tell() < len(data.getbuffer()):
        rows.append(fastavro.schemaless_reader(data, parsed, None))
    return rows


@pytest.fixture
def own_rig(request: pytest.FixtureRequest, tmp_path: Path, producer_aws: LocalAws) -> Iterator[Rig]:
    """A rig with a server of its own, which may be killed, copied and replaced. `rig.postgres` is the one in use."""
    name = f"p{zlib.crc32(request.node.nodeid.encode())}"
    with tempfile.TemporaryDirectory(prefix="headrace-pg-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "pg", settings={"fsync": "off", "autovacuum": "off"}).start()
        server.psql(f"CREATE DATABASE {name}")
        _make_stream(producer_aws, name)
        rig = Rig(name, tmp_path, server, producer_aws)
        try:
            yield rig
        finally:
            rig.stop()
            for one in {id(used): used for used in (server, rig.postgres)}.values():
                one.stop("immediate")


def _make_stream(aws: LocalAws, name: str) -> None:
    kinesis = aws.client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=2)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})


@pytest.fixture
def rig(
    request: pytest.FixtureRequest, tmp_path: Path, producer_postgres: PostgresServer, producer_aws: LocalAws
) -> Iterator[Rig]:
    name = f"p{zlib.crc32(request.node.nodeid.encode())}"
    producer_postgres.psql(f"CREATE DATABASE {name}")
    _make_stream(producer_aws, name)
    rig = Rig(name, tmp_path, producer_postgres, producer_aws)
    try:
        yield rig
    finally:
        rig.stop()
        drop = f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{name}'"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while producer_postgres.psql(f"SELECT 1 FROM pg_replication_slots WHERE database = '{name}' AND active"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        producer_postgres.psql(drop)
        producer_postgres.psql(f"DROP DATABASE {name} WITH (FORCE)")


SCHEMA = TableSchema("shop", "t", (Column("id", "long", "id", "bigint"),), ("id",))


@pytest.fixture
def make_change() -> Callable[..., Change]:
    """Makes a change at (1, lsn, idx) whose datum is `size` bytes that do not compress."""

    def make(lsn: int, idx: int = 0, *, size: int = 20, schema: TableSchema = SCHEMA, table: str = "t") -> Change:
        datum = random.Random(lsn * 1000 + idx).randbytes(size)
        return Change(table, schema, "c", b"k%d" % idx, Position(1, lsn, idx), lsn * 10, datum)

    return make


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    """Opens the spool of this test; opening it again is a restart."""
    opened: list[Spool] = []

    def make(max_bytes: int = 1 << 30) -> Spool:
        while opened:
            opened.pop().close()
        opened.append(Spool(tmp_path / "spool.db", max_bytes))
        return opened[0]

    yield make
    for spool in opened:
        spool.close()
