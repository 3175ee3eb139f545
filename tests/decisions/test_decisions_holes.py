"""Holes: adjacent ones are one, they shrink from below, and they travel as JSON."""

from __future__ import annotations

from glue_streaming import holes
from glue_streaming.holes import Hole
from schemas.position import Line, Position


def hole(after: int | None, last: int, reason: str = "gap", where: str | None = None, lane: str = "0") -> Hole:
    return Hole(lane, None if after is None else Position(1, after, 0), Position(1, last, 0), reason, "t", where)


def test_decisions_holes_adjacent_ones_are_one() -> None:
    """A hole that continues another joins it, with both reasons and the places of both's raw bytes."""
    joined = holes.add([hole(10, 20, where="s3://b/raw/a/1")], hole(20, 30, "checksum", "s3://b/raw/b/5"))
    assert joined == (hole(10, 30, "gap; checksum", "s3://b/raw/a/1 s3://b/raw/b/5"),)


def test_decisions_holes_places_in_one_shard_are_a_range_and_stay_few() -> None:
    """A thousand bad blocks in a row are one hole whose text does not grow with them."""
    several: tuple[Hole, ...] = ()
    for n in range(1000):
        several = holes.add(several, hole(n, n + 1, f"bad {n}", f"s3://b/raw/s/{n + 1}"))
    (one,) = several
    assert holes.places(one.where) == [("s3://b/raw/s/1", "1000")]
    assert len(one.reason) <= holes.MAX_REASON
    for shard in range(1000):
        one = holes.add([one], hole(one.last.lsn, one.last.lsn + 1, "bad", f"s3://b/raw/{shard}/1"))[0]
    assert len(one.where or "") <= holes.MAX_WHERE


def test_decisions_holes_apart_or_in_other_lanes_stay_apart() -> None:
    """Only the same lane's, and only where one begins at the other's end."""
    assert len(holes.add([hole(10, 20)], hole(21, 30))) == 2
    assert len(holes.add([hole(10, 20, lane="1")], hole(20, 30))) == 2


def test_decisions_holes_shrink_from_below_until_they_are_gone() -> None:
    """Filling moves `after`; reaching the end removes the hole, and no other."""
    first, second = hole(10, 20), hole(30, 40)
    smaller = holes.filled((first, second), second, Position(1, 35, 0))
    assert smaller == (first, hole(35, 40))
    assert holes.filled(smaller, smaller[1], Position(1, 40, 0)) == (first,)


def test_decisions_holes_without_a_beginning_lie_above_nothing() -> None:
    """A hole from the lane's beginning keeps every line of its era below it."""
    assert hole(None, 20).lowest < Position(1, 0, 0)


def test_decisions_holes_end_below_the_point_that_repairs_them() -> None:
    """A snapshot read at C holds all changes below C, and not one at C."""
    assert hole(10, 20).ends_below(Line(1, 21))
    assert not hole(10, 20).ends_below(Line(1, 20))
    assert hole(10, 20).ends_below(Line(2, 1))


def test_decisions_holes_survive_json() -> None:
    """What a table's property holds reads back as it was."""
    several = (hole(None, 20), hole(30, 40, where="s3://bucket/raw"))
    assert holes.from_json(holes.to_json(several)) == several
