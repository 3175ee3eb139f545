"""Groups and budgets: how a table is cut into pieces, and how fast the pieces are read."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from producer.budget import Budget
from producer.groups import MAX_GROUPS, Group, TableSize, by_pages, count_of, cut_keys, cut_pages
from producer.postgres.load import Load, busy
from producer.snapshots import seconds_left

SIZE = TableSize(bytes=1000, pages=100, rows=10, keyed=True, file=7, out_of_line=False, correlation=0.1)


@pytest.mark.parametrize(
    ("bytes_", "keyed", "count"), [(0, True, 1), (1000, True, 10), (1000, False, 1), (10**9, True, MAX_GROUPS)]
)
def test_a_table_is_cut_by_its_size_and_only_with_a_key(bytes_, keyed, count):
    assert count_of(replace(SIZE, bytes=bytes_, keyed=keyed), 100) == count


@pytest.mark.parametrize(
    "change", [{"correlation": -0.95}, {"correlation": None}, {"out_of_line": True}, {"file": None}]
)
def test_pages_are_for_scattered_keys_and_values_that_lie_in_the_row(change):
    """Cut by pages, a row that moved may be known from the stream alone, which leaves unchanged TOASTed values out."""
    assert by_pages(SIZE)
    assert not by_pages(replace(SIZE, **change))


@pytest.mark.parametrize("cut", [cut_pages(7, 100, 4), cut_keys([("a",), ("b",), ("c",)])])
def test_groups_meet_from_end_to_end(cut):
    assert (cut[0].low, cut[-1].high, len(cut)) == (None, None, 4)
    assert all(one.high == other.low for one, other in pairwise(cut))
    assert [Group.from_json(group.to_json()) for group in cut] == list(cut)


def test_a_budget_waits_for_what_was_spent_and_saves_up_a_second_at_most():
    now = 0.0
    budget = Budget(100, clock=lambda: now)
    assert [budget.spend(50), budget.spend(100)] == [0.5, 1.5]
    now = 64.0
    assert [budget.spend(100), budget.spend(25)] == [0.0, 0.25]
    assert Budget(None).spend(10**12) == 0.0


def test_the_time_left_follows_the_pace():
    assert seconds_left(0.0, 0.0, 10) is None
    assert seconds_left(0.5, 0.75, 10) == 10


def test_a_busy_source_is_named():
    load = Load(active_sessions=5, replica_lag_seconds=3.0)
    assert busy(load, None, None) is None
    assert busy(load, 5, 3) is None
    assert "5 sessions" in busy(load, 4, None)
    assert "3 s behind" in busy(load, None, 2)
