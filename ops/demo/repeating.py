"""A thread that repeats one step until it is stopped, and keeps what went wrong for who asks."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Repeating(ABC):
    """Subclasses give the step. An exception ends the thread and is raised again by `stop`."""

    def __init__(self, name: str, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def step(self) -> None:
        """Done again and again, with the pause in between."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns after the step under way; raises what ended the thread before."""
        self._stopping.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def pause(self, seconds: float) -> None:
        """Sleeps, but not beyond the stop."""
        self._stopping.wait(seconds)

    def _run(self) -> None:
        try:
            while not self.stopping:
                self.step()
                self.pause(self._every_seconds)
        except BaseException as error:
            self._failure = error
