"""Stand-ins for the roles where Terraform is not used: the laptop's AWS then enforces no IAM.

The roles that count are in terraform/, each with the actions and resources that its part uses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from ops.names import Names

_CATALOG: Final = (
    *("glue:GetDatabase", "glue:GetDatabases", "glue:GetTable", "glue:GetTables"),
    *("glue:CreateTable", "glue:UpdateTable", "glue:CreateDatabase"),
)
_OBJECTS: Final = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:AbortMultipartUpload")
_ITEMS: Final = ("dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:BatchGetItem")
_ITEM_WRITES: Final = ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem")
_STREAM_READS: Final = (
    *("kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:ListShards"),
    *("kinesis:GetShardIterator", "kinesis:GetRecords"),
)
_LOGS: Final = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "cloudwatch:PutMetricData")
_RUNS: Final = ("glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun")


@dataclass(frozen=True)
class Role:
    part: str
    service: str
    actions: tuple[str, ...]


ROLES: Final = (
    Role("stream-job", "glue.amazonaws.com", (*_CATALOG, *_OBJECTS, *_ITEMS, *_ITEM_WRITES, *_STREAM_READS, *_LOGS)),
    Role("fold-job", "glue.amazonaws.com", (*_CATALOG, *_OBJECTS, *_ITEMS, *_LOGS)),
    Role(
        *("plan", "lambda.amazonaws.com"),
        (
            "glue:GetTable",
            "glue:GetTables",
            "glue:GetDatabase",
            "glue:GetJobRuns",
            *_ITEMS,
            "dynamodb:UpdateItem",
            *_LOGS,
        ),
    ),
    Role("maintain-job", "glue.amazonaws.com", (*_CATALOG, *_OBJECTS, *_ITEMS, *_ITEM_WRITES, *_LOGS)),
    Role("maintain-schedule", "scheduler.amazonaws.com", ("glue:StartJobRun",)),
    Role("ingest-workflow", "states.amazonaws.com", (*_RUNS, "states:StartExecution", "sns:Publish")),
    Role("fold-workflow", "states.amazonaws.com", (*_RUNS, "lambda:InvokeFunction", "sns:Publish")),
    Role("schedule", "scheduler.amazonaws.com", ("states:StartExecution",)),
)


def make(iam: Any, names: Names, role: Role) -> str:
    """Creates the role or brings its policies up to date; returns its ARN."""
    name = names.role(role.part)
    trust = _policy({"Effect": "Allow", "Principal": {"Service": role.service}, "Action": "sts:AssumeRole"})
    try:
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    except iam.exceptions.EntityAlreadyExistsException:
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
        arn = iam.get_role(RoleName=name)["Role"]["Arn"]
    allowed = _policy({"Effect": "Allow", "Action": list(role.actions), "Resource": "*"})
    iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=allowed)
    return str(arn)


def _policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
