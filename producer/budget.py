"""A budget: so much a second, for what must leave room to others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Budget:
    """`spend` says how long to wait before what was spent is paid for. A pause saves up at most one second's worth.

    None as the amount a second is no bound. Safe to use from several threads.
    """

    def __init__(self, per_second: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._paid_until = clock()
        self._lock = threading.Lock()

    def spend(self, amount: float) -> float:
        """Seconds to wait after spending it; 0 within the budget."""
        if self._per_second is None:
            return 0.0
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - 1.0) + amount / self._per_second
            return max(0.0, self._paid_until - now)
