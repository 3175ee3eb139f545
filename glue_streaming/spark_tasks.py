"""Runs a batch's tasks in Spark, one a shard.

A module of its own, and not part of the job's script: Spark sends what a script defines by value, and a cache of
clients has none.
"""

from __future__ import annotations

import gc
import pickle
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, Final
from zipimport import zipimporter

from pyspark.sql import SparkSession

from glue_streaming.aws import Aws
from glue_streaming.load import load_shard
from glue_streaming.task import Outcome, Task

SETTINGS: Final = {
    # Pyarrow and DataFusion bring mimalloc, which gives memory back to the system 10 ms after its last use: every
    # page of a batch would be faulted in again for the next file, a tenth of a task and more on a busy machine.
    "spark.executorEnv.MIMALLOC_PURGE_DELAY": "10000",
}
"""Of a session whose workers run tasks."""


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
    outcome = pickle.dumps(load_shard(task, aws.client("kinesis"), aws.client("s3"), aws.io))
    settle_worker()
    return outcome


@cache
def _aws() -> Aws:
    """Clients of the Python worker, which serves many batches."""
    return Aws()


def settle_worker() -> None:
    """At the end of every task: what Spark does between two tasks is not to walk all that the worker has imported.

    Its daemon collects garbage after each task: half a million objects of our imports. Its worker invalidates the
    import caches before each task, and up to Python 3.11 an importer then reads its zip file's directory again, that of
    pyspark.zip too: a tenth of a second, more than the rest of an empty task. An importer that is missed is made anew.
    """
    for path, importer in list(sys.path_importer_cache.items()):
        if isinstance(importer, zipimporter):
            del sys.path_importer_cache[path]
    _freeze()


@cache
def _freeze() -> None:
    gc.freeze()
