"""The streaming job's process in the benchmark: its driver and its tasks, as they are.

    python -m bench.ours spark|inline file|stream FOLDER CORES JOB_ARGUMENTS...

`file` takes the records from files and leaves the data files there, as the peers do; commits and positions go to the
laptop's AWS all the same. `stream` fetches them from the laptop's Kinesis and writes to its S3. `inline` runs the tasks
without Spark. A run takes batches until it has the number of rows that it is told.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from bench.contender import serve
from bench.feed import FileKinesis
from glue_streaming import spark_tasks
from glue_streaming.aws import Aws
from glue_streaming.batch import Driver
from glue_streaming.load import load_shard
from glue_streaming.settings import parse_arguments
from glue_streaming.task import Outcome, Task


class FedAws(Aws):
    """An AWS whose Kinesis is a folder of files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._kinesis = FileKinesis(folder / "stream")

    def client(self, service: str) -> Any:
        return self._kinesis if service == "kinesis" else super().client(service)


@cache
def fed_aws(folder: Path) -> FedAws:
    """The Python worker's."""
    return FedAws(folder)


def load_fed(folder: Path, row: Any) -> bytes:
    task: Task = pickle.loads(row)
    aws = fed_aws(folder)
    outcome = pickle.dumps(load_shard(task, aws.client("kinesis"), aws.client("s3"), aws.io))
    spark_tasks.settle_worker()
    return outcome


def main(runner: str, feed: str, folder: Path, cores: int, arguments: Sequence[str]) -> None:
    from bench import ours  # Spark sends what the main module defines by value, and a cache of clients has none

    fed = feed == "file"
    aws = ours.fed_aws(folder) if fed else Aws()
    spark = _session(cores) if runner == "spark" else None

    def run_tasks(tasks: Sequence[Task]) -> list[Outcome]:
        local = [_beside(task, folder) for task in tasks] if fed else list(tasks)
        if spark is None:
            return [load_shard(task, aws.client("kinesis"), aws.client("s3"), aws.io) for task in local]
        if not fed:
            return spark_tasks.run(spark, local)
        rows = [pickle.dumps(task) for task in local]
        load = ours.load_fed
        found = spark.sparkContext.parallelize(rows, len(rows)).map(lambda row: load(folder, row)).collect()
        return [pickle.loads(row) for row in found]

    serve(_runs(Driver(aws, parse_arguments(arguments), run_tasks)))


def _runs(driver: Driver) -> Any:
    def run(words: str) -> int:
        wanted, rows = int(words), 0
        while rows < wanted:
            report = driver.run_batch()
            rows += report.rows
            print(report, file=sys.stderr)
        if rows != wanted:
            raise RuntimeError(f"{rows} rows were loaded instead of {wanted}")
        return rows

    return run


def _beside(task: Task, folder: Path) -> Task:
    """The task with its tables' data files in the folder."""
    tables = {key: replace(table, location=f"file://{folder}/lake/{key[1]}") for key, table in task.tables.items()}
    return replace(task, tables=tables)


def _session(cores: int) -> SparkSession:
    settings = {
        "spark.master": f"local[{cores}]",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "512m",
        "spark.sql.shuffle.partitions": "1",
        **spark_tasks.SETTINGS,
    }
    builder = SparkSession.builder.appName("headrace-bench")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
