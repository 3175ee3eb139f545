"""The driver, batch by batch, without Spark: what the stream says is in the lake once, or is a hole with a reason."""

from collections.abc import Callable
from typing import Any

import pytest

from glue_streaming.errors import StaleWriter
from schemas.control import Announcement, LaneEnd, SnapshotEnd, snapshot_lane
from schemas.position import Line, Position


def test_blocks_become_rows_once(world: Any, job: Any) -> None:
    """Data reaches the log tier in order, with its positions; a resent block adds nothing."""
    orders = world.schema("orders", "note")
    block = world.data(orders, 10, [{"id": 1, "note": "a"}, {"id": 2, "note": None}])
    world.send(block, block, world.data(orders, 20, [{"id": 3, "note": "c"}]), block)
    job.run()
    assert [(row["id"], row["_lsn"], row["_idx"], row["_tier"]) for row in job.rows()] == [
        (1, 10, 0, "log"),
        (2, 10, 1, "log"),
        (3, 20, 0, "log"),
    ]


def test_losing_every_saved_position_costs_a_re_read_and_no_row(world: Any, job: Any) -> None:
    """A new driver without saved positions reads the stream from its beginning and drops what the marks hold."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    job.run()
    job.lose_positions()
    world.send(world.data(orders, 20, [{"id": 2}]))
    job.restart()
    assert job.run(1).duplicates == 1
    job.run()
    assert job.ids() == [1, 2]


def test_a_new_column_is_loaded_beside_the_old_structure(world: Any, job: Any) -> None:
    """Blocks of both writer schemas load; rows written before have null in the new column."""
    world.send(world.data(world.schema("orders"), 10, [{"id": 1}]))
    job.run()
    world.send(world.data(world.schema("orders", "note"), 20, [{"id": 2, "note": "new"}]))
    job.run()
    assert [(row["id"], row["note"]) for row in job.rows()] == [(1, None), (2, "new")]


def test_a_gap_is_read_again_before_it_is_a_hole_and_a_resend_fills_it(world: Any, job: Any) -> None:
    """A lost block becomes a hole with its positions, later blocks load, the cut stands still, the resend heals it."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    lost = world.data(orders, 20, [{"id": 2}])
    world.send(world.data(orders, 30, [{"id": 3}]), world.progress(35))
    job.run(6)
    (hole,) = job.state().holes
    assert (hole.after, hole.last, hole.reason) == (Position(1, 10, 0), Position(1, 20, 0), "gap")
    assert job.ids() == [1, 3]
    assert job.watermark() is None
    world.send(lost, world.progress(36))
    job.run(3)
    assert job.state().holes == ()
    assert job.ids() == [1, 2, 3]
    assert job.watermark() == Line(1, 36)


@pytest.mark.parametrize("damage", ["payload", "count", "reject", "lost"])
def test_a_bad_block_is_a_hole_and_the_good_ones_flow(world: Any, job: Any, damage: str) -> None:
    """Bad data never stops good data: the raw bytes are kept, the hole says why."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    if damage in ("reject", "lost"):
        reject = world.reject("orders", Position(1, 20, 0), "numeric out of range")
        if damage == "lost":  # in the place of a whole block
            object.__setattr__(reject, "first", Position(1, 15, 0))
        world.send(reject)
    else:
        bad = world.data(orders, 20, [{"id": 2}])
        object.__setattr__(bad, *(("checksum", 7) if damage == "payload" else ("count", 5)))
        world.send(bad)
    world.send(world.data(orders, 30, [{"id": 3}]))
    job.run()
    (hole,) = job.state().holes
    assert (hole.after, hole.last) == (Position(1, 10, 0), Position(1, 20, 0))
    assert job.ids() == [1, 3]
    bucket, key = hole.where.removeprefix("s3://").split("/", 1)
    assert world.server.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


def test_a_lost_tail_becomes_a_hole(world: Any, job: Any) -> None:
    """A position that progress names and that never comes is found although no later block reveals the gap."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    world.data(orders, 20, [{"id": 2}])
    world.send(world.progress(25))
    for _ in range(8):
        job.driver.run_batch()
        job.clock.now += 15
    (hole,) = job.state().holes
    assert (hole.after, hole.last) == (Position(1, 10, 0), Position(1, 20, 0))
    assert "lost tail" in hole.reason


