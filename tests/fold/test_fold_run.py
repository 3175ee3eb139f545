"""Folds of real Iceberg tables in the Glue catalog, read back through Athena."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from glue_streaming import commit, fold_job, views
from glue_streaming.fold import merge, part, run
from glue_streaming.fold.errors import LineBroken
from glue_streaming.fold.plan import FoldSettings, Tail, tail, work
from glue_streaming.plan_lambda import handler, read_cut
from glue_streaming.state import fold_state, stream_state
from schemas.position import Line

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SETTINGS = FoldSettings(max_age_seconds=0, horizon_seconds=5)


def fold(lake: Any, kind: str = "auto", settings: FoldSettings = SETTINGS) -> run.Folded | None:
    cut = read_cut(lake.aws.client("glue"), lake.source)
    return run.fold_table(lake.aws.catalog, lake.source, lake.table, cut, kind, settings, NOW)


def activated(lake: Any, complete_snapshot: Any) -> Any:
    """A table with two snapshot groups, at 10 and 14, and a change between them and behind them, activated at 20."""
    staged = [lake.row("r", 9, n, "staged", id=n, name=f"n{n}", amount=Decimal(n)) for n in range(3)]
    staged += [lake.row("r", 13, n, "staged", id=10 + n, name=f"n{10 + n}") for n in range(2)]
    lake.append(staged)
    lake.append(
        [lake.row("u", 12, id=1, name="one"), lake.row("d", 12, 1, id=10), lake.row("c", 15, id=20, name="new")]
    )
    lake.append([], {1: complete_snapshot(8, (10, 3), (14, 2))})
    lake.publish(20, 100.0)
    folded = fold(lake)
    assert folded is not None and folded.work.kind == "activate"
    return lake


def test_a_snapshot_becomes_the_base_with_the_changes_laid_over_it(make_table: Any, complete_snapshot: Any) -> None:
    """Changes at or above a group's consistent point win over its rows, those below lose; all of it is history."""
    lake = activated(make_table(), complete_snapshot)
    assert {(r["id"], r["name"]) for r in lake.rows("base")} == {
        (0, "n0"), (1, "one"), (2, "n2"), (10, "n10"), (11, "n11"), (20, "new"),
    }  # fmt: skip
    assert lake.rows("staged") == lake.rows("log") == lake.rows("delta") == []
    assert len(lake.rows("history")) == 8
    assert lake.state()["line"] == Line(1, 20)
    assert lake.state()["activated_through"] == 1
    assert tail(stream_state(lake.load().properties), fold_state(lake.load().properties)) == Tail(0, 0)


def test_a_snapshot_with_missing_rows_is_refused(make_table: Any, complete_snapshot: Any) -> None:
    """Fewer staged rows than announced: nothing is activated, and the error says what to do."""
    lake = make_table()
    lake.append([lake.row("r", 9, 0, "staged", id=1)], {1: complete_snapshot(8, (10, 2))})
    lake.publish(20, 100.0)
    with pytest.raises(Exception, match=r"1 of 2.*Request another snapshot"):
        fold(lake)
    assert lake.rows("base") == []


def test_rows_that_vanished_between_two_snapshots_are_closed_in_history(
    make_table: Any, complete_snapshot: Any
) -> None:
    """A second snapshot that lacks a key gives it a closing delete in history; the new state is the snapshot's."""
    lake = activated(make_table(), complete_snapshot)
    lake.append([lake.row("r", 29, 0, "staged", id=1, name="again")], {2: complete_snapshot(28, (30, 1))})
    lake.publish(40, 110.0)
    lake.publish(41, 120.0)
    assert fold(lake) is not None
    assert [(r["id"], r["name"]) for r in lake.rows("base")] == [(1, "again")]
    closing = [r for r in lake.rows("history") if r["_lsn"] == 29 and r["_op"] == "d"]
    assert {r["id"] for r in closing} == {0, 2, 10, 11, 20}
    assert lake.state()["activated_through"] == 2


def test_nothing_is_folded_beyond_the_aged_watermark(make_table: Any, complete_snapshot: Any) -> None:
    """A watermark younger than the horizon is not folded to; the older one is."""
    lake = activated(make_table(), complete_snapshot)
    lake.append([lake.row("u", 25, id=0, name="zero")])
    lake.append([lake.row("u", 35, id=2, name="two")])
    lake.publish(30, 110.0)
    lake.publish(36, 117.0)
    folded = fold(lake, "minor")
    assert folded is not None and folded.work.line == Line(1, 30)
    assert [r["name"] for r in lake.rows("delta")] == ["zero"]
    assert [r["name"] for r in lake.rows("log")] == ["two"]
    assert tail(stream_state(lake.load().properties), fold_state(lake.load().properties)).rows == 1


