"""Between eras: what of an earlier one is still to come, when the next one has begun."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from schemas.change_record import Column, TableSchema
from schemas.control import Announcement, LaneEnd, SnapshotEnd, snapshot_lane
from schemas.position import Line, Position


def _with_a_note(schema: TableSchema) -> TableSchema:
    return replace(schema, columns=(*schema.columns, Column("note", "string", "note", "text")))


def _snapshot(world: Any, schema: Any, number: int, point: int, ids: list[int]) -> None:
    """A complete snapshot, and the progress that announced it."""
    announced = [Announcement(number, schema.table, point - 1, abandoned=False)]
    lane = snapshot_lane(number, 0, 1)
    world.send(world.progress(point - 1, announced=announced))
    world.send(world.snapshot(schema, point, [{"id": n} for n in ids], lane=lane))
    world.send(world.snapshot_end(schema.table, SnapshotEnd(number, 0, 1, 1, point, None, None, len(ids))))
    world.send(world.progress(point + 5, announced=announced))


def test_an_era_is_entered_behind_everything_of_the_one_before(world: Any, job: Any) -> None:
    """While a lane waits with changes of an earlier era, no fold may take a snapshot of the new one: they would lie
    below its line, and hide what it read."""
    orders = world.schema("orders")
    _snapshot(world, orders, 1_000_001, 5, [1])
    job.run(4)
    late = _with_a_note(orders)  # not registered yet
    world.send(world.data(late, 20, [{"id": 2, "note": "late"}], lane="1"))
    job.run(2)
    world.raise_era()
    _snapshot(world, orders, 2_000_001, 5, [3])
    job.run(4)
    assert "orders" not in job.entry().repair_lines
    assert job.watermark() < Line(2, 0)
    world.registry.register(late)
    job.run(8)
    assert [row["id"] for row in job.rows() if row["_tier"] == "log"] == [2]
    assert job.entry().repair_lines == {"orders": Line(2, 10)} or job.watermark() == Line(2, 10)


def test_a_driver_that_starts_in_an_era_goes_on_in_it(world: Any, job: Any) -> None:
    """The watermark in the catalog says which era was entered: a new driver does not wait for a quiet moment."""
    orders = world.schema("orders")
    world.era = 2
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    job.run(3)
    assert job.watermark() == Line(2, 15)
    job.restart()
    late = _with_a_note(orders)
    world.send(world.data(late, 20, [{"id": 2, "note": "late"}], lane="1"), world.data(orders, 20, [{"id": 3}]))
    world.send(world.progress(25, vector=[LaneEnd("orders", "0", Position(2, 20, 0))]))
    job.run(2)
    assert job.watermark() == Line(2, 25)
