"""What the pipeline needs of the services that are ministack's: conditions that hold, and IAM that denies."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.process import LocalAws


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


@pytest.fixture(scope="module")
def bucket(aws: LocalAws) -> str:
    aws.client("s3").create_bucket(Bucket="services")
    return "services"


def test_catalog_update_with_an_old_version_is_refused(aws: LocalAws) -> None:
    """UpdateTable with a VersionId that is not the current one: the fence of every Iceberg commit."""
    glue = aws.client("glue")
    glue.create_database(DatabaseInput={"Name": "fenced"})
    glue.create_table(DatabaseName="fenced", TableInput={"Name": "t", "Parameters": {"n": "0"}})
    version = glue.get_table(DatabaseName="fenced", Name="t")["Table"]["VersionId"]
    change = {"DatabaseName": "fenced", "SkipArchive": True, "VersionId": version}
    glue.update_table(**change, TableInput={"Name": "t", "Parameters": {"n": "1"}})
    with pytest.raises(ClientError) as caught:
        glue.update_table(**change, TableInput={"Name": "t", "Parameters": {"n": "2"}})
    assert code(caught) == "ConcurrentModificationException"
    assert glue.get_table(DatabaseName="fenced", Name="t")["Table"]["Parameters"] == {"n": "1"}


def test_conditional_write_of_an_item_that_exists_is_refused(aws: LocalAws) -> None:
    """How versions of schemas, eras and epochs are taken."""
    dynamodb = aws.client("dynamodb")
    dynamodb.create_table(
        TableName="once",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}, {"AttributeName": "v", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "k", "AttributeType": "S"},
            {"AttributeName": "v", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    item = {"k": {"S": "a"}, "v": {"N": "1"}, "n": {"N": "0"}}
    put = {"TableName": "once", "Item": item, "ConditionExpression": "attribute_not_exists(k)"}
    dynamodb.put_item(**put)
    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException):
        dynamodb.put_item(**put)
    update = {
        "TableName": "once",
        "Key": {"k": {"S": "a"}, "v": {"N": "1"}},
        "UpdateExpression": "SET n = n + :one",
        "ConditionExpression": "n = :seen",
        "ReturnValues": "UPDATED_NEW",
    }
    changed = dynamodb.update_item(**update, ExpressionAttributeValues={":one": {"N": "1"}, ":seen": {"N": "0"}})
    assert changed["Attributes"]["n"] == {"N": "1"}
    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException):
        dynamodb.update_item(**update, ExpressionAttributeValues={":one": {"N": "1"}, ":seen": {"N": "0"}})


def test_put_of_an_object_that_exists_can_be_refused(aws: LocalAws, bucket: str) -> None:
    s3 = aws.client("s3")
    s3.put_object(Bucket=bucket, Key="once", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="once", Body=b"2", IfNoneMatch="*")
    assert code(caught) == "PreconditionFailed"
    assert s3.get_object(Bucket=bucket, Key="once")["Body"].read() == b"1"


@pytest.mark.parametrize("size", [10, 2**20])
def test_ranged_get(aws: LocalAws, bucket: str, size: int) -> None:
    """From a byte to a byte, and the last bytes, as Parquet readers ask; of small objects and of large ones."""
    s3 = aws.client("s3")
    s3.put_object(Bucket=bucket, Key="ranged", Body=b"01234" + b"-" * (size - 10) + b"56789")
    for asked, given in (("bytes=2-4", b"234"), ("bytes=-3", b"789"), (f"bytes={size - 2}-", b"89")):
        reply = s3.get_object(Bucket=bucket, Key="ranged", Range=asked)
        assert (reply["Body"].read(), reply["ResponseMetadata"]["HTTPStatusCode"]) == (given, 206)
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="ranged", Range=f"bytes={size}-")
    assert code(caught) == "InvalidRange"
    assert len(s3.get_object(Bucket=bucket, Key="ranged")["Body"].read()) == size


def test_multipart_upload(aws: LocalAws, bucket: str) -> None:
    s3 = aws.client("s3")
    upload = {"Bucket": bucket, "Key": "parts"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    parts = [
        {"PartNumber": n, "ETag": s3.upload_part(**upload, PartNumber=n, Body=body)["ETag"]}
        for n, body in ((1, b"a" * 5 * 2**20), (2, b"b"))
    ]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert s3.head_object(Bucket=bucket, Key="parts")["ContentLength"] == 5 * 2**20 + 1
    assert s3.get_object(Bucket=bucket, Key="parts")["Body"].read()[-1:] == b"b"


def test_listing_pages_in_key_order(aws: LocalAws, bucket: str) -> None:
    s3 = aws.client("s3")
    keys = [f"list/{n:03d}" for n in range(25)]
    for key in reversed(keys):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix="list/", PaginationConfig={"PageSize": 10}
    )
    assert [entry["Key"] for page in pages for entry in page.get("Contents", [])] == keys


def test_role_may_do_what_its_policy_says_and_nothing_else(guarded: LocalAws, make_role: Callable[..., str]) -> None:
    """A process in its role: DynamoDB is denied, S3 allowed, and Kinesis is judged though it is ours."""
    role = _user_role(guarded, "reader", ["s3:ListAllMyBuckets", "kinesis:ListStreams"])
    assert "Buckets" in guarded.client("s3", **role).list_buckets()
    assert "StreamNames" in guarded.client("kinesis", **role).list_streams()
    for service, call in (("dynamodb", "list_tables"), ("glue", "get_databases")):
        with pytest.raises(ClientError) as caught:
            getattr(guarded.client(service, **role), call)()
        assert code(caught) == "AccessDeniedException"
    with pytest.raises(ClientError) as caught:
        guarded.client("kinesis", **role).create_stream(StreamName="s", ShardCount=1)
    assert code(caught) == "AccessDeniedException"


def test_kinesis_rights_are_judged_by_stream(guarded: LocalAws) -> None:
    """A writer of one stream cannot write to another, whether it names it or gives its ARN."""
    kinesis = guarded.client("kinesis")
    for name in ("mine", "theirs"):
        kinesis.create_stream(StreamName=name, ShardCount=1)
    arn = "arn:aws:kinesis:us-east-1:000000000000:stream/"
    role = _user_role(guarded, "writer", ["kinesis:PutRecords"], f"{arn}mine")
    writer = guarded.client("kinesis", **role)
    records = [{"Data": b"x", "PartitionKey": "k"}]
    assert writer.put_records(StreamName="mine", Records=records)["FailedRecordCount"] == 0
    for named in ({"StreamName": "theirs"}, {"StreamARN": f"{arn}theirs"}):
        with pytest.raises(ClientError) as caught:
            writer.put_records(**named, Records=records)
        assert code(caught) == "AccessDeniedException"


def test_health_answers_and_unknown_controls_do_not(aws: LocalAws) -> None:
    with urllib.request.urlopen(f"{aws.endpoint}/_local/health") as reply:
        assert reply.status == 200
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{aws.endpoint}/_local/none")
    assert caught.value.code == 404


def _user_role(server: LocalAws, name: str, actions: list[str], resource: str = "*") -> dict[str, Any]:
    """Credentials of a role that the account's administrator assumes."""
    iam = server.client("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "sts:AssumeRole"}
    allowed = {"Effect": "Allow", "Action": actions, "Resource": resource}
    documents = [json.dumps({"Version": "2012-10-17", "Statement": [statement]}) for statement in (trust, allowed)]
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=documents[0])["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=documents[1])
    keys = server.client("sts").assume_role(RoleArn=role, RoleSessionName=name)["Credentials"]
    return {
        "aws_access_key_id": keys["AccessKeyId"],
        "aws_secret_access_key": keys["SecretAccessKey"],
        "aws_session_token": keys["SessionToken"],
    }
