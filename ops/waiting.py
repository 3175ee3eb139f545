"""Waiting for something that another process does, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ops.errors import TookTooLong

Value = TypeVar("Value")


def until(
    look: Callable[[], Value | None], what: str | Callable[[], str], seconds: float, every_seconds: float = 0.2
) -> Value:
    """The first answer of `look` that is neither None nor False. Raises TookTooLong with `what` was awaited."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen is not None and seen is not False:
            return seen
        if time.monotonic() > deadline:
            raise TookTooLong(f"waited {seconds:.0f} s for {what if isinstance(what, str) else what()}")
        time.sleep(every_seconds)
