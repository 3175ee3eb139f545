"""The sender: order per lane and completeness, whatever becomes of its requests."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.blocks import Lane, Packer
from producer.control_lane import ControlLane
from producer.fakes import FakeStream, Outcome
from producer.sender import Sender
from producer.spool import DurableEnd, Snapshot, Spool
from schemas import block as wire
from schemas.block import Kind
from schemas.control import decode_progress
from schemas.errors import IncompatibleSchema, RegistryConflict
from schemas.position import Position

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Schemas:
    """A registry that remembers what was registered when, and fails as told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.registered: list[bytes] = []

    def register(self, schema) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.registered.append(schema.fingerprint())


class Claims:
    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    def put(self, name: str, payload: bytes) -> str:
        self.stored[f"s3://claims/{name}"] = payload
        return f"s3://claims/{name}"


class NoControl:
    def take(self) -> None:
        return None

    def accepted(self) -> None:
        raise AssertionError("nothing was taken")


def _sender(spool: Spool, stream: FakeStream, *, registry=None, claims=None, control=None) -> tuple[Sender, Clock]:
    clock = Clock()
    sender = Sender(
        "shop",
        spool,
        stream,
        registry or Schemas(),
        claims or Claims(),
        control or NoControl(),
        clock=clock,
        dice=lambda: 0.5,
    )
    return sender, clock


def _drain(sender: Sender, clock: Clock, spool: Spool, rounds: int = 1000) -> None:
    for _ in range(rounds):
        sender.send_round()
        clock.now += 20
        if not spool.lanes_with_blocks():
            return
    raise AssertionError(f"still not sent: {sender.trouble}")


