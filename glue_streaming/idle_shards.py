"""Spares Spark the shards that have nothing: the driver looks at those first that had nothing last time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from glue_streaming.batch import RunTasks
from glue_streaming.shards import fetch
from glue_streaming.task import Outcome, Task

_LOOK_THREADS: Final = 16
_LOOK_SECONDS: Final = 1.0
WARM_SECONDS: Final = 30.0
"""Spark ends a Python worker that was idle for a minute, and the next one spends a second on its imports."""


class IdleShards:
    """Runs a batch's tasks, but not those that would find nothing: their outcome is the same, without a Spark job."""

    def __init__(self, kinesis: Any, run: RunTasks, clock: Callable[[], float] = time.monotonic) -> None:
        self._kinesis, self._run, self._clock = kinesis, run, clock
        self._idle: set[str] = set()
        self._ran_at = float("-inf")

    def run(self, tasks: Sequence[Task]) -> list[Outcome]:
        """The outcomes of all tasks. Now and then all of them are run, so that Spark keeps its workers."""
        now = self._clock()
        candidates = [task for task in tasks if task.shard in self._idle and task.replay is None]
        empty = self._empty(candidates) if now - self._ran_at < WARM_SECONDS else set()
        rest = [task for task in tasks if task.shard not in empty]
        outcomes = [Outcome(shard, at_tip=True) for shard in sorted(empty)]
        if rest:
            self._ran_at = now
            outcomes += self._run(rest)
        self._idle = {outcome.shard for outcome in outcomes if outcome.at_tip and not outcome.blocks}
        return outcomes

    def _empty(self, tasks: Sequence[Task]) -> set[str]:
        if len(tasks) < 2:
            return {task.shard for task in tasks if self._is_empty(task)}
        with ThreadPoolExecutor(_LOOK_THREADS) as pool:
            looked = pool.map(self._is_empty, tasks)
            return {task.shard for task, empty in zip(tasks, looked, strict=True) if empty}

    def _is_empty(self, task: Task) -> bool:
        """Nothing to read up to the tip, and no end of the shard nor anything else that the task is to tell."""
        found = fetch(
            self._kinesis, task.stream, task.shard, task.start, max_bytes=1, max_seconds=_LOOK_SECONDS, page_records=1
        )
        return found.at_tip and not (found.records or found.closed or found.refused)
