"""Groups: the pieces in which a table's snapshot is read, each at a consistent point of its own. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

Bound = tuple[str, ...] | None

MAX_GROUPS: Final = 1000
"""Each group waits for the transactions that are open at the source when its slot is made."""

_CLUSTERED: Final = 0.9


@dataclass(frozen=True, slots=True)
class Group:
    """Rows from `low` (inside) to `high` (outside); None is without end.

    Bounds are values of the key's columns as text, in the key's order. With `file` they are numbers of pages of that
    file of the table instead, and hold only as long as the table keeps the file.
    """

    low: Bound = None
    high: Bound = None
    file: int | None = None

    @property
    def keys(self) -> tuple[Bound, Bound]:
        """The range of keys, as `snapshot_end` names it: everything where the table was cut by pages."""
        return (None, None) if self.file is not None else (self.low, self.high)

    def to_json(self) -> str:
        return json.dumps([self.low, self.high, self.file])

    @classmethod
    def from_json(cls, text: str) -> Group:
        low, high, file = json.loads(text)
        return cls(None if low is None else tuple(low), None if high is None else tuple(high), file)


EVERYTHING: Final = Group()


@dataclass(frozen=True, slots=True)
class Plan:
    """The groups of a table, together from end to end, and how many rows it has as far as the source knows."""

    groups: tuple[Group, ...] = (EVERYTHING,)
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class TableSize:
    """What decides how a table is cut.

    pages: of its rows, without what lies out of line. keyed: whether its rows can be told apart.
    file: of a plain table, None for a partitioned one. out_of_line: whether values lie out of line.
    correlation: of the key's first column with the order on disk, -1 to 1, where the source knows it.
    """

    bytes: int
    pages: int
    rows: int | None
    keyed: bool
    file: int | None
    out_of_line: bool
    correlation: float | None


def count_of(size: TableSize, group_bytes: int) -> int:
    """How many groups; a table without a key is read in one, since its rows cannot be overlaid."""
    return max(1, min(MAX_GROUPS, math.ceil(size.bytes / group_bytes))) if size.keyed else 1


def by_pages(size: TableSize) -> bool:
    """Whether to cut by pages: where the key is scattered over the file, ranges of it would each read most of the file.

    A row that an update moves between pages may be read twice or not at all, and is in the stream then; but not whole
    where the update left out values that lie out of line. So tables with such values are cut by key.
    """
    scattered = size.correlation is not None and abs(size.correlation) < _CLUSTERED
    return size.file is not None and scattered and not size.out_of_line


def cut_pages(file: int, pages: int, count: int) -> tuple[Group, ...]:
    """Ranges of pages; the last one takes what the table grows by."""
    cuts = sorted({pages * n // count for n in range(1, count)} - {0})
    bounds = [None, *((str(cut),) for cut in cuts), None]
    return tuple(Group(low, high, file) for low, high in pairwise(bounds))


def cut_keys(cuts: list[tuple[str, ...]]) -> tuple[Group, ...]:
    """Ranges between keys in the source's order."""
    return tuple(Group(low, high) for low, high in pairwise([None, *cuts, None]))