def test_views_answer_the_same_before_and_after_folds(make_table: Any, complete_snapshot: Any, athena: Any) -> None:
    """Current, cut and history views in Athena are right over log, over delta, and after a major fold."""
    lake = activated(make_table(), complete_snapshot)
    views.update(lake.aws.client("glue"), lake.aws.catalog, lake.source, lake.table)
    assert views.update(lake.aws.client("glue"), lake.aws.catalog, lake.source, lake.table) == ([], {})
    lake.append([lake.row("u", 25, id=0, name=None, amount=Decimal("7.50"), _unchanged=["name"])])
    lake.append([lake.row("d", 26, id=2), lake.row("c", 35, id=30, name="late")])
    expected = [["0", "n0", "7.50"], ["1", "one", None], ["10", "n10", None], ["11", "n11", None], ["20", "new", None]]
    current = f'SELECT id, name, amount FROM "{lake.source}".accounts ORDER BY id'
    cut = f'SELECT id, name, amount FROM "{lake.source}_cut".accounts ORDER BY id'
    changes = f'SELECT count(*), max(_lsn) FROM "{lake.source}_history".accounts'
    versions = f'SELECT count(*) FROM "{lake.source}_history".accounts_versions WHERE valid_to IS NULL'
    for kind in ("none", "minor", "major"):
        if kind == "none":
            lake.publish(30, 110.0)
            lake.publish(31, 116.0)
        else:
            assert fold(lake, kind) is not None
        assert athena(current) == [*expected, ["30", "late", None]], kind
        assert athena(cut) == expected, kind
        assert athena(changes) == [["11", "35"]], kind
        assert athena(versions) == [["6"]], kind
    assert lake.rows("delta") == []
    assert {r["name"] for r in lake.rows("base") if r["id"] == 0} == {"n0"}


def test_keyless_rows_pass_from_log_to_base(make_table: Any, complete_snapshot: Any, athena: Any) -> None:
    """A table without a key: equal rows all stay; a truncate empties the base."""
    lake = make_table(())
    lake.append(
        [lake.row("r", 9, n, "staged", id=1, name="same") for n in range(2)], {1: complete_snapshot(8, (10, 2))}
    )
    lake.append([lake.row("c", 12, id=1, name="same")])
    lake.publish(20, 100.0)
    assert fold(lake) is not None
    assert len(lake.rows("base")) == 3
    views.update(lake.aws.client("glue"), lake.aws.catalog, lake.source, lake.table)
    lake.append([lake.row("t", 25), lake.row("c", 26, id=5)])
    assert athena(f'SELECT id FROM "{lake.source}".accounts') == [["5"]]
    lake.publish(30, 110.0)
    lake.publish(31, 116.0)
    assert fold(lake) is not None
    assert [r["id"] for r in lake.rows("base")] == [5]
    assert athena(f'SELECT id FROM "{lake.source}".accounts') == [["5"]]


def test_rows_without_a_key_are_deleted_one_by_one(make_table: Any, complete_snapshot: Any, athena: Any) -> None:
    """Updates and deletes of whole rows, read through Athena before and behind each fold; what finds no row is told."""
    lake = make_table((), whole_rows=True)
    half = Decimal("0.50")
    lake.append(
        [lake.row("r", 9, n, "staged", id=1, name="same", amount=half) for n in range(3)],
        {1: complete_snapshot(8, (10, 3))},
    )
    lake.publish(20, 100.0)
    assert fold(lake) is not None
    views.update(lake.aws.client("glue"), lake.aws.catalog, lake.source, lake.table)
    lake.append(
        [lake.row("d", 25, 0, id=1, name="same", amount=half), lake.row("c", 25, 1, id=1, name="new", amount=half)]
    )
    lake.append([lake.row("d", 26, id=1, name="same", amount=half), lake.row("c", 35, id=2)])
    current = f'SELECT id, name FROM "{lake.source}".accounts ORDER BY id, name'
    cut = f'SELECT id, name FROM "{lake.source}_cut".accounts ORDER BY id, name'
    live = f'SELECT count(*) FROM "{lake.source}_history".accounts_versions WHERE valid_to IS NULL'
    for kind in ("none", "minor", "major"):
        if kind == "none":
            lake.publish(30, 110.0)
            lake.publish(31, 116.0)
        else:
            assert fold(lake, kind) is not None
        assert athena(current) == [["1", "new"], ["1", "same"], ["2", None]], kind
        assert athena(cut) == [["1", "new"], ["1", "same"]], kind
        assert athena(live) == [["3"]], kind
    assert lake.rows("delta") == [] and len(lake.rows("base")) == 2
    lake.append([lake.row("d", 40, id=7)])
    lake.publish(45, 120.0)
    lake.publish(46, 126.0)
    folded = fold(lake, "major")
    assert folded is not None and folded.unmatched_rows == 1
    assert lake.state()["totals"].unmatched_rows == 1
    assert athena(current) == [["1", "new"], ["1", "same"], ["2", None]]


