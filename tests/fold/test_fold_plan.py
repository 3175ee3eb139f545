"""Which tables are due: pure decisions over table parameters and the cut."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from glue_streaming.fold.cut import Cut, cut_of
from glue_streaming.fold.errors import BadCut
from glue_streaming.fold.line import Closure
from glue_streaming.fold.plan import FoldSettings, LeftAlone, Work, groups, judge, settings_from, work
from glue_streaming.holes import Hole
from glue_streaming.state import EndedGroup, FoldState, FoldTotals, SnapshotState, StreamState, Totals
from glue_streaming.watermark import Published
from schemas.position import Line, Position

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = FoldSettings(horizon_seconds=10)
FOLDED = FoldState(Line(1, 100), 1, FoldTotals(base_rows=1000, base_bytes=1 << 20), NOW.isoformat())


def cut(*published: tuple[int, float], line: int = 200, excluded: tuple[str, ...] = ()) -> Cut:
    return Cut(tuple(Published(Line(1, w), at) for w, at in published), {"t": Line(1, line)}, frozenset(excluded))


def due(stream: StreamState, fold: FoldState, found: Cut, kind: str = "auto", after: float = 0) -> Work | None:
    properties = stream.to_properties() | fold.to_properties()
    return work("t", properties, found, kind, SETTINGS, NOW + timedelta(seconds=after))


def tail(rows: int, size: int = 10) -> StreamState:
    return StreamState(totals=Totals(rows, size, 1))


AGED = cut((150, 0.0), (180, 20.0))


def test_a_table_that_was_never_activated_is_not_folded() -> None:
    """Without base and views a fold would only move rows; its changes wait for the snapshot."""
    assert due(tail(1_000_000), FoldState(), AGED) is None


@pytest.mark.parametrize(
    ("rows", "size", "after", "is_due"),
    [(0, 0, 1e6, False), (10, 10, 899, False), (10, 10, 900, True), (1_000_000, 10, 0, True), (10, 32 << 20, 0, True)],
)
def test_a_tail_is_taken_when_long_large_or_old(rows: int, size: int, after: float, is_due: bool) -> None:
    """Any one of rows, bytes and age makes a table due; an empty tail never is."""
    assert (due(tail(rows, size), FOLDED, AGED, after=after) is not None) is is_due


def test_a_clock_that_had_jumped_holds_no_fold_back() -> None:
    """A fold of next year was made by a wrong clock: what waits goes as if that were as long ago."""
    said = FOLDED.folded_at and replace(FOLDED, folded_at=(NOW + timedelta(days=400)).isoformat())
    assert said and due(tail(10), said, AGED) is not None
    assert due(tail(10), replace(FOLDED, folded_at=(NOW + timedelta(seconds=5)).isoformat()), AGED) is None


def test_the_line_is_the_aged_watermark_below_the_tables_own_line() -> None:
    """Not the newest watermark, and not above what the table itself is complete to."""
    minor, held = (
        due(tail(10), FOLDED, AGED, "minor"),
        due(tail(10), FOLDED, replace(AGED, lines={"t": Line(1, 120)}), "minor"),
    )
    assert minor is not None and minor.line == Line(1, 150)
    assert held is not None and held.line == Line(1, 120)
    assert due(tail(10), FOLDED, replace(AGED, lines={}), "minor") is None


def with_delta(size: int, overlap: int, base: int = 1 << 30, came: int = 400 << 20) -> FoldState:
    """A delta of 10 rows after 100 rows of `came` bytes."""
    totals = FoldTotals(base_bytes=base, delta_rows=10, delta_bytes=size, overlap_bytes=overlap, merged_rows=100)
    return replace(FOLDED, totals=replace(totals, log_rows_taken=100, log_bytes_taken=came))


def test_delta_becomes_base_when_it_is_a_quarter_of_it_or_long_overdue_in_a_few_files() -> None:
    """A quarter of base; or what would be written anew is a quarter of what came. A guess is not enough."""
    found = [
        due(StreamState(totals=Totals(200, (400 << 20) + waiting, 1)), fold, AGED, after=900)
        for fold, waiting in (
            (with_delta(100 << 20, 1 << 30), 200 << 20),
            (with_delta(260 << 20, 1 << 30), 300 << 20),
            (with_delta(40 << 20, 100 << 20), 100 << 20),
            (with_delta(40 << 20, 101 << 20), 100 << 20),
            (with_delta(16 << 20, 1 << 20), 100 << 20),
            (with_delta(0, 0, base=1 << 20), 100 << 20),
        )
    ]
    assert [item and item.kind for item in found] == ["minor", "major", "major", "minor", "minor", "minor"]


def test_a_tail_waits_until_it_is_worth_writing_delta_anew() -> None:
    """However old: a tail smaller than delta is left alone, and the reason says so; after a day it goes."""
    fold = with_delta(100 << 20, 1 << 30, came=0)
    properties = tail(200, 10 << 20).to_properties() | fold.to_properties()
    found = judge("t", properties, AGED, "auto", SETTINGS, NOW + timedelta(hours=2))
    assert isinstance(found, LeftAlone) and "to be written anew" in found.why
    assert due(tail(200, 10 << 20), fold, AGED, after=86_400) is not None
    assert due(StreamState(totals=Totals(200, 10 << 20, 1000)), fold, AGED) is not None


def test_queries_that_read_a_quarter_more_make_a_table_due() -> None:
    """Long before the tail is old: what stands beside base is a quarter of it."""
    fold = replace(FOLDED, totals=FoldTotals(base_bytes=40 << 20))
    assert due(tail(10, 9 << 20), fold, AGED) is None
    found = due(tail(10, 10 << 20), fold, AGED)
    assert found is not None and found.kind == "minor" and "queries read" in found.reason


def test_what_is_left_alone_says_why() -> None:
    """A hole, a snapshot that is being read, a young watermark: each is named."""

    def why(stream: StreamState, found: Cut = AGED) -> str:
        item = judge("t", stream.to_properties() | FOLDED.to_properties(), found, "auto", SETTINGS, NOW)
        assert isinstance(item, LeftAlone)
        return item.why

    hole = Hole("0", Position(1, 100, 0), Position(1, 120, 0), "gap", "2026-01-01T00:00:00+00:00")
    held = replace(AGED, lines={"t": Line(1, 100)})
    assert "hole" in why(replace(tail(10), holes=(hole,)), held)
    assert "snapshot 2 is being read" in why(replace(tail(10), snapshots={2: SnapshotState(low=101)}))
    assert "no watermark" in why(tail(10), cut((90, 0.0)))
    assert why(tail(0)) == "nothing waits"
    assert why(tail(10)).startswith("too young: 10 rows")


def test_the_cost_and_the_gain_of_a_fold_are_told() -> None:
    """A minor fold writes history and delta; of what came a tenth makes delta larger, as it did so far."""
    stream = StreamState(totals=Totals(200, 600 << 20, 1))
    found = due(stream, with_delta(100 << 20, 1 << 30), AGED, after=900)
    assert found is not None
    assert (found.cost_bytes, found.write_bytes) == (300 << 20, 320 << 20)
    assert (found.gain_bytes, found.gain_files) == (180 << 20, 1)


def test_an_announced_snapshot_holds_the_line_below_it() -> None:
    """Changes at or above its lowest consistent point stay in the log until it is activated."""
    announced = replace(tail(10), snapshots={2: SnapshotState(low=130)})
    held = due(announced, FOLDED, AGED, "minor")
    assert held is not None and held.line == Line(1, 129)


def test_a_first_activation_goes_as_far_as_the_table_is_complete() -> None:
    """No view of it stands yet, so the watermark does not bound it: its own hole may be what holds the watermark."""
    complete = SnapshotState(low=140, groups=1, ended={0: EndedGroup(1, 150, None, None, 0)})
    stream = replace(tail(10), snapshots={1: complete})
    held = cut((130, 1.0), line=130)
    assert due(stream, FoldState(), held) is None
    first = due(stream, FoldState(), replace(held, repair_lines={"t": Line(1, 200)}))
    assert first is not None
    assert (first.kind, first.snapshot, first.line) == ("activate", 1, Line(1, 200))
    later = replace(FOLDED, activated_through=0 + 1)
    assert due(replace(stream, snapshots={2: complete}), later, cut((160, 1.0))) is None


def test_a_snapshot_takes_a_table_no_further_than_its_era() -> None:
    """What became of its rows in a later era only that era's own snapshot says."""
    complete = SnapshotState(low=140, groups=1, ended={0: EndedGroup(1, 150, None, None, 0)})
    beyond = replace(cut((160, 1.0)), repair_lines={"t": Line(2, 10)})
    assert due(replace(tail(10), snapshots={1: complete}), FoldState(), beyond) is None


