"""The applied infrastructure: a second plan is empty, and each role is refused what is not its business."""

from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ops import terraform

REFUSALS = ("AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation")
ACCOUNT, REGION = "000000000000", "us-east-1"
BUCKET, STREAM, OTHER_STREAM = "headrace-lake", "headrace", "payments"
MACHINES = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine"
ROLES = f"arn:aws:iam::{ACCOUNT}:role"
DEAD_LETTERS = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/headrace-dead-letters"
TOPICS = f"arn:aws:sns:{REGION}:{ACCOUNT}"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(terraform.missing() is not None, reason=str(terraform.missing())),
]


@dataclass(frozen=True)
class Call:
    """One call of an API, and the action that IAM must refuse for it."""

    service: str
    method: str
    arguments: dict[str, Any]
    action: str

    def __str__(self) -> str:
        return self.action


def call(action: str, method: str, *, service: str = "", **arguments: Any) -> Call:
    return Call(service or _CLIENTS.get(action.partition(":")[0], action.partition(":")[0]), method, arguments, action)


_CLIENTS = {"states": "stepfunctions"}
_RECORDS = [{"Data": b"x", "PartitionKey": "k"}]
_JOB = {"Command": {"Name": "glueetl", "ScriptLocation": "s3://headrace-lake/jobs/x.py"}}


def put_records(stream: str) -> Call:
    return call("kinesis:PutRecords", "put_records", StreamName=stream, Records=_RECORDS)


