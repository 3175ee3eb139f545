"""Batch after batch: when the next one begins, what is told of it, and what happens when one fails."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import FrameType
from typing import Final, Protocol

from glue_streaming.batch import Report
from glue_streaming.errors import BadSettings, DecoderHangs, StaleWriter
from glue_streaming.metrics import Metrics
from glue_streaming.settings import BatchSettings
from glue_streaming.trigger import next_interval

STOP_SECONDS: Final = 15.0
"""Who asks for an end kills after twenty seconds or more."""

_FATAL: Final = (StaleWriter, DecoderHangs, BadSettings)
"""What starting again in this process would not mend."""
_MAX_FAILURES: Final = 8
_LONGEST_BACKOFF_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 1.0
_DRAINED_BATCHES: Final = 2

log = logging.getLogger(__name__)


class BatchDriver(Protocol):
    """What runs one batch: `batch.Driver`."""

    @property
    def settings(self) -> BatchSettings: ...

    def look_at_settings(self) -> None: ...

    def run_batch(self) -> Report: ...


class Stop:
    """SIGTERM asks for an orderly end: the batch that runs is finished, the next one does not begin.

    One that is not finished in time is dropped with the process: what it wrote belongs to no table, and a commit whose
    answer was lost is looked up by the next run.
    """

    def __init__(self, seconds: float = STOP_SECONDS, drop: Callable[[], None] = lambda: os._exit(0)) -> None:
        self.requested = False
        self._seconds, self._drop = seconds, drop

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.requested and time.monotonic() < deadline:
            time.sleep(min(0.05, seconds))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = True
            timer = threading.Timer(self._seconds, self._late)
            timer.daemon = True
            timer.start()

    def _late(self) -> None:
        log.warning("the batch is dropped", extra={"waited_seconds": self._seconds})
        self._drop()


class JobLoop:
    """Runs batches with a driver, and with a new one after a failure: it starts from the tables' marks, as a new
    process would, and costs no new process."""

    def __init__(
        self,
        make_driver: Callable[[], BatchDriver],
        metrics: Metrics,
        sources: Sequence[str],
        stop: Stop,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] | None = None,
    ) -> None:
        self._make_driver, self._metrics, self._sources, self._stop = make_driver, metrics, sources, stop
        self._clock = clock
        self._wait = wait or stop.wait
        self._driver: BatchDriver | None = None
        self._began = float("-inf")
        self._interval = 0.0
        self._failures = 0

    def step(self) -> Report | None:
        """Waits until the next batch is due and runs it; None where it failed or the job is to stop."""
        self._wait_for_turn()
        if self._stop.requested:
            return None
        self._began = self._clock()
        try:
            self._driver = self._driver or self._make_driver()
            report = self._driver.run_batch()
        except _FATAL:
            raise
        except Exception as error:
            self._failed(error)
            return None
        self._failures = 0
        self._tell(report)
        self._interval = next_interval(
            self._interval or self._driver.settings.trigger_seconds,
            self._driver.settings,
            bytes_read=report.bytes,
            commits=report.commits,
            caught_up=report.caught_up,
        )
        return report

    def drain(self) -> None:
        """Batches until everything is read that was in the stream when this began, or the job is paused.

        One batch at the tip may leave lanes to be read again, so it takes two in a row. They wait for each other only
        where nothing is to be read.
        """
        quiet = 0
        while quiet < _DRAINED_BATCHES and not self._stop.requested:
            report = self.step()
            if report is None:
                continue
            if self._driver is not None and self._driver.settings.pause:
                log.warning("paused: nothing is drained")
                return
            quiet = quiet + 1 if report.caught_up else 0
            self._interval = 0.0 if report.caught_up or report.rows else self._interval

    def end(self) -> None:
        self._metrics.send()

    def _wait_for_turn(self) -> None:
        """A setting that is changed while this waits holds at once."""
        while not self._stop.requested:
            if self._driver is not None and self._failures == 0:
                self._driver.look_at_settings()
                settings = self._driver.settings
                self._interval = min(self._interval, max(settings.trigger_seconds, settings.freshness_seconds))
            left = self._began + self._interval - self._clock()
            if left <= 0:
                return
            self._wait(min(left, _LOOK_SECONDS))

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        for source in self._sources:
            self._metrics.add(source, {"CommitFailures": 1})
        if self._failures > _MAX_FAILURES:
            raise error
        self._driver = None
        self._interval = min(2.0 ** (self._failures - 1), _LONGEST_BACKOFF_SECONDS)
        log.error(
            "a batch failed, and is begun again from the tables' marks",
            extra={"failures": self._failures, "wait_seconds": self._interval},
            exc_info=error,
        )

    def _tell(self, report: Report) -> None:
        log.info("batch", extra={**asdict(report), "interval_seconds": round(self._interval, 3)})
        of_the_job = {
            "LagSeconds": report.behind_seconds,
            "BatchSeconds": sum(report.seconds.values()),
            "CommitFailures": report.commit_failures,
            "BadSettings": len(report.settings_problems),
        }
        for source in self._sources:
            self._metrics.add(source, {**of_the_job, **report.by_source.get(source, {})})
        self._metrics.send_when_due()
