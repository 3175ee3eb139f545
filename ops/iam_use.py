"""`python -m ops.iam_use`: which statements of a deployment's roles no request has used, on the laptop's AWS.

Run it after a demo with IAM enforced, while the stack is up. The exit status is 1 when a statement is left that has no
reason here.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import boto3

from localaws.settings import ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY, REGION
from ops.unused_statements import Grant, Unused, grants, unexplained, unused

# Why a statement is there although a run on the laptop does not use it, by ROLE/SID or ROLE/SID/ACTION behind the
# deployment's name.
REASONS: Final[Mapping[str, str]] = {
    "*-workflow/DeliverLogs": "Step Functions sets up its log in the role; the laptop's writes none",
    "*-workflow/TellTopic": "a workflow tells the topic only of a run that failed",
    "*-workflow/PublishEncrypted": "a workflow tells the topic only of a run that failed",
    "*-workflow/Run*Job/glue:BatchStopJobRun": "a run is stopped with its execution, or after a deployment",
    "ingest-workflow/RunStreamJob/glue:GetJobRun": "a draining ingest waits for its run; a continuous one does not",
    "fold-workflow/RunFoldJob/glue:GetJobRuns": "Step Functions asks for it where it waits for a run",
    "plan/RememberFailures": "only a table that was not folded after all attempts is noted",
    "*-job/PutMetrics": "Glue's runtime puts metrics in the role; the laptop's puts none",
    "*/*/s3:AbortMultipartUpload": "after a large write that failed",
    "analyst/KeepResults/s3:ListMultipartUploadParts": "Athena sends large results in parts; the laptop's does not",
    "analyst/RunQueries/athena:*": "people stop queries, and their tools look at the workgroup; the demo does neither",
    "analyst/FindDefaultDatabase": "Athena looks at the default database; the laptop's does not",
    "analyst/ListTablesAndResults": "S3 calls a missing object missing only to who may list; none is missing here",
    "analyst/ReadCatalog/glue:Get*": "people's tools list databases and tables; the demo knows them",
    "stream-job/KeepCheckpoint": "the demo keeps Spark's checkpoint on disk",
    "stream-job/ListRawAndCheckpoint": "raw bytes are listed for a replay, and the demo's checkpoint is on disk",
    "stream-job/TakeEpochAnswerRequests/dynamodb:*Item": "requests of an operator, which the demo does not make",
    "fold-job/DropOldMetadata": "only the commit of a table with more than ten descriptions drops one",
    "maintain-job/ReadSchemas": "only raw bytes of a table with an erasure are read under their schema",
    "maintain-job/*": "the demo is over before the day's maintenance; tests/terraform runs it in its role",
    "maintain-schedule/*": "the demo is over before the day's maintenance",
    "fold-job/CommitTables/glue:GetTables": "a fold that is started by hand, without tables, looks for them",
    "agent-*/LeaveClaims": "only a block above the stream's record limit goes to S3",
    "agent-*/WriteEncryptedObjects": "only a block above the stream's record limit goes to S3",
    "schedule/KeepUndelivered": "only what could not be started is kept",
}


def read_grants(iam: Any, name: str) -> Iterator[Grant]:
    """The statements of every role whose name begins with the deployment's."""
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            if role["RoleName"].startswith(f"{name}-"):
                yield from grants(role["RoleName"], _policies(iam, role["RoleName"]))


def report(iam: Any, endpoint: str, name: str) -> list[Unused]:
    """What nobody used since the server's start, with the reasons that are known."""
    with urllib.request.urlopen(f"{endpoint}/_local/iam/decisions", timeout=30) as reply:
        decisions = json.load(reply)["decisions"]
    reasons = {f"{name}-{role}": why for role, why in REASONS.items()}
    return unused(read_grants(iam, name), decisions, reasons)


def _policies(iam: Any, role: str) -> dict[str, Any]:
    documents = {
        policy: iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]
    }
    for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        arn = attached["PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        documents[arn] = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    return documents


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.iam_use", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="the laptop's AWS, as in stack.json")
    parser.add_argument("--name", default="headrace", help="the deployment's name")
    given = parser.parse_args(arguments)
    keys = {"aws_access_key_id": ADMIN_ACCESS_KEY, "aws_secret_access_key": ADMIN_SECRET_KEY}
    iam = boto3.client("iam", endpoint_url=given.endpoint, region_name=REGION, **keys)
    found = report(iam, given.endpoint, given.name)
    for each in found:
        print(each)
    left = unexplained(found)
    print(f"{len(found)} unused, {len(left)} of them without a reason")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
