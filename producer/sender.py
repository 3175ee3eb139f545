"""The sender: takes blocks from the spool to the stream, in order, and never gives up.

PutRecords gives no order and can fail partly, so at most one block of a lane is in flight: a retry cannot overtake.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from producer import failpoints
from producer.blocks import RECORD_LIMIT_BYTES, Lane
from producer.budget import Budget
from producer.errors import SpoolBroken, SpoolDamaged
from producer.kinesis import Put, Record, Stream, Unanswered
from producer.spool import Spool
from producer.spool_blocks import Queued
from schemas import block as wire
from schemas.block import NO_SCHEMA
from schemas.change_record import TableSchema
from schemas.control import CONTROL_LANE, lane_hash_key, parse_snapshot_lane, partition_key
from schemas.errors import IncompatibleSchema, RegistryConflict

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 500
MAX_REQUEST_BYTES: Final = 10 * 1024 * 1024
_FIRST_WAIT_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 0.05
_IDLE_LOOK_SECONDS: Final = 0.25
_IDLE_ROUNDS: Final = 40
_LONGEST_WAIT_SECONDS: Final = 10.0
_WIRE_SIZE: Final = 4 / 3  # PutRecords carries data in base64


class Control(Protocol):
    """The control lane: gives a record when one is due, and hears of its acceptance."""

    def take(self) -> bytes | None: ...

    def accepted(self) -> None: ...


class Claims(Protocol):
    """Where payloads above the record limit go: `put` returns their URI."""

    def put(self, name: str, payload: bytes) -> str: ...


class SchemaRegistry(Protocol):
    """What the sender asks of the registry."""

    def register(self, schema: TableSchema) -> object: ...


@dataclass(frozen=True, slots=True)
class _InFlight:
    block: Queued | None  # None: the control lane's
    record: Record


@dataclass(frozen=True, slots=True)
class _Wait:
    """How often in a row a lane, or the whole stream, was refused, and until when it rests."""

    times: int
    until: float


_RESTED: Final = _Wait(0, 0.0)


class Sender:
    """Sends round by round: the oldest block of every lane that rests not, in one request.

    Where not all find room, tables of a higher priority go first, and changes before the rows of snapshots. A refused
    record rests its lane, and all lanes of the shard that it went to as far as that is known: ever longer, and less
    with each request that the shard takes whole.
    """

    def __init__(
        self,
        source: str,
        spool: Spool,
        stream: Stream,
        registry: SchemaRegistry,
        claims: Claims,
        control: Control,
        priority: Callable[[str], int] = lambda _: 0,
        max_bytes_per_second: int | None = None,
        speaks: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._spool = spool
        self._stream = stream
        self._registry = registry
        self._claims = claims
        self._control = control
        self._priority = priority
        self._speaks = speaks
        self._budget = Budget(None if max_bytes_per_second is None else max_bytes_per_second / _WIRE_SIZE, clock)
        self._round_bytes = min(MAX_REQUEST_BYTES, int(max_bytes_per_second or MAX_REQUEST_BYTES))
        self._paid_until = 0.0
        self._clock = clock
        self._dice = dice
        self._lanes: dict[Lane, _Wait] = {}
        self._shards: dict[str, _Wait] = {}
        self._shard_of: dict[Lane, str] = {}
        self._everything = _Wait(0, 0.0)
        self._known_schemas: set[bytes] = {NO_SCHEMA}
        self._turn = 0
        self.trouble: str | None = None
        self.damaged = threading.Event()
        """Set where a block to be sent is damaged: nothing more is sent until somebody has mended that, and clears it.
        What stands behind it could not be captured again once Kinesis has some of it."""

    def mended(self) -> None:
        """Go on sending."""
        self.trouble = None
        self.damaged.clear()

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop; an outage only makes it wait."""
        idle_rounds = 0
        while not stop.is_set():
            writes = self._spool.writes
            if self.send_round():
                continue
            idle_rounds = 0 if self._spool.lanes_with_blocks() else idle_rounds + 1
            with self._spool.arrival:  # what arrives wakes it; the rest is progress records and lanes that rested
                if self._spool.writes == writes:
                    self._spool.arrival.wait(_LOOK_SECONDS if idle_rounds < _IDLE_ROUNDS else _IDLE_LOOK_SECONDS)

    def send_round(self) -> bool:
        """One request with what may go now. False when there was nothing to do, or it failed as a whole."""
        if self.damaged.is_set() or self._clock() < max(self._everything.until, self._paid_until):
            return False
        try:
            flight = self._board()
            if not flight:
                return False
            if not self._speaks():  # asked last: to store a claim or register a schema can take long
                self.trouble = "the lease could not be renewed: another agent may have taken it, so nothing is sent"
                return False
            failpoints.reach("sender.before_put")
            self._paid_until = self._clock() + self._budget.spend(sum(len(item.record.data) for item in flight))
            results = self._stream.put([item.record for item in flight])
        except SpoolDamaged as error:
            self.trouble = str(error)
            log.error("sending waits until the spool is mended", extra={"cause": self.trouble})
            self.damaged.set()
            return False
        except SpoolBroken:
            raise
        except Exception as error:  # whatever it was, the outcome is unknown and the blocks are still spooled
            self._fail(error)
            return False
        failpoints.reach("sender.after_put")
        self._land(flight, results)
        return True

    def _board(self) -> list[_InFlight]:
        flight: list[_InFlight] = []
        size = 0
        control = self._control.take()
        if control is not None:
            flight.append(_InFlight(None, self._record("", CONTROL_LANE, control)))
            size += len(control)
        for lane in self._lanes_in_turn():
            block = self._spool.head(lane)
            if block is None:
                continue
            self._register(block.fingerprint)
            record = self._record(lane.table, lane.name, self._within_limit(block))
            size += len(record.data) + len(record.partition_key.encode())
            if len(flight) == MAX_RECORDS or (flight and size > self._round_bytes):
                break
            flight.append(_InFlight(block, record))
        return flight

    def _lanes_in_turn(self) -> list[Lane]:
        """Lanes that may send; among equals another one first each round, so that none starves."""
        now = self._clock()
        lanes = [lane for lane in self._spool.lanes_with_blocks() if self._rests_until(lane) <= now]
        self._turn += 1
        start = self._turn % len(lanes) if lanes else 0
        return sorted(lanes[start:] + lanes[:start], key=self._rank)

    def _rank(self, lane: Lane) -> tuple[bool, int]:
        return parse_snapshot_lane(lane.name) is not None, -self._priority(lane.table)

    def _rests_until(self, lane: Lane) -> float:
        shard = self._shards.get(self._shard_of.get(lane, ""), _RESTED)
        return max(self._lanes.get(lane, _RESTED).until, shard.until)

    def _land(self, flight: Sequence[_InFlight], results: Sequence[Put]) -> None:
        self._everything = _Wait(0, 0.0)
        self.trouble = None
        taken: list[Queued] = []
        refused: set[str] = set()
        for item, result in zip(flight, results, strict=True):
            if result.code is not None:
                refused |= self._refused(item, result.code)
            elif item.block is None:
                self._control.accepted()
            else:
                taken.append(item.block)
                self._lanes.pop(item.block.lane, None)
                if result.shard is not None:
                    self._shard_of[item.block.lane] = result.shard
        self._rest_shards(refused, {result.shard for result in results if result.shard is not None} - refused)
        if taken:
            self._spool.accepted(taken)
            failpoints.reach("sender.accepted")

    def _refused(self, item: _InFlight, code: str) -> set[str]:
        """The shard that refused, as far as it is known."""
        self.trouble = f"Kinesis refuses records: {code}"
        if item.block is None:
            return set()
        lane = item.block.lane
        self._lanes[lane] = self._longer(self._lanes.get(lane, _RESTED))
        return {self._shard_of[lane]} if lane in self._shard_of else set()

    def _rest_shards(self, refused: set[str], whole: set[str]) -> None:
        for shard in refused:
            self._shards[shard] = self._longer(self._shards.get(shard, _RESTED))
        for shard in whole & self._shards.keys():
            known = self._shards.pop(shard)
            if known.times > 1:
                self._shards[shard] = _Wait(known.times - 1, 0.0)

    def _fail(self, error: Exception) -> None:
        first = self.trouble is None
        self.trouble = f"sending fails, and is tried again: {error}"
        self._everything = self._longer(self._everything)
        expected = isinstance(error, Unanswered)
        if first:
            log.warning("sending failed", extra={"cause": str(error)}, exc_info=None if expected else error)

    def _longer(self, wait: _Wait) -> _Wait:
        seconds = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** min(wait.times, 16))
        return _Wait(wait.times + 1, self._clock() + seconds * (0.5 + self._dice() / 2))

    def _record(self, table: str, lane: str, data: bytes) -> Record:
        return Record(data, partition_key(self._source, table, lane), str(lane_hash_key(self._source, table, lane)))

    def _register(self, fingerprint: bytes) -> None:
        """See to it that readers can find the schema before a block under it goes."""
        if fingerprint in self._known_schemas:
            return
        schema = self._spool.schemas.unregistered(fingerprint)
        if schema is not None:
            self._register_schema(schema)
            self._spool.schemas.registered(fingerprint)
        self._known_schemas.add(fingerprint)

    def _register_schema(self, schema: TableSchema) -> None:
        try:
            self._registry.register(schema)
        except RegistryConflict:
            self._registry.register(schema)
        except IncompatibleSchema as error:
            # Its blocks go all the same: the lake keeps their bytes and opens a hole, and other tables go on.
            log.error("a change of structure cannot be followed", extra={"table": schema.table, "cause": str(error)})

    def _within_limit(self, block: Queued) -> bytes:
        """The block's bytes, or those of its claim when it is larger than a record may be."""
        if len(block.data) <= RECORD_LIMIT_BYTES:
            return block.data
        whole = wire.decode(block.data)
        name = f"{self._source}/{whole.table}/{whole.lane}/{whole.last.era}-{whole.last.lsn:016x}-{whole.last.idx}"
        uri = self._claims.put(name, whole.records)
        return wire.encode(replace(whole, claim=uri, records=b""))


class S3Claims:
    """Claims under an S3 prefix; the name is the block's position, so writing one again changes nothing."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client = client
        self._prefix = prefix.rstrip("/")

    def put(self, name: str, payload: bytes) -> str:
        uri = f"{self._prefix}/{name}"
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        self._client.put_object(Bucket=bucket, Key=key, Body=payload)
        return uri