def test_an_append_beside_a_fold_is_neither_lost_nor_taken(
    make_table: Any, complete_snapshot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows appended between the fold's reading and its commit stay in the log, and the stream's properties stand."""
    lake = activated(make_table(), complete_snapshot)
    lake.append([lake.row("u", 25, id=0, name="zero")])
    lake.publish(30, 110.0)
    lake.publish(31, 116.0)
    original = commit.replace

    def beside(*arguments: Any, **named: Any) -> None:
        lake.append([lake.row("u", 33, id=1, name="beside")])
        original(*arguments, **named)

    monkeypatch.setattr(commit, "replace", beside)
    assert fold(lake, "minor") is not None
    assert [r["name"] for r in lake.rows("log")] == ["beside"]
    assert [r["name"] for r in lake.rows("delta")] == ["zero"]
    assert stream_state(lake.load().properties).totals.rows == 5


def test_a_fold_that_dies_before_its_commit_changes_nothing(
    make_table: Any, complete_snapshot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed with its files written: the table is as it was, and the next fold does the work once."""
    lake = activated(make_table(), complete_snapshot)
    lake.append([lake.row("u", 25, id=0, name="zero")])
    lake.publish(30, 110.0)
    lake.publish(31, 116.0)
    with monkeypatch.context() as patch:
        patch.setattr(commit, "replace", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            fold(lake, "major")
    assert len(lake.rows("log")) == 1 and len(lake.rows("history")) == 8
    assert fold(lake, "major") is not None
    assert lake.rows("log") == [] and len(lake.rows("history")) == 9
    assert len(lake.rows("base")) == 6


TAKEN = part._taken


def _all_taken(batches: Iterable[pa.RecordBatch], line: Line, tier: str) -> Iterator[pa.RecordBatch]:
    return TAKEN(batches, line._replace(lsn=line.lsn + 1_000) if tier == "delta" else line, tier)


@pytest.mark.parametrize(
    ("broken", "tier"),
    [
        ({"merge.remainder": lambda line: f"SELECT * FROM log ORDER BY {merge.BY_POSITION}"}, "log"),
        ({"merge.covered": lambda line: "TRUE", "part._held": lambda *_: None}, "delta"),
        ({"part._taken": _all_taken}, "delta"),
    ],
    ids=["log", "delta by query", "delta held"],
)
def test_a_fold_that_would_put_a_row_on_the_wrong_side_of_the_line_is_not_committed(
    make_table: Any, complete_snapshot: Any, monkeypatch: pytest.MonkeyPatch, broken: dict[str, Any], tier: str
) -> None:
    """Whatever defect lets it: the one assertion of the design stops it, and the table stays as it was."""
    lake = activated(make_table(), complete_snapshot)
    lake.append([lake.row("u", 25, id=0, name="zero"), lake.row("u", 35, id=1, name="later")])
    lake.publish(30, 110.0)
    lake.publish(31, 116.0)
    before = lake.load().metadata.current_snapshot_id
    with monkeypatch.context() as patch:
        for name, wrong in broken.items():
            patch.setattr(f"glue_streaming.fold.{name}", wrong)
        with pytest.raises(LineBroken, match=f"{tier} file .* is on the wrong side of"):
            fold(lake, "minor")
    assert lake.load().metadata.current_snapshot_id == before
    assert fold(lake, "minor") is not None


def test_a_table_is_folded_in_spark_from_the_size_that_the_settings_say(
    make_table: Any, complete_snapshot: Any
) -> None:
    """Up to it the parts run in the job's own process: no session is started for them."""
    lake, sent = activated(make_table(), complete_snapshot), []

    def spread(parts: Any) -> list[part.Done]:
        sent.extend(parts)
        with tempfile.TemporaryDirectory() as folder:
            return [part.run(item, part.LocalFiles(lake.load().io, Path(folder))) for item in parts]

    for lsn, more in ((25, 1), (35, 0)):
        lake.append([lake.row("u", lsn, id=0, name=f"at {lsn}")])
        lake.publish(lsn, 100.0 + lsn)
        lake.publish(lsn, 106.0 + lsn)
        cut = read_cut(lake.aws.client("glue"), lake.source)
        due = work(lake.table, lake.load().properties, cut, "minor", SETTINGS, NOW)
        assert due is not None
        settings = replace(SETTINGS, spark_bytes=due.cost_bytes + more)
        assert run.fold_table(lake.aws.catalog, lake.source, lake.table, cut, "minor", settings, NOW, spread)
        assert bool(sent) == (more == 0)
    assert [row["name"] for row in lake.rows("delta")] == ["at 35"]


def test_folds_expire_snapshots_and_keep_the_state_they_replaced(make_table: Any, complete_snapshot: Any) -> None:
    """After a fold only the current snapshot and the one that it read are left; what folds before it read goes."""
    lake = activated(make_table(), complete_snapshot)
    lake.append([lake.row("u", 25, id=0, name="zero")])
    lake.publish(30, 110.0)
    lake.publish(31, 116.0)
    assert fold(lake, "major") is not None
    first = lake.load().metadata
    assert len(first.snapshots) == 2
    assert {name.rpartition("-")[0] for name in first.refs if name != "main"} == {"headrace-replaced"}
    later = replace(SETTINGS, longest_query_seconds=-1)
    lake.append([lake.row("u", 33, id=0, name="nil")])
    read = lake.load().metadata.current_snapshot_id
    lake.publish(40, 126.0)
    lake.publish(41, 132.0)
    assert fold(lake, "minor", later) is not None
    second = lake.load().metadata
    assert {s.snapshot_id for s in second.snapshots} == {read, second.current_snapshot_id}


def test_the_job_folds_the_others_when_one_table_fails(make_table: Any, complete_snapshot: Any) -> None:
    """One broken table: the other is folded, and the job's last words name the broken one."""
    good, broken = make_table(), make_table()
    for lake, count in ((good, 1), (broken, 2)):
        lake.append([lake.row("r", 9, 0, "staged", id=1, name="a")], {1: complete_snapshot(8, (10, count))})
        lake.publish(20, 100.0)
    names = f"{broken.source}.accounts,{good.source}.accounts"
    words = fold_job.main(["--tables", names, "--fold_horizon_seconds", "5"])
    assert len(good.rows("base")) == 1
    assert words is not None
    assert words.startswith(f"not folded: {broken.source}.accounts | {broken.source}.accounts: SnapshotUnusable")


def test_the_plan_names_the_tables_that_are_due(
    make_table: Any, complete_snapshot: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer has groups for the Map and a count, the log a reason for each table; with nothing due, no group."""
    lake = make_table()
    lake.append([lake.row("r", 9, 0, "staged", id=1)], {1: complete_snapshot(8, (10, 1))})
    assert handler({"sources": [lake.source]}, None)["due"] == 0
    lake.publish(20, 100.0)
    answer = handler({"sources": [lake.source]}, None)
    assert [group["tables"] for group in answer["groups"]] == [f"{lake.source}.accounts"]
    (logged,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()[-1:]]
    assert logged["due"][f"{lake.source}.accounts"]["reason"] == "snapshot 1 is complete"


def test_the_cut_view_waits_until_the_aged_watermark_is_at_the_fold_line(
    make_table: Any, complete_snapshot: Any, athena: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first activation makes the other views at once; the cut view comes with a later run, with nothing to fold."""
    lake = make_table()
    lake.append([lake.row("r", 9, 0, "staged", id=1, name="a")], {1: complete_snapshot(8, (10, 1))})
    lake.publish(20, 100.0)
    job = ["--source", lake.source, "--fold_horizon_seconds", "5"]
    assert fold_job.main(job) is None
    assert athena(f'SELECT id FROM "{lake.source}".accounts') == [["1"]]
    with pytest.raises(AssertionError, match="does not exist"):
        athena(f'SELECT id FROM "{lake.source}_cut".accounts')
    monkeypatch.setenv("FOLD_HORIZON_SECONDS", "5")
    assert handler({"sources": [lake.source]}, None)["due"] == 0
    lake.publish(21, 112.0)
    lake.publish(21, 118.0)
    (group,) = handler({"sources": [lake.source]}, None)["groups"]
    assert group["tables"] == f"{lake.source}.accounts"
    assert fold_job.main(job) is None
    assert athena(f'SELECT id FROM "{lake.source}_cut".accounts') == [["1"]]


def test_an_empty_snapshot_is_activated(make_table: Any, complete_snapshot: Any) -> None:
    """A table without rows gets its empty base, its fold line and, so, its views."""
    lake = make_table()
    lake.append([], {1: complete_snapshot(8, (10, 0))})
    lake.publish(20, 100.0)
    assert fold(lake) is not None
    assert lake.state()["activated_through"] == 1 and lake.state()["line"] == Line(1, 20)
