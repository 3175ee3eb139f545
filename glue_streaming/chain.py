"""The chain: what a block means to a lane. Pure, and driven by the simulation in the tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

from glue_streaming import holes
from glue_streaming.holes import Hole
from schemas.position import Line, Position


@dataclass(frozen=True)
class Lane:
    """What a table has dealt with of one lane: everything up to `mark`, except its holes.

    sealed: holes that end below this line are filled no more, since a complete snapshot repairs them: the fold that
    activates it may be on its way, and rows that came in behind its back would lie below its line.
    before: where the lane stood when it went into the era of its mark; None where nothing of it had come.
    """

    name: str
    mark: Position | None = None
    holes: tuple[Hole, ...] = ()
    sealed: Line | None = None
    before: Position | None = None


@dataclass(frozen=True)
class Duplicate:
    """Every row of the block is in the table, or accounted for: drop it."""


@dataclass(frozen=True)
class Load:
    """The block continues the lane: load all its rows."""


@dataclass(frozen=True)
class Fill:
    """The block lies where `hole` begins: load its rows in (hole.after, upto]."""

    hole: Hole
    upto: Position


@dataclass(frozen=True)
class Gap:
    """Positions (mark, upto] have not come: park the lane, read it again, and only then declare a hole."""

    upto: Position


Verdict = Duplicate | Load | Fill | Gap


class BrokenChain(Exception):
    """A block overlaps the mark, which cannot be: blocks are immutable once spooled. Stop and look."""


def judge(lane: Lane, prev: Position | None, last: Position) -> Verdict:
    """What to do with a block (prev, last] of the lane.

    Holes come before the mark: a resent block is below the mark, and only this test lets it in. The same test serves
    resend, replay and re-read.
    """
    hole = _fillable(lane, prev, last)
    if hole is not None:
        return Fill(hole, min(last, hole.last))
    mark = lane.mark
    if mark is not None and last <= mark:
        return Duplicate()
    if _continues(mark, prev, last):
        return Load()
    if prev is None or (mark is not None and prev < mark):
        raise BrokenChain(f"lane {lane.name}: block ({prev}, {last}] overlaps the mark {mark}")
    return Gap(prev)


def fills(lane: Lane, prev: Position | None, last: Position) -> bool:
    """Whether a block lies where a hole begins."""
    return _fillable(lane, prev, last) is not None


def advance(lane: Lane, verdict: Verdict, last: Position) -> Lane:
    """The lane after its verdict was carried out. A gap carries nothing out: see `declare`."""
    match verdict:
        case Load():
            return _marked(lane, last)
        case Fill(hole, upto):
            return replace(lane, holes=holes.filled(lane.holes, hole, upto))
        case _:
            return lane


def declare(lane: Lane, upto: Position, reason: str, at: str, where: str | None = None) -> Lane:
    """The lane with (mark, upto] given up as a hole, and its mark moved past it."""
    hole = Hole(lane.name, lane.mark if _same_era(lane.mark, upto) else None, upto, reason, at, where)
    return replace(_marked(lane, upto), holes=holes.add(lane.holes, hole))


def declare_behind(lane: Lane, last: Position, reason: str, at: str) -> Lane | None:
    """The lane with the end of an earlier era, up to `last`, given up as a hole; None where nothing is known to lack.

    A lane lies in order: behind its first block of an era nothing of an earlier one comes, unless it is sent again.
    """
    before = lane.before
    if lane.mark is None or lane.mark.era <= last.era or (before is not None and before >= last):
        return None
    hole = Hole(lane.name, before if _same_era(before, last) else None, last, reason, at)
    return replace(lane, before=last, holes=holes.add(lane.holes, hole))


def divide(lane: Lane, fill: Fill, reason: str, where: str) -> Lane:
    """The lane whose hole the block could have filled, and does not: the hole's part up to the block's end stays open
    for a reason of its own, and what lies behind it can still be filled by the blocks that follow. It is one with a
    hole that it continues, so that bad blocks in a row do not become as many holes."""
    bad = replace(fill.hole, last=fill.upto, reason=reason, where=where)
    rest = () if fill.upto >= fill.hole.last else (replace(fill.hole, after=fill.upto),)
    return replace(lane, holes=(*holes.add(holes.without(lane.holes, fill.hole), bad), *rest))


def _fillable(lane: Lane, prev: Position | None, last: Position) -> Hole | None:
    """The hole with prev <= after < last; None as prev or as after stands for the lane's beginning in the era."""
    for hole in lane.holes:
        if lane.sealed is not None and hole.ends_below(lane.sealed):
            continue
        begins = prev is None or (hole.after is not None and prev <= hole.after)
        reaches = last.era == hole.last.era and (hole.after is None or hole.after < last)
        if begins and reaches:
            return hole
    return None


def _continues(mark: Position | None, prev: Position | None, last: Position) -> bool:
    if prev is None:
        return mark is None or mark.era < last.era
    return prev == mark


def _marked(lane: Lane, mark: Position) -> Lane:
    crosses = lane.mark is not None and lane.mark.era < mark.era
    return replace(lane, mark=mark, before=lane.mark if crosses else lane.before)


def _same_era(mark: Position | None, upto: Position) -> bool:
    return mark is not None and mark.era == upto.era
