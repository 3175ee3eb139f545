"""Kinesis as it really is, second part: throttles, expired iterators, empty pages, shards that change while they are
read, and as many as there may be."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError

from glue_streaming.shards import Start, fetch
from schemas.position import Line

THROTTLES = ("ProvisionedThroughputExceededException", "KMSThrottlingException", "LimitExceededException")


@pytest.fixture
def faults(world: Any) -> Iterator[Callable[..., None]]:
    """Sets the rules by which the laptop's Kinesis fails on this world's stream."""

    def rules(*several: dict[str, Any]) -> None:
        data = json.dumps([{"stream": world.stream, **rule} for rule in several]).encode()
        request = urllib.request.Request(f"{world.server.endpoint}/_local/kinesis/faults", data=data, method="POST")
        urllib.request.urlopen(request).close()

    yield rules
    rules()


@pytest.mark.usefixtures("quick_backoff")
@pytest.mark.parametrize("code", THROTTLES)
@pytest.mark.parametrize("op", ["GetRecords", "GetShardIterator"])
def test_a_throttled_shard_is_waited_for(world: Any, job: Any, faults: Callable[..., None], op: str, code: str) -> None:
    """The throughput's limit and that of the stream's key: the batch reads on, loses nothing, and finds no hole."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    faults({"op": op, "code": code, "times": 6})
    report = job.run(4)
    assert (job.ids(), job.state().holes, report.caught_up) == ([1], (), True)


@pytest.mark.usefixtures("quick_backoff")
def test_a_shard_that_is_throttled_for_long_waits_for_the_next_batch(
    world: Any, job: Any, faults: Callable[..., None]
) -> None:
    """The batch ends in its time, says that it is not caught up, and saves no position; then all is there."""
    orders = world.schema("orders")
    job.set("seconds_per_shard", "0.1")
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    faults({"op": "GetRecords", "code": "KMSThrottlingException"})
    reports = [job.run(1) for _ in range(3)]
    assert [(report.rows, report.caught_up) for report in reports] == [(0, False)] * 3
    assert job.saved() == []
    faults()
    assert job.run(4).caught_up
    assert (job.ids(), job.watermark()) == ([1], Line(1, 15))


class Pages:
    """A shard of three records, a page each; its iterators expire after a page, or always."""

    def __init__(self, *, always: bool) -> None:
        self._always, self._stale = always, False
        self.iterators = 0

    def get_shard_iterator(self, **request: Any) -> dict[str, str]:
        self.iterators += 1
        self._stale = self._always
        return {"ShardIterator": request.get("StartingSequenceNumber", "0")}

    def get_records(self, *, ShardIterator: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - Kinesis' name
        if self._stale:
            raise ClientError({"Error": {"Code": "ExpiredIteratorException", "Message": "old"}}, "GetRecords")
        self._stale = True
        number = int(ShardIterator) + 1
        record = {"SequenceNumber": str(number), "Data": b"x"}
        return {"Records": [record], "MillisBehindLatest": 3 - number, "NextShardIterator": str(number)}


def test_an_expired_iterator_goes_on_behind_the_last_record() -> None:
    """Nothing is read twice, nothing passed over."""
    shard = Pages(always=False)
    found = fetch(shard, "s", "shard", Start(), max_bytes=1 << 20, max_seconds=60)
    assert [record.sequence for record in found.records] == ["1", "2", "3"]
    assert (shard.iterators, found.at_tip) == (3, True)


def test_iterators_that_expire_at_once_end_the_batch_in_its_time() -> None:
    """A machine so slow that every iterator is old: what was read counts, and the next batch goes on."""
    times = iter(range(100))
    found = fetch(
        Pages(always=True), "s", "shard", Start(), max_bytes=1 << 20, max_seconds=9, clock=lambda: next(times)
    )
    assert (found.records, found.at_tip, found.closed) == ((), False, False)


def test_empty_pages_are_no_tip(world: Any, job: Any, faults: Callable[..., None]) -> None:
    """A page without records that says it is behind is read on from, within the same batch."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    faults({"op": "GetRecords", "empty": True, "times": 5})
    assert job.run(1).blocks == 2


def test_a_shard_added_while_a_batch_reads_is_read_behind_its_parent(world: Any, job: Any) -> None:
    """The stream splits between two pages of a batch, and the lane goes on in the child: in order, without a hole."""
    orders = world.schema("orders")
    world.send(*(world.data(orders, 10 * n, [{"id": n}]) for n in (1, 2)))
    kinesis = world.server.client("kinesis")

    class SplitsMeanwhile:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def get_records(self, **request: Any) -> Any:
            page = self._real.get_records(**{**request, "Limit": 1})
            if len(kinesis.list_shards(StreamName=world.stream)["Shards"]) == 1:
                (shard,) = kinesis.list_shards(StreamName=world.stream)["Shards"]
                half = str(2**127)
                kinesis.split_shard(StreamName=world.stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=half)
                world.send(world.data(orders, 30, [{"id": 3}]), world.progress(35))
            return page

    job.wrap = SplitsMeanwhile
    assert sum(job.run(1).rows for _ in range(6)) == 3
    assert (job.ids(), job.state().holes, job.watermark()) == ([1, 2, 3], (), Line(1, 35))


def test_resharding_up_and_down_under_load(make_world: Callable[..., Any], make_job: Callable[..., Any]) -> None:
    """Splits, merges and new counts between blocks of many lanes and between batches that read in small bites: every
    lane stays in order, nothing is lost, twice, or a hole."""
    world, dice = make_world(shards=2), Random(7)
    job = make_job(world)
    job.set("bytes_per_shard", "600")
    orders, kinesis = world.schema("orders"), world.server.client("kinesis")
    sent = 0
    for count in (4, 2, 3):
        for _ in range(2):
            for lane in range(6):
                sent += 1
                world.send(world.data(orders, sent * 10, [{"id": sent}], lane=str(lane)))
            if dice.random() < 0.5:
                job.run(1)
        kinesis.update_shard_count(StreamName=world.stream, TargetShardCount=count, ScalingType="UNIFORM_SCALING")
        kinesis.get_waiter("stream_exists").wait(StreamName=world.stream, WaiterConfig={"Delay": 1})
    world.send(world.progress(sent * 10 + 5))
    while not job.run(1, seconds=15).caught_up:
        pass
    assert (job.ids(), job.state().holes) == (list(range(1, sent + 1)), ())
    assert job.watermark() == Line(1, sent * 10 + 5)
    assert len(kinesis.list_shards(StreamName=world.stream)["Shards"]) > 8


def test_two_hundred_shards_are_read_in_one_batch(make_world: Callable[..., Any], make_job: Callable[..., Any]) -> None:
    """A task each; a lane in every one of many shards moves, in one commit."""
    world = make_world(shards=200)
    job = make_job(world)
    orders = world.schema("orders")
    world.send(*(world.data(orders, 10 + n, [{"id": n}], lane=str(n)) for n in range(60)), world.progress(100))
    job.run(1)
    report = job.run(1)
    assert (report.rows, report.commits, report.caught_up) == (60, 1, True)
    assert sorted(job.ids()) == list(range(60))
    assert len({mark.shard for mark in job.state().marks.values()}) > 40
