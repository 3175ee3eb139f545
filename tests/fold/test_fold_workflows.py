"""The two state machines, run by the laptop's Step Functions.

Jobs are stand-ins that only look at their arguments, beside the real fold job on real tables. The planning function is
the real one, but for events that name their groups.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from glue_streaming.fold.failing import note, read_failing, standing
from localaws.process import LocalAws
from ops import artefacts

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 300
PLAN = """
from glue_streaming.plan_lambda import handler as real

def handler(event, context):
    if event.get("broken"):
        raise ValueError("the settings cannot be read")
    if "groups" not in event:
        return real(event, context)
    common = {"kind": "auto", "workers": 2, "attempt": event.get("attempt", 1)}
    groups = [{"tables": name, **common} for name in event["groups"]]
    return {"groups": groups, "due": len(groups), "concurrency": event.get("concurrency", 2)}
"""
JOB = """
import sys, time

given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
tables = given.get("--tables", "").split(",")
if "slow.table" in tables:
    time.sleep(1.5)
if given.get("--mode") == "continuous":
    time.sleep(600)
bad = [name for name in tables if name.startswith("bad.")]
if bad:
    sys.exit(f"not folded: {', '.join(bad)} | " + "; ".join(f"{name}: ValueError: cannot fold it" for name in bad))
"""
REAL_JOB = """
import pathlib, sys, time

from glue_streaming import failpoints, fold_job

control = pathlib.Path("FOLDER") / "control"
order = control.read_text() if control.exists() else ""
control.unlink(missing_ok=True)
if order == "hang":
    time.sleep(600)
