"""Named places where a test may end a job as a power failure would: HEADRACE_FAILPOINT=name:count."""

from __future__ import annotations

import os
import signal
from typing import Final

NAMES: Final = (
    "epoch.taken",  # the older driver is fenced, nothing is read
    "files.before",  # rows are decoded, nothing is written
    "files.written",  # a data file is there, no table knows it
    "raw.kept",  # the bytes of a hole are there, no table knows the hole
    "commit.before",  # other tables may be committed, this one is not
    "commit.staged",  # manifests are written, the catalog does not know
    "commit.after",  # the table is committed, the driver does not know
    "request.answering",  # what an operator asked for is committed, and the request still open
    "watermark.before",  # all is committed, readers do not see it in the cut
    "watermark.after",  # the cut has moved, the driver does not know
    "positions.before",  # no position is saved
    "positions.saved",  # of the positions, some are saved
)
"""The streaming job's; a fold passes those of files and of commits too."""
FOLD_NAMES: Final = ("fold.part",)  # parts of a fold are merged, others may not be
ERASE_NAMES: Final = (
    "erase.intended",  # files are rewritten and counted, nothing is committed
    "erase.object",  # an object is counted, and not yet rewritten or deleted
    "erase.closing",  # all is done, and the report still open
)


class _Armed:
    def __init__(self, text: str) -> None:
        self.name, _, count = text.partition(":")
        self.left = int(count or 1)
        names = (*NAMES, *FOLD_NAMES, *ERASE_NAMES)
        if self.name and self.name not in names:
            raise ValueError(f"HEADRACE_FAILPOINT: no failpoint {self.name!r}; expected one of {', '.join(names)}")


_armed = _Armed(os.environ.get("HEADRACE_FAILPOINT", ""))


def arm(text: str) -> None:
    """As the environment variable does, for a process that was forked with this module loaded."""
    global _armed
    _armed = _Armed(text)


def reach(name: str) -> None:
    """Kill the process here, when this failpoint is armed and was reached often enough."""
    if name == _armed.name:
        _armed.left -= 1
        if _armed.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
