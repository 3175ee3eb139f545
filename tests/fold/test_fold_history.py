"""The history against a plain model: every version with its times, through Athena, before and behind folds and at the
retention's edge."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest

from glue_streaming import views
from glue_streaming.fold import retention, run
from glue_streaming.fold.plan import FoldSettings
from glue_streaming.plan_lambda import read_cut
from glue_streaming.state import fold_state

START = datetime(2026, 1, 1)
SETTINGS = FoldSettings(max_age_seconds=0, horizon_seconds=5, longest_query_seconds=0)
KEYS = range(1, 6)
Version = tuple[str, str | None, str, str | None, str | None]
"""valid_from, valid_to, id, name, amount: as Athena shows them."""


def at(lsn: int) -> datetime:
    return START + timedelta(seconds=lsn)


def shown(lsn: int | None) -> str | None:
    return None if lsn is None else f"{at(lsn):%Y-%m-%d %H:%M:%S}.000000"


@dataclass
class Model:
    """A source's table as a person would keep it: what is live since when, and what was."""

    live: dict[int, tuple[int, str | None, str | None]] = field(default_factory=dict)
    past: list[Version] = field(default_factory=list)

    def put(self, key: int, lsn: int, name: str | None, amount: str | None) -> None:
        self.end(key, lsn)
        self.live[key] = (lsn, name, amount)

    def end(self, key: int, lsn: int) -> None:
        if key in self.live:
            since, name, amount = self.live.pop(key)
            if since != lsn:  # what one transaction changes twice is never seen
                self.past.append((str(shown(since)), shown(lsn), str(key), name, amount))

    def versions(self, since: int | None = None) -> list[Version]:
        """All of them, or those that were valid at that time or later."""
        now = [(str(shown(at)), None, str(key), name, amount) for key, (at, name, amount) in self.live.items()]
        kept = [v for v in self.past if since is None or str(v[1]) >= str(shown(since))]
        return sorted([*kept, *now], key=repr)


def transaction(rng: random.Random, lake: Any, model: Model, lsn: int) -> Iterator[dict[str, Any]]:
    """The rows of one transaction, and what the model makes of it."""
    idx = 0
    for _ in range(rng.randint(1, 4)):
        key, name, amount = rng.choice(KEYS), f"n{rng.randint(1, 99)}", f"{rng.randint(1, 99)}.50"
        known = model.live.get(key)
        kind = rng.choice(["put", "put", "unchanged", "unchanged", "delete", "move", "truncate"])
        if known is None:
            yield lake.row("c", lsn, idx, id=key, name=name, amount=amount)
            model.put(key, lsn, name, amount)
        elif kind == "put":
            yield lake.row("u", lsn, idx, id=key, name=name, amount=amount)
            model.put(key, lsn, name, amount)
        elif kind == "unchanged":
            yield lake.row("u", lsn, idx, id=key, amount=amount, _unchanged=["name"])
            model.put(key, lsn, known[1], amount)
        elif kind == "delete":
            yield lake.row("d", lsn, idx, id=key)
            model.end(key, lsn)
        elif kind == "move" and len(model.live) < len(KEYS):
            new = rng.choice([k for k in KEYS if k not in model.live])
            yield lake.row("d", lsn, idx, id=key)
            idx += 1
            yield lake.row("c", lsn, idx, id=new, amount=amount, _unchanged=["name"], _old_key=f"id={key}")
            model.end(key, lsn)
            model.put(new, lsn, known[1], amount)
        elif kind == "truncate" and rng.random() < 0.2:
            yield lake.row("t", lsn, idx)
            for live in list(model.live):
                model.end(live, lsn)
        idx += 1


def decimals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from decimal import Decimal

    return [row | ({"amount": Decimal(row["amount"])} if row.get("amount") else {}) for row in rows]


@pytest.mark.parametrize("seed", range(3))
def test_the_type_2_view_is_the_plain_models(make_table: Any, complete_snapshot: Any, athena: Any, seed: int) -> None:
    """Half-open times, deletes and truncates that close, key changes, values left out, several changes of a key in one
    transaction: over log alone, behind each fold, and at the edge of a retention that runs between them."""
    rng, lake, model = random.Random(seed), make_table(), Model()
    staged = [lake.row("r", 9, n, "staged", id=n + 1, name=f"s{n}") for n in range(2)]
    for row in staged:
        model.put(row["id"], 9, row["name"], None)
    lake.append(staged, {1: complete_snapshot(8, (10, 2))})
    lake.publish(10, 100.0)
    assert fold(lake, "auto") is not None
    views.update(lake.aws.client("glue"), lake.aws.catalog, lake.source, lake.table)
    sql = f'SELECT valid_from, valid_to, id, name, amount FROM "{lake.source}_history".accounts_versions'
    lsn, clock, since = 10, 110.0, None
    for step in range(3):
        rows: list[dict[str, Any]] = []
        for _ in range(6):
            lsn += 10
            rows += transaction(rng, lake, model, lsn)
        lake.append(decimals(rows))
        found = sorted((tuple(row) for row in athena(sql)), key=repr)
        assert found == model.versions(since), f"log, step {step}"
        lake.publish(lsn, clock)
        lake.publish(lsn, clock + 6)
        clock += 10
        assert fold(lake, rng.choice(["minor", "major"])) is not None
        assert sorted((tuple(row) for row in athena(sql)), key=repr) == model.versions(since), f"fold, step {step}"
        since = lsn - 25 if step else None
        if since is not None:
            tidied = tidy(lake, since)
            assert tidied.dropped > 0
            found = sorted((tuple(row) for row in athena(sql)), key=repr)
            assert found == model.versions(since), f"retention, step {step}"
            assert fold_state(lake.load().properties).totals.history_rows == len(lake.rows("history"))


