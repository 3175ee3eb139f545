"""What the catalog says of a source: the watermark, its ring, and a cut that is closed for a repair."""

import base64
import json
from typing import Any

import pytest

from glue_streaming import commit
from glue_streaming.aws import Aws
from glue_streaming.errors import StaleWriter
from glue_streaming.lake_table import identifier
from glue_streaming.state import FoldState, fold_state
from glue_streaming.watermark import aged
from schemas.control import Announcement, SnapshotEnd, snapshot_lane
from schemas.position import Line
from tests.streaming.test_streaming_reshard import OneAtATime

FIRST, SECOND = 1_000_001, 1_000_002


def view_sql(world: Any) -> str:
    table = Aws().client("glue").get_table(DatabaseName=f"{world.source}_cut", Name="watermark")["Table"]
    encoded = table["ViewOriginalText"].removeprefix("/* Presto View: ").removesuffix(" */")
    return str(json.loads(base64.b64decode(encoded))["originalSql"])


def fold(world: Any, line: Line, activated_through: int) -> None:
    """Sets what a fold's commit would set."""
    catalog, name = Aws().catalog, identifier(world.source, "orders")
    expected = fold_state(catalog.load_table(name).properties)
    new = FoldState(line, activated_through)
    commit.replace(catalog, name, remove=[], add=[], expected=expected, new=new, summary={})


def damaged(world: Any, job: Any) -> None:
    """The table was activated, and has lost a block since."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    job.run()
    fold(world, Line(1, 15), FIRST)
    world.data(orders, 20, [{"id": 2}])
    world.send(world.data(orders, 30, [{"id": 3}]), world.progress(35))
    job.run()


def repaired(world: Any) -> None:
    """Sends a complete snapshot that was read at 40, and progress behind it."""
    orders = world.schema("orders")
    announced = [Announcement(SECOND, "orders", 36, abandoned=False)]
    lane = snapshot_lane(SECOND, 0, 1)
    world.send(
        world.progress(37, announced=announced),
        world.snapshot(orders, 40, [{"id": 1}, {"id": 2}, {"id": 3}], lane=lane),
        world.snapshot_end("orders", SnapshotEnd(SECOND, 0, 1, 1, 40, None, None, 3)),
        world.progress(45, announced=announced),
    )


def test_a_hole_freezes_the_watermark_and_says_so(world: Any, job: Any) -> None:
    """While a hole is open the cut stands still at the last whole transaction, and the entry names table and reason."""
    damaged(world, job)
    assert job.entry().line == Line(1, 15)
    assert job.entry().frozen_by == {"orders": "gap"}
    assert job.entry().closure is None


def test_a_repair_closes_the_cut_until_it_is_activated(world: Any, job: Any) -> None:
    """The cut closes when the repairing snapshot is complete, raises meanwhile, and opens at a W not below F."""
    damaged(world, job)
    repaired(world)
    job.run()
    closed = job.entry()
    assert closed.closure is not None
    assert closed.closure.waits_for == {"orders": SECOND}
    assert (closed.line, closed.repair_lines["orders"]) == (Line(1, 15), Line(1, 45))
    assert "CAST('" in view_sql(world)
    fold(world, Line(1, 45), SECOND)
    job.run()
    opened = job.entry()
    assert (opened.closure, opened.line, opened.frozen_by) == (None, Line(1, 45), {})
    assert "CAST('" not in view_sql(world)
    assert job.driver.lake.tables[world.source, "orders"].state.holes == ()


def test_a_restart_while_the_cut_is_closed_leaves_it_closed(world: Any, job: Any) -> None:
    """A new driver knows of the closure, and of the watermark, from the catalog alone."""
    damaged(world, job)
    repaired(world)
    job.run()
    job.restart()
    job.run()
    assert job.entry().closure is not None
    fold(world, Line(1, 45), SECOND)
    world.send(world.progress(46))
    job.run()
    assert (job.entry().closure, job.entry().line) == (None, Line(1, 46))


def test_the_ring_ages_although_the_source_is_idle(world: Any, job: Any) -> None:
    """A fold may use the last watermark of an idle source once it is older than the horizon."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    job.run()
    assert aged(job.entry().ring, 5.0) == Line(1, 15)


def test_a_superseded_driver_publishes_nothing(world: Any, job: Any) -> None:
    """The epoch is checked before the watermark is written."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    job.run()
    world.send(world.progress(15))
    job.another()
    with pytest.raises(StaleWriter):
        job.run()
    assert job.entry().line is None


def test_a_job_that_reads_the_stream_again_moves_nothing_back(world: Any, job: Any) -> None:
    """Its positions are lost, and it meets old progress records one by one: the watermark stays where it was."""
    orders = world.schema("orders")
    for lsn in (10, 20, 30):
        world.send(world.data(orders, lsn, [{"id": lsn}]), world.progress(lsn + 5))
    job.run()
    job.lose_positions()
    job.set("bytes_per_shard", "1")
    job.wrap = OneAtATime
    job.restart()
    assert {job.watermark() for _ in range(8) if job.run(1)} == {Line(1, 35)}
