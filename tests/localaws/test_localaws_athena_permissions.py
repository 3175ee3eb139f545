"""A query reads and writes with its caller's permissions, each time it runs."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from pyiceberg.catalog.glue import GlueCatalog

from localaws.process import LocalAws

GLUE = "arn:aws:glue:us-east-1:000000000000"
LAKE, RESULTS = "arn:aws:s3:::queried/lake/*", "arn:aws:s3:::queried/results/*"


@dataclass(frozen=True)
class Lake:
    """A table `d.t` of one row, and the key that encrypts the bucket."""

    aws: LocalAws
    key: str
    until: Callable[..., Any]

    def grants(self) -> dict[str, dict[str, Any]]:
        """All that a reader of the table needs."""
        return {
            "workgroup": _allow("athena:*", "arn:aws:athena:us-east-1:000000000000:workgroup/readers"),
            "database": _allow("glue:GetDatabase", f"{GLUE}:catalog", f"{GLUE}:database/d"),
            "table": _allow("glue:GetTable", f"{GLUE}:catalog", f"{GLUE}:database/d", f"{GLUE}:table/d/t"),
            "files": _allow("s3:GetObject", LAKE),
            "bucket": _allow("s3:GetBucketLocation", "arn:aws:s3:::queried"),
            "results": _allow(["s3:PutObject", "s3:GetObject"], RESULTS),
            "key": _allow(["kms:Decrypt", "kms:GenerateDataKey"], self.key),
        }

    def query(self, without: str = "", sql: str = "SELECT * FROM t") -> tuple[str, str]:
        """State and reason of a query by a reader that lacks one of the grants."""
        iam, name = self.aws.client("iam"), "reader-of-t"
        statements = [each for grant, each in self.grants().items() if grant != without]
        trust = {"Effect": "Allow", "Principal": {"Service": "glue.amazonaws.com"}, "Action": "sts:AssumeRole"}
        try:
            iam.get_role(RoleName=name)
        except iam.exceptions.NoSuchEntityException:
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy(trust))
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=_policy(*statements))
        athena = self.aws.as_role(name, "athena")
        asked = {"QueryString": sql, "WorkGroup": "readers", "QueryExecutionContext": {"Database": "d"}}
        query = {"QueryExecutionId": athena.start_query_execution(**asked)["QueryExecutionId"]}
        look = self.aws.client("athena")
        status = self.until(
            lambda: look.get_query_execution(**query)["QueryExecution"]["Status"],
            lambda status: status["State"] in ("SUCCEEDED", "FAILED"),
        )
        if status["State"] == "SUCCEEDED":
            rows = athena.get_query_results(**query)["ResultSet"]["Rows"]
            assert rows[1]["Data"] == [{"VarCharValue": "1"}]
        return status["State"], status.get("StateChangeReason", "")


@pytest.fixture(scope="module")
def lake(guarded: LocalAws, until: Callable[..., Any]) -> Iterator[Lake]:
    s3, key = guarded.client("s3"), guarded.client("kms").create_key()["KeyMetadata"]["Arn"]
    s3.create_bucket(Bucket="queried")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(Bucket="queried", ServerSideEncryptionConfiguration={"Rules": [rule]})
    guarded.client("glue").create_database(DatabaseInput={"Name": "d"})
    result = {"OutputLocation": "s3://queried/results/"}
    guarded.client("athena").create_work_group(Name="readers", Configuration={"ResultConfiguration": result})
    files = {"s3.endpoint": guarded.endpoint, "s3.access-key-id": "test", "s3.secret-access-key": "test"}
    files |= {"s3.region": "us-east-1", "s3.force-virtual-addressing": "false"}
    catalog = GlueCatalog("lake", client=guarded.client("glue"), **files)
    rows = pa.table({"a": pa.array([1], pa.int32())})
    catalog.create_table("d.t", rows.schema, location="s3://queried/lake/t").append(rows)
    yield Lake(guarded, key, until)


def test_reader_with_all_grants_reads(lake: Lake) -> None:
    assert lake.query() == ("SUCCEEDED", "")


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("table", "Insufficient permissions to execute the query. User: "),
        ("files", "PERMISSION_DENIED: Access Denied (Service: Amazon S3; Status Code: 403): s3://queried/lake/t/"),
        ("results", "Access denied when writing output to url: s3://queried/results/"),
        ("key", "kms:Decrypt on resource: "),
    ],
)
def test_query_without_a_grant_fails_though_another_caller_read_the_same_files(
    lake: Lake, without: str, said: str
) -> None:
    """What an earlier query left in the engine's memory opens nothing."""
    lake.query()
    state, reason = lake.query(without)
    assert state == "FAILED"
    assert said in reason


@pytest.mark.parametrize(
    ("without", "error", "said"),
    [
        ("workgroup", "AccessDeniedException", "athena:StartQueryExecution"),
        ("database", "AccessDeniedException", "glue:GetDatabase"),
        ("bucket", "InvalidRequestException", "Unable to verify/create output bucket queried"),
    ],
)
def test_query_is_refused_at_its_start(lake: Lake, without: str, error: str, said: str) -> None:
    with pytest.raises(ClientError) as caught:
        lake.query(without)
    assert caught.value.response["Error"]["Code"] == error
    assert said in caught.value.response["Error"]["Message"]


def test_results_are_not_for_every_caller(lake: Lake) -> None:
    """GetQueryResults reads the result object as its caller."""
    lake.query()
    query = lake.aws.client("athena").list_query_executions(WorkGroup="readers")["QueryExecutionIds"][0]
    lake.aws.client("iam").put_role_policy(
        RoleName="reader-of-t", PolicyName="own", PolicyDocument=_policy(_allow("athena:*", "*"))
    )
    with pytest.raises(ClientError) as caught:
        lake.aws.as_role("reader-of-t", "athena").get_query_results(QueryExecutionId=query)
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"


def _allow(action: str | list[str], *resources: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": list(resources)}


def _policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
