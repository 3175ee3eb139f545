"""Step Functions on the laptop: jobs and functions awaited, errors caught, maps, and stops that reach the job."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from localaws import workflows
from localaws.process import LocalAws

FUNCTION = """
import boto3
def handler(event, context):
    if "fail" in event:
        raise ValueError(event["fail"])
    return {"groups": [{"n": "1"}, {"n": "2"}, {"n": "3"}], "who": boto3.client("sts").get_caller_identity()["Arn"]}
"""
SCRIPT = """
import sys, time
if "--fail" in sys.argv:
    raise ValueError("no")
if "--sleep" in sys.argv:
    time.sleep(300)
"""
JOB = "arn:aws:states:::glue:startJobRun.sync"


class Machines:
    """State machines of one server: made, run and looked at."""

    def __init__(self, server: LocalAws, role: str, until: Callable[..., Any]) -> None:
        self.states = server.client("stepfunctions")
        self.glue = server.client("glue")
        self.role, self.until, self.count = role, until, 0

    def start(self, given: Any = None, **states: Any) -> str:
        self.count += 1
        definition = json.dumps({"StartAt": next(iter(states)), "States": states})
        machine = self.states.create_state_machine(name=f"m{self.count}", definition=definition, roleArn=self.role)
        arn = machine["stateMachineArn"]
        return str(self.states.start_execution(stateMachineArn=arn, input=json.dumps(given or {}))["executionArn"])

    def ended(self, execution: str) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            return dict(self.states.describe_execution(executionArn=execution))

        return dict(self.until(look, lambda shown: shown["status"] != "RUNNING"))

    def output(self, given: Any = None, **states: Any) -> Any:
        ended = self.ended(self.start(given, **states))
        assert ended["status"] == "SUCCEEDED", ended
        return json.loads(ended["output"])

    def last_run(self) -> dict[str, Any]:
        return dict(self.glue.get_job_runs(JobName="job", MaxResults=1)["JobRuns"][0])


def job_task(**more: Any) -> dict[str, Any]:
    arguments = more.pop("Arguments", {})
    return {
        "Type": "Task",
        "Resource": JOB,
        "Parameters": {"JobName": "job", "Arguments": arguments},
        "End": True,
    } | more


@pytest.fixture(scope="module")
def machines(
    guarded: LocalAws, make_role: Callable[..., str], zipped: Callable[..., bytes], until: Callable[..., Any]
) -> Machines:
    """A server that enforces IAM, with a job and a function; the machines may use both."""
    s3 = guarded.client("s3")
    s3.create_bucket(Bucket="workflow-code")
    s3.put_object(Bucket="workflow-code", Key="job.py", Body=SCRIPT.encode())
    s3.put_object(Bucket="workflow-code", Key="function.zip", Body=zipped({"function.py": FUNCTION}))
    guarded.client("glue").create_job(
        Name="job",
        Role=make_role(guarded, "workflow-job", "glue.amazonaws.com", ["s3:GetObject"]),
        Command={"Name": "glueetl", "ScriptLocation": "s3://workflow-code/job.py"},
        ExecutionProperty={"MaxConcurrentRuns": 2},
    )
    guarded.client("lambda").create_function(
        FunctionName="plan",
        Runtime="python3.13",
        Role=make_role(guarded, "workflow-plan", "lambda.amazonaws.com", ["sts:GetCallerIdentity"]),
        Handler="function.handler",
        Code={"S3Bucket": "workflow-code", "S3Key": "function.zip"},
        Timeout=30,
    )
    actions = ["glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun", "lambda:InvokeFunction"]
    actions += ["states:StartExecution", "states:DescribeExecution", "states:StopExecution", "sns:Publish"]
    return Machines(guarded, make_role(guarded, "workflow", "states.amazonaws.com", actions), until)


def test_sync_gives_the_run_when_it_has_succeeded(machines: Machines) -> None:
    run = machines.output(Run=job_task())
    assert (run["JobRunState"], run["JobName"]) == ("SUCCEEDED", "job")
    assert isinstance(run["StartedOn"], int)


def test_failed_run_is_a_task_failure_whose_cause_is_the_run(machines: Machines) -> None:
    """And a Catch gets it."""
    catch = [{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.error", "Next": "Caught"}]
    run = job_task(Arguments={"--fail": "1"}, Catch=catch)
    output = machines.output(Run=run, Caught={"Type": "Pass", "End": True})
    cause = json.loads(output["error"]["Cause"])
    assert (cause["JobRunState"], cause["ErrorMessage"]) == ("FAILED", "ValueError: no")


def test_retry_starts_the_job_again(machines: Machines) -> None:
    before = len(machines.glue.get_job_runs(JobName="job")["JobRuns"])
    retry = [{"ErrorEquals": ["States.TaskFailed"], "IntervalSeconds": 0, "MaxAttempts": 2}]
    ended = machines.ended(machines.start(Run=job_task(Arguments={"--fail": "1"}, Retry=retry)))
    assert (ended["status"], ended["error"]) == ("FAILED", "States.TaskFailed")
    assert len(machines.glue.get_job_runs(JobName="job")["JobRuns"]) == before + 3


def test_plan_then_map_over_groups_with_as_many_jobs_as_allowed(machines: Machines) -> None:
    """A function's groups, a job each, two at a time; the job's own limit of two is never passed."""
    plan = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": "plan", "Payload": {}},
        "ResultSelector": {"groups.$": "$.Payload.groups", "who.$": "$.Payload.who"},
        "Next": "Choose",
    }
    choose = {
        "Type": "Choice",
        "Choices": [{"Variable": "$.groups[0]", "IsPresent": True, "Next": "Each"}],
        "Default": "Nothing",
    }
    item = job_task(Parameters={"JobName": "job", "Arguments": {"--n.$": "$.n"}})
    each = {
        "Type": "Map",
        "ItemsPath": "$.groups",
        "MaxConcurrency": 2,
        "ItemProcessor": {"StartAt": "Run", "States": {"Run": item}},
        "ResultPath": "$.runs",
        "End": True,
    }
    output = machines.output(Plan=plan, Choose=choose, Each=each, Nothing={"Type": "Succeed"})
    assert [run["Arguments"] for run in output["runs"]] == [{"--n": "1"}, {"--n": "2"}, {"--n": "3"}]
    assert ":assumed-role/workflow-plan/" in output["who"]


def test_function_error_can_be_caught_by_its_type(machines: Machines) -> None:
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": "plan", "Payload": {"fail": "bad plan"}},
        "Catch": [{"ErrorEquals": ["ValueError"], "Next": "Caught"}],
        "End": True,
    }
    assert "bad plan" in machines.output(Run=task, Caught={"Type": "Pass", "End": True})["Cause"]


def test_sdk_integration_looks_at_a_jobs_runs(machines: Machines) -> None:
    """What the ingest workflow asks before it starts a streaming job."""
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:glue:getJobRuns",
        "Parameters": {"JobName": "job", "MaxResults": 5},
        "ResultSelector": {"active.$": "$.JobRuns[?(@.JobRunState == 'RUNNING')]", "runs.$": "$.JobRuns"},
        "End": True,
    }
    machines.output(Run=job_task())
    output = machines.output(Look=task)
    assert output["active"] == []
    assert output["runs"][0]["JobRunState"] == "SUCCEEDED"
    assert output["runs"][0]["StartedOn"].endswith("Z")


def test_stopping_the_execution_stops_its_job(machines: Machines) -> None:
    """Retry and Catch do not see it, and the execution stays ABORTED."""
    retry = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 0}]
    execution = machines.start(Run=job_task(Arguments={"--sleep": "1"}, Retry=retry))
    machines.until(machines.last_run, lambda run: run["JobRunState"] == "RUNNING")
    runs = len(machines.glue.get_job_runs(JobName="job")["JobRuns"])
    machines.states.stop_execution(executionArn=execution)
    machines.until(machines.last_run, lambda run: run["JobRunState"] == "STOPPED")
    assert len(machines.glue.get_job_runs(JobName="job")["JobRuns"]) == runs
    assert machines.ended(execution)["status"] == "ABORTED"


def test_timeout_of_the_state_stops_its_job(machines: Machines) -> None:
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "Caught"}]
    run = job_task(Arguments={"--sleep": "1"}, TimeoutSeconds=2, Catch=catch)
    machines.output(Run=run, Caught={"Type": "Pass", "End": True})
    machines.until(machines.last_run, lambda run: run["JobRunState"] == "STOPPED")


def test_nested_execution_is_awaited(machines: Machines) -> None:
    """.sync:2 gives the child's output as JSON."""
    child = machines.start(given={"x": 1}, Only={"Type": "Pass", "End": True})
    machine = machines.states.describe_execution(executionArn=child)["stateMachineArn"]
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution.sync:2",
        "Parameters": {"StateMachineArn": machine, "Input": {"y.$": "$.y"}},
        "End": True,
    }
    assert machines.output({"y": 2}, Run=task)["Output"] == {"y": 2}


def test_role_without_the_right_fails_the_task(
    machines: Machines, guarded: LocalAws, make_role: Callable[..., str], until: Callable[..., Any]
) -> None:
    """IAM judges what a state machine does, by its own role."""
    poor = Machines(guarded, make_role(guarded, "poor", "states.amazonaws.com", ["glue:GetJobRuns"]), until)
    poor.count = 1000
    ended = poor.ended(poor.start(Run=job_task()))
    assert ended["status"] == "FAILED"
    assert ended["error"] == "Glue.AccessDeniedException"
    assert "glue:StartJobRun" in ended["cause"]


@pytest.mark.parametrize(
    ("resource", "parsed"),
    [
        ("arn:aws:states:::glue:startJobRun.sync", ("glue", "startJobRun", True)),
        ("arn:aws:states:::states:startExecution.sync:2", ("states", "startExecution", True)),
        ("arn:aws:states:::aws-sdk:glue:getJobRuns", ("aws-sdk:glue", "getJobRuns", False)),
        ("arn:aws:states:::sns:publish", ("sns", "publish", False)),
    ],
)
def test_resource_is_read(resource: str, parsed: tuple[str, str, bool]) -> None:
    assert workflows.parse_resource(resource) == parsed
    assert workflows.handles(resource)
