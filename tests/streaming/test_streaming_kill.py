"""kill -9 of a real driver process at every named place, and a new driver behind it: exactly once, all the same.

The lake is the laptop's AWS with real Iceberg tables; a hole, a gap, its resend, a new column and an accepted hole are
under way. Only Spark is left out.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from glue_streaming import failpoints
from schemas.position import Line, Position
from tests.streaming import kill_driver

_STEP = 1_000.0
"""Seconds of the clock between drivers, so that what one has waited for is over for the next."""


def _killed(world: Any, job: Any, failpoint: str, through: int) -> bool:
    """Whether a driver that is armed so was killed; then the job's own driver starts in its place.

    through: what the agent says meanwhile, as it does every second. A progress record is no row: one that a driver has
    read and passed is not read again by the next.
    """
    job.clock.now += _STEP
    process = kill_driver.start(
        world.server.environment(), world.arguments(), now=job.clock.now, batches=8, failpoint=failpoint
    )
    process.join(300)
    assert process.exitcode in (0, -signal.SIGKILL), f"the driver ended with {process.exitcode}"
    job.clock.now += _STEP
    job.restart()
    world.send(world.progress(through))
    job.run(8)
    return process.exitcode == -signal.SIGKILL


def _accept(world: Any, after: Position, last: Position) -> None:
    """An operator's request to close the hole of `items` for good."""
    texts = {
        "kind": "accept",
        "table": "items",
        "lane": "0",
        "after": json.dumps(after),
        "last": json.dumps(last),
        "by": "ann",
        "because": "test data",
    }
    item = {"source": world.source, "item": "lake-request:accept", "status": "open", **texts}
    world.server.client("dynamodb").put_item(
        TableName=f"{world.prefix}-sources", Item={name: {"S": value} for name, value in item.items()}
    )


def _answer(world: Any) -> str:
    key = {"source": {"S": world.source}, "item": {"S": "lake-request:accept"}}
    item = world.server.client("dynamodb").get_item(TableName=f"{world.prefix}-sources", Key=key)["Item"]
    return str(item["status"]["S"])


def _first_round(world: Any) -> Any:
    """Two lanes and two tables; a block of `items` that does not read. Returns a block of `orders` that is lost."""
    orders, items = world.schema("orders"), world.schema("items")
    world.send(world.data(orders, 10, [{"id": 1}, {"id": 2}]), world.data(items, 10, [{"id": 1}]))
    bad = world.data(items, 20, [{"id": 2}])
    object.__setattr__(bad, "checksum", 7)
    lost = world.data(orders, 20, [{"id": 3}], lane="1")
    world.send(bad, world.data(items, 30, [{"id": 3}]), world.data(orders, 30, [{"id": 4}], lane="1"))
    world.send(world.progress(35))
    return lost


def _second_round(world: Any, lost: Any) -> None:
    """A new column, the lost block again, and the operator gives up what did not read."""
    wider, items = world.schema("orders", "note"), world.schema("items")
    world.send(world.data(wider, 40, [{"id": 5, "note": "new"}]), lost, world.data(items, 40, [{"id": 4}]))
    world.send(world.data(wider, 50, [{"id": 6, "note": "late"}], lane="1"), world.progress(55))
    _accept(world, Position(1, 10, 0), Position(1, 20, 0))


@pytest.mark.parametrize("name", failpoints.NAMES)
def test_a_driver_killed_anywhere_leaves_every_row_once(
    name: str, make_world: Callable[..., Any], make_job: Callable[..., Any]
) -> None:
    """Rows, marks, holes, totals and the watermark are those of a job that was never killed."""
    world = make_world(shards=2)
    job = make_job(world)
    lost = _first_round(world)
    killed = _killed(world, job, name, 36)
    assert job.ids() == [1, 2, 4]
    assert job.ids("items") == [1, 3]
    _second_round(world, lost)
    assert killed | _killed(world, job, name, 56)
    found = [(row["_lsn"], row["_idx"], row["id"], row["note"]) for row in job.rows()]
    assert found == [(10, 0, 1, None), (10, 1, 2, None), (20, 0, 3, None), (30, 0, 4, None), (40, 0, 5, "new"),
                     (50, 0, 6, "late")]  # fmt: skip
    assert job.ids("items") == [1, 3, 4]
    assert [len(job.state(table).holes) for table in ("orders", "items")] == [0, 0]
    assert [job.state(table).totals.rows for table in ("orders", "items")] == [6, 3]
    assert [item.by for item in job.state("items").accepted] == ["ann"]
    assert job.watermark() == Line(1, 56)
    assert _answer(world) == "done"
