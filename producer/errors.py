"""Errors of the agent, by what happens next. `exit_code` is the process' exit status when one ends it.

ProducerError                 1  unforeseen
├── ConfigurationRefused      2  the configuration is wrong: all problems at once; mend the file
├── SourceRefused             3  the source is not ready: all problems at once, each with the statement that mends it
├── SourceUnreachable         4  connection lost or refused: try again with backoff
│   └── TextNeeded               the same, with values as text from then on
├── SourceProtocolBroken      5  the source said what cannot be understood: stop, nothing was passed over
├── ContinuityBroken          6  the source no longer continues what the spool holds: a new era, by the operator
├── AnotherAgent              7  another agent holds the lease of this source: stop
├── StreamRefused             8  the Kinesis stream is missing or was changed in a way that breaks the order: stop
├── SpoolBroken               9  the spool cannot be read or written: stop before anything is confirmed
│   └── SpoolDamaged             a block is not what was written: it is captured again, or declared lost
└── SnapshotVoid              -  a snapshot's groups fit together no more: it is taken anew, nothing stops
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ProducerError(Exception):
    """Base of all errors of this package."""

    exit_code: ClassVar[int] = 1


class Refused(ProducerError):
    """Base of refusals that list every problem found."""

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        super().__init__(f"{subject}:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.subject = subject
        self.problems = tuple(problems)


class ConfigurationRefused(Refused):
    exit_code = 2


class SourceRefused(Refused):
    exit_code = 3


class SourceUnreachable(ProducerError):
    exit_code = 4


class TextNeeded(SourceUnreachable):
    """The stream has to begin again behind the last durable commit, with values as text."""


class SourceProtocolBroken(ProducerError):
    exit_code = 5


class ContinuityBroken(ProducerError):
    exit_code = 6


class AnotherAgent(ProducerError):
    exit_code = 7


class StreamRefused(ProducerError):
    exit_code = 8


class SpoolBroken(ProducerError):
    exit_code = 9


class SpoolDamaged(SpoolBroken):
    """A block is not what was written. It is never sent."""


class SnapshotVoid(ProducerError):
    pass
