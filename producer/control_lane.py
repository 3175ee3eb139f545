"""The control lane: gives the sender a progress record when one is due, and knows which one was accepted last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from producer import watermark
from producer.spool import Spool
from producer.watermark import Cadence
from schemas.control import Progress

LOOK_SECONDS = 0.05


class ControlLane:
    """Every record is made from the spool at the moment it goes, so that it speaks of accepted blocks only.

    `take` and `accepted` belong to the sender's thread; `wait_announced` may be called from any.
    """

    def __init__(
        self,
        source: str,
        spool: Spool,
        cadence: Cadence | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._spool = spool
        self._cadence = cadence or Cadence()
        self._clock = clock
        self._looked_at = float("-inf")
        self._taken: Progress | None = None
        self._sent_at = float("-inf")
        self._taken_writes = self._told_writes = -1
        self._changed = threading.Condition()
        self.last: Progress | None = None

    def take(self) -> bytes | None:
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS:
            return None
        self._looked_at = now
        writes = self._spool.writes
        if writes == self._told_writes and now - self._sent_at < self._cadence.idle_seconds:
            return None  # nothing can have moved
        self._taken_writes = writes
        record = watermark.progress(self._spool.view())
        if record is None or not self._cadence.due(self.last, now - self._sent_at, record):
            return None
        self._taken = record
        return watermark.block_of(self._source, record, datetime.now(UTC))

    def accepted(self) -> None:
        with self._changed:
            self.last, self._sent_at, self._told_writes = self._taken, self._clock(), self._taken_writes
            self._changed.notify_all()

    def wait_announced(self, snapshot: int, seconds: float) -> bool:
        """Whether a progress record that announces the snapshot was accepted; waits for it that long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._announced(snapshot), seconds)

    def _announced(self, snapshot: int) -> bool:
        return self.last is not None and any(a.snapshot == snapshot for a in self.last.snapshots)