failpoints.arm(order)
words = fold_job.main(sys.argv[1:])
if words:
    sys.exit(words)
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

    def __init__(self, aws: LocalAws, folder: Path) -> None:
        self.aws, self.states, self.glue = aws, aws.client("stepfunctions"), aws.client("glue")
        self.role = aws.client("iam").create_role(RoleName="wf", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        s3 = aws.client("s3")
        s3.create_bucket(Bucket="wf-code")
        s3.put_object(Bucket="wf-code", Key="job.py", Body=JOB.encode())
        s3.put_object(Bucket="wf-code", Key="real.py", Body=REAL_JOB.replace("FOLDER", str(folder)).encode())
        s3.put_object(Bucket="wf-code", Key="headrace.zip", Body=artefacts.packages_zip())
        self.control = folder / "control"
        self._job("wf-stream", "job.py")
        self._job("wf-fold", "job.py")
        self._job("wf-alone", "job.py", runs=1)
        self._job(
            "wf-real", "real.py", **{"--extra-py-files": "s3://wf-code/headrace.zip", "--fold_horizon_seconds": "5"}
        )
        self._function("wf-plan", JOB="wf-fold", LOG_GROUP="/aws-glue/jobs/error")
        self._function("wf-plan-real", JOB="wf-real", LOG_GROUP="/aws-glue/jobs/error", FOLD_HORIZON_SECONDS="5")
        self.topic, self.queue = self._topic()
        self.fold = self._machine("fold", "wf-fold-machine")
        self.alone = self._machine("fold", "wf-alone-machine", fold_job="wf-alone")
        self.real = self._machine("fold", "wf-real-machine", fold_job="wf-real", plan_function="wf-plan-real")
        self.continuous = self._machine("ingest", "wf-continuous", mode="continuous")
        self.deployed = self._machine("ingest", "wf-deployed", mode="continuous", bundle="4567")
        self.drain = self._machine("ingest", "wf-drain", mode="drain")

    def _job(self, name: str, script: str, runs: int = 2, **arguments: str) -> None:
        self.glue.create_job(
            Name=name, Role=self.role, GlueVersion="5.0", ExecutionProperty={"MaxConcurrentRuns": runs},
            Command={"Name": "glueetl", "ScriptLocation": f"s3://wf-code/{script}", "PythonVersion": "3"},
            DefaultArguments=arguments,
        )  # fmt: skip

    def _function(self, name: str, **environment: str) -> None:
        packed = io.BytesIO(artefacts.packages_zip())
        with zipfile.ZipFile(packed, "a") as archive:
            archive.writestr("plan.py", PLAN)
        self.aws.client("lambda").create_function(
            FunctionName=name, Runtime="python3.13", Role=self.role, Handler="plan.handler",
            Code={"ZipFile": packed.getvalue()}, Environment={"Variables": environment}, Timeout=60,
        )  # fmt: skip

    def _topic(self) -> tuple[str, str]:
        sqs, sns = self.aws.client("sqs"), self.aws.client("sns")
        queue = sqs.create_queue(QueueName="wf-told")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        topic = sns.create_topic(Name="wf-topic")["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        return topic, queue

    def _machine(self, file: str, name: str, **more: str) -> str:
        text = (ROOT / "terraform" / f"{file}_workflow.asl.json").read_text()
        values = {
            "stream_job": "wf-stream", "fold_job": "wf-fold", "plan_function": "wf-plan", "topic": self.topic,
            "mode": "", "bundle": "0123", "worker_type": "G.1X", "fold_state_machine": getattr(self, "fold", ""),
            **more,
        }  # fmt: skip
        for key, value in values.items():
            text = text.replace(f"${{{key}}}", value)
        assert "${" not in text
        made = self.states.create_state_machine(name=name, definition=text, roleArn=self.role)
        return str(made["stateMachineArn"])

    def start(self, machine: str, given: Any = None) -> str:
        started = self.states.start_execution(stateMachineArn=machine, input=json.dumps(given or {}))
        return str(started["executionArn"])

    def run(self, machine: str, given: Any = None) -> dict[str, Any]:
        return self.ended(self.start(machine, given))

    def ended(self, execution: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
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

    def of(self, job: str, tables: str) -> list[dict[str, Any]]:
        """The job's runs on any of these tables, oldest first."""
        wanted = set(tables.split(","))
        return [run for run in reversed(self.runs(job)) if wanted & set(run["Arguments"]["--tables"].split(","))]

    def until(self, found: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (value := found()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return value

    def process(self, run: dict[str, Any]) -> int:
        """The process of a run on this machine."""
        file = self.aws.state_folder / "glue_runs" / run["Id"] / "run.json"
        return int(self.until(lambda: json.loads(file.read_text())["process_id"]))


@pytest.fixture(scope="module")
def workflows(local_aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Workflows:
    return Workflows(local_aws, tmp_path_factory.mktemp("orders"))


@pytest.fixture
def ready(make_table: Any, complete_snapshot: Any) -> Callable[..., Any]:
    """A table whose snapshot of one row is complete, so that it is due for its activation."""

    def make(announced_rows: int = 1) -> Any:
        lake = make_table()
        lake.append(
            [lake.row("r", 9, 0, "staged", id=1, name="a"), lake.row("u", 15, id=1, name="b")],
            {1: complete_snapshot(8, (10, announced_rows))},
        )
        lake.publish(20, 100.0)
        return lake

    return make


def folds(lake: Any) -> int:
    """How many folds were committed to the table."""
    return sum("headrace.fold" in (item.summary or {}).additional_properties for item in lake.load().metadata.snapshots)


def names(lakes: Sequence[Any]) -> str:
    return ",".join(f"{lake.source}.{lake.table}" for lake in lakes)


def test_nothing_due_starts_no_job(workflows: Workflows) -> None:
    """A plan without groups ends at once, and well."""
    assert workflows.run(workflows.fold)["status"] == "SUCCEEDED"
    assert workflows.runs("wf-fold") == []


def test_a_failing_table_leaves_the_others_done_and_is_tried_again_and_told(workflows: Workflows) -> None:
    """Both groups run; of the failing one only the failing table is tried again, three times in all; then the topic is
    told the table, the error, the run and where its log is, and the execution fails."""
    ended = workflows.run(workflows.fold, {"groups": ["bad.table,fine.table", "good.table"]})
    assert (ended["status"], ended["error"]) == ("FAILED", "FoldFailed")
    tried = [(run["Arguments"]["--tables"], run["JobRunState"]) for run in workflows.of("wf-fold", "bad.table")]
    assert tried == [("bad.table,fine.table", "FAILED"), ("bad.table", "FAILED"), ("bad.table", "FAILED")]
    assert [run["JobRunState"] for run in workflows.of("wf-fold", "good.table")] == ["SUCCEEDED"]
    (message,) = workflows.told()
    last = workflows.of("wf-fold", "bad.table")[-1]["Id"]
    lines = dict(line.split(": ", 1) for line in message.splitlines()[:-1])
    assert lines["Not folded"] == "bad.table"
    assert lines["Error"] == "bad.table: ValueError: cannot fold it"
    assert lines["Job run"] == f"{last} (FAILED)"
    assert lines["Log"].endswith(f"log-group/$252Faws-glue$252Fjobs$252Ferror/log-events/{last}")
    assert lines["Execution"] == ended["executionArn"]


def test_the_log_that_the_message_links_to_is_there(workflows: Workflows) -> None:
    """The group and the stream of the link hold the run's error."""
    run = workflows.of("wf-fold", "bad.table")[-1]["Id"]
    found = workflows.aws.client("logs").get_log_events(logGroupName="/aws-glue/jobs/error", logStreamName=run)
    assert any("cannot fold it" in event["message"] for event in found["events"])


def test_a_plan_that_fails_is_told(workflows: Workflows) -> None:
    """No job runs; the topic gets the error, and the execution fails with it."""
    before = len(workflows.runs("wf-fold"))
    ended = workflows.run(workflows.fold, {"broken": True})
    assert (ended["status"], ended["error"]) == ("FAILED", "FoldFailed")
    (message,) = workflows.told()
    assert "ValueError" in message and "the settings cannot be read" in message
    assert len(workflows.runs("wf-fold")) == before


def test_a_run_that_glue_has_no_place_for_is_waited_for(workflows: Workflows) -> None:
    """One run at a time and two groups at once: the second is started when the first has ended, and no attempt counts
    as failed meanwhile."""
    groups = ["slow.table,first.table", "slow.table,second.table"]
    ended = workflows.run(workflows.alone, {"groups": groups, "attempt": 3})
    assert ended["status"] == "SUCCEEDED"
    first, second = reversed(workflows.runs("wf-alone"))
    assert (first["JobRunState"], second["JobRunState"]) == ("SUCCEEDED", "SUCCEEDED")
    assert first["CompletedOn"] <= second["StartedOn"]


def test_no_more_runs_side_by_side_than_the_plan_says(workflows: Workflows) -> None:
    """The Map's concurrency comes from the plan, which takes it from the settings."""
    given = {"groups": [f"slow.table,one.table_{n}" for n in range(3)], "concurrency": 1}
    assert workflows.run(workflows.fold, given)["status"] == "SUCCEEDED"
    runs = workflows.of("wf-fold", ",".join(f"one.table_{n}" for n in range(3)))
    assert len(runs) == 3
    assert all(first["CompletedOn"] <= second["StartedOn"] for first, second in itertools.pairwise(runs))


def test_five_hundred_tables_fit_through_the_workflow(workflows: Workflows) -> None:
    """With names as long as they may be, 25 groups pass every state's limit, and each is folded."""
    tables = [f"{'s' * 41}.{'n' * 120}_{n:03}" for n in range(500)]
    groups = [",".join(tables[n : n + 20]) for n in range(0, 500, 20)]
    ended = workflows.run(workflows.fold, {"groups": groups})
    assert ended["status"] == "SUCCEEDED", ended
    assert len(workflows.of("wf-fold", ",".join(tables))) == 25


def test_the_real_fold_of_one_table_fails_and_the_others_are_done(workflows: Workflows, ready: Any) -> None:
    """In one run, three tables: one that cannot be folded is tried again alone, one that is paused is left alone, one
    is folded although the first run failed."""
    good, broken, paused = ready(), ready(announced_rows=2), ready()
    workflows.aws.client("dynamodb").put_item(
        TableName="headrace-tables", Item={"table": {"S": names([paused])}, "paused": {"BOOL": True}}
    )
    execution = workflows.start(workflows.real, {"sources": [broken.source, good.source, paused.source]})
    ended = workflows.ended(execution)
    assert ended["status"] == "FAILED"
    first, *again = [run["Arguments"]["--tables"] for run in workflows.of("wf-real", names([broken]))]
    assert set(first.split(",")) == {names([broken]), names([good])}
    assert again == [names([broken])] * 2
    assert (folds(good), folds(broken), folds(paused)) == (1, 0, 0)
    assert [row["name"] for row in good.rows("base")] == ["b"]
    (message,) = workflows.told()
    assert f"Not folded: {names([broken])}" in message
    assert "SnapshotUnusable" in message


def test_a_table_that_always_fails_is_left_alone_longer_each_time(workflows: Workflows, ready: Any) -> None:
    """Three runs in the first execution, none in those of the pause behind it, one in the first after that; asked for,
    it is tried at once; and once it was folded it is tried as any other."""
    broken, table_name, dynamodb = ready(announced_rows=2), "headrace-tables", workflows.aws.client("dynamodb")
    given, table = {"sources": [broken.source]}, names([broken])

    def let_the_pause_pass() -> None:
        found = read_failing(dynamodb, table_name)[table]
        note(dynamodb, table_name, table, replace(found, at=found.at - timedelta(hours=1)))

    assert workflows.run(workflows.real, given)["status"] == "FAILED"
    assert len(workflows.of("wf-real", table)) == 3
    paused = workflows.run(workflows.real, given)
    assert json.loads(paused["output"])["planned"]["plan"]["left_alone"]["failing"] == 1
    assert len(workflows.of("wf-real", table)) == 3
    let_the_pause_pass()
    assert workflows.run(workflows.real, given)["status"] == "FAILED"
    assert len(workflows.of("wf-real", table)) == 4
    found = read_failing(dynamodb, table_name)[table]
    assert (found.times, "SnapshotUnusable" in found.error) == (2, True)
    assert len(workflows.told()) == 2
    assert workflows.run(workflows.real, given | {"kind": "minor"})["status"] == "FAILED"
    assert len(workflows.of("wf-real", table)) == 5
    workflows.told()
    broken.append([broken.row("r", 9, 1, "staged", id=2, name="c")])
    assert workflows.run(workflows.real, given | {"kind": "minor"})["status"] == "SUCCEEDED"
    assert folds(broken) == 1
    parameters = {table: broken.load().properties}
    assert table in read_failing(dynamodb, table_name) and not standing(read_failing(dynamodb, table_name), parameters)


def test_a_fold_killed_half_way_is_repaired_in_the_same_execution(workflows: Workflows, ready: Any) -> None:
    """kill -9 when the manifests are written and the catalog does not know: the next attempt folds, once."""
    lake = ready()
    workflows.control.write_text("commit.staged")
    assert workflows.run(workflows.real, {"sources": [lake.source]})["status"] == "SUCCEEDED"
    assert [run["JobRunState"] for run in workflows.of("wf-real", names([lake]))] == ["FAILED", "SUCCEEDED"]
    assert (folds(lake), len(lake.rows("base")), len(lake.rows("history"))) == (1, 1, 2)


def test_an_execution_that_is_stopped_is_repaired_by_the_next(workflows: Workflows, ready: Any) -> None:
    """StopExecution stops the run with it, and tells nobody of a fold that failed; the next execution folds."""
    lake = ready()
    workflows.control.write_text("hang")
    execution = workflows.start(workflows.real, {"sources": [lake.source]})
    workflows.until(lambda: not workflows.control.exists())
    workflows.states.stop_execution(executionArn=execution)
    assert workflows.ended(execution)["status"] == "ABORTED"
    workflows.until(lambda: workflows.of("wf-real", names([lake]))[0]["JobRunState"] == "STOPPED")
    assert workflows.run(workflows.real, {"sources": [lake.source]})["status"] == "SUCCEEDED"
    assert (folds(lake), len(lake.rows("base"))) == (1, 1)
    assert workflows.told() == []


def test_an_execution_that_overlaps_another_does_nothing_twice(workflows: Workflows, ready: Any) -> None:
    """A table that a run is on is left alone, and said so; the others are folded meanwhile."""
    busy, free = ready(), ready()
    workflows.control.write_text("hang")
    first = workflows.start(workflows.real, {"sources": [busy.source]})
    workflows.until(lambda: not workflows.control.exists())
    second = workflows.run(workflows.real, {"sources": [busy.source, free.source]})
    assert second["status"] == "SUCCEEDED"
    assert json.loads(second["output"])["planned"]["plan"]["left_alone"] == {"paused": 0, "running": 1, "failing": 0}
    assert (folds(busy), folds(free)) == (0, 1)
    (run,) = workflows.of("wf-real", names([busy]))
    os.kill(workflows.process(run), signal.SIGKILL)
    assert workflows.ended(first)["status"] == "SUCCEEDED"
    assert (folds(busy), len(busy.rows("base")), len(busy.rows("history"))) == (1, 1, 2)


def test_continuous_mode_starts_the_job_once(workflows: Workflows) -> None:
    """With no run alive one is started; with one alive none is; after it died, one is again."""
    for _ in range(2):
        assert workflows.run(workflows.continuous)["status"] == "SUCCEEDED"
    (only,) = workflows.runs("wf-stream")
    workflows.glue.batch_stop_job_run(JobName="wf-stream", JobRunIds=[only["Id"]])
    workflows.until(lambda: workflows.runs("wf-stream")[0]["JobRunState"] == "STOPPED")
    assert workflows.run(workflows.continuous)["status"] == "SUCCEEDED"
    assert len(workflows.runs("wf-stream")) == 2
    workflows.glue.batch_stop_job_run(JobName="wf-stream", JobRunIds=[workflows.runs("wf-stream")[0]["Id"]])


def test_a_deployment_replaces_the_run_that_has_the_code_before(workflows: Workflows) -> None:
    """The run of another bundle is stopped and one of the deployed bundle started; then it is left alone."""
    alive = ("RUNNING", "STOPPING")
    workflows.until(lambda: all(run["JobRunState"] not in alive for run in workflows.runs("wf-stream")))
    assert workflows.run(workflows.continuous)["status"] == "SUCCEEDED"
    old = workflows.runs("wf-stream")[0]
    assert old["Arguments"]["--bundle"] == "0123"

    def replaced() -> bool:
        assert workflows.run(workflows.deployed)["status"] == "SUCCEEDED"
        return bool(workflows.runs("wf-stream")[0]["Id"] != old["Id"])

    workflows.until(replaced)
    new = workflows.runs("wf-stream")[0]
    states = {run["Id"]: run["JobRunState"] for run in workflows.runs("wf-stream")}
    assert new["Arguments"]["--bundle"] == "4567" and states[old["Id"]] == "STOPPED"
    count = len(states)
    assert workflows.run(workflows.deployed)["status"] == "SUCCEEDED"
    assert len(workflows.runs("wf-stream")) == count
    workflows.glue.batch_stop_job_run(JobName="wf-stream", JobRunIds=[new["Id"]])


def test_drain_mode_runs_the_job_to_its_end_and_then_the_fold(workflows: Workflows) -> None:
    """The stream job is awaited, for six hours at most, then the fold's state machine is started."""
    ended = ("STOPPED", "FAILED")
    workflows.until(lambda: all(run["JobRunState"] in ended for run in workflows.runs("wf-stream")[:1]))
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