def fold(lake: Any, kind: str) -> run.Folded | None:
    cut = read_cut(lake.aws.client("glue"), lake.source)
    return run.fold_table(lake.aws.catalog, lake.source, lake.table, cut, kind, SETTINGS, datetime.now(UTC))


def tidy(lake: Any, since: int, days: float = 30) -> retention.Tidied:
    """A run at the time at which what was committed before `since` has had its days."""
    now = at(since).replace(tzinfo=UTC) + timedelta(days=days)
    table, settings = lake.load(), FoldSettings(longest_query_seconds=0, history_days=days)
    if "headrace.fold.history_from" in table.properties:
        with table.transaction() as transaction:  # as if the run before had been long ago
            transaction.remove_properties("headrace.fold.history_from")
    return retention.tidy(lake.aws.catalog, (f"{lake.source}_lake", lake.table), settings, now)


def test_a_table_without_a_policy_keeps_its_history_and_small_files_become_one(
    make_table: Any, complete_snapshot: Any
) -> None:
    """No row goes; eight small files of history are one, in the order of positions; a second run does nothing."""
    lake = make_table(())
    lake.append([lake.row("r", 9, 0, "staged", id=0)], {1: complete_snapshot(8, (10, 1))})
    lake.publish(10, 100.0)
    assert fold(lake, "auto") is not None
    for n in range(1, 9):
        lake.append([lake.row("c", 10 + 10 * n, id=n)])
        lake.publish(10 + 10 * n, 100.0 + 10 * n)
        lake.publish(10 + 10 * n, 106.0 + 10 * n)
        assert fold(lake, "minor") is not None
    name = (f"{lake.source}_lake", lake.table)
    done = retention.tidy(lake.aws.catalog, name, SETTINGS, datetime.now(UTC))
    assert (done.dropped, done.merged) == (0, 9)
    files = [task.file for task in lake.load().scan(row_filter="_tier = 'history'").plan_files()]
    assert len(files) == 1
    assert [row["id"] for row in lake.load().scan(row_filter="_tier = 'history'").to_arrow().to_pylist()] == [*range(9)]
    assert retention.tidy(lake.aws.catalog, name, SETTINGS, datetime.now(UTC)) == retention.Tidied()


def test_a_keyless_tables_history_goes_where_its_policy_says_so_and_its_rows_stay(
    make_table: Any, complete_snapshot: Any
) -> None:
    """Old inserts leave the history; the table's rows are all current and stay in base."""
    lake = make_table(())
    lake.append([lake.row("r", 9, 0, "staged", id=0)], {1: complete_snapshot(8, (10, 1))})
    lake.append([lake.row("c", 50, id=1)])
    lake.publish(60, 100.0)
    assert fold(lake, "auto") is not None
    assert tidy(lake, 40).dropped == 1
    assert [row["id"] for row in lake.rows("history")] == [1]
    assert sorted(row["id"] for row in lake.rows("base")) == [0, 1]


def test_rows_without_a_key_are_carried_forward_until_they_are_deleted(
    make_table: Any, complete_snapshot: Any, athena: Any
) -> None:
    """Where rows are deleted, a row that is there stays in the history, so that a later delete ends it and no other."""
    lake = make_table((), whole_rows=True)
    lake.append([lake.row("r", 9, n, "staged", id=1) for n in range(2)], {1: complete_snapshot(8, (10, 2))})
    lake.append([lake.row("c", 20, id=2), lake.row("d", 21, id=1), lake.row("c", 50, id=1), lake.row("d", 51, id=1)])
    lake.publish(60, 100.0)
    assert fold(lake, "auto") is not None
    views.update(lake.aws.client("glue"), lake.aws.catalog, lake.source, lake.table)
    done = tidy(lake, 40)
    assert (done.dropped, done.carried) == (2, 2)
    assert [(row["_op"], row["_lsn"], row["id"]) for row in lake.rows("history")] == [
        ("r", 9, 1), ("c", 20, 2), ("c", 50, 1), ("d", 51, 1),
    ]  # fmt: skip
    versions = f'SELECT id FROM "{lake.source}_history".accounts_versions WHERE valid_to IS NULL ORDER BY id'
    assert athena(versions) == [["1"], ["2"]]


def test_a_run_is_made_when_it_pays() -> None:
    """What is carried forward is rewritten each time: a tenth of the time has to pass again, or a day."""
    now = datetime(2026, 7, 1, tzinfo=UTC)
    assert retention.due(None, inf, now) is None
    assert retention.due(None, 30, now) == now - timedelta(days=30)
    before = (now - timedelta(days=32)).isoformat()
    assert retention.due(before, 30, now) is None
    assert retention.due(before, 30, now + timedelta(days=1)) == now - timedelta(days=29)