def read_stream(stream: str) -> Call:
    arguments = {"ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    return call("kinesis:GetShardIterator", "get_shard_iterator", StreamName=stream, **arguments)


def set_shards(stream: str, count: int) -> Call:
    target = {"TargetShardCount": count, "ScalingType": "UNIFORM_SCALING"}
    return call("kinesis:UpdateShardCount", "update_shard_count", StreamName=stream, **target)


def get_object(key: str, bucket: str = BUCKET) -> Call:
    return call("s3:GetObject", "get_object", Bucket=bucket, Key=key)


def put_object(key: str, bucket: str = BUCKET) -> Call:
    return call("s3:PutObject", "put_object", Bucket=bucket, Key=key, Body=b"")


def delete_object(key: str) -> Call:
    return call("s3:DeleteObject", "delete_object", Bucket=BUCKET, Key=key)


def put_item(table: str, **item: str) -> Call:
    values = {name: {"N" if name == "version" else "S": value} for name, value in item.items()}
    return call("dynamodb:PutItem", "put_item", TableName=f"headrace-{table}", Item=values)


def query_items(table: str, key: str, value: str) -> Call:
    condition = {"KeyConditionExpression": f"{key} = :v", "ExpressionAttributeValues": {":v": {"S": value}}}
    return call("dynamodb:Query", "query", TableName=f"headrace-{table}", **condition)


def update_table(database: str, table: str = "accounts") -> Call:
    return call("glue:UpdateTable", "update_table", DatabaseName=database, TableInput={"Name": table})


def drop_table(database: str, table: str = "accounts") -> Call:
    return call("glue:DeleteTable", "delete_table", DatabaseName=database, Name=table)


def start_run(job: str) -> Call:
    return call("glue:StartJobRun", "start_job_run", JobName=job)


def start_machine(name: str) -> Call:
    return call("states:StartExecution", "start_execution", stateMachineArn=f"{MACHINES}:{name}")


def read_password(source: str) -> Call:
    return call("secretsmanager:GetSecretValue", "get_secret_value", SecretId=f"headrace/database/{source}")


def publish(topic: str) -> Call:
    return call("sns:Publish", "publish", TopicArn=f"{TOPICS}:{topic}", Message="m")


def pass_role(role: str) -> Call:
    return call("glue:CreateJob", "create_job", Name="mine", Role=f"{ROLES}/headrace-{role}", **_JOB)


def raise_rights(role: str) -> Call:
    document = '{"Version": "2012-10-17", "Statement": []}'
    names = {"RoleName": f"headrace-{role}", "PolicyName": "more", "PolicyDocument": document}
    return call("iam:PutRolePolicy", "put_role_policy", **names)


def take_on(role: str) -> Call:
    return call("sts:AssumeRole", "assume_role", RoleArn=f"{ROLES}/headrace-{role}", RoleSessionName="other")


def nobody_may(role: str) -> list[Call]:
    """What no part of the pipeline may do, each from the part's own session."""
    return [
        call("s3:DeleteBucket", "delete_bucket", Bucket=BUCKET),
        call("s3:PutBucketPolicy", "put_bucket_policy", Bucket=BUCKET, Policy="{}"),
        call("kms:DisableKey", "disable_key", KeyId="alias/headrace"),
        call("kms:ScheduleKeyDeletion", "schedule_key_deletion", KeyId="alias/headrace"),
        call("kinesis:DeleteStream", "delete_stream", StreamName=STREAM),
        call("dynamodb:DeleteTable", "delete_table", TableName="headrace-schemas"),
        call("glue:DeleteDatabase", "delete_database", Name="shop_lake"),
        call("lambda:UpdateFunctionCode", "update_function_code", FunctionName="headrace-plan", ZipFile=b"x"),
        call("logs:DeleteLogGroup", "delete_log_group", logGroupName="/aws/lambda/headrace-plan"),
        call("cloudwatch:DeleteAlarms", "delete_alarms", AlarmNames=["headrace-anything"]),
        drop_table("shop_lake"),
        pass_role("fold-job"),
        raise_rights(role),
        take_on("fold-job" if role != "fold-job" else "stream-job"),
    ]


DENIED: dict[str, list[Call]] = {
    "agent-shop": [
        put_records(OTHER_STREAM),
        read_stream(STREAM),
        put_object("claims/crm/x"),
        put_object("lake/shop/accounts/x.parquet"),
        get_object("lake/shop/accounts/x.parquet"),
        put_item("schemas", subject="crm.accounts", version="1"),
        put_item("settings", job="headrace-stream", name="pause", value="true"),
        query_items("sources", "source", "crm"),
        read_password("crm"),
        start_run("headrace-stream"),
        call("glue:GetTable", "get_table", DatabaseName="shop_cut", Name="watermark"),
        call("kms:Decrypt", "decrypt", KeyId="alias/headrace", CiphertextBlob=b"x"),
    ],
    "stream-job": [
        put_records(STREAM),
        read_stream(OTHER_STREAM),
        get_object("results/secret.csv"),
        put_object("jobs/other-code.zip"),
        delete_object("lake/shop/accounts/x.parquet"),
        update_table("payments"),
        call("glue:CreateTable", "create_table", DatabaseName="shop", TableInput={"Name": "mine"}),
        call("glue:DeleteTable", "delete_table", DatabaseName="shop_history", Name="accounts"),
        put_item("schemas", subject="shop.accounts", version="9"),
        start_run("headrace-fold"),
        read_password("shop"),
        publish("headrace-alarms"),
        call("kms:Decrypt", "decrypt", KeyId="alias/headrace", CiphertextBlob=b"x"),
        call("cloudwatch:PutMetricData", "put_metric_data", Namespace="AWS/Billing", MetricData=[{"MetricName": "m"}]),
    ],
    "fold-job": [
        read_stream(STREAM),
        put_records(STREAM),
        get_object("raw/shard/1"),
        get_object("claims/shop/1"),
        put_object("jobs/other-code.zip"),
        delete_object("checkpoint/x"),
        delete_object("lake/shop/accounts/data/base/x.parquet"),
        update_table("payments"),
        put_item("shards", job="headrace-stream", shard="shardId-000000000000", sequence="9"),
        read_password("shop"),
        start_run("headrace-stream"),
        start_machine("headrace-fold"),
    ],
    "maintain-job": [
        read_stream(STREAM),
        put_records(STREAM),
        put_object("jobs/other-code.zip"),
        delete_object("checkpoint/x"),
        delete_object("jobs/headrace.zip"),
        update_table("shop"),
        update_table("shop_cut"),
        put_item("shards", job="headrace-stream", shard="shardId-000000000000", sequence="9"),
        put_item("schemas", subject="shop.accounts", version="1"),
        read_password("shop"),
        start_run("headrace-stream"),
        start_machine("headrace-fold"),
    ],
    "maintain-schedule": [
        start_run("headrace-stream"),
        start_run("headrace-fold"),
        start_machine("headrace-fold"),
        publish("headrace-alarms"),
        set_shards(STREAM, 1),
        read_password("shop"),
    ],
    "plan": [
        get_object("lake/shop/accounts/x.parquet"),
        put_object("lake/x"),
        put_item("settings", job="headrace-fold", name="pause", value="true"),
        query_items("sources", "source", "shop"),
        update_table("shop_lake"),
        start_run("headrace-fold"),
        read_stream(STREAM),
        read_password("shop"),
    ],
    "ingest-workflow": [
        start_run("headrace-fold"),
        start_machine("headrace-ingest"),
        publish("payments-alarms"),
        get_object("lake/shop/accounts/x.parquet"),
        call("lambda:InvokeFunction", "invoke", FunctionName="headrace-plan"),
        put_records(STREAM),
        read_password("shop"),
    ],
    "fold-workflow": [
        start_run("headrace-stream"),
        start_machine("headrace-fold"),
        publish("payments-alarms"),
        get_object("lake/shop/accounts/x.parquet"),
        call("lambda:InvokeFunction", "invoke", FunctionName="payments"),
        call("glue:UpdateJob", "update_job", JobName="headrace-fold", JobUpdate=_JOB),
        read_password("shop"),
    ],
    "schedule": [
        start_machine("payments"),
        call(
            *("states:StopExecution", "stop_execution"),
            executionArn=f"arn:aws:states:{REGION}:{ACCOUNT}:execution:headrace-fold:x",
        ),
        start_run("headrace-stream"),
        publish("headrace-alarms"),
        call("lambda:InvokeFunction", "invoke", FunctionName="headrace-plan"),
        set_shards(STREAM, 1),
        read_password("shop"),
    ],
    "shards": [
        set_shards(OTHER_STREAM, 1),
        call(
            *("kinesis:DecreaseStreamRetentionPeriod", "decrease_stream_retention_period"),
            StreamName=STREAM, RetentionPeriodHours=24,
        ),
        put_records(STREAM),
        read_stream(STREAM),
        start_machine("headrace-ingest"),
        read_password("shop"),
    ],
    "analyst": [
        get_object("raw/shard/1"),
        get_object("claims/shop/1"),
        get_object("jobs/headrace.zip"),
        put_object("lake/shop/accounts/x.parquet"),
        delete_object("results/other.csv"),
        update_table("shop"),
        drop_table("shop"),
        call("athena:StartQueryExecution", "start_query_execution", QueryString="SELECT 1", WorkGroup="primary"),
        call("athena:UpdateWorkGroup", "update_work_group", WorkGroup="headrace", State="DISABLED"),
        read_stream(STREAM),
        query_items("settings", "job", "headrace-stream"),
        read_password("shop"),
        start_run("headrace-fold"),
    ],
}  # fmt: skip

# One thing that each role is for: a session that is refused everything would prove nothing.
ALLOWED: dict[str, Call] = {
    "agent-shop": put_records(STREAM),
    "stream-job": read_stream(STREAM),
    "fold-job": put_object("lake/shop/accounts/y.parquet"),
    "maintain-job": delete_object("lake/shop/accounts/data/base/none.parquet"),
    "maintain-schedule": call("sqs:SendMessage", "send_message", QueueUrl=DEAD_LETTERS, MessageBody="m"),
    "plan": query_items("settings", "job", "headrace-fold"),
    "ingest-workflow": call("glue:GetJobRuns", "get_job_runs", JobName="headrace-stream"),
    "fold-workflow": publish("headrace-alarms"),
    "schedule": start_machine("headrace-fold"),
    "shards": set_shards(STREAM, 2),
    "analyst": call("athena:GetWorkGroup", "get_work_group", WorkGroup="headrace"),
}


def test_second_plan_is_empty(applied: Any) -> None:
    """What was applied is what AWS tells of it."""
    assert applied.terraform.plan() is False


@pytest.mark.parametrize("role", DENIED)
def test_role_does_its_own_work(applied: Any, role: str) -> None:
    attempt(applied, role, ALLOWED[role])


@pytest.mark.parametrize("role", DENIED)
def test_role_is_refused_what_is_not_its_business(applied: Any, role: str) -> None:
    """Every call of the role's list is refused, and by IAM: for the action in question."""
    calls = [*DENIED[role], *nobody_may(role)]
    went_through = [str(each) for each in calls if not refused(applied, role, each)]
    assert went_through == []


@pytest.mark.parametrize(("source", "other"), [("shop", "crm"), ("crm", "shop")])
def test_agents_password_is_for_its_source_alone(applied: Any, source: str, other: str) -> None:
    """With the key that encrypts it: reading one's own takes both permissions, reading another's has neither."""
    attempt(applied, f"agent-{source}", read_password(source))
    assert refused(applied, f"agent-{source}", read_password(other))


def test_every_role_of_the_deployment_is_in_the_table(applied: Any) -> None:
    """A role that somebody adds gets a list of what it must not do."""
    iam = applied.aws.client("iam")
    made = {role["RoleName"] for role in iam.list_roles()["Roles"] if role["RoleName"].startswith("headrace-")}
    left_to_aws = {"headrace-flow-logs", "headrace-agent-crm"}  # written to by EC2 only; the other agent's twin
    assert made - left_to_aws == {f"headrace-{role}" for role in DENIED}


def refused(applied: Any, role: str, made: Call) -> bool:
    """Whether IAM refuses the call for its action. Another error than that is no refusal."""
    try:
        attempt(applied, role, made)
    except ClientError as error:
        said = error.response["Error"]
        return said["Code"] in REFUSALS and f"perform: {made.action} " in said["Message"]
    return False


def attempt(applied: Any, role: str, made: Call) -> Any:
    return getattr(applied.as_role(role, made.service), made.method)(**made.arguments)
