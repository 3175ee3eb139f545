"""Positions: the total order of everything that one source emits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Position(NamedTuple):
    """Where a change stands in its source.

    era: raised whenever continuity with the source breaks.
    lsn: commit position of the transaction (PostgreSQL: the final LSN of Begin), unsigned 64 bits at the source.
    idx: unique per emitted change of that transaction, from 0.
    Tuples compare as the design orders them: era, then lsn, then idx.
    """

    era: int
    lsn: int
    idx: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Position:
        """The position that a JSON list or an Avro record's values hold."""
        era, lsn, idx = values
        return cls(int(era), int(lsn), int(idx))

    def __str__(self) -> str:
        return f"{self.era}:{format_lsn(self.lsn)}:{self.idx}"


class Line(NamedTuple):
    """A cut through a source: everything with (era, lsn) at or below it, whole transactions only."""

    era: int
    lsn: int

    def covers(self, position: Position) -> bool:
        return (position.era, position.lsn) <= self

    def __str__(self) -> str:
        return f"{self.era}:{format_lsn(self.lsn)}"


ORIGIN = Line(0, 0)


def format_lsn(lsn: int) -> str:
    """An LSN as PostgreSQL prints it, such as 0/16B3748."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)
