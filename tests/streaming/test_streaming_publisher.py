"""What the catalog says of a source: the watermark, its ring, and a cut that is closed for a repair."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from glue_streaming import commit, watermark_view
from glue_streaming.aws import Aws
from glue_streaming.batch import Driver
from glue_streaming.errors import StaleWriter
from glue_streaming.lake_table import identifier
from glue_streaming.load import Outcome, Task, load_shard
from glue_streaming.settings import parse_arguments
from glue_streaming.state import FoldState, fold_state
from glue_streaming.watermark import aged
from schemas.control import Announcement, SnapshotEnd, snapshot_lane
from schemas.position import Line

FIRST, SECOND = 1_000_001, 1_000_002


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def start(world: Any, clock: Clock) -> Driver:
    aws = Aws()

    def run(tasks: Sequence[Task]) -> list[Outcome]:
        return [load_shard(task, aws.client("kinesis"), aws.client("s3"), aws.io) for task in tasks]

    return Driver(aws, parse_arguments(world.arguments()), run, clock)


def run(driver: Driver, clock: Clock, times: int = 4) -> None:
    for _ in range(times):
        driver.run_batch()
        clock.now += 6


def entry(world: Any) -> watermark_view.Entry:
    return watermark_view.read(Aws().client("glue"), world.source)


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


def damaged(world: Any) -> tuple[Driver, Clock]:
    """A source whose table was activated, and has lost a block since."""
    orders, clock = world.schema("orders"), Clock()
    driver = start(world, clock)
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    run(driver, clock)
    fold(world, Line(1, 15), FIRST)
    world.data(orders, 20, [{"id": 2}])
    world.send(world.data(orders, 30, [{"id": 3}]), world.progress(35))
    run(driver, clock)
    return driver, clock


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


def test_a_hole_freezes_the_watermark_and_says_so(world: Any) -> None:
    """While a hole is open the cut stands still at the last whole transaction, and the entry names table and reason."""
    damaged(world)
    assert entry(world).line == Line(1, 15)
    assert entry(world).frozen_by == {"orders": "gap"}
    assert entry(world).closure is None


def test_a_repair_closes_the_cut_until_it_is_activated(world: Any) -> None:
    """The cut closes when the repairing snapshot is complete, raises meanwhile, and opens at a W not below F."""
    driver, clock = damaged(world)
    repaired(world)
    run(driver, clock)
    closed = entry(world)
    assert closed.closure is not None
    assert closed.closure.waits_for == {"orders": SECOND}
    assert (closed.line, closed.repair_lines["orders"]) == (Line(1, 15), Line(1, 45))
    assert "CAST('" in view_sql(world)
    fold(world, Line(1, 45), SECOND)
    run(driver, clock)
    opened = entry(world)
    assert (opened.closure, opened.line, opened.frozen_by) == (None, Line(1, 45), {})
    assert "CAST('" not in view_sql(world)
    assert driver.lake.tables[world.source, "orders"].state.holes == ()


def test_a_restart_while_the_cut_is_closed_leaves_it_closed(world: Any) -> None:
    """A new driver knows of the closure, and of the watermark, from the catalog alone."""
    driver, clock = damaged(world)
    repaired(world)
    run(driver, clock)
    driver = start(world, clock)
    run(driver, clock)
    assert entry(world).closure is not None
    fold(world, Line(1, 45), SECOND)
    world.send(world.progress(46))
    run(driver, clock)
    assert (entry(world).closure, entry(world).line) == (None, Line(1, 46))


def test_the_ring_ages_although_the_source_is_idle(world: Any) -> None:
    """A fold may use the last watermark of an idle source once it is older than the horizon."""
    orders, clock = world.schema("orders"), Clock()
    driver = start(world, clock)
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    run(driver, clock)
    assert aged(entry(world).ring, 5.0) == Line(1, 15)


def test_a_superseded_driver_publishes_nothing(world: Any) -> None:
    """The epoch is checked before the watermark is written."""
    orders, clock = world.schema("orders"), Clock()
    driver = start(world, clock)
    world.send(world.data(orders, 10, [{"id": 1}]))
    run(driver, clock)
    world.send(world.progress(15))
    start(world, clock)
    with pytest.raises(StaleWriter):
        run(driver, clock)
    assert entry(world).line is None


def test_what_an_operator_excluded_stays_excluded(world: Any) -> None:
    """`excluded` belongs to the operator: publishing keeps it, and the table no longer holds the watermark back."""
    driver, clock = damaged(world)
    glue = Aws().client("glue")
    table = glue.get_table(DatabaseName=f"{world.source}_cut", Name="watermark")["Table"]
    kept = {name: table[name] for name in ("Name", "TableType", "StorageDescriptor", "ViewOriginalText")}
    parameters = {**table["Parameters"], watermark_view.EXCLUDED: '["orders"]'}
    glue.update_table(DatabaseName=f"{world.source}_cut", TableInput={**kept, "Parameters": parameters})
    run(driver, clock)
    assert entry(world).excluded == {"orders"}
    assert entry(world).line == Line(1, 35)
