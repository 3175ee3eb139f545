"""Runs a batch's tasks in Spark, one a shard.

A module of its own, and not part of the job's script: Spark sends what a script defines by value, and a cache of
clients has none.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import cache
from typing import Any

from pyspark.sql import SparkSession

from glue_streaming.aws import Aws
from glue_streaming.load import load_shard
from glue_streaming.task import Outcome, Task


def run(spark: SparkSession, tasks: Sequence[Task]) -> list[Outcome]:
    """One Spark job without a shuffle. Only pickled tasks and outcomes cross into the JVM, never a change."""
    if not tasks:
        return []
    rows = [pickle.dumps(task) for task in tasks]
    outcomes = spark.sparkContext.parallelize(rows, len(rows)).map(_load).collect()
    return [pickle.loads(outcome) for outcome in outcomes]


def _load(row: Any) -> bytes:
    aws = _aws()
    task: Task = pickle.loads(row)
    return pickle.dumps(load_shard(task, aws.client("kinesis"), aws.client("s3"), aws.io))


@cache
def _aws() -> Aws:
    """Clients of the Python worker, which serves many batches."""
    return Aws()
