"""What the build's role cannot do, and what no role that it makes can do."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

ROLE = "gate-seed-build"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "glue.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)
EVERYTHING = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})


@pytest.fixture(scope="module")
def stack(aws: Any, deploy: Callable[..., Any], parameters: Callable[..., dict[str, str]]) -> Iterator[Any]:
    """A seed, another project's bucket, key, role and table beside it."""
    made = deploy("gate-seed", parameters(ProjectName="gate"))
    aws.client("s3").create_bucket(Bucket="other-lake")
    aws.client("s3").put_object(Bucket="other-lake", Key="jobs/code.zip", Body=b"theirs")
    aws.client("iam").create_role(RoleName="other-job", AssumeRolePolicyDocument=TRUST)
    aws.client("ec2").create_vpc(
        CidrBlock="10.8.0.0/16",
        TagSpecifications=[{"ResourceType": "vpc", "Tags": [{"Key": "Project", "Value": "other"}]}],
    )
    yield made


@pytest.fixture(scope="module")
def other_key(aws: Any) -> str:
    tags = [{"TagKey": "Project", "TagValue": "other"}]
    return str(aws.client("kms").create_key(Tags=tags)["KeyMetadata"]["KeyId"])


def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(ClientError) as told:
        call()
    assert told.value.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")


def test_a_role_is_made_only_with_the_workload_boundary(stack: Any, aws: Any) -> None:
    """Without a boundary, with another or with the build's own, a role is refused; with the right one it is made."""
    iam = aws.as_role(ROLE, "iam")
    named = {"RoleName": "gate-worker", "AssumeRolePolicyDocument": TRUST}
    refused(lambda: iam.create_role(**named))
    refused(lambda: iam.create_role(**named, PermissionsBoundary="arn:aws:iam::aws:policy/AdministratorAccess"))
    refused(lambda: iam.create_role(**named, PermissionsBoundary=stack.resources["BuildBoundary"]))
    iam.create_role(**named, PermissionsBoundary=stack.resources["WorkloadBoundary"])


def test_a_role_without_the_boundary_gets_no_policy(stack: Any, aws: Any) -> None:
    """A role of this project's name that someone else made without the boundary cannot be given rights by the build."""
    aws.client("iam").create_role(RoleName="gate-loose", AssumeRolePolicyDocument=TRUST)
    iam = aws.as_role(ROLE, "iam")
    named = {"RoleName": "gate-loose", "PolicyName": "all", "PolicyDocument": EVERYTHING}
    refused(lambda: iam.put_role_policy(**named))
    refused(lambda: iam.delete_role_permissions_boundary(RoleName="gate-loose"))


def test_the_build_cannot_change_the_seed(stack: Any, aws: Any) -> None:
    """Not its role, its policies, its boundaries, its bucket's policy, its key, its parameters or its deploy key."""
    iam, s3 = aws.as_role(ROLE, "iam"), aws.as_role(ROLE, "s3")
    bucket, boundary = stack.outputs["StateBucketName"], stack.resources["WorkloadBoundary"]
    refused(lambda: iam.put_role_policy(RoleName=ROLE, PolicyName="all", PolicyDocument=EVERYTHING))
    refused(lambda: iam.update_assume_role_policy(RoleName=ROLE, PolicyDocument=TRUST))
    refused(lambda: iam.create_policy_version(PolicyArn=boundary, PolicyDocument=EVERYTHING, SetAsDefault=True))
    refused(lambda: iam.delete_policy(PolicyArn=stack.resources["BuildBoundary"]))
    refused(lambda: s3.delete_bucket_policy(Bucket=bucket))
    refused(lambda: s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}))
    refused(lambda: s3.delete_object(Bucket=bucket, Key="state/terraform.tfstate"))
    kms = aws.as_role(ROLE, "kms")
    refused(lambda: kms.schedule_key_deletion(KeyId=stack.resources["SeedKey"], PendingWindowInDays=7))
    ssm = aws.as_role(ROLE, "ssm")
    refused(lambda: ssm.put_parameter(Name="/gate/seed/git_branch", Value="evil", Overwrite=True))
    secrets = aws.as_role(ROLE, "secretsmanager")
    refused(lambda: secrets.put_secret_value(SecretId="gate-seed/deploy-key", SecretString="evil"))


