"""The streaming job that Glue runs: Spark gives the clock and the executors, `batch.py` does the work.

Continuous: a batch at every trigger, until SIGTERM. Drain (`--mode drain`): batches until the stream is read to its
tip, then it ends.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from types import FrameType
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from glue_streaming import spark_tasks
from glue_streaming.aws import Aws
from glue_streaming.batch import Driver, Report
from glue_streaming.errors import GlueStreamingError
from glue_streaming.settings import JobArguments, parse_arguments

_DRAINED_BATCHES = 2
"""A stream counts as read out when so many batches in a row were at the tip of every shard."""


def main(argv: Sequence[str]) -> int:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        arguments = parse_arguments(argv)
        spark = _session()
        driver = Driver(Aws(), arguments, lambda tasks: spark_tasks.run(spark, tasks))
        (_drain if arguments.mode == "drain" else _stream)(spark, driver, arguments)
        spark.stop()
    except GlueStreamingError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _session() -> SparkSession:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # workers with this interpreter's packages
    builder = SparkSession.builder.appName("headrace-stream")
    for name, value in {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.streaming.numRecentProgressUpdates": "1",
    }.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _stream(spark: SparkSession, driver: Driver, arguments: JobArguments) -> None:
    """Spark's own micro-batch clock; the batch's DataFrame is a tick and is not read."""
    ticks = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", 1).option("numPartitions", 1).load()
    stop = _Stop()
    pending: list[float] = [0.0]

    def on_tick(_: DataFrame, __: int) -> None:
        wait = pending[0] - time.monotonic()
        if wait > 0:
            stop.wait(wait)
        if stop.requested:
            return
        pending[0] = time.monotonic() + driver.settings.trigger_seconds
        _log(driver.run_batch())

    writer = ticks.writeStream.foreachBatch(on_tick).trigger(processingTime="100 milliseconds")
    if arguments.checkpoint:
        writer = writer.option("checkpointLocation", arguments.checkpoint)
    query = writer.start()
    while query.isActive and not stop.requested:
        query.awaitTermination(1)
    if stop.requested:
        query.stop()
    failure = query.exception()
    if failure is not None and not stop.requested:
        raise failure


def _drain(spark: SparkSession, driver: Driver, arguments: JobArguments) -> None:
    """The same batches in a loop, without a clock, until the stream is read out."""
    stop = _Stop()
    quiet = 0
    while quiet < _DRAINED_BATCHES and not stop.requested:
        report = driver.run_batch()
        _log(report)
        quiet = quiet + 1 if report.caught_up and not report.commits else 0


class _Stop:
    """SIGTERM asks for an orderly stop: the batch that runs is finished, the next one does not begin."""

    def __init__(self) -> None:
        self.requested = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.requested and time.monotonic() < deadline:
            time.sleep(min(0.05, seconds))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def _log(report: Report) -> None:
    """One line a batch, for CloudWatch Logs."""
    line: dict[str, Any] = {"event": "batch", **asdict(report)}
    print(json.dumps(line, default=str), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
