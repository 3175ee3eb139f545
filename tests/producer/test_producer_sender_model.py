"""The sender against the emulated Kinesis: random histories of throttles, partial failures, lost answers, reshards and
restarts. HEADRACE_HISTORIES sets how many are played (default 25); a failure names its seed.
"""

from __future__ import annotations

import base64
import os
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from localaws.kinesis_calls import Call
from localaws.kinesis_errors import KinesisError
from localaws.kinesis_faults import THROTTLED, Fault
from localaws.kinesis_service import Kinesis
from producer.blocks import Lane, Packer
from producer.control_lane import ControlLane
from producer.durable_end import DurableEnd
from producer.kinesis import KinesisStream
from producer.sender import Sender
from producer.snapshot_book import Snapshot
from producer.spool import Spool
from schemas import block as wire
from schemas.block import Kind
from schemas.control import Progress, decode_progress
from schemas.position import Position

HISTORIES = int(os.environ.get("HEADRACE_HISTORIES", "25"))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAULTS = (
    Fault("PutRecords", code=THROTTLED, rate=0.3),
    Fault("PutRecords", code=THROTTLED, fraction=0.4),
    Fault("PutRecords", code="InternalFailure", after=True, rate=0.3),
    Fault("PutRecords", code="InternalFailure", fraction=0.9, rate=0.5),
)


class Ignored:
    """Schemas and claims are not what is tried here."""

    def register(self, schema: Any) -> None:
        pass

    def put(self, name: str, payload: bytes) -> str:
        raise AssertionError("no block is that large")


@dataclass
class History:
    """One spool, one stream, one agent after another. `stored` are the lanes' blocks as the stream got them."""

    seed: int
    folder: Path
    make_change: Any
    now: float = 1e9
    lsn: int = 10
    through: int = 0
    written: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    stored: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.kinesis = Kinesis(self.folder / "kinesis", dice=self.dice, enforce_limits=self.dice.random() < 0.3)
        self.kinesis.call("CreateStream", {"StreamName": "s", "ShardCount": 2}, self._call())
        self.now += 60
        self.kinesis.faults.replace(self.dice.sample(FAULTS, self.dice.randrange(len(FAULTS) + 1)))
        self.lanes = [Lane(table, str(lane)) for table in "ab" for lane in range(self.dice.randrange(1, 4))]
        self._start()

    def play(self) -> None:
        for _ in range(self.dice.randrange(5, 25)):
            self.dice.choice(
                (self._write, self._send, self._send, self._send, self._restart, self._reshard, self._resend)
            )()
        self.kinesis.faults.replace([])
        for _ in range(500):
            if not self.spool.lanes_with_blocks() and self.through == self.lsn:
                break
            self._send()
        self.spool.close()
        self.kinesis.close()

    # ---- what can happen

    def _write(self) -> None:
        self.lsn += 8
        blocks = []
        for lane in self.dice.sample(self.lanes, self.dice.randrange(1, len(self.lanes) + 1)):
            packer = Packer("shop", lane, Kind.DATA, 1000, self.spool.ends(1).get(lane))
            for idx in range(self.dice.randrange(1, 4)):
                size = self.dice.choice((20, 20, 200_000))
                change = self.make_change(self.lsn, idx + 10 * self.lanes.index(lane), size=size, table=lane.table)
                blocks += packer.pack([change], NOW)
        for block in blocks:
            self.written[str(block.lane)].append(block.data)
        self.spool.append(blocks, durable=DurableEnd(1, self.lsn, self.lsn + 8, 0))

    def _send(self) -> None:
        self.sender.send_round()
        self.now += self.dice.choice((0.01, 0.2, 1.0, 11.0))

    def _restart(self) -> None:
        self.spool.close()
        self._start()

    def _reshard(self) -> None:
        shards = self.kinesis.call("ListShards", {"StreamName": "s"}, self._call())["Shards"]
        shard = self.dice.choice([s for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"]])
        low, high = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
        request = {"StreamName": "s", "ShardToSplit": shard["ShardId"], "NewStartingHashKey": str((low + high) // 2)}
        self.kinesis.call("SplitShard", request, self._call())
        self.now += 60

    def _resend(self) -> None:
        lane = self.dice.choice(self.lanes)
        self.spool.resend(lane, None, Position(1, self.lsn, 100))

    # ---- the parts

    def _start(self) -> None:
        self.spool = Spool(self.folder / "spool.db", 1 << 30)
        if self.spool.durable_end() is None:
            self.spool.open_era(1, DurableEnd(1, self.lsn, self.lsn, 0))
            self.spool.book.add(Snapshot(1_000_001, 1, "a", 5))
        control = ControlLane("shop", self.spool, clock=lambda: self.now)
        self.sender = Sender(
            "shop",
            self.spool,
            KinesisStream(self, "s"),
            Ignored(),
            Ignored(),
            control,
            priority=lambda table: int(table == "b"),
            max_bytes_per_second=self.dice.choice((None, 100_000)),
            clock=lambda: self.now,
            dice=self.dice.random,
        )

    def _call(self, fault: Fault | None = None) -> Call:
        return Call("1", "eu-west-1", self.now, fault)

    def put_records(self, **request: Any) -> dict[str, Any]:
        """boto3's call. The sender survives whatever it raises, so what must not be is kept for the end."""
        try:
            return self._put_records(request["Records"])
        except AssertionError as error:
            self.broken.append(str(error))
            raise

    def _put_records(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """As the emulator's endpoint answers it, and what of it was stored."""
        assert len({entry["ExplicitHashKey"] for entry in records}) == len(records), "two of a lane in flight"
        fault = self.kinesis.faults.strike("PutRecords", "s")
        if fault and fault.refuses:
            raise ClientError({"Error": {"Code": THROTTLED}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "PutRecords")
        entries = [{**entry, "Data": base64.b64encode(entry["Data"]).decode()} for entry in records]
        try:
            reply = self.kinesis.call("PutRecords", {"StreamName": "s", "Records": entries}, self._call(fault))
        except KinesisError as error:
            raise ClientError({"Error": {"Code": error.code}}, "PutRecords") from error
        for entry, result in zip(records, reply["Records"], strict=True):
            if "ShardId" in result:
                self._store(entry["Data"])
        if fault and fault.after:
            raise ConnectionClosedError(endpoint_url="kinesis")
        return reply

    def _store(self, data: bytes) -> None:
        block = wire.decode(data)
        if block.kind is Kind.PROGRESS:
            self._believe(decode_progress(wire.datums(block)))
        else:
            self.stored[f"{block.table}/{block.lane}"].append(data)

    def _believe(self, progress: Progress) -> None:
        """It speaks of what is stored before it, and through says that all below it is."""
        self.through = max(self.through, progress.through)
        for end in progress.vector:
            assert end.last in {wire.decode(data).last for data in self.stored[f"{end.table}/{end.lane}"]}
        for lane, blocks in self.written.items():
            missing = set(blocks) - set(self.stored[lane])
            assert all(wire.decode(data).first.lsn > progress.through for data in missing), (lane, progress)


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_every_lane_arrives_whole_and_in_order(tmp_path, make_change, seed):
    """First appearances are the lane's blocks, in order; what comes again was there before; progress never lies."""
    history = History(seed, tmp_path, make_change)
    history.play()
    assert not history.broken
    assert history.through == history.lsn
    for lane, blocks in history.written.items():
        stored = history.stored[lane]
        assert list(dict.fromkeys(stored)) == blocks, lane
