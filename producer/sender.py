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
from producer.kinesis import Record, Stream, Unanswered
from producer.spool import Queued, Spool
from schemas import block as wire
from schemas.block import NO_SCHEMA
from schemas.change_record import TableSchema
from schemas.control import CONTROL_LANE, lane_hash_key, partition_key
from schemas.errors import IncompatibleSchema, RegistryConflict

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 500
MAX_REQUEST_BYTES: Final = 10 * 1024 * 1024
_FIRST_WAIT_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 10.0


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


class Sender:
    """Sends round by round: the oldest block of every lane that rests not, in one request."""

    def __init__(
        self,
        source: str,
        spool: Spool,
        stream: Stream,
        registry: SchemaRegistry,
        claims: Claims,
        control: Control,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._spool = spool
        self._stream = stream
        self._registry = registry
        self._claims = claims
        self._control = control
        self._clock = clock
        self._dice = dice
        self._lanes: dict[Lane, _Wait] = {}
        self._everything = _Wait(0, 0.0)
        self._known_schemas: set[bytes] = {NO_SCHEMA}
        self._turn = 0
        self.trouble: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop; an outage only makes it wait."""
        while not stop.is_set():
            if not self.send_round():
                with self._spool.arrival:
                    self._spool.arrival.wait(0.05)

    def send_round(self) -> bool:
        """One request with what may go now. False when there was nothing to do, or it failed as a whole."""
        if self._clock() < self._everything.until:
            return False
        try:
            flight = self._board()
            if not flight:
                return False
            failpoints.reach("sender.before_put")
            results = self._stream.put([item.record for item in flight])
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
            if len(flight) == MAX_RECORDS or (flight and size > MAX_REQUEST_BYTES):
                break
            flight.append(_InFlight(block, record))
        return flight

    def _lanes_in_turn(self) -> list[Lane]:
        """Lanes that may send, beginning with another one each round, so that none starves."""
        now = self._clock()
        lanes = [lane for lane in self._spool.lanes_with_blocks() if self._wait(lane).until <= now]
        self._turn += 1
        start = self._turn % len(lanes) if len(lanes) > MAX_RECORDS // 10 else 0
        return lanes[start:] + lanes[:start]

    def _land(self, flight: Sequence[_InFlight], results: Sequence[str | None]) -> None:
        self._everything = _Wait(0, 0.0)
        self.trouble = None
        taken: list[Queued] = []
        for item, code in zip(flight, results, strict=True):
            if code is not None:
                self._refused(item, code)
            elif item.block is None:
                self._control.accepted()
            else:
                taken.append(item.block)
                self._lanes.pop(item.block.lane, None)
        if taken:
            self._spool.accepted(taken)
            failpoints.reach("sender.accepted")

    def _refused(self, item: _InFlight, code: str) -> None:
        self.trouble = f"Kinesis refuses records: {code}"
        if item.block is not None:
            lane = item.block.lane
            self._lanes[lane] = self._longer(self._wait(lane))

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

    def _wait(self, lane: Lane) -> _Wait:
        return self._lanes.get(lane, _Wait(0, 0.0))

    def _record(self, table: str, lane: str, data: bytes) -> Record:
        return Record(data, partition_key(self._source, table, lane), str(lane_hash_key(self._source, table, lane)))

    def _register(self, fingerprint: bytes) -> None:
        """See to it that readers can find the schema before a block under it goes."""
        if fingerprint in self._known_schemas:
            return
        schema = self._spool.unregistered(fingerprint)
        if schema is not None:
            self._register_schema(schema)
            self._spool.registered(fingerprint)
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
