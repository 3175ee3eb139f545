"""Everything that Headrace needs in AWS, made through boto3 for the laptop from the files that Terraform uses too.

Each step looks before it makes, so a second run changes nothing but code and definitions that are newer here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import ClientError

from glue_streaming.fold.orphans import LAPTOP_PACKAGES
from ops import artefacts, glue_bundle, named_queries
from ops.aws import Aws
from ops.names import DYNAMODB_KEYS, Names, databases
from ops.roles import ROLES, make
from ops.waiting import until

_EXISTS: Final = (
    *("ResourceInUseException", "BucketAlreadyOwnedByYou", "BucketAlreadyExists", "AlreadyExistsException"),
    *("ResourceConflictException", "StateMachineAlreadyExists", "ConflictException", "InvalidRequestException"),
    "IdempotentParameterMismatchException",
)
_ZIP: Final = "jobs/headrace.zip"
_START_JOB: Final = "arn:aws:scheduler:::aws-sdk:glue:startJobRun"


@dataclass(frozen=True)
class Deployment:
    """What is to be made. Heaps are in MiB; settings are items of the settings table, by job.

    checkpoint: where Spark keeps its own, a folder or an S3 prefix; losing it costs nothing.
    """

    names: Names = field(default_factory=Names)
    sources: tuple[str, ...] = ("shop",)
    shards: int = 2
    mode: str = "continuous"
    checkpoint: str = "s3://headrace-lake/jobs/checkpoint"
    schedule: str = "rate(1 minute)"
    stream_heap_mib: int = 512
    fold_heap_mib: int = 384
    maintain_heap_mib: int = 512
    maintenance: str = "cron(30 2 * * ? *)"
    fold_horizon_seconds: float = 5.0
    map_concurrency: int = 1
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Workflows:
    """The state machines' ARNs."""

    ingest: str
    fold: str


def provision(aws: Aws, deployment: Deployment) -> Workflows:
    """Makes what is missing and updates the rest. The schedules come last, so that they find everything there."""
    names = deployment.names
    _stream(aws, deployment)
    for table in DYNAMODB_KEYS:
        dynamodb_table(aws.client("dynamodb"), table, names.dynamodb(table))
    _unless_there(lambda: aws.client("s3").create_bucket(Bucket=names.bucket))
    _upload(aws, names)
    _catalog(aws, deployment)
    save_queries(aws, deployment, names.workgroup)
    _settings(aws, deployment)
    roles = {role.part: make(aws.client("iam"), names, role) for role in ROLES}
    topic = aws.client("sns").create_topic(Name=names.topic)["TopicArn"]
    for job in _jobs(deployment, roles):
        _job(aws.client("glue"), job)
    _function(aws.client("lambda"), deployment, roles["plan"])
    workflows = _workflows(aws, deployment, roles, topic)
    _schedule(aws, names.ingest_workflow, workflows.ingest, deployment.schedule, roles["schedule"])
    _schedule(aws, names.fold_workflow, workflows.fold, deployment.schedule, roles["schedule"])
    run = json.dumps({"JobName": names.maintain_job})
    _schedule(aws, names.maintain_job, _START_JOB, deployment.maintenance, roles["maintain-schedule"], run)
    return workflows


def _unless_there(make_it: Callable[[], object]) -> bool:
    """Whether it was made now; False where it was there already."""
    try:
        make_it()
    except ClientError as error:
        if error.response["Error"]["Code"] not in _EXISTS:
            raise
        return False
    return True


def _stream(aws: Aws, deployment: Deployment) -> None:
    kinesis, name = aws.client("kinesis"), deployment.names.stream
    _unless_there(lambda: kinesis.create_stream(StreamName=name, ShardCount=deployment.shards))
    until(
        lambda: (
            kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
        ),
        f"the stream {name} to become active",
        60,
    )


def dynamodb_table(dynamodb: Any, table: str, name: str) -> None:
    """Makes one of the tables of DYNAMODB_KEYS, under a name, unless it is there."""
    keys = DYNAMODB_KEYS[table]
    _unless_there(
        lambda: dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in keys],
            KeySchema=[
                {"AttributeName": key, "KeyType": kind} for (key, _), kind in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
        )
    )


def _upload(aws: Aws, names: Names) -> None:
    s3 = aws.client("s3")
    s3.put_object(Bucket=names.bucket, Key=_ZIP, Body=artefacts.packages_zip())
    for name, body in artefacts.scripts().items():
        s3.put_object(Bucket=names.bucket, Key=f"jobs/{name}", Body=body)


def _catalog(aws: Aws, deployment: Deployment) -> None:
    glue, names = aws.client("glue"), deployment.names
    for source in deployment.sources:
        for database in databases(source):
            _unless_there(lambda name=database: glue.create_database(DatabaseInput={"Name": name}))  # type: ignore[misc]
    _unless_there(
        lambda: aws.client("athena").create_work_group(
            Name=names.workgroup,
            Configuration={"ResultConfiguration": {"OutputLocation": f"s3://{names.bucket}/results/"}},
        )
    )


def save_queries(aws: Aws, deployment: Deployment, workgroup: str) -> None:
    """Puts the sources' named queries into a workgroup, those that it lacks."""
    athena = aws.client("athena")
    listed = athena.list_named_queries(WorkGroup=workgroup)["NamedQueryIds"]
    there = {athena.get_named_query(NamedQueryId=found)["NamedQuery"]["Name"] for found in listed}
    for source in deployment.sources:
        for query in named_queries.of_source(source):
            if query.name not in there:
                athena.create_named_query(
                    Name=query.name,
                    Description=query.description,
                    Database=query.database,
                    QueryString=query.sql,
                    WorkGroup=workgroup,
                )


