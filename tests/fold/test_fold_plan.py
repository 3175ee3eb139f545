"""Which tables are due: pure decisions over table parameters and the cut."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from glue_streaming.fold.cut import Cut, cut_of
from glue_streaming.fold.errors import BadCut
from glue_streaming.fold.expiry import aged_tags, expirable, replaced_tag
from glue_streaming.fold.line import Closure
from glue_streaming.fold.plan import FoldSettings, Work, groups, settings_from, work
from glue_streaming.state import EndedGroup, FoldState, FoldTotals, SnapshotState, StreamState, Totals
from glue_streaming.watermark import Published
from schemas.position import Line

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
    [(0, 0, 1e6, False), (10, 10, 59, False), (10, 10, 60, True), (100_000, 10, 0, True), (10, 32 << 20, 0, True)],
)
def test_a_tail_is_taken_when_long_large_or_old(rows: int, size: int, after: float, is_due: bool) -> None:
    """Any one of rows, bytes and age makes a table due; an empty tail never is."""
    assert (due(tail(rows, size), FOLDED, AGED, after=after) is not None) is is_due


def test_the_line_is_the_aged_watermark_below_the_tables_own_line() -> None:
    """Not the newest watermark, and not above what the table itself is complete to."""
    minor, held = (
        due(tail(10), FOLDED, AGED, "minor"),
        due(tail(10), FOLDED, replace(AGED, lines={"t": Line(1, 120)}), "minor"),
    )
    assert minor is not None and minor.line == Line(1, 150)
    assert held is not None and held.line == Line(1, 120)
    assert due(tail(10), FOLDED, replace(AGED, lines={}), "minor") is None


def test_delta_becomes_base_at_the_fraction() -> None:
    """delta and tail at a quarter of base make the fold a major one; less leaves it minor."""
    small, large = due(tail(10, 1000), FOLDED, AGED, after=60), due(tail(10, 1 << 18), FOLDED, AGED, after=60)
    assert small is not None and small.kind == "minor"
    assert large is not None and large.kind == "major"


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


def test_tags_age_and_what_they_held_expires() -> None:
    """A tag of ours goes after the longest query's time; foreign tags and what they name stay."""
    tag = replaced_tag(NOW)
    assert aged_tags([tag, "mine"], 60, NOW + timedelta(seconds=59)) == []
    assert aged_tags([tag, "mine"], 60, NOW + timedelta(seconds=61)) == [tag]
    assert expirable([1, 2, 3, 4], {"main": 4, tag: 2, "mine": 3}, [tag]) == [1, 2]
