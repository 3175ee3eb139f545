"""Batch after batch: in time, told, begun again after a failure, ended when asked."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from glue_streaming.batch import Report
from glue_streaming.errors import DecoderHangs, StaleWriter
from glue_streaming.job_loop import JobLoop, Stop
from glue_streaming.metrics import Metrics
from glue_streaming.settings import BatchSettings


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


class Driver:
    """A driver whose batches are what the test says: a report, or an error."""

    def __init__(self, batches: Iterator[Report | Exception], clock: Clock, began: list[float]) -> None:
        self.settings = BatchSettings(trigger_seconds=1, freshness_seconds=8)
        self._batches, self._clock, self._began = batches, clock, began

    def look_at_settings(self) -> None: ...

    def run_batch(self) -> Report:
        self._began.append(self._clock.now)
        result = next(self._batches)
        if isinstance(result, Exception):
            raise result
        return result


class CloudWatch:
    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> None:  # noqa: N803 (boto3's names)
        for item in MetricData:
            self.sums[item["MetricName"]] = item["StatisticValues"]["Sum"]


class World:
    """A loop over such batches. drivers: how many were made. began: when each batch did."""

    def __init__(self, *batches: Report | Exception) -> None:
        self.clock, self.cloudwatch, self.stop = Clock(), CloudWatch(), Stop()
        self.began: list[float] = []
        self.drivers = 0
        self._batches = iter(batches)
        metrics = Metrics(self.cloudwatch, self.clock)
        self.loop = JobLoop(self._make, metrics, ["shop"], self.stop, self.clock, self.clock.wait)

    def _make(self) -> Driver:
        self.drivers += 1
        self.driver = Driver(self._batches, self.clock, self.began)
        return self.driver

    def steps(self, count: int) -> list[float]:
        """Seconds from batch to batch."""
        for _ in range(count):
            self.loop.step()
        return [later - earlier for earlier, later in zip(self.began, self.began[1:], strict=False)]


def quiet() -> Report:
    return Report(1, caught_up=True)


def busy() -> Report:
    return Report(1, rows=10, bytes=10**7, commits=1, caught_up=True)


def test_batches_of_nothing_come_less_and_less_often() -> None:
    """Up to freshness_seconds; a backlog is read on at once."""
    behind = Report(1, rows=1, bytes=1, commits=1)
    assert World(*[quiet() for _ in range(6)], behind, quiet()).steps(8) == [2, 4, 8, 8, 8, 8, 1]


def test_a_setting_that_is_changed_while_the_job_waits_holds_at_once() -> None:
    """A reader who needs fresher data does not wait for the long interval's end."""
    world = World(*[quiet() for _ in range(5)])
    world.steps(4)

    def sooner() -> None:
        if world.clock.now >= world.began[-1] + 3:
            world.driver.settings = BatchSettings(trigger_seconds=1, freshness_seconds=2)

    world.driver.look_at_settings = sooner  # type: ignore[method-assign]
    assert world.steps(1)[-1] == 3


def test_a_failed_batch_is_begun_again_by_a_new_driver() -> None:
    """In the same process, after a wait that grows; the failures are counted in a metric."""
    world = World(OSError("reset"), OSError("reset"), OSError("reset"), busy())
    assert world.steps(4) == [1, 2, 4]
    assert world.drivers == 4
    world.loop.end()
    assert world.cloudwatch.sums["CommitFailures"] == 3


def test_a_driver_that_cannot_be_made_is_a_failed_batch() -> None:
    """The catalog may be away at the start as well."""
    world = World(busy())
    make, failures = world._make, iter([ConnectionError("no route"), None])

    def flaky() -> Driver:
        error = next(failures)
        if error:
            raise error
        return make()

    world.loop._make_driver = flaky
    world.loop.step()
    assert (world.loop.step() or quiet()).rows == 10


@pytest.mark.parametrize("error", [StaleWriter("taken over"), DecoderHangs("again")])
def test_what_a_new_driver_would_not_mend_ends_the_job(error: Exception) -> None:
    """Another job's epoch, a thread that cannot be stopped: the process ends, with the reason."""
    with pytest.raises(type(error)):
        World(error).steps(1)


def test_failures_without_end_end_the_job() -> None:
    """So that the workflow sees it, says it, and starts a new one."""
    world = World(*[OSError("reset") for _ in range(20)])
    with pytest.raises(OSError, match="reset"):
        world.steps(20)
    assert 5 <= world.drivers <= 10


def test_a_drain_ends_at_the_tip_also_of_a_busy_stream() -> None:
    """Two batches in a row that reach it, whatever still comes in; one alone may have left a lane to be read again."""
    world = World(busy(), Report(1, rows=1), busy(), busy(), StaleWriter("one too many"))
    world.loop.drain()
    assert len(world.began) == 4


def test_a_drain_of_a_paused_job_ends() -> None:
    """Nothing is read, so the tip is never reached."""
    world = World(Report(1), StaleWriter("one too many"))
    made = world._make

    def paused() -> Driver:
        driver = made()
        driver.settings = BatchSettings(pause=True)
        return driver

    world.loop._make_driver = paused
    world.loop.drain()
    assert len(world.began) == 1


def test_a_drain_goes_on_after_a_failure() -> None:
    """It is not over before everything is read."""
    world = World(OSError("reset"), busy(), quiet())
    world.loop.drain()
    assert world.drivers == 2


def test_asked_to_stop_no_batch_begins() -> None:
    """A wait ends, too."""
    world = World(busy(), StaleWriter("one too many"))
    world.steps(1)
    world.stop.requested = True
    assert world.loop.step() is None


def test_a_batch_that_does_not_end_in_time_is_dropped() -> None:
    """SIGTERM gives the batch some seconds; then the process ends with what it has."""
    dropped = threading.Event()
    stop = Stop(seconds=0.05, drop=dropped.set)
    before = signal.getsignal(signal.SIGTERM)
    stop.listen()
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stop.requested
    assert dropped.wait(60)
