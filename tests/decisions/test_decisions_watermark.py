"""Lines and the watermark: what a progress record needs to count, and how the ring ages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from glue_streaming import watermark
from glue_streaming.holes import Hole
from glue_streaming.state import EndedGroup, Mark, SnapshotState, StreamState
from glue_streaming.watermark import Published
from schemas.control import LaneEnd, Progress
from schemas.position import Line, Position


def progress(through: int, **ends: int) -> Progress:
    vector = tuple(LaneEnd(table, "0", Position(1, lsn, 0)) for table, lsn in ends.items())
    return Progress(1, through, datetime(2024, 1, 1, tzinfo=UTC), vector, ())


def state(mark: int | None, *holes: tuple[int | None, int], lane: str = "0") -> StreamState:
    return StreamState(
        marks={} if mark is None else {"0": Mark(Position(1, mark, 0), "shard", "1")},
        holes=tuple(
            Hole(lane, None if after is None else Position(1, after, 0), Position(1, last, 0), "gap", "t")
            for after, last in holes
        ),
    )


@pytest.mark.parametrize(
    ("table", "covered"),
    [
        (state(90), True),
        (state(95), True),
        (state(89), False),
        (state(None), False),
        (state(95, (101, 102)), True),
        (state(95, (100, 102)), False),
        (state(95, (40, 50)), False),
        (state(95, (None, 50)), False),
        (state(95, (40, 50), lane="s1.0.1"), True),
    ],
)
def test_decisions_watermark_covers(table: StreamState, covered: bool) -> None:
    """Every lane is at its mark, and no hole in changes begins at or below `through`."""
    assert watermark.covers(progress(100, t=90), "t", table) is covered


def test_decisions_watermark_covers_without_lanes() -> None:
    """A table that the source never changed is complete at every progress."""
    assert watermark.covers(progress(100, other=90), "t", StreamState())


def test_decisions_watermark_is_what_every_table_covers() -> None:
    """The newest progress that all tables of the cut cover; a lagging one holds it back."""
    records = [progress(100, a=90, b=80), progress(200, a=190, b=180)]
    tables = {"a": state(190), "b": state(80)}
    assert watermark.newest(records, tables) == records[0]
    assert watermark.newest(records, {"a": state(190)}) == records[1]
    assert watermark.newest(records, {"b": state(70)}) is None


def test_decisions_watermark_repair_line_ignores_only_what_the_snapshot_holds() -> None:
    """Holes wholly below the lowest consistent point do not count, one that reaches it does."""
    ended = {0: EndedGroup(1, 60, None, None, 0), 1: EndedGroup(2, 70, None, None, 0)}
    repaired = StreamState(
        marks=state(95).marks, holes=state(95, (40, 59)).holes, snapshots={5: SnapshotState(55, 2, ended)}
    )
    records = [progress(30, t=30), progress(100, t=90)]
    assert watermark.table_line(records, "t", repaired) == Line(1, 30)
    assert watermark.repair_line(records, "t", repaired, 0) == Line(1, 100)
    assert watermark.repair_line(records, "t", repaired, 5) is None
    reaching = replace(repaired, holes=state(95, (40, 60)).holes)
    assert watermark.repair_line(records, "t", reaching, 0) == Line(1, 30)


def test_decisions_watermark_aged_goes_by_the_newest_entry() -> None:
    """A clock that stands still, or a job that died, makes nothing older."""
    ring = (Published(Line(1, 10), 0.0), Published(Line(1, 20), 10.0), Published(Line(1, 30), 20.0))
    assert watermark.aged(ring, 10.0) == Line(1, 20)
    assert watermark.aged(ring, 10.1) == Line(1, 10)
    assert watermark.aged(ring, 21.0) is None
    assert watermark.aged((), 1.0) is None


def test_decisions_watermark_ring_stays_small_and_always_ages() -> None:
    """An entry per 10 s and one older than the horizon: never more than a few dozen, never without an aged one."""
    ring: tuple[Published, ...] = ()
    for second in range(2_000):
        ring = watermark.ring_with(ring, Line(1, second), float(second), 300.0)
        assert len(ring) <= 33
        aged = watermark.aged(ring, 300.0)
        if second >= 320:
            assert aged is not None
            assert second - 320 <= aged.lsn <= second - 300


def test_decisions_watermark_keeps_progress_that_laggards_need() -> None:
    """Of many: the newest at the watermark, the oldest above it, and the newest of all; never more than the limit."""
    records = [progress(n, t=n) for n in range(1, 500)]
    kept = watermark.kept(records, Line(1, 50), limit=16)
    lines = [record.through for record in kept]
    assert lines[:2] == [50, 51]
    assert lines[-8:] == list(range(492, 500))
    assert len(lines) <= 18
    assert watermark.kept(records[:10], None) == tuple(records[:10])


@pytest.mark.parametrize(
    ("before", "covered"),
    [(Position(1, 90, 0), True), (Position(1, 89, 0), False), (None, False), (Position(2, 5, 0), False)],
)
def test_decisions_watermark_covers_an_earlier_era_as_far_as_its_lanes_came(
    before: Position | None, covered: bool
) -> None:
    """A mark in the next era says nothing of what the lane missed at the end of the one before."""
    mark = Mark(Position(3, 7, 0), "shard", "1", before)
    assert watermark.covers(progress(100, t=90), "t", StreamState(marks={"0": mark})) is covered
