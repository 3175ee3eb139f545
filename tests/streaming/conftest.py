"""A laptop's AWS for the tests of the streaming job, and a source that writes blocks to its stream."""

import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import fastavro
import pytest

from glue_streaming import watermark_view
from glue_streaming.aws import Aws
from glue_streaming.batch import Driver, Report
from glue_streaming.lake_table import identifier
from glue_streaming.load import load_shard
from glue_streaming.settings import parse_arguments
from glue_streaming.state import StreamState
from glue_streaming.task import Outcome, Task
from localaws.process import LocalAws, running
from ops.names import DYNAMODB_KEYS
from ops.provision import dynamodb_table
from schemas import block as blocks
from schemas import control
from schemas.block import Block, Codec, Kind
from schemas.change_record import Column, TableSchema
from schemas.control import Announcement, LaneEnd, Progress, SnapshotEnd
from schemas.position import Line, Position
from schemas.registry import Registry

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def aws_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with running(tmp_path_factory.mktemp("aws")) as server:
        before = dict(os.environ)
        os.environ.update(server.environment())
        yield server
        os.environ.clear()
        os.environ.update(before)


@dataclass
class World:
    """One source with a stream, a bucket and DynamoDB tables of its own. `last` chains the blocks of every lane."""

    server: LocalAws
    source: str
    stream: str
    bucket: str
    prefix: str
    era: int = 1
    last: dict[tuple[str, str], Position] = field(default_factory=dict)
    sent: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def registry(self) -> Registry:
        return Registry(self.server.client("dynamodb"), f"{self.prefix}-schemas")

    def arguments(self, **more: str) -> list[str]:
        given = {
            "source": self.source,
            "stream_name": self.stream,
            "lake_bucket": self.bucket,
            "dynamodb_prefix": self.prefix,
            "fold_horizon_seconds": "5",
            **more,
        }
        return [word for name, value in given.items() for word in (f"--{name}", value)]

    def schema(self, table: str, *columns: str, key: Sequence[str] = ("id",)) -> TableSchema:
        """A table with an `id` (long) and text columns; registered, as the agent does before its first block."""
        typed = [Column("id", "long", "id", "bigint"), *(Column(name, "string", name, "text") for name in columns)]
        return self.registry.register(TableSchema(self.source, table, tuple(typed), tuple(key))).schema

    def data(
        self,
        schema: TableSchema,
        lsn: int,
        rows: Sequence[dict[str, Any]],
        *,
        lane: str = "0",
        op: str = "c",
        first: int = 0,
    ) -> Block:
        """The next data block of a lane: rows of the transaction at `lsn`, from ordinal `first` on. It is chained, but
        not sent."""
        changes = [(Position(self.era, lsn, first + n), op, row) for n, row in enumerate(rows)]
        return self._block(Kind.DATA, schema, lane, changes)

    def snapshot(
        self, schema: TableSchema, point: int, rows: Sequence[dict[str, Any]], *, lane: str, first: int = 0
    ) -> Block:
        """Rows of a snapshot that was read at consistent point `point`, from ordinal `first` on."""
        positions = [(Position(self.era, point - 1, first + n), "r", row) for n, row in enumerate(rows)]
        return self._block(Kind.SNAPSHOT, schema, lane, positions)

    def snapshot_end(self, table: str, end: SnapshotEnd) -> Block:
        lane = control.snapshot_lane(end.snapshot, end.group, end.attempt)
        last = Position(self.era, end.consistent_point - 1, end.count)
        return self._control(Kind.SNAPSHOT_END, table, lane, last, control.encode_snapshot_end(end))

    def reject(self, table: str, at: Position, reason: str, *, lane: str = "0") -> Block:
        datum = control.encode_reject(control.Reject("c", "id=1", reason, b"\x01"))
        return self._control(Kind.REJECT, table, lane, at, datum)

    def progress(
        self, through: int, *, announced: Sequence[Announcement] = (), vector: Sequence[LaneEnd] | None = None
    ) -> Block:
        """What the agent says once everything so far was accepted; `vector` to say something else."""
        ends = tuple(
            LaneEnd(table, lane, last)
            for (table, lane), last in self.last.items()
            if not lane.startswith("s") and last.era == self.era
        )
        datum = control.encode_progress(
            Progress(self.era, through, NOW, ends if vector is None else tuple(vector), tuple(announced))
        )
        at = Position(self.era, through, 0)
        return _built(Kind.PROGRESS, self.source, "", control.CONTROL_LANE, blocks.NO_SCHEMA, None, at, at, 1, datum)

    def raise_era(self) -> None:
        """Continuity with the source broke: every lane begins anew."""
        self.era += 1
        self.last.clear()

    def send(self, *several: Block) -> None:
        for block in several:
            self.send_bytes(blocks.encode(block), block.table, block.lane)

    def send_bytes(self, data: bytes, table: str, lane: str) -> None:
        self.server.client("kinesis").put_record(
            StreamName=self.stream,
            Data=data,
            PartitionKey=control.partition_key(self.source, table, lane),
            ExplicitHashKey=str(control.lane_hash_key(self.source, table, lane)),
        )

    def lose_positions(self) -> None:
        """What the job has saved of its shards is gone."""
        dynamodb, table = self.server.client("dynamodb"), f"{self.prefix}-shards"
        for item in dynamodb.scan(TableName=table)["Items"]:
            dynamodb.delete_item(TableName=table, Key={"job": item["job"], "shard": item["shard"]})

    def _block(
        self, kind: Kind, schema: TableSchema, lane: str, changes: Sequence[tuple[Position, str, dict[str, Any]]]
    ) -> Block:
        prev = self.last.get((schema.table, lane))
        first, last = changes[0][0], changes[-1][0]
        self.last[schema.table, lane] = last
        datums = encoded(schema, changes)
        writer = schema.fingerprint()
        return _built(kind, self.source, schema.table, lane, writer, prev, first, last, len(changes), datums)

    def _control(self, kind: Kind, table: str, lane: str, at: Position, datum: bytes) -> Block:
        prev = self.last.get((table, lane))
        self.last[table, lane] = at
        return _built(kind, self.source, table, lane, blocks.NO_SCHEMA, prev, at, at, 1, datum)


