"""What a block means to a lane: duplicate, load, fill, gap; and what declaring a hole does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from glue_streaming.chain import (
    BrokenChain,
    Duplicate,
    Fill,
    Gap,
    Lane,
    Load,
    Verdict,
    advance,
    declare,
    declare_behind,
    judge,
)
from glue_streaming.holes import Hole
from schemas.position import Line, Position

AT = "2024-01-01T00:00:00+00:00"


def at(lsn: int, idx: int = 0, era: int = 1) -> Position:
    return Position(era, lsn, idx)


def hole(after: Position | None, last: Position) -> Hole:
    return Hole("0", after, last, "gap", AT)


@pytest.mark.parametrize(
    ("mark", "prev", "last", "verdict"),
    [
        (None, None, at(10), Load()),
        (at(10), at(10), at(20), Load()),
        (at(10), None, at(10), Duplicate()),
        (at(20), at(10), at(15), Duplicate()),
        (at(10), at(20), at(30), Gap(at(20))),
        (at(10, 1), at(10, 2), at(10, 3), Gap(at(10, 2))),
        (None, at(10), at(20), Gap(at(10))),
        (at(90), None, at(10, era=2), Load()),
        (at(90), at(10, era=2), at(20, era=2), Gap(at(10, era=2))),
        (at(10, era=2), at(80), at(90), Duplicate()),
    ],
)
def test_decisions_chain_without_holes(
    mark: Position | None, prev: Position | None, last: Position, verdict: Verdict
) -> None:
    """At or below the mark is a duplicate, on the mark loads, behind it is a gap; prev is null once an era."""
    assert judge(Lane("0", mark), prev, last) == verdict


@pytest.mark.parametrize("prev", [None, at(5)])
def test_decisions_chain_overlap_stops(prev: Position | None) -> None:
    """A block that overlaps the mark cannot be: it raises instead of guessing."""
    with pytest.raises(BrokenChain, match="lane 0"):
        judge(Lane("0", at(10)), prev, at(20))


@pytest.mark.parametrize(
    ("open_hole", "prev", "last", "upto"),
    [
        (hole(at(10), at(30)), at(10), at(20), at(20)),
        (hole(at(10), at(30)), at(10), at(30), at(30)),
        (hole(at(20), at(30)), at(10), at(40), at(30)),
        (hole(None, at(30)), None, at(20), at(20)),
    ],
)
def test_decisions_chain_fills_a_hole_from_below(
    open_hole: Hole, prev: Position | None, last: Position, upto: Position
) -> None:
    """Below the mark, a block that reaches into the beginning of a hole is loaded as far as the hole goes."""
    lane = Lane("0", at(50), (open_hole,))
    verdict = judge(lane, prev, last)
    assert verdict == Fill(open_hole, upto)
    left = advance(lane, verdict, last).holes
    assert left == (() if upto == open_hole.last else (Hole("0", upto, open_hole.last, "gap", AT),))


@pytest.mark.parametrize(
    ("open_hole", "prev", "last"),
    [
        (hole(at(10), at(30)), at(20), at(30)),
        (hole(at(10), at(30)), at(5), at(10)),
        (hole(at(10), at(30)), at(30), at(40)),
        (hole(at(10, era=1), at(30, era=1)), None, at(20, era=2)),
    ],
)
def test_decisions_chain_leaves_a_hole_that_a_block_does_not_begin(
    open_hole: Hole, prev: Position | None, last: Position
) -> None:
    """The middle of a hole waits for its beginning; what lies beside it, or in another era, is no part of it."""
    assert judge(Lane("0", at(50, era=2), (open_hole,)), prev, last) == Duplicate()


def test_decisions_chain_a_sealed_hole_is_left_to_its_snapshot() -> None:
    """Once a complete snapshot repairs a hole, a resend of its blocks is a duplicate; others still fill."""
    below, above = hole(at(10), at(30)), hole(at(40), at(60))
    lane = Lane("0", at(90), (below, above), sealed=Line(1, 31))
    assert judge(lane, at(10), at(30)) == Duplicate()
    assert judge(lane, at(40), at(60)) == Fill(above, at(60))


def test_decisions_chain_advance_keeps_what_it_does_not_move() -> None:
    """A load moves the mark alone; duplicates and gaps move nothing."""
    lane = Lane("0", at(10), (hole(at(1), at(2)),), sealed=Line(1, 5))
    assert advance(lane, Load(), at(20)) == Lane("0", at(20), lane.holes, lane.sealed)
    assert advance(lane, Duplicate(), at(10)) == lane
    assert advance(lane, Gap(at(15)), at(20)) == lane


def test_decisions_chain_declare_opens_a_hole_and_goes_on_behind_it() -> None:
    """The hole is (mark, upto]; the next block then loads."""
    lane = declare(Lane("0", at(10)), at(20), "gap", AT)
    assert lane == Lane("0", at(20), (Hole("0", at(10), at(20), "gap", AT),))
    assert judge(lane, at(20), at(30)) == Load()


def test_decisions_chain_declare_in_a_new_era_begins_at_the_eras_beginning() -> None:
    """What the old era's mark says nothing about is missing from the new era's first position on."""
    assert declare(Lane("0", at(90)), at(10, era=2), "gap", AT).holes[0].after is None


@pytest.mark.parametrize("go_on", [lambda lane: advance(lane, Load(), at(5, era=2)), lambda lane: _gap(lane)])
def test_decisions_chain_a_lane_keeps_where_it_stood_at_the_end_of_an_era(go_on: Callable[[Lane], Lane]) -> None:
    """What the old era's progress names beyond that is a hole of the old era, once; what lies within is none."""
    lane = go_on(Lane("0", at(10)))
    assert lane.before == at(10)
    assert declare_behind(lane, at(10), "lost", AT) is None
    lost = declare_behind(lane, at(20), "lost", AT)
    assert lost is not None
    assert (lost.mark, lost.holes[-1]) == (lane.mark, replace(hole(at(10), at(20)), reason="lost"))
    assert declare_behind(lost, at(20), "lost", AT) is None
    assert declare_behind(advance(lane, Load(), at(6, era=2)), at(30, era=2), "lost", AT) is None
    later = advance(lost, Load(), at(5, era=3))
    assert declare_behind(later, at(30), "lost", AT) is None
    assert declare_behind(Lane("0", at(5, era=2)), at(20), "lost", AT) is not None


def _gap(lane: Lane) -> Lane:
    return declare(lane, at(5, era=2), "gap", AT)
