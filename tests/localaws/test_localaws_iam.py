"""IAM on the laptop: what a request needs is judged as on AWS, and what allowed it is remembered."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.process import LocalAws

ACCOUNT = "000000000000"
HERE = f"us-east-1:{ACCOUNT}"
Statement = dict[str, Any]
Make = Callable[..., str]


@pytest.fixture
def role(guarded: LocalAws, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes a role of the test's name with these statements; they can be replaced by calling again."""
    iam, name = guarded.client("iam"), request.node.name.replace("[", "-").rstrip("]")[:60]

    def make(*statements: Statement, boundary: list[Statement] | None = None) -> str:
        with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trusting("glue.amazonaws.com")))
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=policy(*statements))
        if boundary is not None:
            arn = iam.create_policy(PolicyName=f"{name}-boundary", PolicyDocument=policy(*boundary))["Policy"]["Arn"]
            iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=arn)
        guarded.forget_decisions()
        return name

    yield make


def policy(*statements: Statement) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trusting(service: str) -> Statement:
    return {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}


def allow(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> Statement:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def refused(call: Callable[..., Any], *codes: str, **arguments: Any) -> str:
    """The message of the refusal that the call must meet."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    assert error["Code"] in (codes or ("AccessDenied", "AccessDeniedException", "AuthorizationError")), error
    return str(error["Message"])


def decided(aws: LocalAws, principal: str, action: str) -> list[dict[str, Any]]:
    return [each for each in aws.decisions()["decisions"] if (each["principal"], each["action"]) == (principal, action)]


def test_decisions_name_the_statement_that_allowed(guarded: LocalAws, role: Make) -> None:
    """By its Sid, or by its place when it has none; a refusal is counted with its reason."""
    name = role(
        allow("sqs:ListQueues", Sid="Queues"), allow("dynamodb:DescribeTable", f"arn:aws:dynamodb:{HERE}:table/mine")
    )
    dynamodb = guarded.as_role(name, "dynamodb")
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        dynamodb.describe_table(TableName="mine")
    refused(dynamodb.describe_table, TableName="yours")
    guarded.as_role(name, "sqs").list_queues()
    mine, yours = decided(guarded, name, "dynamodb:DescribeTable")
    assert (mine["allowed"], mine["denied"]) == (1, 0)
    assert mine["allowed_by"] == [{"role": name, "policy": "own", "statement": "1", "count": 1}]
    assert (yours["allowed"], yours["refusals"]) == (0, {"no statement allows it": 1})
    (queues,) = decided(guarded, name, "sqs:ListQueues")
    assert queues["allowed_by"][0]["statement"] == "Queues"
    guarded.forget_decisions()
    assert guarded.decisions()["decisions"] == []


def test_table_call_needs_its_database_and_the_catalog(guarded: LocalAws, role: Make) -> None:
    """Glue judges a table and all its ancestors: a grant on the table alone is not enough."""
    table, database = f"arn:aws:glue:{HERE}:table/empty/t", f"arn:aws:glue:{HERE}:database/empty"
    catalog = f"arn:aws:glue:{HERE}:catalog"
    granted = [table, database, catalog]
    for missing in granted:
        name = role(allow("glue:GetTable", [arn for arn in granted if arn != missing]))
        message = refused(guarded.as_role(name, "glue").get_table, DatabaseName="empty", Name="t")
        assert message.endswith(
            f"glue:GetTable on resource: {missing} because no identity-based policy allows the glue:GetTable action"
        )
    name = role(allow("glue:GetTable", granted))
    refused(guarded.as_role(name, "glue").get_table, "EntityNotFoundException", DatabaseName="empty", Name="t")
    refused(guarded.as_role(name, "glue").get_table, DatabaseName="empty", Name="other")


def test_prefix_condition_of_a_listing(guarded: LocalAws, role: Make) -> None:
    guarded.client("s3").create_bucket(Bucket="prefixed")
    condition = {"StringLike": {"s3:prefix": "lake/*"}}
    name = role(allow("s3:ListBucket", "arn:aws:s3:::prefixed", Condition=condition))
    s3 = guarded.as_role(name, "s3")
    assert s3.list_objects_v2(Bucket="prefixed", Prefix="lake/shop/")["KeyCount"] == 0
    refused(s3.list_objects_v2, Bucket="prefixed", Prefix="raw/")
    refused(s3.list_objects_v2, Bucket="prefixed")


def test_loopback_counts_as_secure_transport(guarded: LocalAws, role: Make) -> None:
    """A bucket policy that refuses plain HTTP refuses nobody here, and one that refuses an account's others does."""
    s3 = guarded.client("s3")
    s3.create_bucket(Bucket="sealed")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::sealed/*"}
    insecure = {"Bool": {"aws:SecureTransport": "false"}}
    s3.put_bucket_policy(Bucket="sealed", Policy=policy({**deny, "Condition": insecure}))
    name = role(allow("s3:PutObject", "arn:aws:s3:::sealed/*"))
    guarded.as_role(name, "s3").put_object(Bucket="sealed", Key="k", Body=b"")
    own_arn = {"ArnNotEquals": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/somebody"}}
    s3.put_bucket_policy(Bucket="sealed", Policy=policy({**deny, "Condition": own_arn}))
    refused(guarded.as_role(name, "s3").put_object, Bucket="sealed", Key="k", Body=b"")


def test_principal_arn_of_a_session_is_its_role(guarded: LocalAws, role: Make) -> None:
    condition = {"ArnEquals": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/{{}}"}}
    name = role(allow("sqs:ListQueues"))
    arn = condition["ArnEquals"]["aws:PrincipalArn"].format(name)
    role(allow("sqs:ListQueues", Condition={"ArnEquals": {"aws:PrincipalArn": arn}}))
    guarded.as_role(name, "sqs").list_queues()
    role(allow("sqs:ListQueues", Condition={"ArnNotEquals": {"aws:PrincipalArn": arn}}))
    refused(guarded.as_role(name, "sqs").list_queues)


def test_metrics_are_judged_by_namespace(guarded: LocalAws, role: Make) -> None:
    condition = {"StringEquals": {"cloudwatch:namespace": "Headrace"}}
    name = role(allow("cloudwatch:PutMetricData", Condition=condition))
    cloudwatch = guarded.as_role(name, "cloudwatch")
    data = [{"MetricName": "m", "Value": 1.0}]
    cloudwatch.put_metric_data(Namespace="Headrace", MetricData=data)
    refused(cloudwatch.put_metric_data, Namespace="Other", MetricData=data)


def test_records_are_judged_by_the_stream_of_their_iterator(guarded: LocalAws, role: Make) -> None:
    """GetRecords names no stream: its iterator holds one."""
    kinesis, arn = guarded.client("kinesis"), f"arn:aws:kinesis:{HERE}:stream/"
    iterators = {}
    for name in ("read", "unread"):
        kinesis.create_stream(StreamName=name, ShardCount=1)
        shard = kinesis.list_shards(StreamName=name)["Shards"][0]["ShardId"]
        asked = {"StreamName": name, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        iterators[name] = kinesis.get_shard_iterator(**asked)["ShardIterator"]
    reader = guarded.as_role(role(allow("kinesis:GetRecords", f"{arn}read")), "kinesis")
    assert reader.get_records(ShardIterator=iterators["read"])["Records"] == []
    refused(reader.get_records, ShardIterator=iterators["unread"])


@pytest.fixture
def key(guarded: LocalAws) -> str:
    return str(guarded.client("kms").create_key()["KeyMetadata"]["Arn"])


def test_encrypted_object_needs_its_key(guarded: LocalAws, role: Make, key: str) -> None:
    """Writing asks kms:GenerateDataKey and reading kms:Decrypt, with the caller's permissions, through S3 only."""
    s3 = guarded.client("s3")
    s3.create_bucket(Bucket="encrypted")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(Bucket="encrypted", ServerSideEncryptionConfiguration={"Rules": [rule]})
    objects = allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::encrypted/*")
    put, get = {"Bucket": "encrypted", "Key": "k", "Body": b"x"}, {"Bucket": "encrypted", "Key": "k"}
    name = role(objects)
    assert f"kms:GenerateDataKey on resource: {key}" in refused(guarded.as_role(name, "s3").put_object, **put)
    via = {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com", "kms:CallerAccount": ACCOUNT}}
    role(objects, allow("kms:GenerateDataKey", key, Condition=via))
    guarded.as_role(name, "s3").put_object(**put)
    assert f"kms:Decrypt on resource: {key}" in refused(guarded.as_role(name, "s3").get_object, **get)
    role(objects, allow("kms:Decrypt", key, Condition=via))
    assert guarded.as_role(name, "s3").get_object(**get)["Body"].read() == b"x"
    refused(guarded.as_role(name, "kms").decrypt, CiphertextBlob=b"-", KeyId=key)


def test_encrypted_stream_needs_its_key(guarded: LocalAws, role: Make, key: str) -> None:
    kinesis = guarded.client("kinesis")
    kinesis.create_stream(StreamName="encrypted", ShardCount=1)
    kinesis.start_stream_encryption(StreamName="encrypted", EncryptionType="KMS", KeyId=key)
    records = {"StreamName": "encrypted", "Records": [{"Data": b"x", "PartitionKey": "k"}]}
    name = role(allow("kinesis:PutRecords"))
    refused(guarded.as_role(name, "kinesis").put_records, "KMSAccessDeniedException", **records)
    role(allow("kinesis:PutRecords"), allow("kms:GenerateDataKey", key))
    assert guarded.as_role(name, "kinesis").put_records(**records)["FailedRecordCount"] == 0


def test_encrypted_table_needs_its_key(guarded: LocalAws, role: Make, key: str) -> None:
    guarded.client("dynamodb").create_table(
        TableName="encrypted",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        SSESpecification={"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": key},
    )
    name = role(allow("dynamodb:GetItem"))
    item = {"TableName": "encrypted", "Key": {"k": {"S": "a"}}}
    assert "kms:Decrypt" in refused(guarded.as_role(name, "dynamodb").get_item, **item)
    role(allow("dynamodb:GetItem"), allow("kms:Decrypt", key))
    guarded.as_role(name, "dynamodb").get_item(**item)


def test_role_is_passed_only_with_permission_and_to_its_service(guarded: LocalAws, role: Make) -> None:
    passed = f"arn:aws:iam::{ACCOUNT}:role/passed"
    job = {"Name": "j", "Role": passed, "Command": {"Name": "glueetl", "ScriptLocation": "s3://b/k"}}
    create = allow("glue:CreateJob", f"arn:aws:glue:{HERE}:job/j")
    name = role(create)
    assert f"iam:PassRole on resource: {passed}" in refused(guarded.as_role(name, "glue").create_job, **job)
    to_lambda = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    role(create, allow("iam:PassRole", passed, Condition=to_lambda))
    refused(guarded.as_role(name, "glue").create_job, **job)
    role(
        create, allow("iam:PassRole", passed, Condition={"StringEquals": {"iam:PassedToService": "glue.amazonaws.com"}})
    )
    guarded.as_role(name, "glue").create_job(**job)


def test_boundary_limits_and_deny_wins(guarded: LocalAws, role: Make) -> None:
    deny = {"Effect": "Deny", "Action": "sqs:ListQueues", "Resource": "*", "Sid": "NoQueues"}
    name = role(allow(["sqs:*", "sns:*"]), boundary=[allow("sqs:*")])
    guarded.as_role(name, "sqs").list_queues()
    refused(guarded.as_role(name, "sns").list_topics)
    role(allow(["sqs:*", "sns:*"]), deny)
    refused(guarded.as_role(name, "sqs").list_queues)
    (queues,) = decided(guarded, name, "sqs:ListQueues")
    assert queues["refusals"] == {"denied by a policy NoQueues": 1}


def test_role_may_be_made_only_with_the_boundary(guarded: LocalAws, role: Make) -> None:
    boundary = guarded.client("iam").create_policy(PolicyName="wall", PolicyDocument=policy(allow("s3:*")))
    arn = boundary["Policy"]["Arn"]
    walled = {"StringEquals": {"iam:PermissionsBoundary": arn}}
    name = role(allow(["iam:CreateRole", "iam:PutRolePolicy"], f"arn:aws:iam::{ACCOUNT}:role/made/*", Condition=walled))
    iam = guarded.as_role(name, "iam")
    asked = {"RoleName": "inner", "Path": "/made/", "AssumeRolePolicyDocument": policy(trusting("glue.amazonaws.com"))}
    refused(iam.create_role, **asked)
    iam.create_role(**asked, PermissionsBoundary=arn)
    iam.put_role_policy(RoleName="inner", PolicyName="p", PolicyDocument=policy(allow("s3:*")))
    refused(iam.put_role_policy, RoleName="passed", PolicyName="p", PolicyDocument=policy(allow("s3:*")))


def test_log_streams_are_judged_by_group_and_stream(guarded: LocalAws, role: Make) -> None:
    """`log-group:NAME:*` covers a group's streams; another group is refused."""
    guarded.client("logs").create_log_group(logGroupName="/mine")
    name = role(allow(["logs:CreateLogStream", "logs:PutLogEvents"], f"arn:aws:logs:{HERE}:log-group:/mine:*"))
    logs = guarded.as_role(name, "logs")
    logs.create_log_stream(logGroupName="/mine", logStreamName="s")
    logs.put_log_events(logGroupName="/mine", logStreamName="s", logEvents=[{"timestamp": 1, "message": "m"}])
    refused(logs.create_log_stream, logGroupName="/yours", logStreamName="s")
    role(allow(["logs:CreateLogStream"], f"arn:aws:logs:{HERE}:log-group:/mine"))
    refused(logs.create_log_stream, logGroupName="/mine", logStreamName="t")


def test_workgroup_of_a_query_is_found(guarded: LocalAws, role: Make) -> None:
    """A query names no workgroup: it is judged by the one that it ran in."""
    athena = guarded.client("athena")
    athena.create_work_group(
        Name="ours", Configuration={"ResultConfiguration": {"OutputLocation": "s3://nowhere/results/"}}
    )
    query = athena.start_query_execution(QueryString="SELECT 1", WorkGroup="ours")["QueryExecutionId"]
    reader = guarded.as_role(role(allow("athena:*", f"arn:aws:athena:{HERE}:workgroup/ours")), "athena")
    assert reader.get_query_execution(QueryExecutionId=query)["QueryExecution"]["WorkGroup"] == "ours"
    refused(reader.start_query_execution, QueryString="SELECT 1", WorkGroup="primary")


def test_session_of_a_role_that_is_not_there(guarded: LocalAws) -> None:
    with pytest.raises(OSError, match="404"):
        guarded.session("nobody")


def test_items_are_judged_by_their_partition_key(guarded: LocalAws, role: Make) -> None:
    """Whether it is read, written, queried or in a batch; one foreign key among several is enough to refuse."""
    guarded.client("dynamodb").create_table(
        TableName="led",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "source", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "source", "AttributeType": "S"}],
    )
    own = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["shop", "shop.*"]}}
    items = guarded.as_role(role(allow("dynamodb:*", Condition=own)), "dynamodb")

    def key(value: str) -> dict[str, Any]:
        return {"source": {"S": value}}

    def query(value: str) -> dict[str, Any]:
        condition = {"KeyConditionExpression": "#s = :v", "ExpressionAttributeNames": {"#s": "source"}}
        return {"TableName": "led", **condition, "ExpressionAttributeValues": {":v": {"S": value}}}

    def writes(*values: str) -> dict[str, Any]:
        return {"RequestItems": {"led": [{"PutRequest": {"Item": key(value)}} for value in values]}}

    for value in ("shop", "shop.accounts"):
        items.put_item(TableName="led", Item=key(value))
        items.get_item(TableName="led", Key=key(value))
        assert items.query(**query(value))["Count"] == 1
    items.batch_write_item(**writes("shop", "shop.b"))
    refused(items.put_item, TableName="led", Item=key("crm"))
    refused(items.get_item, TableName="led", Key=key("crm"))
    refused(items.query, **query("crm"))
    refused(items.batch_write_item, **writes("shop", "crm"))


def test_secret_is_decrypted_in_its_own_context(guarded: LocalAws, role: Make, key: str) -> None:
    """A key grant that is bound to a secret opens this one and no other."""
    secrets = guarded.client("secretsmanager")
    arns = {
        name: secrets.create_secret(Name=name, SecretString="s", KmsKeyId=key)["ARN"] for name in ("own", "foreign")
    }
    bound = {"StringEquals": {"kms:EncryptionContext:SecretARN": arns["own"]}}
    name = role(allow("secretsmanager:GetSecretValue"), allow("kms:Decrypt", key, Condition=bound))
    reader = guarded.as_role(name, "secretsmanager")
    assert reader.get_secret_value(SecretId="own")["SecretString"] == "s"
    assert "kms:Decrypt" in refused(reader.get_secret_value, SecretId="foreign")


def test_jobs_log_is_written_with_its_role(guarded: LocalAws, role: Make, until: Callable[..., Any]) -> None:
    """In the groups that the job names; without the permission the run goes on and its output is kept nowhere."""
    s3, glue, logs = guarded.client("s3"), guarded.client("glue"), guarded.client("logs")
    s3.create_bucket(Bucket="scripts")
    s3.put_object(Bucket="scripts", Key="job.py", Body=b"print('said')")
    read = allow("s3:GetObject", "arn:aws:s3:::scripts/*")
    name = role(read)
    glue.create_job(
        Name=name,
        Role=name,
        Command={"Name": "glueetl", "ScriptLocation": "s3://scripts/job.py"},
        DefaultArguments={"--custom-logGroup-prefix": "/ours/jobs"},
    )
    written = []
    for statements in ([read], [read, allow(["logs:*"], f"arn:aws:logs:{HERE}:log-group:/ours/jobs/*")]):
        role(*statements)
        run = {"JobName": name, "RunId": glue.start_job_run(JobName=name)["JobRunId"]}
        until(lambda run=run: glue.get_job_run(**run)["JobRun"]["JobRunState"], "SUCCEEDED".__eq__, 60)
        groups = logs.describe_log_groups(logGroupNamePrefix="/ours/jobs")["logGroups"]
        written.append([group["logGroupName"] for group in groups])
    assert written == [[], ["/ours/jobs/output"]]