def _fill(spool: Spool, make_change, lane: Lane, lsns: range, size: int = 20) -> list[bytes]:
    packer = Packer("shop", lane, Kind.DATA, 1000, spool.ends(1).get(lane))
    changes = [make_change(lsn, size=size) for lsn in lsns]
    blocks = [block for change in changes for block in packer.pack([change], NOW)]
    end = DurableEnd(1, lsns[-1], lsns[-1] + 8, 0)
    spool.append(blocks, durable=end, schemas=[change.schema for change in changes])
    return [block.data for block in blocks]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fates=st.lists(st.sampled_from(list(Outcome)), max_size=40),
    lanes=st.integers(1, 4),
    blocks=st.integers(1, 6),
    restarts=st.sets(st.integers(0, 20), max_size=3),
)
def test_order_and_completeness_hold_whatever_fails(make_change, fates, lanes, blocks, restarts):
    """Each lane's records, first appearances only, are its blocks in order; nothing is missing; none overtook."""
    stream = FakeStream(lambda number: fates[number] if number < len(fates) else Outcome.ACCEPT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.db"
        spool = Spool(path, 1 << 30)
        expected = {str(n): _fill(spool, make_change, Lane("t", str(n)), range(10, 10 + blocks)) for n in range(lanes)}
        sender, clock = _sender(spool, stream)
        for step in range(500):
            if step in restarts:
                spool.close()
                spool = Spool(path, 1 << 30)
                sender, clock = _sender(spool, stream)
            sender.send_round()
            clock.now += 20
            if not spool.lanes_with_blocks():
                break
        spool.close()
    assert all(len({r.hash_key for r in request}) == len(request) for request in stream.requests)
    arrived: dict[str, list[bytes]] = defaultdict(list)
    for record in stream.records:
        block = wire.decode(record.data)
        mark = wire.decode(arrived[block.lane][-1]).last if arrived[block.lane] else None
        if mark is None or block.last > mark:
            assert block.prev == mark
            arrived[block.lane].append(record.data)
    assert arrived == expected


def test_a_refused_record_holds_back_its_own_lane_only(make_spool, make_change):
    """The other lanes go on at once; the refused lane rests, then sends the same block again."""
    spool = make_spool()
    _fill(spool, make_change, Lane("t", "a"), range(10, 13))
    _fill(spool, make_change, Lane("t", "b"), range(10, 13))
    stream = FakeStream(lambda number: Outcome.THROTTLE_SOME if number == 0 else Outcome.ACCEPT)
    sender, clock = _sender(spool, stream)
    sender.send_round()
    assert "Kinesis refuses" in sender.trouble
    sender.send_round()
    assert [len(request) for request in stream.requests] == [2, 1]
    _drain(sender, clock, spool)
    assert sender.trouble is None
    assert len(stream.records) == 6


def test_waits_grow_and_end_at_the_first_success(make_spool, make_change):
    """An outage is tried again for ever, ever less often, and forgotten when it is over."""
    spool = make_spool()
    _fill(spool, make_change, Lane("t", "0"), range(10, 11))
    stream = FakeStream(lambda number: Outcome.FAIL if number < 12 else Outcome.ACCEPT)
    sender, clock = _sender(spool, stream)
    tried = []
    while spool.lanes_with_blocks():
        if len(stream.requests) > len(tried):
            tried.append(clock.now)
        sender.send_round()
        clock.now += 0.01
    gaps = [round(later - earlier, 2) for earlier, later in pairwise(tried)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0.1 < 5 < gaps[-1] < 10.1
    assert sender.trouble is None


def test_the_schema_is_registered_before_its_first_block_and_once(make_spool, make_change):
    spool = make_spool()
    _fill(spool, make_change, Lane("t", "0"), range(10, 13))
    registry = Schemas(RegistryConflict("taken"))
    stream = FakeStream(lambda _: Outcome.ACCEPT if registry.registered else Outcome.FAIL)
    sender, clock = _sender(spool, stream, registry=registry)
    _drain(sender, clock, spool)
    assert registry.registered == [make_change(1).schema.fingerprint()]
    assert len(stream.requests) == 3


def test_nothing_goes_while_the_registry_does_not_answer(make_spool, make_change):
    spool = make_spool()
    _fill(spool, make_change, Lane("t", "0"), range(10, 11))
    stream = FakeStream()
    sender, clock = _sender(spool, stream, registry=Schemas(ConnectionError("no route")))
    assert not sender.send_round()
    assert (stream.requests, "no route" in sender.trouble) == ([], True)
    _drain(sender, clock, spool)


def test_blocks_of_a_change_that_cannot_be_followed_go_all_the_same(make_spool, make_change):
    """The lake keeps their bytes and opens a hole; holding them back would hold back everything."""
    spool = make_spool()
    _fill(spool, make_change, Lane("t", "0"), range(10, 11))
    stream = FakeStream()
    sender, clock = _sender(spool, stream, registry=Schemas(IncompatibleSchema("shop.t", ["the key changed"])))
    _drain(sender, clock, spool)
    assert len(stream.records) == 1


def test_a_block_above_the_record_limit_travels_as_a_claim(make_spool, make_change):
    """Its payload is stored first; the record names it, and both together are the block."""
    spool = make_spool()
    (data,) = _fill(spool, make_change, Lane("t", "0"), range(10, 11), size=2_000_000)
    claims, stream = Claims(), FakeStream()
    sender, clock = _sender(spool, stream, claims=claims)
    _drain(sender, clock, spool)
    block = wire.decode(stream.records[0].data)
    assert (len(stream.records[0].data) < 1000, block.records) == (True, b"")
    assert wire.datums(block, claims.stored[block.claim]) == wire.datums(wire.decode(data))


@pytest.mark.parametrize(("lanes", "size"), [(600, 10), (30, 700_000)])
def test_a_request_stays_within_kinesis_limits_and_no_lane_starves(make_spool, make_change, lanes, size):
    spool = make_spool()
    for n in range(lanes):
        _fill(spool, make_change, Lane("t", str(n)), range(10, 12), size=size)
    stream = FakeStream()
    sender, clock = _sender(spool, stream)
    _drain(sender, clock, spool)
    for request in stream.requests:
        assert len(request) <= 500
        assert sum(len(r.data) + len(r.partition_key) for r in request) <= 10 * 1024 * 1024
    assert len(stream.requests) <= 6


def test_progress_goes_with_the_blocks_and_is_repeated_until_accepted(make_spool, make_change):
    """A progress record whose answer was lost is made anew; an announcement counts only when accepted."""
    spool = make_spool()
    _fill(spool, make_change, Lane("t", "0"), range(10, 11))
    spool.add_snapshot(Snapshot(1_000_001, 1, "t", 5, "announced", 0))
    stream = FakeStream(lambda number: Outcome.LOSE_ANSWER if number == 0 else Outcome.ACCEPT)
    clock = Clock()
    control = ControlLane("shop", spool, clock=clock)
    sender = Sender("shop", spool, stream, Schemas(), Claims(), control, clock=clock, dice=lambda: 0.5)
    sender.send_round()
    assert not control.wait_announced(1_000_001, 0)
    for _ in range(5):
        clock.now += 2
        sender.send_round()
    assert control.wait_announced(1_000_001, 0)
    said = [wire.decode(record.data) for record in stream.records]
    through = [decode_progress(wire.datums(block)).through for block in said if block.kind is Kind.PROGRESS]
    assert (through[0], through[-1]) == (9, 10)
    assert control.last.vector[0].last == Position(1, 10, 0)
