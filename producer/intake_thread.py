"""The intake on a thread of its own: while one lot of events is packed and fsynced, the next is read and decoded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Final

from producer.change import Event
from producer.intake import Intake

_LOTS: Final = 2
_LOOK_SECONDS: Final = 0.1


class IntakeThread:
    """`give` and `close` belong to one thread. What the intake fails with is raised by the next of them."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._lots: queue.Queue[Sequence[Event] | None] = queue.Queue(_LOTS)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    def give(self, events: Sequence[Event]) -> None:
        """Hands events on, in order; waits while the intake is two lots behind."""
        self._put(events)

    def close(self) -> None:
        """Returns when all that was given is taken, and what is whole of it spooled."""
        try:
            self._put(None)
        finally:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _put(self, lot: Sequence[Event] | None) -> None:
        while True:
            if self._failure is not None:
                raise self._failure
            try:
                self._lots.put(lot, timeout=_LOOK_SECONDS)
                return
            except queue.Full:
                continue

    def _run(self) -> None:
        try:
            while (lot := self._next()) is not None:
                self._intake.take(lot)
                self._intake.flush_if_due()
            self._intake.flush()
        except BaseException as error:
            self._failure = error

    def _next(self) -> Sequence[Event] | None:
        try:
            return self._lots.get(timeout=self._intake.due_in())
        except queue.Empty:
            return ()