def test_a_repair_goes_beyond_the_watermark_once_the_cut_was_closed_for_it() -> None:
    """Its own hole holds the watermark: a cut closed for the horizon lets the snapshot in, up to its repair line."""
    group = EndedGroup(1, 170, None, None, 3)
    repaired = StreamState(snapshots={2: SnapshotState(low=165, groups=1, ended={0: group})})
    stuck = replace(cut((150, 0.0), (150, 20.0), line=140), repair_lines={"t": Line(1, 180)})
    young, ripe = (replace(stuck, closure=Closure(at, {"t": 2})) for at in (15.0, 10.0))
    assert due(repaired, FOLDED, stuck) is None
    assert due(repaired, FOLDED, young) is None
    activated = due(repaired, FOLDED, ripe)
    assert activated is not None
    assert (activated.kind, activated.snapshot, activated.line) == ("activate", 2, Line(1, 180))


def test_groups_hold_to_their_limits() -> None:
    """Costly tables first, no group above the bytes or the count, every table in one group."""
    items = {f"s.t{n}": Work("minor", Line(1, 1), "", n * 100) for n in range(10)}
    packed = groups(items, replace(SETTINGS, group_bytes=1000, group_tables=4))
    assert sorted(table for group in packed for table in group) == sorted(items)
    assert all(len(group) <= 4 and sum(items[t].cost_bytes for t in group) <= 1000 for group in packed)
    assert packed[0][0] == "s.t9"


def test_settings_are_read_by_name_and_bad_ones_are_refused() -> None:
    """`fold_` settings override the defaults; one that is no number is named."""
    assert settings_from({"fold_delta_fraction": "0.5", "trigger_seconds": "1"}, 5).delta_fraction == 0.5
    assert settings_from({"longest_query_seconds": "60"}, None).longest_query_seconds == 60
    with pytest.raises(ValueError, match="fold_tail_rows = 'many'"):
        settings_from({"fold_tail_rows": "many"}, None)


def test_a_cut_that_cannot_be_read_is_an_error() -> None:
    """Parameters that are not ours never pass for an empty cut."""
    assert cut_of({}) == Cut()
    with pytest.raises(BadCut):
        cut_of({"headrace.ring": "[[1, 2]]"})
