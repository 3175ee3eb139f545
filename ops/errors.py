"""Errors of the command line. Each ends the command with one clear message; `exit_code` is the exit status.

OpsError              1  what was asked for did not work
├── MachineNotReady   2  this machine lacks something: the message says what to install
├── StackNotRunning   3  there is no such running stack: the message says how to start it
├── NoSuchHole        1  an id names no open hole, or several
├── NotApplicable     1  a verb cannot mend what it was asked to: why, and what can
├── QueryFailed       1  Athena refused or failed a query: its own words
└── TookTooLong       4  something was awaited and did not come: what, and where to look
"""

from __future__ import annotations

from typing import ClassVar


class OpsError(Exception):
    """Base of all errors that a verb shows to its user."""

    exit_code: ClassVar[int] = 1


class MachineNotReady(OpsError):
    exit_code = 2


class StackNotRunning(OpsError):
    exit_code = 3


class NoSuchHole(OpsError):
    pass


class NotApplicable(OpsError):
    pass


class QueryFailed(OpsError):
    pass


class TookTooLong(OpsError):
    exit_code = 4


class PostgresFailed(Exception):
    pass
