"""What a person sees while the demo runs: events as lines, and the path as a live table."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ops import status
from ops.demo.repeating import Repeating
from ops.stack import Stack

_PLAIN_EVERY_SECONDS = 10.0


class Display:
    """Tells events with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def tell(self, event: str) -> None:
        self._console.print(f"{time.monotonic() - self._started:6.1f} s  {event}", markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def watching(self, stack: Stack) -> Iterator[None]:
        """Shows the path for the length of a `with` block: live on a terminal, else as a line now and then."""
        if self._console.is_terminal:
            with Live(console=self._console, refresh_per_second=2, transient=True) as live:
                watcher: Repeating = _LiveTable(stack, live)
                watcher.start()
                try:
                    yield
                finally:
                    watcher.stop()
            return
        watcher = _Lines(stack, self)
        watcher.start()
        try:
            yield
        finally:
            watcher.stop()


class _LiveTable(Repeating):
    def __init__(self, stack: Stack, live: Live) -> None:
        super().__init__("live-table", 1.0)
        self._stack = stack
        self._live = live

    def step(self) -> None:
        self._live.update(Group(Text(), status.shown(status.read(self._stack))))


class _Lines(Repeating):
    def __init__(self, stack: Stack, display: Display) -> None:
        super().__init__("lines", _PLAIN_EVERY_SECONDS)
        self._stack = stack
        self._display = display

    def step(self) -> None:
        path = status.read(self._stack)
        agent = path.agent or {}
        self._display.tell(
            f"committed {agent.get('captured_changes', '-')}, spooled {agent.get('spooled_changes', '-')}, "
            f"sent {agent.get('accepted_changes', '-')}, loaded {path.loaded}, folded {path.folded}, "
            f"holes {path.holes}, watermark {path.watermark or '-'}"
        )
