"""Provisioning makes everything once, and a second run changes nothing but code."""

import io
import json
import zipfile

import pytest

from ops import artefacts
from ops.aws import Aws
from ops.names import DYNAMODB_KEYS, Names, databases
from ops.provision import Deployment, provision

NAMES = Names()


def counted(aws: Aws) -> dict[str, int]:
    """How many there are of everything."""
    return {
        "streams": len(aws.client("kinesis").list_streams()["StreamNames"]),
        "tables": len(aws.client("dynamodb").list_tables()["TableNames"]),
        "jobs": len(aws.client("glue").get_jobs()["Jobs"]),
        "databases": len(aws.client("glue").get_databases()["DatabaseList"]),
        "machines": len(aws.client("stepfunctions").list_state_machines()["stateMachines"]),
        "schedules": len(aws.client("scheduler").list_schedules()["Schedules"]),
        "functions": len(aws.client("lambda").list_functions()["Functions"]),
        "topics": len(aws.client("sns").list_topics()["Topics"]),
        "roles": len(aws.client("iam").list_roles()["Roles"]),
    }


def test_second_run_makes_nothing_new(aws: Aws, deployment: Deployment) -> None:
    before = counted(aws)
    first = provision(aws, deployment)
    assert provision(aws, deployment) == first
    assert counted(aws) == before


def test_everything_is_there(aws: Aws) -> None:
    assert set(aws.client("dynamodb").list_tables()["TableNames"]) >= {NAMES.dynamodb(name) for name in DYNAMODB_KEYS}
    made = {database["Name"] for database in aws.client("glue").get_databases()["DatabaseList"]}
    assert made >= set(databases("shop"))
    assert len(aws.client("kinesis").list_shards(StreamName=NAMES.stream)["Shards"]) == 2


def test_settings_are_items_of_the_job(aws: Aws) -> None:
    key = {"job": {"S": "headrace-stream"}, "name": {"S": "trigger_seconds"}}
    assert aws.client("dynamodb").get_item(TableName="headrace-settings", Key=key)["Item"]["value"] == {"S": "1"}


def test_heaps_are_capped(aws: Aws) -> None:
    """Three JVMs share a laptop with everything else."""
    for job in (NAMES.stream_job, NAMES.fold_job, NAMES.maintain_job):
        arguments = aws.client("glue").get_job(JobName=job)["Job"]["DefaultArguments"]
        assert arguments["--conf"].startswith("spark.driver.memory=")


def test_plan_function_answers(aws: Aws) -> None:
    """From the same zip as the jobs; with no lake table, nothing is due."""
    reply = aws.client("lambda").invoke(FunctionName=NAMES.plan_function, Payload=b"{}")
    assert json.loads(reply["Payload"].read())["due"] == 0


def test_same_files_give_the_same_zip() -> None:
    assert artefacts.packages_zip() == artefacts.packages_zip()


def test_zip_holds_the_wire_format_and_no_caches() -> None:
    names = zipfile.ZipFile(io.BytesIO(artefacts.packages_zip())).namelist()
    assert "schemas/block.avsc" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("producer", "ops"))]


def test_workflow_with_a_missing_value_is_refused() -> None:
    with pytest.raises(KeyError, match="no value for"):
        artefacts.workflow("ingest", {"stream_job": "x"})
