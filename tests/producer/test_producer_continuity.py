"""Continuity: every break between spool and source is named, with what mends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from producer.continuity import Continuity, Found, Known, check_continues, check_history, check_proof
from producer.errors import ContinuityBroken

KNOWN = Continuity("1", timeline=1, flushed=100)
FOUND = Found("1", 1, "s", slot_flushed=90, current_lsn=100)
PROMOTED = replace(FOUND, timeline=3, ancestors={1: 100, 2: 150})


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (replace(FOUND, system_id="2"), "another database system"),
        (replace(FOUND, timeline=2), "timeline 2, was on 1"),
        (replace(FOUND, slot_flushed=None), "slot s is missing"),
        (replace(FOUND, slot_flushed=None, slot_lost="wal_removed"), "slot s is useless: wal_removed"),
        (replace(FOUND, slot_flushed=101), "what lies between is lost"),
        (replace(FOUND, current_lsn=99), "the source was restored from a backup"),
    ],
)
def test_every_break_with_the_source_is_named_with_its_remedy(found, says):
    with pytest.raises(ContinuityBroken, match=says) as broken:
        check_continues(KNOWN, found)
    assert "--new-era" in str(broken.value)
    assert ("--prove-continuity" in str(broken.value)) == ("timeline" in says)


@pytest.mark.parametrize("flushed", [0, 99, 100])
def test_a_slot_at_or_behind_the_spool_continues(flushed):
    check_continues(KNOWN, replace(FOUND, slot_flushed=flushed))


def test_a_promoted_standby_that_had_everything_is_proven():
    """It left our timeline at or behind the spool's end, and its slot keeps what the spool has not."""
    check_proof(KNOWN, PROMOTED)
    check_proof(KNOWN, FOUND)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (replace(PROMOTED, ancestors={1: 99}), "that the source never had"),
        (replace(PROMOTED, ancestors={2: 150}), "does not come from timeline 1"),
        (replace(PROMOTED, slot_flushed=None), "slot s is missing"),
        (replace(PROMOTED, slot_flushed=101), "what lies between is lost"),
        (replace(PROMOTED, system_id="2"), "another database system"),
    ],
)
def test_what_is_no_continuation_is_not_proven(found, says):
    with pytest.raises(ContinuityBroken, match=says):
        check_proof(KNOWN, found)


LAST = Known(80, 8)


@pytest.mark.parametrize(
    ("last", "confirmed", "resent"),
    [(LAST, 60, LAST), (LAST, 80, LAST), (LAST, 81, None), (None, 60, None)],
)
def test_what_is_sent_again_is_what_the_spool_has(last, confirmed, resent):
    check_history(last, confirmed, resent)


@pytest.mark.parametrize(
    ("last", "confirmed", "resent"),
    [(LAST, 60, None), (LAST, 60, Known(72, 7)), (LAST, 60, Known(80, 9)), (LAST, 81, Known(90, 9)), (None, 60, LAST)],
)
def test_another_history_is_a_break(last, confirmed, resent):
    """A transaction less, another one, one at the same place at another time, one more than the spool knows."""
    with pytest.raises(ContinuityBroken, match="another history"):
        check_history(last, confirmed, resent)
