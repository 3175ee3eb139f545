"""Reserves: how long spool and slot hold out, and when somebody is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from producer.reserves import WINDOW_SECONDS, Reserves, SlotReserve

SLOT = SlotReserve("reserved", held_bytes=100, safe_bytes=900, lsn=0)


def test_the_hours_of_outage_follow_the_pace_of_the_last_hour():
    """What is free, at the pace of changes; a burst of long ago no longer counts."""
    reserves = Reserves(max_bytes=1000, min_seconds=0)
    assert reserves.note(0, 0, 0, None).spool_seconds is None
    assert reserves.note(10, 100, 0, None).spool_seconds == 100
    assert reserves.note(20, 200, 600, None).spool_seconds == 40
    reserves.note(20 + WINDOW_SECONDS, 200, 0, None)
    late = reserves.note(40 + WINDOW_SECONDS, 210, 0, None).spool_seconds
    assert late == 1000 * 20 / 10


def test_a_slot_lasts_as_long_as_the_log_grows_so_fast():
    reserves = Reserves(1000, 0)
    reserves.note(0, 0, 0, SLOT)
    assert reserves.note(10, 0, 0, replace(SLOT, lsn=90)).slot_seconds == 100
    assert reserves.note(20, 0, 0, replace(SLOT, safe_bytes=None, lsn=90)).slot_seconds is None


@pytest.mark.parametrize(
    ("pending", "slot", "says"),
    [
        (700, SLOT, None),
        (801, SLOT, "80% full"),
        (0, replace(SLOT, held_bytes=901, safe_bytes=99), "lost after 99 more"),
        (0, replace(SLOT, held_bytes=10**9, safe_bytes=None), None),
        (0, replace(SLOT, status="unreserved"), "slot is unreserved"),
        (0, replace(SLOT, status="extended"), None),
        (0, None, None),
    ],
)
def test_a_warning_comes_well_before_either_runs_out(pending, slot, says):
    warnings = Reserves(1000, 0).note(0, 0, pending, slot).warnings
    assert (says is None) == (not warnings)
    assert says is None or says in warnings[0]


def test_a_spool_that_is_too_small_for_the_load_is_told_before_the_outage():
    reserves = Reserves(1000, min_seconds=60)
    reserves.note(0, 0, 0, None)
    assert "minutes of outage" in reserves.note(10, 200, 0, None).warnings[0]