def test_the_watermark_waits_for_every_lane_and_never_goes_back(world: Any, job: Any) -> None:
    """W is a position that all tables cover; an older driver's view of it does not return."""
    orders, items = world.schema("orders"), world.schema("items")
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 10, [{"id": 1}]), world.progress(15))
    job.run()
    assert job.watermark() == Line(1, 15)
    vector = [LaneEnd("orders", "0", Position(1, 20, 0)), LaneEnd("items", "0", Position(1, 10, 0))]
    world.send(world.progress(25, vector=vector))
    job.run()
    assert job.watermark() == Line(1, 15)
    world.send(world.data(orders, 20, [{"id": 2}]))
    job.run()
    assert job.watermark() == Line(1, 25)


def test_a_snapshot_is_staged_and_its_end_is_kept(world: Any, job: Any) -> None:
    """Rows of a snapshot go to the staged tier; its announcement and its ended group are in the table's state."""
    orders = world.schema("orders")
    lane = snapshot_lane(1_000_001, 0, 1)
    world.send(
        world.progress(5, announced=[Announcement(1_000_001, "orders", 3, abandoned=False)]),
        world.snapshot(orders, 10, [{"id": 1}, {"id": 2}], lane=lane),
        world.snapshot_end("orders", SnapshotEnd(1_000_001, 0, 1, 1, 10, None, None, 2)),
    )
    job.run()
    assert {row["_tier"] for row in job.rows()} == {"staged"}
    snapshot = job.state().snapshots[1_000_001]
    assert snapshot.complete
    assert snapshot.highest == 10
    assert snapshot.low == 3


def test_a_newer_driver_stops_the_older_one(world: Any, job: Any) -> None:
    """Two jobs started by mistake: the older one writes nothing any more and says why."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    job.run()
    old = job.driver
    job.restart()
    world.send(world.data(orders, 20, [{"id": 2}]))
    job.run()
    with pytest.raises(StaleWriter, match="its epoch is 2, ours is 1"):
        old.run_batch()
    assert job.ids() == [1, 2]


def test_an_older_driver_that_was_reading_all_the_while_commits_nothing(world: Any, job: Any) -> None:
    """It has read its batch when the newer one starts and commits: its own commit is refused, and no row is twice."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    job.run()
    old, load = job.driver, job.driver._run_tasks

    def overtaken(tasks: Any) -> Any:
        outcomes = load(tasks)
        job.restart()
        job.run()
        return outcomes

    old._run_tasks = overtaken
    world.send(world.data(orders, 20, [{"id": 2}]), world.progress(25))
    saved, published = job.saved(), job.watermark()
    with pytest.raises(StaleWriter, match="writer epoch"):
        old.run_batch()
    assert job.ids() == [1, 2]
    assert (published, job.watermark()) == (None, Line(1, 25))
    assert job.saved() != saved
    assert job.run().duplicates == 0


def test_a_lost_answer_of_a_commit_is_looked_up(world: Any, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog took the commit and its answer was lost: the rows are there once, and the driver goes on."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    job.run()
    table = job.driver.lake.tables[world.source, "orders"].table
    original: Callable[..., Any] = table.catalog.commit_table

    def lose_the_answer(*arguments: Any, **more: Any) -> Any:
        original(*arguments, **more)
        monkeypatch.setattr(table.catalog, "commit_table", original)
        raise ConnectionError("connection reset")

    monkeypatch.setattr(table.catalog, "commit_table", lose_the_answer)
    world.send(world.data(orders, 20, [{"id": 2}]))
    job.run()
    assert job.ids() == [1, 2]


def test_a_reshard_keeps_every_lane_in_order(world: Any, job: Any) -> None:
    """Parents are drained before their children are read."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    kinesis = world.server.client("kinesis")
    shard = kinesis.list_shards(StreamName=world.stream)["Shards"][0]["ShardId"]
    kinesis.split_shard(StreamName=world.stream, ShardToSplit=shard, NewStartingHashKey=str(2**127))
    world.send(world.data(orders, 20, [{"id": 2}]), world.progress(25))
    job.run(6)
    assert job.ids() == [1, 2]
    assert job.state().holes == ()
    assert job.watermark() == Line(1, 25)


def test_a_batch_with_nothing_to_do_commits_nothing(world: Any, job: Any) -> None:
    """A table without new rows gets no commit."""
    world.send(world.data(world.schema("orders"), 10, [{"id": 1}]))
    job.run()
    report = job.driver.run_batch()
    assert (report.commits, report.caught_up) == (0, True)