def test_the_build_cannot_touch_another_project(stack: Any, aws: Any, other_key: str) -> None:
    """Not another's bucket, role, key, table, stream, VPC or secret."""
    s3, iam, kms = aws.as_role(ROLE, "s3"), aws.as_role(ROLE, "iam"), aws.as_role(ROLE, "kms")
    refused(lambda: s3.get_object(Bucket="other-lake", Key="jobs/code.zip"))
    refused(lambda: s3.put_object(Bucket="other-lake", Key="jobs/code.zip", Body=b"ours"))
    refused(lambda: s3.delete_bucket(Bucket="other-lake"))
    refused(lambda: s3.create_bucket(Bucket="another-lake"))
    refused(lambda: iam.delete_role(RoleName="other-job"))
    refused(lambda: kms.schedule_key_deletion(KeyId=other_key, PendingWindowInDays=7))
    refused(lambda: kms.create_key(Tags=[{"TagKey": "Project", "TagValue": "other"}]))
    refused(lambda: aws.as_role(ROLE, "dynamodb").delete_table(TableName="other-tables"))
    refused(lambda: aws.as_role(ROLE, "kinesis").delete_stream(StreamName="other"))
    refused(lambda: aws.as_role(ROLE, "secretsmanager").get_secret_value(SecretId="other/database/shop"))
    ec2 = aws.as_role(ROLE, "ec2")
    found = ec2.describe_vpcs(Filters=[{"Name": "tag:Project", "Values": ["other"]}])["Vpcs"][0]["VpcId"]
    refused(lambda: ec2.delete_vpc(VpcId=found))
    refused(lambda: ec2.create_tags(Resources=[found], Tags=[{"Key": "Project", "Value": "gate"}]))


def test_the_build_reads_none_of_the_data(stack: Any, aws: Any) -> None:
    """It makes stream and tables and fills the settings; it reads no record, no row, no file and no password."""
    refused(
        lambda: aws.as_role(ROLE, "kinesis").get_shard_iterator(
            StreamName="gate", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
        )
    )
    refused(lambda: aws.as_role(ROLE, "dynamodb").scan(TableName="gate-schemas"))
    aws.client("s3").create_bucket(Bucket="gate-lake-of-a-test")
    aws.client("s3").put_object(Bucket="gate-lake-of-a-test", Key="tables/shop/data.parquet", Body=b"rows")
    s3 = aws.as_role(ROLE, "s3")
    refused(lambda: s3.get_object(Bucket="gate-lake-of-a-test", Key="tables/shop/data.parquet"))
    aws.client("secretsmanager").create_secret(Name="gate/database/shop", SecretString="password")
    secrets = aws.as_role(ROLE, "secretsmanager")
    refused(lambda: secrets.get_secret_value(SecretId="gate/database/shop"))


def test_roles_go_only_to_the_services_that_run_here(stack: Any, aws: Any) -> None:
    """A role of this project cannot be handed to a service that the deployment does not use."""
    aws.client("iam").create_role(RoleName="gate-box", AssumeRolePolicyDocument=TRUST)
    role = "arn:aws:iam::000000000000:role/gate-box"
    codebuild = aws.as_role(ROLE, "codebuild")
    refused(
        lambda: codebuild.create_project(
            name="gate-other",
            source={"type": "NO_SOURCE", "buildspec": "version: 0.2"},
            artifacts={"type": "NO_ARTIFACTS"},
            environment={"type": "LINUX_CONTAINER", "image": "x", "computeType": "BUILD_GENERAL1_SMALL"},
            serviceRole=role,
        )
    )
    glue = aws.as_role(ROLE, "glue")
    seed_role = f"arn:aws:iam::000000000000:role/{ROLE}"
    refused(lambda: glue.create_job(Name="gate-x", Role=seed_role, Command={"Name": "glueetl"}))


def test_a_workload_stays_within_its_boundary(stack: Any, aws: Any) -> None:
    """A role with the boundary and all rights there are still cannot reach IAM, the state, or another's bucket."""
    iam = aws.client("iam")
    iam.create_role(
        RoleName="gate-mighty",
        AssumeRolePolicyDocument=TRUST,
        PermissionsBoundary=stack.resources["WorkloadBoundary"],
    )
    iam.put_role_policy(RoleName="gate-mighty", PolicyName="all", PolicyDocument=EVERYTHING)
    bucket = stack.outputs["StateBucketName"]
    aws.client("s3").put_object(Bucket=bucket, Key="state/terraform.tfstate", Body=b"{}")
    s3 = aws.as_role("gate-mighty", "s3")
    s3.create_bucket(Bucket="gate-own")
    refused(lambda: s3.get_object(Bucket=bucket, Key="state/terraform.tfstate"))
    refused(lambda: s3.get_object(Bucket="other-lake", Key="jobs/code.zip"))
    refused(lambda: aws.as_role("gate-mighty", "iam").create_user(UserName="someone"))
    refused(
        lambda: aws.as_role("gate-mighty", "iam").put_role_policy(
            RoleName="gate-mighty", PolicyName="more", PolicyDocument=EVERYTHING
        )
    )
    refused(lambda: aws.as_role("gate-mighty", "secretsmanager").get_secret_value(SecretId="gate-seed/deploy-key"))
    refused(lambda: aws.as_role("gate-mighty", "codebuild").start_build(projectName="gate-seed-deploy"))
