"""A driver in a process of its own, that a test may kill: no Spark, and a clock that moves with its batches.

Its processes are forked from a server that has the libraries loaded, so that each takes a part of a second to begin.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess

from glue_streaming import failpoints
from glue_streaming.aws import Aws
from glue_streaming.batch import Driver
from glue_streaming.errors import StaleWriter
from glue_streaming.load import load_shard
from glue_streaming.settings import parse_arguments

SUPERSEDED = 3
"""The exit status of a driver that a newer one has stopped."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.streaming.kill_driver"])


def start(
    environment: Mapping[str, str], arguments: Sequence[str], *, now: float, batches: int, failpoint: str = ""
) -> BaseProcess:
    """A driver that runs so many batches from `now` on, 5 seconds each, unless it gets to the failpoint."""
    process = _FORKS.Process(target=_run, args=(dict(environment), list(arguments), now, batches, failpoint))
    process.start()
    return process


def _run(environment: dict[str, str], arguments: list[str], now: float, batches: int, failpoint: str) -> None:
    os.environ.update(environment)
    failpoints.arm(failpoint)
    aws = Aws()
    times = [now + 5.0 * number for number in range(batches)]
    at = [now]
    try:
        driver = Driver(
            aws,
            parse_arguments(arguments),
            lambda tasks: [load_shard(task, aws.client("kinesis"), aws.client("s3"), aws.io) for task in tasks],
            lambda: at[0],
        )
        for at[0] in times:
            driver.run_batch()
    except StaleWriter:
        sys.exit(SUPERSEDED)
