"""Reserves: how long spool and source hold out while Kinesis takes nothing, and when to say that it is not long."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

WINDOW_SECONDS: Final = 3600.0
_NEARLY: Final = 0.8
_AT_RISK: Final = ("unreserved", "lost")


@dataclass(frozen=True, slots=True)
class SlotReserve:
    """What the source keeps for the agent.

    status: PostgreSQL's word (reserved, extended, unreserved, lost). held_bytes: of log that the slot keeps.
    safe_bytes: how much may yet be written before the slot is at risk; None where nothing bounds it.
    lsn: where the source stands.
    """

    status: str | None
    held_bytes: int
    safe_bytes: int | None
    lsn: int


@dataclass(frozen=True, slots=True)
class Reserve:
    """What is left. Seconds are at the pace of the last hour; None where nothing moves, or nothing bounds it."""

    spool_seconds: float | None
    slot: SlotReserve | None
    slot_seconds: float | None
    warnings: tuple[str, ...]


class Pace:
    """How fast a growing number grows, over the last hour."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def note(self, at: float, value: float) -> None:
        self._seen.append((at, value))
        while len(self._seen) > 2 and at - self._seen[0][0] > WINDOW_SECONDS:
            self._seen.popleft()

    def seconds_for(self, amount: float) -> float | None:
        """How long that much lasts."""
        if len(self._seen) < 2:
            return None
        (then, before), (now, after) = self._seen[0], self._seen[-1]
        grown = after - before
        return max(0.0, amount) * (now - then) / grown if grown > 0 and now > then else None


class Reserves:
    """Looks now and then (`note`); `now` says what it last saw."""

    def __init__(self, max_bytes: int, min_seconds: int) -> None:
        self._max_bytes = max_bytes
        self._min_seconds = min_seconds
        self._spooled, self._log = Pace(), Pace()
        self.now = Reserve(None, None, None, ())

    def note(self, at: float, spooled_bytes: int, pending_bytes: int, slot: SlotReserve | None) -> Reserve:
        """spooled_bytes: of changes, ever, since the agent started. pending_bytes: what waits."""
        self._spooled.note(at, spooled_bytes)
        if slot is not None:
            self._log.note(at, slot.lsn)
        spool_seconds = self._spooled.seconds_for(self._max_bytes - pending_bytes)
        safe = None if slot is None else slot.safe_bytes
        slot_seconds = None if safe is None else self._log.seconds_for(safe)
        warnings = tuple(self._warnings(pending_bytes, spool_seconds, slot, slot_seconds))
        self.now = Reserve(spool_seconds, slot, slot_seconds, warnings)
        return self.now

    def _warnings(
        self, pending: int, spool_seconds: float | None, slot: SlotReserve | None, slot_seconds: float | None
    ) -> Iterator[str]:
        if pending > _NEARLY * self._max_bytes:
            yield f"the spool is {100 * pending // self._max_bytes}% full: at its bound the source keeps what follows"
        elif spool_seconds is not None and spool_seconds < self._min_seconds:
            yield f"at the pace of the last hour the spool holds {spool_seconds / 60:.0f} minutes of outage"
        if slot is None:
            return
        if slot.status in _AT_RISK:
            yield f"the replication slot is {slot.status}: the source may drop the log that the agent still needs"
        elif slot.safe_bytes is not None and slot.held_bytes > _NEARLY * (slot.held_bytes + slot.safe_bytes):
            left = "" if slot_seconds is None else f", about {slot_seconds / 60:.0f} minutes"
            yield (
                f"the replication slot keeps {slot.held_bytes} bytes of log, and is lost after {slot.safe_bytes} more"
                f"{left}: see that Kinesis can be reached, or raise max_slot_wal_keep_size"
            )
