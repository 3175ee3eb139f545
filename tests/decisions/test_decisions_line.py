"""The fold line, activation, and the closing of the cut for a repair."""

from __future__ import annotations

import pytest

from glue_streaming.fold.line import (
    Activation,
    CloseCut,
    Closure,
    activation,
    closure,
    continues,
    fold_line,
    joins_cut,
    repair,
    unrepaired,
)
from glue_streaming.holes import Hole
from glue_streaming.lake import Moves, moved
from glue_streaming.state import EndedGroup, FoldState, Mark, SnapshotState, StreamState
from schemas.control import Announcement, SnapshotEnd
from schemas.position import Line, Position


def line(lsn: int) -> Line:
    return Line(1, lsn)


def snapshot(*points: int, groups: int | None = None, low: int = 0, abandoned: bool = False) -> SnapshotState:
    """Groups that ended at these consistent points, of as many (or of `groups`)."""
    ended = {number: EndedGroup(1, point, None, None, 0) for number, point in enumerate(points)}
    return SnapshotState(low, len(points) if groups is None else groups, ended, abandoned)


def stream(holes: list[tuple[int, int]], **snapshots: SnapshotState) -> StreamState:
    open_holes = tuple(Hole("0", Position(1, a, 0), Position(1, b, 0), "gap", "t") for a, b in holes)
    return StreamState(holes=open_holes, snapshots={int(name[1:]): state for name, state in snapshots.items()})


RUNNING = snapshot(120, groups=2, low=100)


@pytest.mark.parametrize(
    ("bounds", "snapshots", "expected"),
    [
        ((line(90), line(80)), {}, line(80)),
        ((line(90), None), {}, None),
        ((), {}, None),
        ((line(50), line(90)), {}, None),
        ((line(200), line(200)), {7: RUNNING}, line(99)),
        ((line(200), line(200)), {7: snapshot(150, 130, low=100)}, line(129)),
        ((line(200), line(200)), {7: snapshot(low=100, groups=1, abandoned=True)}, line(200)),
        ((line(200), line(200)), {3: RUNNING}, line(200)),
    ],
)
def test_decisions_line_fold_line(
    bounds: tuple[Line | None, ...], snapshots: dict[int, SnapshotState], expected: Line | None
) -> None:
    """The least bound, below every announced snapshot that is neither activated (3) nor abandoned; never backwards."""
    assert fold_line(line(50), bounds, snapshots, 3) == expected


@pytest.mark.parametrize(
    ("snapshots", "aged", "own", "expected"),
    [
        ({7: snapshot(100, 120)}, line(120), line(130), Activation(7, line(120))),
        ({7: snapshot(100, 120)}, line(119), line(130), None),
        ({7: snapshot(100, 120)}, line(130), line(119), None),
        ({7: snapshot(100, 120)}, None, line(130), None),
        ({7: snapshot(100, 120)}, line(130), None, None),
        ({7: RUNNING}, line(130), line(130), None),
        ({3: snapshot(100)}, line(130), line(130), None),
        ({7: snapshot(100), 8: snapshot(110)}, line(130), line(130), Activation(8, line(130))),
        ({7: snapshot(100), 8: snapshot(low=125, groups=1)}, line(130), line(130), Activation(7, line(124))),
        ({7: snapshot(100), 8: snapshot(low=95, groups=1)}, line(130), line(130), None),
        (
            {7: snapshot(100), 8: snapshot(low=95, groups=1, abandoned=True)},
            line(130),
            line(130),
            Activation(7, line(130)),
        ),
    ],
)
def test_decisions_line_activation(
    snapshots: dict[int, SnapshotState], aged: Line | None, own: Line | None, expected: Activation | None
) -> None:
    """The newest complete one, once both lines are at its highest point; F stays below a later one's bound."""
    assert activation(snapshots, 3, aged, own, first=False) == expected


@pytest.mark.parametrize("state", [{"first": True}, {"first": False, "closed": True}])
def test_decisions_line_activation_without_a_readable_cut_needs_no_ageing(state: dict[str, bool]) -> None:
    """Where no query can hold an older watermark of the table, its own line alone decides."""
    assert activation({7: snapshot(100)}, 3, None, line(130), **state) == Activation(7, line(130))
    assert activation({7: snapshot(100)}, 3, None, line(99), **state) is None


@pytest.mark.parametrize(
    ("state", "folded", "own", "expected"),
    [
        (stream([(40, 50)], s7=snapshot(60)), 3, line(60), CloseCut(7)),
        (stream([(40, 50)], s7=snapshot(60)), 3, line(59), None),
        (stream([(40, 50)], s7=snapshot(60)), 3, None, None),
        (stream([(40, 60)], s7=snapshot(60)), 3, line(80), None),
        (stream([], s7=snapshot(60)), 3, line(80), None),
        (stream([(40, 50)], s7=snapshot(60)), 0, line(80), None),
        (stream([(40, 50)], s7=snapshot(60)), 7, line(80), None),
        (stream([(40, 50)], s7=snapshot(60), s8=snapshot(low=55, groups=1)), 3, line(80), None),
    ],
)
def test_decisions_line_repair_closes_the_cut_only_where_it_helps(
    state: StreamState, folded: int, own: Line | None, expected: CloseCut | None
) -> None:
    """There is a hole that the snapshot repairs, the activation could follow at once, and the table has views."""
    assert repair(state, FoldState(line(40), folded), own) == expected


