"""What a batch tells: figures by source for the metrics, and settings that were refused."""

from datetime import UTC, datetime
from typing import Any

from glue_streaming.metrics import UNITS
from glue_streaming.shards import Start, fetch
from schemas.position import Position

PAGE = 10 * 2**20


def test_a_batch_tells_the_figures_of_its_source(world: Any, job: Any) -> None:
    """Rows, bytes, holes, parked lanes, and how old the watermark is, each under the name of its metric."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}, {"id": 2}]), world.progress(10))
    job.run(3)
    world.send(world.reject("orders", Position(1, 20, 0), "odd"))
    job.run(1)
    world.send(world.data(orders, 30, [{"id": 3}]), world.progress(30))
    job.run(3)
    world.send(world.data(orders, 40, [{"id": 4}, {"id": 5}]), world.progress(40))
    report = job.run(1)
    figures = report.by_source[world.source]
    assert set(figures) <= set(UNITS)
    assert (figures["RowsLoaded"], figures["OpenHoles"], figures["ParkedLanes"]) == (2, 1, 0)
    assert figures["BytesRead"] == report.bytes > 0
    complete_until = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert figures["FreshnessSeconds"] == job.clock.now - 5 - complete_until


def test_a_lane_that_waits_is_told(world: Any, job: Any) -> None:
    """ParkedLanes counts it, and the job is not caught up, so that it looks again soon."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    job.pause("orders", True)
    report = job.run(1)
    assert report.by_source[world.source]["ParkedLanes"] == 1


def test_a_bad_setting_is_told_and_the_last_good_one_holds(world: Any, job: Any) -> None:
    """Until it is mended."""
    job.set("trigger_seconds", "3")
    assert job.run(1).settings_problems == []
    job.set("trigger_seconds", "soon")
    (problem,) = job.run(1).settings_problems
    assert "trigger_seconds" in problem
    assert "soon" in problem
    assert job.driver.settings.trigger_seconds == 3
    job.set("trigger_seconds", "4")
    assert job.run(1).settings_problems == []
    assert job.driver.settings.trigger_seconds == 4


class Endless:
    """A shard that never ends, in pages of the largest size there is."""

    def __init__(self) -> None:
        self.calls = 0

    def get_shard_iterator(self, **_: Any) -> dict[str, str]:
        return {"ShardIterator": "0"}

    def get_records(self, **_: Any) -> dict[str, Any]:
        self.calls += 1
        records = [{"SequenceNumber": str(self.calls), "Data": bytes(PAGE)}]
        return {"Records": records, "MillisBehindLatest": 60_000, "NextShardIterator": "1"}


def test_what_a_batch_reads_of_a_shard_is_bounded() -> None:
    """By the setting and one page, whatever the shard holds; and the job knows that there is more."""
    found = fetch(Endless(), "s", "shard", Start(), max_bytes=2 * PAGE + 1, max_seconds=60)
    assert sum(len(record.data) for record in found.records) == 3 * PAGE
    assert (found.at_tip, found.behind_seconds) == (False, 60)
