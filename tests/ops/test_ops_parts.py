"""`headrace status --deployment` finds every part of a deployment, and names the one that was deleted by hand."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from localaws.process import running
from ops import __main__ as command
from ops import parts
from ops.aws import Aws
from ops.errors import OpsError
from ops.names import DYNAMODB_KEYS, Names, databases
from ops.provision import dynamodb_table

NAMES = Names()
JOBS, SCHEDULES = ("headrace-stream", "headrace-fold"), ("headrace-ingest", "headrace-fold")
TRUST = '{"Version": "2012-10-17", "Statement": []}'
NOTHING = '{"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}'
QUEUE, ALARM, RULE, GROUP = "headrace-dead-letters", "headrace-shop-hole", "headrace-job-failed", "/headrace/plan"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """One part of each kind on a server of its own, and the parameter with their names."""
    with running(tmp_path_factory.mktemp("parts"), seconds_per_minute=3600) as server:
        aws = Aws(server.endpoint)
        make_parts(aws)
        yield aws


def make_parts(aws: Aws) -> None:
    aws.client("kinesis").create_stream(StreamName="headrace", ShardCount=2)
    aws.client("s3").create_bucket(Bucket=NAMES.bucket)
    for table in DYNAMODB_KEYS:
        dynamodb_table(aws.client("dynamodb"), table, NAMES.dynamodb(table))
    for database in databases("shop"):
        aws.client("glue").create_database(DatabaseInput={"Name": database})
    role = aws.client("iam").create_role(RoleName="headrace-any", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    for job in JOBS:
        command_line = {"Name": "glueetl", "ScriptLocation": "s3://headrace-lake/jobs/job.py"}
        aws.client("glue").create_job(Name=job, Role=role, Command=command_line)
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("plan.py", "")
    aws.client("lambda").create_function(
        FunctionName="headrace-plan",
        Runtime="python3.13",
        Role=role,
        Handler="plan.handler",
        Code={"ZipFile": code.getvalue()},
    )
    machine = aws.client("stepfunctions").create_state_machine(name="headrace-fold", definition=NOTHING, roleArn=role)
    arn = machine["stateMachineArn"]
    for schedule in SCHEDULES:
        aws.client("scheduler").create_schedule(
            Name=schedule,
            ScheduleExpression="cron(0 0 1 1 ? 2099)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": arn, "RoleArn": role},
        )
    aws.client("athena").create_work_group(Name="headrace")
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    secret = aws.client("secretsmanager").create_secret(Name="headrace/shop", SecretString="x")["Name"]
    topic = aws.client("sns").create_topic(Name=NAMES.topic)["TopicArn"]
    aws.client("sqs").create_queue(QueueName=QUEUE)
    aws.client("logs").create_log_group(logGroupName=GROUP)
    aws.client("events").put_rule(Name=RULE, EventPattern='{"source": ["aws.glue"]}')
    aws.client("events").put_targets(Rule=RULE, Targets=[{"Id": "topic", "Arn": topic}])
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName=ALARM,
        Namespace="Headrace",
        MetricName="OpenHoles",
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
        AlarmDescription="A table misses changes.",
    )
    aws.client("cloudwatch").put_dashboard(DashboardName="headrace", DashboardBody='{"widgets": []}')
    deployment = {
        "name": "headrace",
        "stream": NAMES.stream,
        "bucket": NAMES.bucket,
        "dynamodb_prefix": NAMES.prefix,
        "databases": databases("shop"),
        "jobs": dict(zip(("stream", "fold"), JOBS, strict=True)),
        "function": NAMES.plan_function,
        "workflows": {"fold": arn},
        "schedules": SCHEDULES,
        "workgroup": NAMES.workgroup,
        "roles": {"any": role},
        "key": key,
        "secrets": [secret],
        "topic": topic,
        "dead_letters": QUEUE,
        "log_groups": [GROUP],
        "rules": [RULE],
        "dashboard": "headrace",
        "alarms": [ALARM],
    }
    aws.client("ssm").put_parameter(Name="/headrace/deployment", Type="String", Value=json.dumps(deployment))


def status(aws: Aws, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """The command's exit status, and its parts by kind and name."""
    code = command.main(["status", "--deployment", "headrace", "--endpoint-url", str(aws.endpoint), "--json"])
    found = json.loads(capsys.readouterr().out)
    return code, {f"{part['kind']} {part['name']}": part for part in found}


