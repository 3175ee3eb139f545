"""Kinesis as it really is: shards that split while lanes wait, records that expired, a stream that was created anew."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from glue_streaming import shards
from glue_streaming.parking import EXPIRED, RECREATED
from glue_streaming.shards import Shard, Start
from schemas import block as blocks
from schemas.change_record import Column, TableSchema
from schemas.control import lane_hash_key
from schemas.position import Line, Position


class Client:
    """A Kinesis client, some of whose answers are changed."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def split(world: Any) -> None:
    kinesis = world.server.client("kinesis")
    shard = kinesis.list_shards(StreamName=world.stream)["Shards"][0]["ShardId"]
    kinesis.split_shard(StreamName=world.stream, ShardToSplit=shard, NewStartingHashKey=str(2**127))


class OneAtATime(Client):
    """With pages of one record."""

    def get_records(self, **request: Any) -> Any:
        return self._real.get_records(**{**request, "Limit": 1})


def test_a_child_waits_until_its_parent_is_drained(world: Any, job: Any) -> None:
    """The parent takes several batches: what the child holds comes behind it, and nothing becomes a hole meanwhile."""
    orders = world.schema("orders")
    job.set("bytes_per_shard", "1")
    job.wrap = OneAtATime
    world.send(*(world.data(orders, 10 * n, [{"id": n}]) for n in range(1, 8)))
    split(world)
    world.send(world.data(orders, 80, [{"id": 8}]), world.progress(85))
    loaded = [job.run(1).rows for _ in range(16)]
    assert set(loaded) <= {0, 1}
    assert (job.ids(), job.state().holes) == ([1, 2, 3, 4, 5, 6, 7, 8], ())
    assert job.watermark() == Line(1, 85)


def test_a_gap_that_takes_several_batches_to_read_again_is_no_expiry(world: Any, job: Any) -> None:
    """The mark's own record was met in the first of them: nothing has expired."""
    orders, items = world.schema("orders"), world.schema("items")
    job.set("bytes_per_shard", "1")
    job.wrap = OneAtATime
    world.send(world.data(orders, 10, [{"id": 1}]))
    world.send(*(world.data(items, 10 * n, [{"id": n}]) for n in range(1, 5)))
    world.data(orders, 20, [{"id": 2}])
    world.send(world.data(orders, 30, [{"id": 3}]))
    job.run(24)
    assert [hole.reason for hole in job.state().holes] == ["gap"]
    assert (job.ids(), job.ids("items")) == ([1, 3], [1, 2, 3, 4])


def test_a_lane_that_waits_holds_no_shards_children(world: Any, job: Any) -> None:
    """A table is paused, the shard splits: other lanes go on in the children; afterwards nothing is missing."""
    orders, items = world.schema("orders"), world.schema("items")
    job.pause("orders", True)
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]))
    job.run()
    split(world)
    world.send(world.data(orders, 20, [{"id": 2}]), world.data(items, 20, [{"id": 8}]))
    job.run(6)
    assert job.ids("items") == [7, 8]
    saved = {shard for shard, _ in job.saved()}
    job.pause("orders", False)
    job.run(6)
    assert job.ids() == [1, 2]
    assert job.state().holes == ()
    assert {shard for shard, _ in job.saved()} > saved


def test_a_lane_that_waits_in_a_drained_shard_survives_a_restart(world: Any, job: Any) -> None:
    """No position was saved past its blocks, in the parent or in the child."""
    orders, items = world.schema("orders"), world.schema("items")
    job.pause("orders", True)
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]))
    job.run()
    split(world)
    world.send(world.data(orders, 20, [{"id": 2}]), world.data(items, 20, [{"id": 8}]))
    job.run(6)
    job.pause("orders", False)
    job.restart()
    report = job.run(8)
    assert (job.ids(), job.ids("items")) == ([1, 2], [7, 8])
    assert (job.state().holes, report.caught_up) == ((), True)


def test_a_gap_is_looked_for_in_drained_parents(world: Any, job: Any) -> None:
    """A block that a task did not see in the parent is found there when the child shows the gap, and is no hole."""
    orders, items = world.schema("orders"), world.schema("items")
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]))
    job.run()
    missed = world.data(orders, 20, [{"id": 2}])
    world.send(missed)
    hidden = _without(job, missed.last)
    job.run(1)
    split(world)
    job.run(3)
    hidden.clear()
    world.send(world.data(orders, 30, [{"id": 3}]), world.progress(35))
    job.run(8)
    assert job.ids() == [1, 2, 3]
    assert job.state().holes == ()
    assert job.watermark() == Line(1, 35)


def _without(job: Any, last: Position) -> set[Position]:
    """Blocks with these last positions are left out of what is read."""
    hidden = {last}

    class Hiding(Client):
        def get_records(self, **request: Any) -> Any:
            page = self._real.get_records(**request)
            page["Records"] = [r for r in page["Records"] if blocks.decode(r["Data"]).last not in hidden]
            return page

    job.wrap = Hiding
    return hidden


