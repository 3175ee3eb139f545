"""Named places where a test may end the agent as a power failure would: HEADRACE_FAILPOINT=name:count."""

from __future__ import annotations

import os
import signal
from typing import Final

NAMES: Final = (
    "capture.changed",  # a change is in memory only
    "spool.before_commit",  # blocks are written, nothing is durable
    "spool.after_commit",  # blocks are durable, the source does not know
    "source.confirmed",  # the source was told
    "sender.before_put",  # nothing has left
    "sender.after_put",  # Kinesis has the blocks, the spool does not know
    "sender.accepted",  # the spool knows
    "era.claimed",  # the era is raised, the slot may be missing
    "slot.created",  # the slot is there, the spool does not know
    "snapshot.cut",  # a snapshot's groups are fixed
    "snapshot.announced",  # the announcement was accepted
    "snapshot.rows",  # some of a group's blocks are spooled
    "snapshot.ended",  # the group's end is spooled
)


class _Armed:
    def __init__(self, text: str) -> None:
        self.name, _, count = text.partition(":")
        self.left = int(count or 1)
        if self.name and self.name not in NAMES:
            raise ValueError(f"HEADRACE_FAILPOINT: no failpoint {self.name!r}; expected one of {', '.join(NAMES)}")


_armed: Final = _Armed(os.environ.get("HEADRACE_FAILPOINT", ""))


def reach(name: str) -> None:
    """Kill the process here, when this failpoint is armed and was reached often enough."""
    if name == _armed.name:
        _armed.left -= 1
        if _armed.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
