"""Key ranges: which files of a sorted tier a fold has to rewrite, and in how many parts. Pure.

A file's range is known by the bounds of its key columns: the lowest and the highest value of the first one, and of
the next one where the first has a single value in the file, and so on. Such a prefix may promise more than the file
holds, never less; so a key is looked for in every file that may hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

Prefix = tuple[Any, ...]
"""Values of the first key columns, as Iceberg's bounds give them: comparable within a column."""


class Cut(NamedTuple):
    """A place between keys: before (or, with `after`, behind) all keys that begin with the prefix."""

    prefix: Prefix
    after: bool = False


@dataclass(frozen=True)
class KeyRange:
    """Keys from `low` (the first ones where None) up to, not including, what lies behind `high`."""

    low: Cut | None = None
    high: Cut | None = None


WHOLE: Final = KeyRange()


@dataclass(frozen=True)
class Slot:
    """A file's place among the keys: (lowest, highest) of each leading key column, and its bytes.

    No bounds: it may hold any key.
    """

    bounds: tuple[tuple[Any, Any], ...]
    size: int

    @property
    def lowest(self) -> Prefix:
        return tuple(low for low, _ in self.bounds)

    @property
    def highest(self) -> Prefix:
        return tuple(high for _, high in self.bounds)

    @property
    def order(self) -> Prefix:
        """Sorted files that share no key are in the order of their keys by this."""
        return tuple(bound for pair in self.bounds for bound in pair)

    def range(self) -> KeyRange:
        return KeyRange(Cut(self.lowest), Cut(self.highest, after=True)) if self.bounds else WHOLE


@dataclass(frozen=True)
class Run:
    """Files next to each other that are rewritten as one, by index, and the keys that the rewriting answers for."""

    files: tuple[int, ...]
    range: KeyRange


def may_overlap(left: Slot, right: Slot) -> bool:
    """Whether some key may lie in both."""
    return _reaches(left, right) and _reaches(right, left)


def in_range(slot: Slot, keys: KeyRange) -> bool:
    """Whether the file may hold a key of the range."""
    if not slot.bounds:
        return True
    below = keys.high is not None and not _before(Cut(slot.lowest), keys.high)
    above = keys.low is not None and not _before(keys.low, Cut(slot.highest, after=True))
    return not below and not above


def runs(slots: Sequence[Slot], holds: Callable[[KeyRange], bool], small_bytes: int) -> list[Run]:
    """What is to be rewritten of a sorted tier's files. Every changed key lies in the range of exactly one run.

    holds: whether a changed key lies in a range. Rewritten are files that may hold a changed key, small files beside
    each other or beside those, and whatever lies between two of them that may share keys. Keys that lie in no file
    get files of their own, so that a table that grows at its end leaves its full files alone.
    """
    order = sorted(range(len(slots)), key=lambda index: slots[index].order)
    ordered = [slots[index] for index in order]
    if not ordered or not all(slot.bounds for slot in ordered):
        return [Run(tuple(order), WHOLE)]
    gaps = [holds(gap) for gap in _gaps(ordered)]
    rewritten = _rewritten(ordered, gaps, holds, small_bytes)
    found: list[tuple[list[int], Cut | None]] = [([], None)] if gaps[0] else []
    is_open = bool(gaps[0])
    for place, slot in enumerate(ordered):
        if rewritten[place] and not is_open:
            found.append(([], Cut(slot.lowest)))
        if rewritten[place]:
            found[-1][0].append(order[place])
        is_open = rewritten[place]
        if gaps[place + 1] and not is_open:
            found.append(([], Cut(_reach(ordered[: place + 1]), after=True)))
            is_open = True
    lows = [low for _, low in found[1:]]
    ends = zip([None, *lows], [*lows, None], strict=True)
    return [Run(tuple(files), KeyRange(*end)) for (files, _), end in zip(found, ends, strict=False)]


def split(keys: KeyRange, slots: Sequence[Slot], total_bytes: int, part_bytes: int) -> list[KeyRange]:
    """The range in parts of about `part_bytes` each, cut where files begin; as many as the files' bounds allow."""
    count = -(-total_bytes // max(1, part_bytes))
    bounded = sorted((slot for slot in slots if slot.bounds), key=lambda slot: slot.order)
    share = sum(slot.size for slot in bounded) / max(1, count)
    cuts: list[Cut] = []
    passed = 0.0
    for slot in bounded:
        cut = Cut(slot.lowest)
        behind = cuts[-1] if cuts else keys.low
        inside = (behind is None or _before(behind, cut)) and (keys.high is None or _before(cut, keys.high))
        if passed >= share * (len(cuts) + 1) and inside:
            cuts.append(cut)
        passed += slot.size
    return [KeyRange(low, high) for low, high in pairwise([keys.low, *cuts, keys.high])]


def _gaps(ordered: Sequence[Slot]) -> list[KeyRange]:
    """The keys before the first file, between the files, and behind the last one."""
    gaps = [KeyRange(None, Cut(ordered[0].lowest))]
    for place in range(1, len(ordered) + 1):
        low = Cut(_reach(ordered[:place]), after=True)
        high = Cut(ordered[place].lowest) if place < len(ordered) else None
        gaps.append(KeyRange(low, high))
    return gaps


def _rewritten(
    ordered: Sequence[Slot], gaps: Sequence[bool], holds: Callable[[KeyRange], bool], small_bytes: int
) -> list[bool]:
    touched = [holds(slot.range()) for slot in ordered]
    small = [slot.size < small_bytes for slot in ordered]
    count = len(ordered)

    def joins(place: int) -> bool:
        beside = [other for other in (place - 1, place + 1) if 0 <= other < count]
        return small[place] and (
            gaps[place] or gaps[place + 1] or any(small[other] or touched[other] for other in beside)
        )

    rewritten = [touched[place] or joins(place) for place in range(count)]
    for place in range(count):
        later = next((other for other in range(place + 1, count) if rewritten[other]), None)
        earlier = [ordered[other] for other in range(place) if rewritten[other]]
        if not rewritten[place] and later is not None:
            rewritten[place] = any(may_overlap(slot, ordered[later]) for slot in earlier)
    return rewritten


def _reach(slots: Sequence[Slot]) -> Prefix:
    """The highest prefix that any of the files reaches."""
    highest = slots[0].highest
    for slot in slots[1:]:
        if _before(Cut(highest, after=True), Cut(slot.highest, after=True)):
            highest = slot.highest
    return highest


def _reaches(left: Slot, right: Slot) -> bool:
    if not left.bounds or not right.bounds:
        return True
    return _before(Cut(right.lowest), Cut(left.highest, after=True))


def _before(left: Cut, right: Cut) -> bool:
    """Whether a key may lie between the two cuts; certain where it cannot."""
    shared = min(len(left.prefix), len(right.prefix))
    first, second = left.prefix[:shared], right.prefix[:shared]
    if first != second:
        return bool(first < second)
    if len(left.prefix) == len(right.prefix):
        return right.after and not left.after
    return right.after if len(right.prefix) == shared else not left.after
