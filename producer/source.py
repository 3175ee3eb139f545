"""What the agent asks of a source. PostgreSQL is the first; nothing behind this seam knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from producer.change import Event
from producer.continuity import Found, Known
from producer.groups import Group, Plan
from producer.reserves import SlotReserve
from producer.settings import Settings
from producer.snapshots import OpenSnapshot


@dataclass(frozen=True)
class Remarks:
    """What a source has to say beside its changes.

    logical_messages: how many it passed over since the start. warnings: what troubles single tables, each with what
    mends it.
    """

    logical_messages: int = 0
    warnings: tuple[str, ...] = ()


class Capturing(Protocol):
    """A live stream. `confirm` may be called from any thread."""

    def poll(self, wait_seconds: float) -> list[Event]: ...

    def confirm(self, lsn: int) -> None: ...

    def close(self) -> None: ...


class Source(Protocol):
    """A source database. Every call may raise SourceUnreachable; `check` and `prepare` raise SourceRefused."""

    def check(self, *, beside_agent: bool = False) -> None:
        """Everything that must hold before a start, all problems together. Changes nothing.

        beside_agent: while an agent of the same configuration reads the source, which is then no problem.
        """
        ...

    def find(self) -> Found:
        """Who the source is, and where its slot stands."""
        ...

    def prepare(self) -> None:
        """Create what is missing: publications, slot. Idempotent."""
        ...

    def follow(self) -> Sequence[str]:
        """Take in the tables that came since, and let go of those that went. Called now and then while changes flow.

        Returns tables that got rows which are in no stream: each needs a new snapshot.
        """
        ...

    def last_resent(self, through: int) -> Known | None:
        """The last transaction at or below `through` that would be sent again, as far as `find` says where from."""
        ...

    def reserve(self) -> SlotReserve | None:
        """What it keeps for the agent, and how much more it can; None where it keeps nothing."""
        ...

    def remarks(self) -> Remarks:
        """Asks nobody."""
        ...

    def beat(self) -> None:
        """Give the source something to say, where it is silent for long."""
        ...

    def drop_slot(self) -> bool:
        """Let the source forget all that it keeps for the agent; whether it kept anything."""
        ...

    def reconfigure(self, settings: Settings) -> None:
        """Go on under other settings of the tables, and create what they miss. While nothing is captured.

        Raises ConfigurationRefused or SourceRefused, and then nothing has changed.
        """
        ...

    def tables(self) -> Sequence[str]:
        """The lake names of the captured tables."""
        ...

    def lanes(self, table: str) -> int: ...

    def priority(self, table: str) -> int:
        """Which tables' blocks go first: the higher ones."""
        ...

    def current_lsn(self) -> int: ...

    def capture(self, era: int, after_lsn: int) -> Capturing:
        """Every transaction that commits behind after_lsn, in order."""
        ...

    def plan(self, table: str, group_bytes: int) -> Plan:
        """The groups that together are the table, each of about group_bytes."""
        ...

    def open(self, table: str, group: Group, era: int) -> AbstractContextManager[OpenSnapshot]:
        """A group of a table as of one consistent point. Raises SnapshotVoid where the groups hold no more."""
        ...

    def busy(self) -> str | None:
        """Why snapshots had better wait; None when the source has room for them."""
        ...


@dataclass(frozen=True)
class EraSource:
    """The source, as the snapshots of one era see it."""

    source: Source
    era: int

    def tables(self) -> Sequence[str]:
        return self.source.tables()

    def current_lsn(self) -> int:
        return self.source.current_lsn()

    def plan(self, table: str, group_bytes: int) -> Plan:
        return self.source.plan(table, group_bytes)

    def open(self, table: str, group: Group) -> AbstractContextManager[OpenSnapshot]:
        return self.source.open(table, group, self.era)

    def busy(self) -> str | None:
        return self.source.busy()