def test_everything_is_in_place_after_it_was_made(site: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = status(site, capsys)
    assert {name: part["state"] for name, part in found.items() if not part["in_place"]} == {}
    assert code == 0
    assert found["stream headrace"]["state"] == "ACTIVE"
    assert {f"table headrace-{table}" for table in DYNAMODB_KEYS} <= set(found)
    assert {part["kind"] for part in found.values()} >= {"job", "workflow", "schedule", "role", "queue", "alarm"}


DELETIONS: dict[str, Callable[[Aws], Any]] = {
    f"queue {QUEUE}": lambda aws: aws.client("sqs").delete_queue(
        QueueUrl=aws.client("sqs").get_queue_url(QueueName=QUEUE)["QueueUrl"]
    ),
    f"alarm {ALARM}": lambda aws: aws.client("cloudwatch").delete_alarms(AlarmNames=[ALARM]),
    "schedule headrace-fold": lambda aws: aws.client("scheduler").delete_schedule(Name="headrace-fold"),
    "table headrace-shards": lambda aws: aws.client("dynamodb").delete_table(TableName="headrace-shards"),
    "job headrace-fold": lambda aws: aws.client("glue").delete_job(JobName="headrace-fold"),
    "function headrace-plan": lambda aws: aws.client("lambda").delete_function(FunctionName="headrace-plan"),
    f"log group {GROUP}": lambda aws: aws.client("logs").delete_log_group(logGroupName=GROUP),
    "stream headrace": lambda aws: aws.client("kinesis").delete_stream(StreamName="headrace"),
    "dashboard headrace": lambda aws: aws.client("cloudwatch").delete_dashboards(DashboardNames=["headrace"]),
    "database shop_cut": lambda aws: aws.client("glue").delete_database(Name="shop_cut"),
    "role arn:aws:iam::000000000000:role/headrace-any": lambda aws: aws.client("iam").delete_role(
        RoleName="headrace-any"
    ),
    f"rule {RULE}": lambda aws: (
        aws.client("events").remove_targets(Rule=RULE, Ids=["topic"]),
        aws.client("events").delete_rule(Name=RULE),
    ),
    "workgroup headrace": lambda aws: aws.client("athena").delete_work_group(
        WorkGroup="headrace", RecursiveDeleteOption=True
    ),
}


def missing(found: dict[str, Any]) -> set[str]:
    return {name for name, part in found.items() if part["state"] == parts.MISSING}


def test_what_was_deleted_by_hand_is_named(site: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    """A single part, and then one of every kind; no other is said to be missing."""
    first, *others = DELETIONS
    DELETIONS[first](site)
    code, found = status(site, capsys)
    assert (code, missing(found)) == (1, {first})
    assert found[first]["hint"]
    for name in others:
        DELETIONS[name](site)
    code, found = status(site, capsys)
    assert (code, missing(found)) == (1, set(DELETIONS))


def test_people_read_what_is_missing(site: Aws) -> None:
    found = [parts.Part("queue", "letters", parts.MISSING, False), parts.Part("alarm", "a-hole", "ALARM", True)]
    assert parts.summary(found) == "1 of 2 parts are not in place: queue letters (MISSING); alarms raised: a-hole"


def test_unknown_deployment_is_an_error_with_a_remedy(site: Aws) -> None:
    with pytest.raises(OpsError, match=r"/other/deployment.*terraform apply"):
        parts.read_deployment(site, "other")


def test_disabled_schedule_is_not_in_place(site: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    scheduler = site.client("scheduler")
    kept = scheduler.get_schedule(Name="headrace-ingest")
    names = ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")
    scheduler.update_schedule(**{name: kept[name] for name in names}, State="DISABLED")
    _, found = status(site, capsys)
    assert (found["schedule headrace-ingest"]["state"], found["schedule headrace-ingest"]["in_place"]) == (
        "DISABLED",
        False,
    )


def test_parts_that_a_deployment_does_not_have_are_not_asked_for() -> None:
    assert list(parts.wanted({"stream": "s", "dashboard": None, "alarms": []})) == [parts.Wanted("stream", "s")]
