"""The maintenance job's erasures as a process, killed at each step: the next run does the rest and reports it all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from glue_streaming.erasure_records import Record, Records
from glue_streaming.erasures import Erasure, digest
from glue_streaming.fold import run
from glue_streaming.fold.plan import FoldSettings
from glue_streaming.plan_lambda import read_cut
from glue_streaming.state import stream_state
from schemas.position import Line

PLACES = (
    *("files.before:1", "files.written:3", "erase.intended:1", "commit.before:1", "commit.staged:1", "commit.after:1"),
    *("erase.object:1", "erase.object:2", "erase.closing:1"),
)
REPORT = {
    "base_files": 1, "delta_files": 1, "history_files": 2, "log_files": 1, "staged_files": 1,
    "base_rows": 1, "delta_rows": 1, "history_rows": 2, "log_rows": 1, "staged_rows": 1, "raw_deleted": 2,
}  # fmt: skip

pytestmark = pytest.mark.slow


def fold(lake: Any, kind: str) -> None:
    cut, settings = read_cut(lake.aws.client("glue"), lake.source), FoldSettings(max_age_seconds=0, horizon_seconds=5)
    assert run.fold_table(lake.aws.catalog, lake.source, lake.table, cut, kind, settings, datetime.now(UTC))


@pytest.fixture
def asked(make_table: Any, complete_snapshot: Any) -> tuple[Any, Records]:
    """Key 1 in every tier, two raw blocks that nobody can read, and the request to erase it."""
    lake = make_table()
    staged = [lake.row("r", 9, n, "staged", id=n, name=f"base-{n}") for n in range(3)]
    lake.append(staged, {1: complete_snapshot(8, (10, 3))})
    lake.publish(20, 100.0)
    fold(lake, "auto")
    lake.append([lake.row("u", 25, 0, id=1, name="delta-1"), lake.row("u", 25, 1, id=2, name="delta-2")])
    lake.publish(30, 110.0)
    lake.publish(31, 116.0)
    fold(lake, "minor")
    lake.append([lake.row("u", 33, 0, id=1, name="log-1"), lake.row("u", 33, 1, id=0, name="log-0")])
    again = [lake.row("r", 39, n, "staged", id=n, name=f"staged-{n}") for n in range(3)]
    lake.append(again, {2: complete_snapshot(38, (40, 3))})
    for name in ("a", "b"):
        lake.aws.client("s3").put_object(Bucket="headrace-lake", Key=f"raw/{lake.source}/{name}", Body=b"unreadable")
    records = Records(lake.aws.client("dynamodb"), "headrace-sources", lake.source)
    secret = records.secret()
    erasure = Erasure(("id",), digest(secret, ["1"]), digest(secret, ["id=1"]), Line(1, 100))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    records.add(Record(f"erasure:{lake.table}:1", lake.table, erasure, now, "ann"))
    return lake, records


def erase(lake: Any, failpoint: str = "") -> int:
    words = ["--source", lake.source, "--lake_bucket", "headrace-lake", "--only", "erasures", "--settle_seconds", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "glue_streaming.maintain_job", *words],
        env={**os.environ, "HEADRACE_FAILPOINT": failpoint}, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_erasure_is_done_by_the_next_run_and_reported_whole(asked: tuple[Any, Records], place: str) -> None:
    """Killed with SIGKILL, appends in between: every version of the key is gone, no other row is lost or doubled, and
    the report is that of a run that was never killed."""
    lake, records = asked
    assert erase(lake, place) == -signal.SIGKILL
    assert records.all()[0].done_at is None
    lake.append([lake.row("u", 60, id=2, name="beside")])
    assert erase(lake) == 0
    (record,) = records.all()
    assert (record.done_at is not None, record.report, record.intended) == (True, REPORT, None)
    names = {tier: sorted(r["name"] or "" for r in lake.rows(tier)) for tier in ("base", "delta", "log", "staged")}
    assert names == {
        "base": ["base-0", "base-2"], "delta": ["delta-2"], "log": ["beside", "log-0"],
        "staged": ["", "staged-0", "staged-2"],
    }  # fmt: skip
    assert sorted(r["name"] for r in lake.rows("history")) == ["base-0", "base-2", "delta-2"]
    listed = lake.aws.client("s3").list_objects_v2(Bucket="headrace-lake", Prefix=f"raw/{lake.source}/")
    assert listed["KeyCount"] == 0
    taken = lake.state()["totals"].log_rows_taken
    assert stream_state(lake.load().properties).totals.rows - taken == len(lake.rows("log"))
