"""What the agent asks of a source. PostgreSQL is the first; nothing behind this seam knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from producer.change import Event
from producer.era import Found
from producer.snapshots import OpenSnapshot


class Capturing(Protocol):
    """A live stream. `confirm` may be called from any thread."""

    def poll(self, wait_seconds: float) -> list[Event]: ...

    def confirm(self, lsn: int) -> None: ...

    def close(self) -> None: ...


class Source(Protocol):
    """A source database. Every call may raise SourceUnreachable; `check` and `prepare` raise SourceRefused."""

    def check(self) -> None:
        """Everything that must hold before a start, all problems together. Changes nothing."""
        ...

    def find(self) -> Found:
        """Who the source is, and where its slot stands."""
        ...

    def prepare(self) -> None:
        """Create what is missing: publications, slot. Idempotent."""
        ...

    def tables(self) -> Sequence[str]:
        """The lake names of the captured tables."""
        ...

    def lanes(self, table: str) -> int: ...

    def current_lsn(self) -> int: ...

    def capture(self, era: int, after_lsn: int) -> Capturing:
        """Every transaction that commits behind after_lsn, in order."""
        ...

    def open(self, table: str, era: int) -> AbstractContextManager[OpenSnapshot]:
        """A table as of one consistent point."""
        ...
