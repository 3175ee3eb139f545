"""The sender: order per lane and completeness, whatever becomes of its requests."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.blocks import Lane, Packer
from producer.control_lane import ControlLane
from producer.durable_end import DurableEnd
from producer.fakes import FakeStream, Outcome
from producer.sender import Sender
from producer.snapshot_book import Snapshot
from producer.spool import Spool
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


class OneShard(FakeStream):
    def shard_of(self, record) -> str:
        return "shard-0"


def test_a_shard_that_refuses_rests_with_all_its_lanes(make_spool, make_change):
    """The shard's limit was met: its other lanes would be refused as well. It comes back at the first whole request."""
    spool = make_spool()
    for name in "ab":
        _fill(spool, make_change, Lane("t", name), range(10, 15))
    stream = OneShard(lambda number: Outcome.THROTTLE_SOME if number == 1 else Outcome.ACCEPT)
    sender, clock = _sender(spool, stream)
    for _ in range(4):
        sender.send_round()
    assert [len(request) for request in stream.requests] == [2, 2]
    clock.now += 1
    sender.send_round()
    sender.send_round()
    assert [len(request) for request in stream.requests] == [2, 2, 2, 2]


def test_a_bandwidth_cap_holds_and_spends_what_there_is_on_the_first_in_rank(make_spool, make_change):
    """A table of a higher priority first, then other changes, then the rows of snapshots; in order within each lane."""
    spool = make_spool()
    for table, name in (("bulk", "s1000001.0.1"), ("bulk", "0"), ("hot", "0")):
        _fill(spool, make_change, Lane(table, name), range(10, 14), size=1000)
    stream, clock = FakeStream(), Clock()
    sender = Sender(
        "shop",
        spool,
        stream,
        Schemas(),
        Claims(),
        NoControl(),
        priority=lambda table: int(table == "hot"),
        max_bytes_per_second=2000,
        clock=clock,
        dice=lambda: 0.5,
    )
    while spool.lanes_with_blocks():
        sender.send_round()
        clock.now += 0.1
    sent = [wire.decode(record.data) for record in stream.records]
    expected = ["hot/0"] * 4 + ["bulk/0"] * 4 + ["bulk/s1000001.0.1"] * 4
    assert [f"{block.table}/{block.lane}" for block in sent] == expected
    assert [block.last.lsn for block in sent] == [10, 11, 12, 13] * 3
    on_the_wire = sum(len(record.data) for record in stream.records) * 4 / 3
    assert on_the_wire / 2000 - 2 < clock.now < on_the_wire / 2000 + 2


def test_nothing_is_sent_while_the_lease_may_be_anothers(make_spool, make_change):
    spool, stream, speaks = make_spool(), FakeStream(), [False]
    _fill(spool, make_change, Lane("t", "0"), range(10, 11))
    sender = Sender("shop", spool, stream, Schemas(), Claims(), NoControl(), speaks=lambda: speaks[0], clock=Clock())
    assert not sender.send_round()
    assert (stream.requests, "lease" in sender.trouble) == ([], True)
    speaks[0] = True
    assert sender.send_round()
    assert sender.trouble is None


def test_nothing_is_sent_until_damage_is_mended(make_spool, make_change, tmp_path):
    """Of no lane: what stands behind the damaged block could not be captured again once Kinesis has some of it."""
    spool, stream, clock = make_spool(), FakeStream(), Clock()
    for lane in (Lane("t", str(number)) for number in range(3)):
        packer = Packer("shop", lane, Kind.DATA, 100, None)
        spool.append(packer.pack([make_change(10)], NOW), durable=DurableEnd(1, 10, 18, 100))
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db, db:
        db.execute("UPDATE blocks SET data = x'00' WHERE lane = '1'")
    spool = make_spool()
    sender = Sender(
        "shop", spool, stream, Schemas(), Claims(), NoControl(), max_bytes_per_second=100, clock=clock
    )  # one lane a round, another one each time
    for _ in range(4):
        assert not sender.send_round()
        clock.now += 100
    assert (stream.records, sender.damaged.is_set()) == ([], True)
    assert "damaged" in sender.trouble
    assert spool.declare_damaged("shop").blocks == 1
    sender.mended()
    for _ in range(3):
        assert sender.send_round()
        clock.now += 100
    assert sorted(wire.decode(record.data).kind for record in stream.records) == [Kind.DATA, Kind.DATA, Kind.REJECT]
    assert sender.trouble is None


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
    spool.book.add(Snapshot(1_000_001, 1, "t", 5))
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
