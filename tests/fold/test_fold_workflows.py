"""The two state machines, run by the laptop's Step Functions against stand-ins for the jobs and the Lambda."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from localaws.process import LocalAws

ROOT = Path(__file__).resolve().parents[2]
PLAN = """
def handler(event, context):
    groups = [{"tables": name, "kind": "auto"} for name in event.get("groups", [])]
    return {"groups": groups, "due": len(groups), "reasons": {}}
"""
JOB = """
import sys
arguments = sys.argv
if "bad.table" in arguments:
    raise ValueError("cannot fold bad.table")
if "continuous" in arguments:
    import time
    time.sleep(120)
"""
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": ["glue.amazonaws.com", "lambda.amazonaws.com", "states.amazonaws.com"]},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)


class Workflows:
    """The definitions with their placeholders filled in, beside jobs that only look at their arguments."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws, self.states, self.glue = aws, aws.client("stepfunctions"), aws.client("glue")
        self.role = aws.client("iam").create_role(RoleName="wf", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        s3 = aws.client("s3")
        s3.create_bucket(Bucket="wf-code")
        s3.put_object(Bucket="wf-code", Key="job.py", Body=JOB.encode())
        for name in ("wf-stream", "wf-fold"):
            self.glue.create_job(
                Name=name, Role=self.role, GlueVersion="5.0", ExecutionProperty={"MaxConcurrentRuns": 2},
                Command={"Name": "glueetl", "ScriptLocation": "s3://wf-code/job.py", "PythonVersion": "3"},
            )  # fmt: skip
        self._function()
        self.topic, self.queue = self._topic()
        self.fold = self._machine("fold", "wf-fold-machine")
        self.continuous = self._machine("ingest", "wf-continuous", mode="continuous")
        self.deployed = self._machine("ingest", "wf-deployed", mode="continuous", bundle="4567")
        self.drain = self._machine("ingest", "wf-drain", mode="drain")

    def _function(self) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("plan.py", PLAN)
        self.aws.client("lambda").create_function(
            FunctionName="wf-plan", Runtime="python3.13", Role=self.role, Handler="plan.handler",
            Code={"ZipFile": packed.getvalue()},
        )  # fmt: skip

    def _topic(self) -> tuple[str, str]:
        sqs, sns = self.aws.client("sqs"), self.aws.client("sns")
        queue = sqs.create_queue(QueueName="wf-told")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        topic = sns.create_topic(Name="wf-topic")["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        return topic, queue

    def _machine(self, file: str, name: str, mode: str = "", bundle: str = "0123") -> str:
        text = (ROOT / "terraform" / f"{file}_workflow.asl.json").read_text()
        values = {
            "stream_job": "wf-stream", "fold_job": "wf-fold", "plan_function": "wf-plan", "topic": self.topic,
            "mode": mode, "map_concurrency": "2", "bundle": bundle, "fold_state_machine": getattr(self, "fold", ""),
        }  # fmt: skip
        for key, value in values.items():
            text = text.replace(f"${{{key}}}", value)
        assert "${" not in text
        text = text.replace('"Seconds": 30', '"Seconds": 1')  # nobody waits here longer than the stand-ins need
        made = self.states.create_state_machine(name=name, definition=text, roleArn=self.role)
        return str(made["stateMachineArn"])

    def run(self, machine: str, given: Any = None) -> dict[str, Any]:
        started = self.states.start_execution(stateMachineArn=machine, input=json.dumps(given or {}))
        return self.ended(started["executionArn"])

    def ended(self, execution: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while True:
            shown = dict(self.states.describe_execution(executionArn=execution))
            if shown["status"] != "RUNNING":
                return shown
            assert time.monotonic() < deadline, shown
            time.sleep(0.1)

    def told(self) -> list[str]:
        found = self.aws.client("sqs").receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        messages = found.get("Messages", [])
        for message in messages:
            self.aws.client("sqs").delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"])["Message"] for message in messages]

    def runs(self, job: str) -> list[dict[str, Any]]:
        return list(self.glue.get_job_runs(JobName=job)["JobRuns"])


@pytest.fixture(scope="module")
def workflows(local_aws: LocalAws) -> Workflows:
    return Workflows(local_aws)


def test_nothing_due_starts_no_job(workflows: Workflows) -> None:
    """A plan without groups ends at once, and well."""
    assert workflows.run(workflows.fold)["status"] == "SUCCEEDED"
    assert workflows.runs("wf-fold") == []


def test_a_failing_group_leaves_the_others_done_and_is_told(workflows: Workflows) -> None:
    """Both groups run; the execution fails, and the topic is told the table, the error and the run."""
    ended = workflows.run(workflows.fold, {"groups": ["bad.table", "good.table"]})
    assert ended["status"] == "FAILED" and ended["error"] == "FoldFailed"
    states = {run["Arguments"]["--tables"]: run["JobRunState"] for run in workflows.runs("wf-fold")}
    assert states == {"bad.table": "FAILED", "good.table": "SUCCEEDED"}
    (message,) = workflows.told()
    failed = next(run["Id"] for run in workflows.runs("wf-fold") if run["JobRunState"] == "FAILED")
    assert "bad.table" in message and "cannot fold" in message and failed in message


def test_continuous_mode_starts_the_job_once(workflows: Workflows) -> None:
    """With no run alive one is started; with one alive none is; after it died, one is again."""
    for _ in range(2):
        assert workflows.run(workflows.continuous)["status"] == "SUCCEEDED"
    (only,) = workflows.runs("wf-stream")
    workflows.glue.batch_stop_job_run(JobName="wf-stream", JobRunIds=[only["Id"]])
    deadline = time.monotonic() + 40
    while workflows.runs("wf-stream")[0]["JobRunState"] != "STOPPED":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert workflows.run(workflows.continuous)["status"] == "SUCCEEDED"
    assert len(workflows.runs("wf-stream")) == 2
    workflows.glue.batch_stop_job_run(JobName="wf-stream", JobRunIds=[workflows.runs("wf-stream")[0]["Id"]])


def test_a_deployment_replaces_the_run_that_has_the_code_before(workflows: Workflows) -> None:
    """The run of another bundle is stopped and one of the deployed bundle started; then it is left alone."""
    deadline = time.monotonic() + 60
    while any(run["JobRunState"] in ("RUNNING", "STOPPING") for run in workflows.runs("wf-stream")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert workflows.run(workflows.continuous)["status"] == "SUCCEEDED"
    old = workflows.runs("wf-stream")[0]
    assert old["Arguments"]["--bundle"] == "0123"
    while workflows.runs("wf-stream")[0]["Id"] == old["Id"]:
        assert workflows.run(workflows.deployed)["status"] == "SUCCEEDED"
        assert time.monotonic() < deadline
    new = workflows.runs("wf-stream")[0]
    states = {run["Id"]: run["JobRunState"] for run in workflows.runs("wf-stream")}
    assert new["Arguments"]["--bundle"] == "4567" and states[old["Id"]] == "STOPPED"
    count = len(states)
    assert workflows.run(workflows.deployed)["status"] == "SUCCEEDED"
    assert len(workflows.runs("wf-stream")) == count
    workflows.glue.batch_stop_job_run(JobName="wf-stream", JobRunIds=[new["Id"]])


def test_drain_mode_runs_the_job_to_its_end_and_then_the_fold(workflows: Workflows) -> None:
    """The stream job is awaited, for six hours at most, then the fold's state machine is started."""
    deadline = time.monotonic() + 40
    while workflows.runs("wf-stream") and workflows.runs("wf-stream")[0]["JobRunState"] not in ("STOPPED", "FAILED"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = len(workflows.states.list_executions(stateMachineArn=workflows.fold)["executions"])
    assert workflows.run(workflows.drain)["status"] == "SUCCEEDED"
    drained = workflows.runs("wf-stream")[0]
    assert (drained["JobRunState"], drained["Timeout"]) == ("SUCCEEDED", 360)
    assert len(workflows.states.list_executions(stateMachineArn=workflows.fold)["executions"]) == before + 1


def test_the_plan_needs_no_library_of_the_jobs() -> None:
    """The Lambda loads without PyIceberg, Arrow, DuckDB or Spark, none of which its runtime has."""
    blocked = ["pyiceberg", "pyarrow", "duckdb", "pyspark", "datafusion", "numpy"]
    code = f"import sys; sys.modules.update({{name: None for name in {blocked}}}); import glue_streaming.plan_lambda"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
