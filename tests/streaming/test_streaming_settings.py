"""Settings while the job runs, and the interval that they lead to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glue_streaming.settings import BatchSettings, batch_settings
from glue_streaming.trigger import next_interval

DEFAULTS = BatchSettings()


def test_settings_are_taken_as_their_types() -> None:
    """Whole numbers, numbers and switches; a name that is not there has its default again."""
    first, problems = batch_settings({"bytes_per_shard": "1e6", "trigger_seconds": "2.5", "pause": "true"}, DEFAULTS)
    assert (first.bytes_per_shard, first.trigger_seconds, first.pause, problems) == (1_000_000, 2.5, True, [])
    assert batch_settings({}, first) == (DEFAULTS, [])


@pytest.mark.parametrize("bad", ["", "x", "nan", "inf", "-inf", "-1", "0", "1e400", "99999999999"])
def test_a_bad_number_keeps_the_last_good_one(bad: str) -> None:
    """Whatever was written, the job goes on as before, and says which setting, what is allowed, and what it got."""
    good, _ = batch_settings({"bytes_per_shard": "4096"}, DEFAULTS)
    kept, problems = batch_settings({"bytes_per_shard": bad, "trigger_seconds": "3"}, good)
    assert (kept.bytes_per_shard, kept.trigger_seconds) == (4096, 3.0)
    assert problems == [f"bytes_per_shard: expected a number from 1 to 2.68435e+08, got {bad}"]


def test_a_bad_switch_keeps_the_last_good_one() -> None:
    """`yes` is not a switch; a pause stays a pause."""
    paused, _ = batch_settings({"pause": "true"}, DEFAULTS)
    assert batch_settings({"pause": "yes"}, paused) == (paused, ["pause: expected true or false, got yes"])


@given(st.dictionaries(st.sampled_from([*vars(DEFAULTS), "unknown"]), st.text(max_size=8)))
def test_no_text_stops_the_job(items: dict[str, str]) -> None:
    """Any text under any name leaves settings within their bounds."""
    settings, _ = batch_settings(items, DEFAULTS)
    assert 0.1 <= settings.trigger_seconds <= 3_600
    assert settings.bytes_per_shard >= 1


SETTINGS = BatchSettings(trigger_seconds=1, freshness_seconds=30, commit_bytes=1_000_000)


def after(interval: float, bytes_read: int, commits: int, caught_up: bool = True) -> float:
    return next_interval(interval, SETTINGS, bytes_read=bytes_read, commits=commits, caught_up=caught_up)


def settled(bytes_a_second: int, tables: int) -> float:
    """The interval under a steady load, once it has settled."""
    interval = 1.0
    for _ in range(20):
        interval = after(interval, int(bytes_a_second * interval), tables)
    return interval


def test_nothing_to_do_stretches_the_trigger_to_what_readers_accept() -> None:
    """Step by step, up to freshness_seconds and never beyond."""
    assert after(1, 0, 0) == 2
    assert settled(0, 0) == 30
    assert settled(100, 1) == 30


def test_a_steady_load_settles_where_a_commit_is_worth_while() -> None:
    """250 kB/s for one table is a commit every 4 s; for five tables every 20 s; 5 MB/s every second."""
    assert settled(250_000, 1) == pytest.approx(4, rel=0.01)
    assert settled(250_000, 5) == pytest.approx(20, rel=0.01)
    assert settled(5_000_000, 1) == 1


def test_a_backlog_ends_the_waiting_at_once() -> None:
    """Behind the tip the next batch begins as soon as it may."""
    assert after(30, 0, 0, caught_up=False) == 1


def test_readers_who_want_it_fresher_get_it_at_once() -> None:
    """A lower freshness_seconds holds from the next decision on, and trigger_seconds stays the lowest."""
    fresh = BatchSettings(trigger_seconds=2, freshness_seconds=1)
    assert next_interval(30, fresh, bytes_read=0, commits=0, caught_up=True) == 2