def encoded(schema: TableSchema, changes: Sequence[tuple[Position, str, dict[str, Any]]]) -> bytes:
    """Avro datums of changes, by fastavro: an encoder that shares nothing with the product's."""
    parsed = fastavro.parse_schema(schema.to_avro())
    out = io.BytesIO()
    for position, op, row in changes:
        metadata = {
            "_op": op,
            "_era": position.era,
            "_lsn": position.lsn,
            "_idx": position.idx,
            "_committed_at": NOW,
            "_unchanged": None,
            "_old_key": None,
            "_raw": None,
        }
        fastavro.schemaless_writer(out, parsed, {**metadata, **row})
    return out.getvalue()


def _built(
    kind: Kind,
    source: str,
    table: str,
    lane: str,
    schema: bytes,
    prev: Position | None,
    first: Position,
    last: Position,
    count: int,
    datums: bytes,
) -> Block:
    codec = Codec.ZSTANDARD if kind in (Kind.DATA, Kind.SNAPSHOT) else Codec.NULL
    return blocks.build(
        kind,
        source,
        table,
        lane,
        schema=schema,
        prev=prev,
        first=first,
        last=last,
        count=count,
        created_at=NOW,
        datums=datums,
        codec=codec,
    )


@pytest.fixture
def make_world(aws_server: LocalAws) -> Callable[..., World]:
    """Makes a source with everything that it needs on the laptop's AWS."""

    def make(shards: int = 1) -> World:
        name = f"src{next(_NUMBERS)}"
        world = World(aws_server, name, f"stream-{name}", f"lake-{name}", f"hr-{name}")
        aws_server.client("s3").create_bucket(Bucket=world.bucket)
        kinesis = aws_server.client("kinesis")
        kinesis.create_stream(StreamName=world.stream, ShardCount=shards)
        kinesis.get_waiter("stream_exists").wait(StreamName=world.stream, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        for table in DYNAMODB_KEYS:
            dynamodb_table(aws_server.client("dynamodb"), table, f"{world.prefix}-{table}")
        return world

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Job:
    """A driver, batch by batch, without Spark, on a clock that only `run` moves.

    wrap: what the tasks use in the place of their Kinesis client.
    """

    def __init__(self, world: World, wrap: Callable[[Any], Any] = lambda client: client, **arguments: str) -> None:
        self.world, self.wrap, self.arguments = world, wrap, arguments
        self.clock = Clock()
        self.aws = Aws()
        self.driver = self.another()

    def another(self) -> Driver:
        """One more driver of the same job, on the same clock."""

        def run(tasks: Sequence[Task]) -> list[Outcome]:
            kinesis = self.wrap(self.aws.client("kinesis"))
            return [load_shard(task, kinesis, self.aws.client("s3"), self.aws.io) for task in tasks]

        return Driver(self.aws, parse_arguments(self.world.arguments(**self.arguments)), run, self.clock)

    def restart(self) -> None:
        """The process is lost, with all that it held in memory."""
        self.driver = self.another()

    def run(self, times: int = 4, seconds: float = 5.0) -> Report:
        """That many batches, each with the seconds behind it; the last one's report."""
        for _ in range(times):
            report = self.driver.run_batch()
            self.clock.now += seconds
        return report

    def state(self, table: str = "orders") -> StreamState:
        return self.driver.lake.tables[self.world.source, table].state

    def table(self, table: str = "orders") -> Any:
        return self.aws.catalog.load_table(identifier(self.world.source, table))

    def rows(self, table: str = "orders") -> list[dict[str, Any]]:
        """All rows, in the order of their positions."""
        found = self.table(table).scan().to_arrow().to_pylist()
        return sorted(found, key=lambda row: (row["_era"], row["_lsn"], row["_idx"]))

    def ids(self, table: str = "orders") -> list[int]:
        return [row["id"] for row in self.rows(table)]

    def entry(self) -> watermark_view.Entry:
        return watermark_view.read(self.aws.client("glue"), self.world.source)

    def watermark(self) -> Line | None:
        return self.entry().line

    def set(self, name: str, value: str) -> None:
        """A setting of the job."""
        item = {"job": {"S": "headrace-stream"}, "name": {"S": name}, "value": {"S": value}}
        self.world.server.client("dynamodb").put_item(TableName=f"{self.world.prefix}-settings", Item=item)

    def pause(self, table: str, paused: bool) -> None:
        self.configure(table, paused={"BOOL": paused})

    def configure(self, table: str, **attributes: dict[str, Any]) -> None:
        """The table's item in DynamoDB."""
        self.world.server.client("dynamodb").put_item(
            TableName=f"{self.world.prefix}-tables",
            Item={"table": {"S": f"{self.world.source}.{table}"}, **attributes},
        )

    def saved(self) -> list[tuple[str, str]]:
        """The positions in DynamoDB."""
        items = self.world.server.client("dynamodb").scan(TableName=f"{self.world.prefix}-shards")["Items"]
        return [(item["shard"]["S"], item["sequence"]["S"]) for item in items if "sequence" in item]

    def lose_positions(self) -> None:
        self.world.lose_positions()


@pytest.fixture
def make_job() -> Callable[..., Job]:
    return Job


@pytest.fixture
def job(world: World) -> Job:
    return Job(world)


@pytest.fixture
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between retries are as many, and shorter."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff._BASE", 1.01)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
