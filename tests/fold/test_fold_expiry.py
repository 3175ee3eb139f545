"""Which snapshots of a table stay: the decision, and what it does to a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from glue_streaming import commit
from glue_streaming.fold import expiry, manifests
from glue_streaming.fold.expiry import Step, step
from glue_streaming.fold.keep import Keep
from glue_streaming.state import fold_state, stream_state

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
KEEP = Keep(longest_query_seconds=60)


def at(seconds: float) -> str:
    """The end of a tag of ours that was made so many seconds ago."""
    return str(int((NOW - timedelta(seconds=seconds)).timestamp() * 1000))


def times(snapshots: list[int]) -> dict[int, int]:
    """Snapshots of the last minutes, in the order of their numbers."""
    return {snapshot: int(at(1000 - snapshot)) for snapshot in snapshots}


def test_what_a_fold_read_becomes_a_replaced_state() -> None:
    """Behind its commit the fold's tag goes and its snapshot stays under the other; what nothing names expires."""
    pin = f"headrace-fold-{at(5)}"
    found = step({"main": 4, pin: 2}, times([1, 2, 3, 4]), KEEP, NOW, pin)
    assert found == Step((pin,), {f"headrace-replaced-{at(0)}": 2}, (1, 3))


def test_replaced_states_age_and_foreign_tags_stay() -> None:
    """A state that a fold replaced goes after the longest query's time; what somebody else tagged is never touched."""
    young, old = f"headrace-replaced-{at(59)}", f"headrace-replaced-{at(61)}"
    found = step({"main": 5, young: 2, old: 3, "mine": 4}, times([1, 2, 3, 4, 5]), KEEP, NOW)
    assert found == Step((old,), {}, (1, 3))


def test_another_folds_snapshot_stays_until_the_fold_must_be_dead() -> None:
    """A fold that runs beside this one keeps what it reads; a killed fold's tag goes after a day."""
    running, dead = f"headrace-fold-{at(3600)}", f"headrace-fold-{at(90_000)}"
    found = step({"main": 3, running: 1, dead: 2}, times([1, 2, 3]), KEEP, NOW)
    assert found == Step((dead,), {}, (2,))


def test_folds_that_die_one_after_another_do_not_pile_up_snapshots() -> None:
    """Of tags that only killed folds can have left the newest ten stay."""
    refs = {f"headrace-fold-{at(60 * n)}": n for n in range(1, 15)}
    found = step({"main": 99, **refs}, times([*range(1, 15), 99]), KEEP, NOW)
    assert sorted(found.expire) == [11, 12, 13, 14]


def test_days_are_kept_where_the_policy_says_so() -> None:
    """The day's last fold moves the day's tag; days that lie too far back go; without a policy all of them do."""
    pin = f"headrace-fold-{at(5)}"
    refs = {"main": 9, pin: 8, "headrace-day-2026-01-10": 7, "headrace-day-2026-01-08": 6, "headrace-day-2026-01-07": 5}
    found = step(refs, times([5, 6, 7, 8, 9]), Keep(60, time_travel_days=2), NOW, pin)
    assert found.tag["headrace-day-2026-01-10"] == 8
    assert set(found.drop) == {pin, "headrace-day-2026-01-07"}
    assert set(found.expire) == {5, 7}
    without = step(refs, times([5, 6, 7, 8, 9]), KEEP, NOW, pin)
    assert {name for name in without.drop if "day" in name} == {
        "headrace-day-2026-01-08", "headrace-day-2026-01-07",
    }  # fmt: skip


def test_a_state_that_stood_for_days_stays_for_a_query_that_has_just_begun() -> None:
    """Its manifest list is old enough to be removed, and a query that began with it may read it later."""
    ages = {1: 5 * 86_400, 2: 4 * 86_400, 3: 30, 4: 20}
    assert step({"main": 4}, {n: int(at(age)) for n, age in ages.items()}, KEEP, NOW).expire == (1, 3)
    ages |= {3: 70}
    assert step({"main": 4}, {n: int(at(age)) for n, age in ages.items()}, KEEP, NOW).expire == (1, 2, 3)


def test_a_fold_that_fails_holds_no_snapshot(make_table: Any) -> None:
    """Nor does the tag of another that is on its way go with it."""
    lake = make_table()
    lake.append([lake.row("c", 10, id=1, name="a")])
    with expiry.pinned(lake.aws.catalog, lake.load(), NOW) as other:
        later = expiry.pinned(lake.aws.catalog, lake.load(), NOW + timedelta(seconds=1))
        with pytest.raises(RuntimeError, match="disk full"), later:
            raise RuntimeError("disk full")
        assert [name for name in lake.load().metadata.refs if name != "main"] == [other]


def test_what_a_tag_names_stays_of_a_table_that_no_fold_tends(make_table: Any) -> None:
    """A foreign tag, or the pin of a fold that began meanwhile."""
    lake = make_table()
    lake.append([lake.row("c", 10, id=1, name="a")])
    with expiry.pinned(lake.aws.catalog, lake.load(), NOW):
        pinned = lake.load().current_snapshot().snapshot_id
        for lsn in (20, 30):
            lake.append([lake.row("c", lsn, id=lsn, name="a")])
        later = datetime.now(UTC) + timedelta(hours=1)
        assert expiry.expire_older(lake.load(), KEEP, later) == 1
        assert pinned in {one.snapshot_id for one in lake.load().metadata.snapshots}


def test_manifests_of_a_table_whose_line_is_held_become_one(make_table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before they are many. Rows and properties stay, and a query that was planned before reads on."""
    monkeypatch.setattr(commit, "MANY_MANIFESTS", 3)
    lake = make_table()
    name, now = (f"{lake.source}_lake", lake.table), datetime.now(UTC)
    for lsn in (10, 20, 30):
        lake.append([lake.row("c", lsn, id=lsn, name="a")])
    assert manifests.merge(lake.aws.catalog, name, KEEP, now) == 0
    lake.append([lake.row("c", 40, id=40, name="a")])
    before = lake.load()
    assert manifests.merge(lake.aws.catalog, name, KEEP, now) == 3
    after = lake.load()
    assert len(after.current_snapshot().manifests(after.io)) == 1
    assert [row["id"] for row in lake.rows("log")] == [10, 20, 30, 40]
    assert fold_state(after.properties) == fold_state(before.properties)
    assert stream_state(after.properties) == stream_state(before.properties)
    (held,) = [name for name in after.metadata.refs if name != "main"]
    assert held.startswith(expiry.REPLACED)
    assert after.metadata.refs[held].snapshot_id == before.current_snapshot().snapshot_id
    lake.append([lake.row("c", 50, id=50, name="a")])
