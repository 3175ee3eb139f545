"""The streaming job that Glue runs: Spark gives the clock and the executors, `batch.py` does the work.

Continuous: a batch at every trigger, until SIGTERM. Drain (`--mode drain`): batches until what was in the stream is
read, then it ends; the workflow that started it folds what is due after it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

from pyspark.sql import DataFrame, SparkSession

from glue_streaming import log_lines, spark_tasks
from glue_streaming.aws import Aws
from glue_streaming.batch import Driver
from glue_streaming.errors import GlueStreamingError
from glue_streaming.idle_shards import IdleShards
from glue_streaming.job_loop import JobLoop, Stop
from glue_streaming.metrics import Metrics
from glue_streaming.settings import JobArguments, parse_arguments

log = logging.getLogger("glue_streaming.stream_job")

_TICK_SECONDS: Final = 5.0


def main(argv: Sequence[str]) -> int:
    log_lines.configure()
    stop = Stop()
    stop.listen()
    try:
        arguments = parse_arguments(argv)
        aws = Aws()
        spark = _session()
        metrics = Metrics(aws.client("cloudwatch"), time.time)
        shards = IdleShards(aws.client("kinesis"), lambda tasks: spark_tasks.run(spark, tasks))
        job = JobLoop(
            lambda: Driver(aws, arguments, shards.run),
            metrics,
            arguments.sources,
            stop,
        )
        try:
            job.drain() if arguments.mode == "drain" else _stream(spark, job, stop, arguments)
        finally:
            job.end()
        spark.stop()
    except GlueStreamingError as error:
        log.error("the job ends", extra={"cause": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _session() -> SparkSession:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # workers with this interpreter's packages
    builder = SparkSession.builder.appName("headrace-stream")
    for name, value in {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.streaming.numRecentProgressUpdates": "1",
        **spark_tasks.SETTINGS,
    }.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _stream(spark: SparkSession, job: JobLoop, stop: Stop, arguments: JobArguments) -> None:
    """Spark's own micro-batch clock; the tick's DataFrame is not read. Batches that follow each other quickly share a
    tick: Spark's two log files a tick, which nothing here needs, take longer than an empty batch."""
    ticks = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", 1).option("numPartitions", 1).load()
    failed: list[Exception] = []
    batch = threading.Lock()

    def on_tick(_: DataFrame, __: int) -> None:
        try:
            with batch:
                end = time.monotonic() + _TICK_SECONDS
                while time.monotonic() < end and not stop.requested:
                    job.step()
        except Exception as error:
            failed.append(error)  # Spark would hand on its text alone
            raise

    writer = ticks.writeStream.foreachBatch(on_tick).trigger(processingTime="0 seconds")
    if arguments.checkpoint:
        writer = writer.option("checkpointLocation", arguments.checkpoint)
    query = writer.start()
    while query.isActive and not stop.requested:
        query.awaitTermination(1)
    if stop.requested:
        with batch:
            pass  # to its end: stopping the query would interrupt it, and waits for the tick that it is in
        query.stop()
    failure = failed[0] if failed else query.exception()
    if failure is not None and not stop.requested:
        raise failure


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
