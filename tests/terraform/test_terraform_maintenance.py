"""The daily maintenance as Terraform made it: in its own role, on a lake table, with IAM enforced."""

import time
from datetime import UTC, datetime
from typing import Any

import boto3
import pyarrow as pa
import pytest

from glue_streaming import data_files, lake_table
from glue_streaming.aws import Aws
from glue_streaming.erasure_records import Record, Records, item_name
from glue_streaming.erasures import Erasure
from ops import iam_use, terraform
from schemas.change_record import Column, TableSchema
from schemas.position import Line

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(terraform.missing() is not None, reason=str(terraform.missing())),
]
ORPHAN = "lake/shop/parcels/data/log/left-behind.parquet"
ENDED = ("SUCCEEDED", "FAILED", "TIMEOUT", "STOPPED")


def test_the_maintenance_works_in_its_role(applied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes what a killed writer left behind and is refused nothing; no permission of its role is left over."""
    for name, value in applied.aws.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # that of an earlier test keeps its credentials
    schema = TableSchema("shop", "parcels", (Column("id", "long", "id", "bigint"),), ("id",))
    table = lake_table.ensure(Aws().catalog, schema, "headrace-lake")
    row = {"_op": "c", "_era": 1, "_lsn": 5, "_idx": 0, "_tier": "log", "id": 1}
    for _ in range(2):  # so that there is a snapshot to expire
        table.append(pa.Table.from_pylist([row], schema=data_files.arrow_schema(table.schema())))
    applied.aws.client("s3").put_object(Bucket="headrace-lake", Key=ORPHAN, Body=b"half a file")
    applied.aws.age_objects("headrace-lake", "lake/shop/parcels/", 4 * 86_400)
    erasure = Erasure(("id",), "d" * 64, "e" * 64, Line(1, 100))
    records = Records(applied.aws.client("dynamodb"), "headrace-sources", "shop")
    records.secret()
    records.add(Record(item_name("parcels", "d" * 64), "parcels", erasure, datetime.now(UTC).isoformat(), "test"))
    applied.aws.forget_decisions()
    glue = applied.as_role("maintain-schedule", "glue")
    started = glue.start_job_run(JobName="headrace-maintain", Arguments={"--settle_seconds": "0"})["JobRunId"]
    run = run_to_its_end(applied.aws.client("glue"), started)
    assert run["JobRunState"] == "SUCCEEDED", run.get("ErrorMessage")
    left = applied.aws.client("s3").list_objects_v2(Bucket="headrace-lake", Prefix="lake/shop/parcels/")
    assert ORPHAN not in {item["Key"] for item in left["Contents"]}
    decisions = applied.aws.decisions()["decisions"]
    mine = [each for each in decisions if "headrace-maintain-job" in each["principal"]]
    assert mine
    assert [(each["action"], each["resource"]) for each in mine if each["denied"]] == []
    unused = iam_use.report(applied.aws.client("iam"), applied.aws.endpoint, "headrace")
    own = [each for each in unused if each.grant.policy == "maintain-job"]
    assert [str(each) for each in own if each.reason in (None, iam_use.REASONS["maintain-job/*"])] == []
    assert [record.done_at is not None for record in records.all()] == [True]


def run_to_its_end(glue: Any, run_id: str, seconds: float = 900) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run: dict[str, Any] = glue.get_job_run(JobName="headrace-maintain", RunId=run_id)["JobRun"]
        if run["JobRunState"] in ENDED:
            return run
        time.sleep(0.5)
    raise AssertionError("the maintenance did not end")