def _settings(aws: Aws, deployment: Deployment) -> None:
    for job, values in deployment.settings.items():
        for name, value in values.items():
            aws.client("dynamodb").put_item(
                TableName=deployment.names.dynamodb("settings"),
                Item={"job": {"S": job}, "name": {"S": name}, "value": {"S": value}},
            )


def _jobs(deployment: Deployment, roles: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
    names, bucket = deployment.names, deployment.names.bucket
    common = {
        "--source": ",".join(deployment.sources),
        "--stream_name": names.stream,
        "--lake_bucket": bucket,
        "--dynamodb_prefix": names.prefix,
        "--extra-py-files": f"s3://{bucket}/{_ZIP}",
    }

    def job(name: str, script: str, role: str, kind: str, heap_mib: int, arguments: dict[str, str]) -> dict[str, Any]:
        return {
            "Name": name,
            "Role": role,
            "Command": {"Name": kind, "ScriptLocation": f"s3://{bucket}/jobs/{script}", "PythonVersion": "3"},
            "GlueVersion": "6.0",
            "WorkerType": "G.1X",
            "NumberOfWorkers": 2,
            "ExecutionProperty": {"MaxConcurrentRuns": 1},
            "DefaultArguments": {**common, "--conf": f"spark.driver.memory={heap_mib}m", **arguments, "--job": name},
        }

    return (
        job(
            *(names.stream_job, "stream_job.py", roles["stream-job"], "gluestreaming", deployment.stream_heap_mib),
            {"--mode": deployment.mode, "--checkpoint": deployment.checkpoint},
        ),
        job(
            *(names.fold_job, "fold_job.py", roles["fold-job"], "glueetl", deployment.fold_heap_mib),
            {"--kind": "auto", "--fold_horizon_seconds": f"{deployment.fold_horizon_seconds:g}"},
        ),
        job(
            *(names.maintain_job, "maintain_job.py", roles["maintain-job"], "glueetl", deployment.maintain_heap_mib),
            {"--fold_job": names.fold_job, "--conf": maintenance_conf(deployment.maintain_heap_mib)},
        ),
    )


def _job(glue: Any, job: dict[str, Any]) -> None:
    try:
        glue.get_job(JobName=job["Name"])
    except glue.exceptions.EntityNotFoundException:
        glue.create_job(**job)
    else:
        glue.update_job(JobName=job["Name"], JobUpdate={key: value for key, value in job.items() if key != "Name"})


def _function(client: Any, deployment: Deployment, role: str) -> None:
    names = deployment.names
    code = {"S3Bucket": names.bucket, "S3Key": _ZIP}
    environment = {
        "SOURCES": ",".join(deployment.sources),
        "JOB": names.fold_job,
        "DYNAMODB_PREFIX": names.prefix,
        "FOLD_HORIZON_SECONDS": f"{deployment.fold_horizon_seconds:g}",
        "MAP_CONCURRENCY": str(deployment.map_concurrency),
        "LOG_GROUP": "/aws-glue/jobs/error",
    }
    made = _unless_there(
        lambda: client.create_function(
            FunctionName=names.plan_function,
            Runtime="python3.13",
            Role=role,
            Handler="glue_streaming.plan_lambda.handler",
            Code=code,
            Timeout=60,
            MemorySize=256,
            Environment={"Variables": environment},
        )
    )
    if not made:
        client.update_function_code(FunctionName=names.plan_function, **code)
        client.update_function_configuration(
            FunctionName=names.plan_function, Role=role, Environment={"Variables": environment}
        )


def _workflows(aws: Aws, deployment: Deployment, roles: Mapping[str, str], topic: str) -> Workflows:
    names = deployment.names
    values = {
        "stream_job": names.stream_job,
        "fold_job": names.fold_job,
        "plan_function": names.plan_function,
        "topic": topic,
        "mode": deployment.mode,
        "bundle": glue_bundle.code_hash(),
        "worker_type": "G.1X",
    }
    fold = _state_machine(aws, names.fold_workflow, artefacts.workflow("fold", values), roles["fold-workflow"])
    ingest = artefacts.workflow("ingest", values | {"fold_state_machine": fold})
    return Workflows(_state_machine(aws, names.ingest_workflow, ingest, roles["ingest-workflow"]), fold)


def _state_machine(aws: Aws, name: str, definition: str, role: str) -> str:
    states = aws.client("stepfunctions")
    for page in states.get_paginator("list_state_machines").paginate():
        for machine in page["stateMachines"]:
            if machine["name"] == name:
                arn = str(machine["stateMachineArn"])
                states.update_state_machine(stateMachineArn=arn, definition=definition, roleArn=role)
                return arn
    return str(states.create_state_machine(name=name, definition=definition, roleArn=role)["stateMachineArn"])


def maintenance_conf(heap_mib: int) -> str:
    """Glue's `--conf` for a laptop's maintenance: Spark fetches there what Glue brings by itself."""
    settings = {
        "spark.driver.memory": f"{heap_mib}m",
        "spark.sql.shuffle.partitions": "2",
        "spark.jars.packages": ",".join(LAPTOP_PACKAGES),
    }
    return " --conf ".join(f"{name}={value}" for name, value in settings.items())


def _schedule(aws: Aws, name: str, target: str, expression: str, role: str, given: str = "{}") -> None:
    scheduler = aws.client("scheduler")
    schedule = {
        "Name": name,
        "ScheduleExpression": expression,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {"Arn": target, "RoleArn": role, "Input": given},
    }
    try:
        scheduler.get_schedule(Name=name)
    except scheduler.exceptions.ResourceNotFoundException:
        scheduler.create_schedule(**schedule)
    else:
        scheduler.update_schedule(**schedule)