def test_records_past_their_retention_are_a_hole_that_says_so(world: Any, job: Any) -> None:
    """The job was down for longer than the stream keeps records: what expired is a hole with that reason."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    job.run()
    world.send(world.data(orders, 20, [{"id": 2}]))
    world.send(world.data(orders, 30, [{"id": 3}]), world.progress(35))
    job.wrap = _trimmed(world, 20)
    job.restart()
    job.run(6)
    (hole,) = job.state().holes
    assert (hole.after, hole.last, hole.reason) == (Position(1, 10, 0), Position(1, 20, 0), EXPIRED)
    assert job.ids() == [1, 3]
    assert job.entry().frozen_by == {"orders": EXPIRED}


def test_an_expired_tail_is_a_lost_tail_that_says_so(world: Any, job: Any) -> None:
    """Nothing came behind what expired: the progress record reveals it."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    job.run()
    world.send(world.data(orders, 20, [{"id": 2}]), world.progress(25))
    job.wrap = _trimmed(world, 20)
    job.restart()
    job.run(8, seconds=15)
    (hole,) = job.state().holes
    assert hole.last == Position(1, 20, 0)
    assert hole.reason.startswith("lost tail")
    assert EXPIRED in hole.reason


def _trimmed(world: Any, lsn: int) -> Callable[[Any], Any]:
    """The stream no longer keeps its records up to the block that ends there."""
    kinesis = world.server.client("kinesis")
    shard = kinesis.list_shards(StreamName=world.stream)["Shards"][0]["ShardId"]
    iterator = kinesis.get_shard_iterator(StreamName=world.stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    records = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    horizon = max(int(r["SequenceNumber"]) for r in records if blocks.decode(r["Data"]).last.lsn == lsn)

    class Trimmed(Client):
        def get_records(self, **request: Any) -> Any:
            page = self._real.get_records(**request)
            page["Records"] = [r for r in page["Records"] if int(r["SequenceNumber"]) > horizon]
            return page

    return Trimmed


@pytest.mark.parametrize("restarts", [False, True], ids=["while-it-runs", "while-it-is-down"])
@pytest.mark.parametrize("refuses", [False, True], ids=["same-numbers", "refuses-foreign-numbers"])
def test_a_stream_created_anew_is_read_from_its_beginning(world: Any, job: Any, refuses: bool, restarts: bool) -> None:
    """Its shards have the old ones' names, and positions in them mean nothing: nothing is skipped, no row is twice,
    and what went with the old stream is a hole with that reason."""
    orders, items = world.schema("orders"), world.schema("items")
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]))
    job.run()
    split(world)
    job.run(3)
    world.data(orders, 20, [{"id": 2}])
    kinesis = world.server.client("kinesis")
    kinesis.delete_stream(StreamName=world.stream)
    kinesis.get_waiter("stream_not_exists").wait(StreamName=world.stream, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    kinesis.create_stream(StreamName=world.stream, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=world.stream, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    world.send(world.data(orders, 30, [{"id": 3}]), world.data(items, 20, [{"id": 8}]), world.progress(35))
    if refuses:
        job.wrap = Refusing
    if restarts:
        job.restart()
    job.clock.now += 30
    job.run(8)
    assert (job.ids(), job.ids("items")) == ([1, 3], [7, 8])
    (hole,) = job.state().holes
    assert (hole.after, hole.last, hole.reason) == (Position(1, 10, 0), Position(1, 20, 0), RECREATED)
    assert job.state("items").holes == ()


class Refusing(Client):
    """AWS refuses sequence numbers of another stream."""

    def get_shard_iterator(self, **request: Any) -> Any:
        known = {r["SequenceNumber"] for r in self._all(request["StreamName"], request["ShardId"])}
        if request.get("StartingSequenceNumber", next(iter(known))) not in known:
            raise ClientError({"Error": {"Code": "InvalidArgumentException", "Message": "foreign"}}, "GetShardIterator")
        return self._real.get_shard_iterator(**request)

    def _all(self, stream: str, shard: str) -> Any:
        found = self._real.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        return self._real.get_records(ShardIterator=found["ShardIterator"])["Records"]


def test_a_record_that_is_no_block_is_named_by_the_hole_that_it_leaves(world: Any, job: Any) -> None:
    """A damaged block cannot say whose it is; its lane's gap names it, with its bytes."""
    orders, items = world.schema("orders"), world.schema("items")
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]))
    world.data(orders, 20, [{"id": 2}])
    world.send_bytes(b"what was a block", "orders", "0")
    world.send_bytes(b"somebody else's", "items", "0")
    world.send(world.data(orders, 30, [{"id": 3}]), world.data(items, 20, [{"id": 8}]))
    job.run()
    (hole,) = job.state().holes
    assert hole.reason.startswith("gap; a record in it was not readable")
    bucket, key = hole.where.removeprefix("s3://").split("/", 1)
    assert world.server.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read() == b"what was a block"
    assert job.state("items").holes == ()


