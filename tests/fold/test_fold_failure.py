"""What becomes of a run that failed, and how much a plan lets the workflow do: pure decisions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from glue_streaming.fold.failing import Failing
from glue_streaming.fold.failure import ATTEMPTS, MAX_WORDS, Verdict, last_words, verdict
from glue_streaming.fold.plan import FoldSettings, Work
from glue_streaming.plan_lambda import MAX_ANSWER_BYTES, Bounds, answer, bounds, waiting, workers
from schemas.position import Line

SETTINGS = FoldSettings(group_bytes=2 << 30, group_tables=20)


def of(words: str, tables: tuple[str, ...] = ("s.a", "s.b"), attempt: int = 1) -> Verdict:
    cause = json.dumps({"Id": "jr_1", "JobRunState": "FAILED", "ErrorMessage": words})
    return verdict(tables, attempt, "States.TaskFailed", cause, "arn:execution", "eu-west-1", "/logs/error")


def test_only_the_tables_that_the_job_names_are_tried_again() -> None:
    """Whatever Glue writes before its words; each attempt waits longer, and after the last one there is none."""
    words = last_words({"s.b": "ValueError: it\n  is broken"})
    first = of(f"Error Category: UNCLASSIFIED_ERROR; SystemExit: {words}")
    assert (first.tables, first.attempt, first.wait_seconds) == (("s.b",), 2, 30)
    assert "Error: s.b: ValueError: it is broken\n" in first.message
    assert of(words, attempt=2).wait_seconds == 120
    assert of(words, attempt=ATTEMPTS).wait_seconds is None


@pytest.mark.parametrize("cause", ["", "no JSON", "[]", '{"Id": "jr_1", "JobRunState": "TIMEOUT"}'])
def test_a_run_without_last_words_is_tried_again_whole(cause: str) -> None:
    """It was killed, ran out of time, or never started: nobody knows which tables are done."""
    found = verdict(("s.a", "s.b"), 1, "States.TaskFailed", cause, "arn:execution", "eu-west-1", "/logs/error")
    assert (found.tables, found.wait_seconds) == (("s.a", "s.b"), 30)


def test_last_words_stay_short() -> None:
    """However many tables fail: what Glue would cut off names nobody, and then all are tried again."""
    failed = {f"source.table_{n:04}": "E" * 500 for n in range(200)}
    words = last_words(failed)
    assert len(words) <= MAX_WORDS
    assert set(of(words, tuple(failed)).tables) == set(failed)


def test_a_plan_stays_below_what_step_functions_carries() -> None:
    """Groups that do not fit are left to the next run, and counted."""
    due = {f"{'s' * 41}.{'n' * 120}_{n:04}": Work("minor", Line(1, 1), "", 10) for n in range(2000)}
    found = answer(due, "auto", SETTINGS, Bounds())
    assert len(json.dumps(found)) < MAX_ANSWER_BYTES + 1000
    assert found["due"] + found["later"] == 2000
    assert found["later"] > 0
    assert sum(len(group["tables"].split(",")) for group in found["groups"]) == found["due"]


def test_a_large_table_has_a_run_of_its_own_with_more_workers() -> None:
    """Small tables share a run and its start-up; a table above a group's size gets workers by its bytes, to a bound."""
    due = {"s.large": Work("major", Line(1, 1), "", 100 << 30)}
    due |= {f"s.small_{n}": Work("minor", Line(1, 1), "", 1 << 20) for n in range(20)}
    found = answer(due, "auto", SETTINGS, Bounds(workers=2, max_workers=10, map_concurrency=3))
    assert [(group["tables"].count(","), group["workers"]) for group in found["groups"]] == [(0, 8), (19, 2)]
    assert found["concurrency"] == 3
    assert workers(1 << 50, SETTINGS, Bounds(max_workers=10)) == 10
    assert workers(3 << 30, SETTINGS, Bounds(workers=5, max_workers=5)) == 5


def test_settings_lower_the_deployed_bounds_and_never_raise_them() -> None:
    """Above what was deployed the job would refuse its runs; below one there would be none."""
    deployed = {"MAP_CONCURRENCY": "4", "MAX_WORKERS": "10", "WORKERS": "2"}
    assert bounds({}, deployed) == Bounds(2, 10, 4)
    assert bounds({"fold_map_concurrency": "2", "fold_max_workers": "3"}, deployed) == Bounds(2, 3, 2)
    assert bounds({"fold_map_concurrency": "0", "fold_max_workers": "99"}, deployed) == Bounds(2, 10, 1)
    with pytest.raises(ValueError, match="fold_map_concurrency = 'many'"):
        bounds({"fold_map_concurrency": "many"}, deployed)


def test_each_failure_doubles_the_pause_to_six_hours() -> None:
    """A quarter of an hour at first; however often it fails, it is tried four times a day."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    pauses = [(Failing(times, at, "").next_try - at).total_seconds() / 60 for times in (1, 2, 3, 5, 6, 10_000)]
    assert pauses == [15, 30, 60, 240, 360, 360]


def test_a_failing_table_is_tried_alone_and_once() -> None:
    """The others share their runs and have all their attempts."""
    due = {f"s.{name}": Work("minor", Line(1, 1), "", 10) for name in ("a", "bad", "c")}
    found = answer(due, "auto", SETTINGS, Bounds(), {"s.bad", "s.idle"})
    assert [(group["tables"], group["attempt"]) for group in found["groups"]] == [("s.a,s.c", 1), ("s.bad", ATTEMPTS)]


def test_a_failing_table_waits_unless_it_is_asked_for() -> None:
    """Until the pause is over; a kind is only given by a person, who has mended something."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    failing = {"s.bad": Failing(1, at, "")}
    assert waiting(failing, "auto", at + timedelta(minutes=14)) == {"s.bad"}
    assert waiting(failing, "auto", at + timedelta(minutes=15)) == set()
    assert waiting(failing, "minor", at) == set()


def test_a_clock_that_had_jumped_keeps_no_table_waiting() -> None:
    """A failure of next year was noted by a wrong clock; one of a moment from now by a clock beside this one."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    failing = {"s.bad": Failing(9, at + timedelta(days=400), ""), "s.new": Failing(1, at + timedelta(seconds=3), "")}
    assert waiting(failing, "auto", at) == {"s.new"}
