"""Runs the parts of a large fold as Spark tasks, one a part.

A module of its own, and not part of the job's script: Spark sends what a script defines by value.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from glue_streaming.aws import Aws
from glue_streaming.fold import part
from glue_streaming.fold.part import Done, LocalFiles, Part

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class SparkParts:
    """A Spark session that starts with the first parts it is given: most runs of the fold job never need it."""

    def __init__(self) -> None:
        self._spark: SparkSession | None = None

    def __enter__(self) -> SparkParts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spark is not None:
            self._spark.stop()

    def __call__(self, parts: Sequence[Part]) -> list[Done]:
        """One Spark job without a shuffle. Only pickled parts and what they wrote cross into the JVM, never a row.

        A task that is lost runs again; the files of its first attempt belong to no table.
        """
        if self._spark is None:
            self._spark = _session()
        rows = [pickle.dumps(item) for item in parts]
        answers = self._spark.sparkContext.parallelize(rows, len(rows)).map(_run).collect()
        return [pickle.loads(answer) for answer in answers]


def _session() -> SparkSession:
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # workers with this interpreter's packages
    builder = SparkSession.builder.appName("headrace-fold").config("spark.ui.enabled", "false")
    session = builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _run(row: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="headrace-fold-") as folder:
        return pickle.dumps(part.run(pickle.loads(row), LocalFiles(_aws().io, Path(folder))))


@cache
def _aws() -> Aws:
    """Clients of the Python worker, which runs many parts."""
    return Aws()