def test_a_schema_that_never_comes_is_a_hole_although_the_table_is_unknown(world: Any, job: Any) -> None:
    """The table stands without columns and keeps the hole; a drain ends; the schema may still come, with its key."""
    never = TableSchema(world.source, "orders", (Column("id", "long", "id", "bigint"),), ("id",))
    world.send(world.data(never, 10, [{"id": 1}]), world.data(never, 20, [{"id": 2}]), world.progress(25))
    job.set("unknown_fingerprint_seconds", "60")
    report = job.run(3)
    assert ((world.source, "orders") in job.driver.lake.tables, report.caught_up) == (False, False)
    job.clock.now += 60
    report = job.run(6)
    (hole,) = job.state().holes
    assert (hole.after, hole.last, report.caught_up) == (None, Position(1, 20, 0), True)
    assert never.fingerprint().hex() in hole.reason
    world.registry.register(never)
    job.run(3)
    world.send(world.data(never, 30, [{"id": 3}]))
    job.run(8)
    assert job.ids() == [3]
    assert job.table().properties["headrace.key"] == '["id"]'


def test_a_table_of_which_nothing_ever_came_has_a_lost_tail(world: Any, job: Any) -> None:
    """Progress names it, and no block of it is there: it is made, with a hole, and the cut says what holds it."""
    orders, items = world.schema("orders"), world.schema("items")
    world.data(orders, 10, [{"id": 1}])
    world.send(world.data(items, 10, [{"id": 7}]), world.progress(15))
    job.run(8, seconds=15)
    (hole,) = job.state().holes
    assert (hole.after, hole.last) == (None, Position(1, 10, 0))
    assert list(job.entry().frozen_by or ["orders"]) == ["orders"]


@pytest.mark.parametrize("name", ["Orders", "a b", "../x", "", "x" * 300])
def test_a_block_of_a_table_that_cannot_be_is_kept_and_passed(world: Any, job: Any, name: str) -> None:
    """No table is made for it, no lane waits for it, and its neighbours load."""
    orders = world.schema("orders")
    odd = TableSchema(world.source, name, (Column("id", "long", "id", "bigint"),), ("id",))
    world.send(world.data(odd, 10, [{"id": 1}]), world.data(orders, 10, [{"id": 7}]))
    report = job.run(1)
    assert (report.malformed, job.run().parked, job.ids()) == (1, 0, [7])


def test_a_lane_of_a_table_with_too_many_holes_stops_until_some_are_mended(
    world: Any, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table's property could not hold more. The lane still takes what mends them; other tables go on."""
    monkeypatch.setattr("glue_streaming.load.MAX_HOLES", 2)
    monkeypatch.setattr("glue_streaming.obstacles.MAX_HOLES", 2)
    orders, items = world.schema("orders"), world.schema("items")
    world.send(world.data(orders, 10, [{"id": 1}]))
    lost = []
    for n in range(3):
        lost.append(world.data(orders, 20 + 20 * n, [{"id": 10 + n}]))
        world.send(world.data(orders, 30 + 20 * n, [{"id": 2 + n}]))
    world.send(world.data(items, 10, [{"id": 7}]))
    job.run(12)
    assert (job.ids(), job.ids("items"), len(job.state().holes)) == ([1, 2, 3], [7], 2)
    world.send(lost[0])
    job.run(3)
    assert [hole.last.lsn for hole in job.state().holes] == [40]
    job.restart()
    job.run(6)
    assert [hole.last.lsn for hole in job.state().holes] == [40, 60]
    assert job.ids() == [1, 10, 2, 3, 4]


def test_a_lineage_is_every_shard_of_a_hash_key_in_order() -> None:
    """Through splits and merges, from a shard on, or from the oldest where that one is no longer listed."""
    listed = {
        "c": Shard("c", ("a",), 0, 4),
        "d": Shard("d", ("a",), 5, 9),
        "a": Shard("a", (), 0, 9),
        "b": Shard("b", (), 10, 19),
        "e": Shard("e", ("d", "b"), 5, 19),
    }
    assert shards.lineage(listed, 7) == ["a", "d", "e"]
    assert shards.lineage(listed, 7, since="d") == ["d", "e"]
    assert shards.lineage(listed, 12, since="gone") == ["b", "e"]
    assert shards.lineage(listed, lane_hash_key("s", "t", "0")) == []
    assert Start("5", inclusive=True).iterator()["ShardIteratorType"] == "AT_SEQUENCE_NUMBER"