def test_decisions_line_closure_from_closing_to_opening() -> None:
    """Closed until every table it waited for is activated, and until the watermark is at every fold line."""
    before, after = FoldState(line(50), 3), FoldState(line(130), 7)
    closed = closure(None, {"t": CloseCut(7)}, {"t": before}, line(50), 1000.0)
    assert closed == Closure(1000.0, {"t": 7})
    still = closure(closed, {}, {"t": before}, line(200), 1001.0)
    assert still == closed, "a fold may be on its way, whatever became of the reason"
    behind = closure(still, {}, {"t": after}, line(129), 1002.0)
    assert behind == Closure(1000.0, {})
    assert closure(behind, {}, {"t": after}, line(130), 1003.0) is None


def test_decisions_line_closure_takes_in_others_and_forgets_excluded_tables() -> None:
    """The time of closing stays; a later snapshot of the same table counts as its activation."""
    closed = Closure(1000.0, {"a": 7, "b": 8})
    folds = {"a": FoldState(line(50), 3), "c": FoldState(line(50), 3)}
    assert closure(closed, {"c": CloseCut(9)}, folds, line(50), 1005.0) == Closure(1000.0, {"a": 7, "c": 9})
    activated = {"a": FoldState(line(50), 9), "b": FoldState(line(50), 8)}
    assert closure(closed, {}, activated, line(50), 1005.0) is None


def test_decisions_line_closure_stays_open_where_nothing_wants_it() -> None:
    """A fold line above the watermark alone closes nothing: before its first cut view a table may be ahead."""
    assert closure(None, {}, {"t": FoldState(line(130), 7)}, line(50), 1.0) is None


def test_decisions_line_closure_clears_its_tables_behind_the_horizon() -> None:
    """A fold waits until no query can still hold what it read before the closing; other tables are not meant."""
    closed = Closure(100.0, {"t": 7})
    assert closed.clears("t", 105.0, 5.0)
    assert not closed.clears("t", 104.9, 5.0)
    assert not closed.clears("other", 105.0, 5.0)


@pytest.mark.parametrize(
    ("snapshot", "fold", "expected"),
    [
        (None, FoldState(Line(2, 5), 9), True),
        (None, FoldState(Line(1, 5), 3), False),
        (None, FoldState(), True),
        (SnapshotState(5, 1, {0: EndedGroup(1, 8, None, None, 0)}, era=1), FoldState(), False),
        (SnapshotState(5, 2, {0: EndedGroup(1, 8, None, None, 0)}, era=1), FoldState(), True),
        (SnapshotState(5, 1, {0: EndedGroup(1, 8, None, None, 0)}, era=2), FoldState(), True),
    ],
    ids=["activated in it", "activated before", "never", "may be activated before", "incomplete", "of it"],
)
def test_decisions_line_a_table_continues_in_an_era(
    snapshot: SnapshotState | None, fold: FoldState, expected: bool
) -> None:
    """A complete snapshot of an earlier era may still become the first state of a table that was never activated."""
    stream = StreamState(snapshots={} if snapshot is None else {1: snapshot})
    assert continues(stream, fold, 2) is expected


@pytest.mark.parametrize(
    ("aged", "fold", "joins"),
    [
        (line(130), FoldState(line(130), 7), True),
        (line(129), FoldState(line(130), 7), False),
        (None, FoldState(line(130), 7), False),
        (line(130), FoldState(line(0), 0), False),
    ],
)
def test_decisions_line_joins_cut(aged: Line | None, fold: FoldState, joins: bool) -> None:
    """A cut view appears when even a query that began a horizon ago reads a watermark at or above F."""
    assert joins_cut(aged, fold) is joins


@pytest.mark.parametrize(
    ("state", "count"),
    [
        (stream([(40, 50)]), 1),
        (stream([(40, 50)], s3=snapshot(60)), 1),
        (stream([(40, 50)], s7=snapshot(60, abandoned=True)), 1),
        (stream([(40, 50)], s7=RUNNING), 0),
        (stream([(40, 50)], s7=snapshot(60)), 0),
        (stream([(40, 50), (70, 80)], s7=snapshot(60)), 1),
    ],
)
def test_decisions_line_unrepaired_holes_need_another_snapshot(state: StreamState, count: int) -> None:
    """Holes that the newest snapshot does not repair; nothing is said while one is being read."""
    assert len(unrepaired(state, 3)) == count


def test_decisions_line_activated_snapshots_leave_with_their_marks_and_holes() -> None:
    """What the fold took in leaves the streaming job's state: snapshots, their lanes, and the holes below them."""
    state = StreamState(
        marks={"0": Mark(Position(1, 90, 0), "s", "1"), "s7.0.1": Mark(Position(1, 59, 2), "s", "2")},
        holes=stream([(40, 50), (55, 70)]).holes,
        snapshots={7: snapshot(60), 8: RUNNING},
    )
    left = state.without_snapshots_through(7)
    assert (set(left.marks), set(left.snapshots)) == ({"0"}, {8})
    assert [hole.last.lsn for hole in left.holes] == [70]


def test_decisions_line_an_end_before_its_announcement_keeps_the_lower_bound() -> None:
    """A group's end may be read first; another group may have a lower point, which only the announcement bounds."""
    end = SnapshotEnd(7, 1, 2, 1, 200, None, None, 0)
    early = moved(StreamState(), Moves(ends=[("s7.1.1", 1, end)]), [], 0)
    announced = moved(early, Moves(), [(1, Announcement(7, "t", 100, False))], 0)
    assert announced.snapshots[7].lowest == 100
