"""The daily maintenance with real Spark and Iceberg's own procedure, on the laptop's S3 and Glue catalog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from glue_streaming import commit, data_files
from glue_streaming.fold import orphans, run
from glue_streaming.fold.plan import FoldSettings
from glue_streaming.fold.policy import TablePolicy, read_policies
from glue_streaming.plan_lambda import read_cut
from glue_streaming.state import stream_state
from localaws.process import LocalAws

DAY = 86_400.0
SETTINGS = FoldSettings(max_age_seconds=0, horizon_seconds=5, longest_query_seconds=0)
SPARK = (
    "spark.driver.memory=512m --conf spark.sql.shuffle.partitions=2 --conf spark.master=local[2] "
    "--conf spark.jars.packages=" + ",".join(orphans.LAPTOP_PACKAGES)
)


def fold(lake: Any, kind: str = "auto", now: datetime | None = None) -> run.Folded | None:
    cut = read_cut(lake.aws.client("glue"), lake.source)
    return run.fold_table(lake.aws.catalog, lake.source, lake.table, cut, kind, SETTINGS, now or datetime.now(UTC))


def maintain(aws: LocalAws, *sources: str, bucket: str = "headrace-lake", more: Sequence[str] = ()) -> list[Any]:
    """A run of the job as a process of its own, as Glue has it; the events that it logs."""
    words = ["--source", ",".join(sources), "--lake_bucket", bucket, *more]
    done = subprocess.run(
        [sys.executable, "-m", "glue_streaming.maintain_job", *words],
        env={**os.environ, **aws.environment(), "PYSPARK_SUBMIT_ARGS": f"--conf {SPARK} pyspark-shell"},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def keys(aws: LocalAws, lake: Any, older_than: timedelta = timedelta(0)) -> set[str]:
    """The objects below the table's location that were written so long ago."""
    before = datetime.now(UTC) + timedelta(seconds=1) - older_than
    pages = aws.client("s3").get_paginator("list_objects_v2").paginate(
        Bucket="headrace-lake", Prefix=f"lake/{lake.source}/accounts/"
    )  # fmt: skip
    found = [item for page in pages for item in page.get("Contents", [])]
    return {f"s3://headrace-lake/{item['Key']}" for item in found if item["LastModified"] < before}


def reachable(lake: Any) -> set[str]:
    """What the table's metadata names: itself, its log of metadata files, and all snapshots' manifests and files."""
    table = lake.load()
    found = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    for snapshot in table.metadata.snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            found.add(manifest.manifest_path)
            entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
            found |= {entry.data_file.file_path for entry in entries}
    return found


def written(lake: Any, row: dict[str, Any]) -> Any:
    """A file of a log row that is written and not committed."""
    table = lake.load()
    rows = pa.Table.from_pylist([row], schema=data_files.arrow_schema(table.schema()))
    file = data_files.write(rows, schema=table.schema(), location=table.location(), tier="log", io=table.io)
    assert file is not None
    return file


@pytest.fixture
def lake(make_table: Any, complete_snapshot: Any) -> Any:
    """A table with a base of three rows, folded up to 20."""
    lake = make_table()
    staged = [lake.row("r", 9, n, "staged", id=n, name=f"n{n}") for n in range(3)]
    lake.append(staged, {1: complete_snapshot(8, (10, 3))})
    lake.publish(20, 100.0)
    assert fold(lake) is not None
    return lake


def test_a_run_removes_what_nothing_reaches_and_nothing_else(
    local_aws: LocalAws, lake: Any, make_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old files of expired snapshots and of a killed fold go. A query planned before the fold and a writer that
    commits late lose nothing; what is younger than the safe age stays, and so do tables that nothing ever folded."""
    other = make_table()
    other.append([other.row("c", 5, id=1)])
    lake.append([lake.row("u", 25, id=0, name="zero")])
    lake.publish(30, 110.0)
    lake.publish(31, 116.0)
    with monkeypatch.context() as patch:
        patch.setattr(commit, "replace", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            fold(lake, "major")  # killed with its files written: not even its tag is dropped
    lake.append([lake.row("u", 26, id=1, name="one")])
    planned = lake.load()  # of a state that the killed fold's tag does not hold
    local_aws.age_objects("headrace-lake", f"lake/{lake.source}/", 10 * DAY)
    leftovers = {key for key in keys(local_aws, lake) - reachable(lake) if key.endswith(".parquet")}
    assert leftovers
    late = written(lake, lake.row("u", 33, id=1, name="late"))
    local_aws.age_objects("headrace-lake", f"lake/{lake.source}/", 2 * DAY)
    keep = FoldSettings(max_age_seconds=0, horizon_seconds=5, longest_query_seconds=3600)
    cut = read_cut(lake.aws.client("glue"), lake.source)
    assert run.fold_table(lake.aws.catalog, lake.source, lake.table, cut, "major", keep, datetime.now(UTC))

    events = maintain(local_aws, lake.source, other.source)
    assert {e["table"] for e in events if e["event"] == "removed"} == {lake.identifier, other.identifier}
    assert not leftovers & keys(local_aws, lake)
    assert keys(local_aws, lake, timedelta(days=3)) <= reachable(lake)
    assert len(planned.scan().to_arrow()) == 8  # of files that are twelve days old
    table = lake.load()
    commit.append(
        table, [late.to_data_file()], expected=stream_state(table.properties), new=stream_state(table.properties)
    )
    assert [r["name"] for r in lake.rows("log")] == ["late"]
    assert sorted(r["name"] for r in lake.rows("base")) == ["n2", "one", "zero"]
    assert other.rows("log")[0]["id"] == 1


def test_a_table_has_its_own_policy(local_aws: LocalAws) -> None:
    """Numbers or texts of the table `tables`; a wrong one is refused with its name."""
    dynamodb = local_aws.client("dynamodb")
    items: list[dict[str, Any]] = [
        {"table": {"S": "p.kept"}, "history_days": {"N": "30"}, "time_travel_days": {"S": "7"}},
        {"table": {"S": "p.other"}, "paused": {"BOOL": True}},
    ]
    for item in items:
        dynamodb.put_item(TableName="headrace-tables", Item=item)
    assert read_policies(dynamodb, "headrace-tables") == {"p.kept": TablePolicy(30.0, 7)}
    dynamodb.put_item(TableName="headrace-tables", Item={"table": {"S": "p.bad"}, "history_days": {"S": "long"}})
    with pytest.raises(ValueError, match=r"p\.bad.*history_days = 'long' is not a number"):
        read_policies(dynamodb, "headrace-tables")
    dynamodb.delete_item(TableName="headrace-tables", Key={"table": {"S": "p.bad"}})


def test_files_that_may_still_be_committed_are_not_to_be_removed() -> None:
    """A safe age below three days is refused, and so is a run that does not know its tables."""
    assert orphans.problems({"source": "shop", "lake_bucket": "b", "orphan_days": "3"}) == []
    found = orphans.problems({"lake_bucket": "b", "orphan_days": "1"})
    assert found[0] == "--source is missing" and "may still be committed" in found[1]
