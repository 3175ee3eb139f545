"""The seed as a template, and as what a change set makes of it."""

import fnmatch
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SEED = Path(__file__).resolve().parents[2] / "cfn" / "seed.yaml"

# What CloudFormation and IAM take at most.
MAX_TEMPLATE_BYTES = 51_200
MAX_MANAGED_POLICY_CHARACTERS = 6_144
MAX_INLINE_POLICY_CHARACTERS = 10_240


@pytest.fixture(scope="module")
def stack(deploy: Callable[..., Any], parameters: Callable[..., dict[str, str]]) -> Iterator[Any]:
    """A seed outside any VPC."""
    yield deploy("delta-seed", parameters(ProjectName="delta", SourceNames="shop,bank"))


def network(aws: Any) -> tuple[str, list[str]]:
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    cidrs = ("10.9.1.0/24", "10.9.2.0/24")
    return vpc, [ec2.create_subnet(VpcId=vpc, CidrBlock=cidr)["Subnet"]["SubnetId"] for cidr in cidrs]


def compact(document: dict[str, Any]) -> int:
    return len(json.dumps(document, separators=(",", ":")))


def test_the_linter_finds_nothing() -> None:
    """cfn-lint passes, and what it was told to overlook is named in the template with its reason."""
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--template", str(SEED), "--regions", "us-east-1"]
    linted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")
    assert SEED.read_text().count("ignore_checks") == 1


def test_the_template_can_be_given_without_a_bucket() -> None:
    """It fits into a request, so that no bucket is needed before the first one is made."""
    assert len(SEED.read_bytes()) <= MAX_TEMPLATE_BYTES


def test_a_change_set_names_what_will_be_made(change_set: Callable[..., Any], parameters: Any, aws: Any) -> None:
    """The change set of a new stack adds every resource of the template, and makes nothing by itself."""
    described = change_set("preview-seed", parameters(ProjectName="preview"))
    assert described["Status"] == "CREATE_COMPLETE"
    changes = {each["ResourceChange"]["LogicalResourceId"]: each["ResourceChange"] for each in described["Changes"]}
    assert {change["Action"] for change in changes.values()} == {"Add"}
    assert {"StateBucket", "BuildRole", "BuildBoundary", "WorkloadBoundary", "DeployKey", "Deploy"} <= set(changes)
    assert "preview-seed-deploy" not in aws.client("codebuild").list_projects()["projects"]


def test_outputs_lead_to_the_project_and_the_state(stack: Any) -> None:
    """The stack names its project, the project's page, its bucket and the boundary."""
    assert stack.outputs["CodeBuildProjectName"] == "delta-seed-deploy" == stack.project["name"]
    assert "/projects/delta-seed-deploy/" in stack.outputs["CodeBuildURL"]
    assert stack.outputs["StateBucketName"] == "delta-state-000000000000-us-east-1"
    assert stack.outputs["PermissionsBoundaryARN"].endswith("policy/delta-seed-workload-boundary")


def test_the_deploy_key_is_a_secret_and_nowhere_else(stack: Any, parameters: Any, aws: Any) -> None:
    """Secrets Manager holds the key; stack, project and parameters do not show it."""
    key = parameters()["GitSSHPrivateKey"]
    assert aws.client("secretsmanager").get_secret_value(SecretId="delta-seed/deploy-key")["SecretString"] == key
    described = aws.client("cloudformation").describe_stacks(StackName=stack.name)["Stacks"][0]
    shown = {each["ParameterKey"]: each["ParameterValue"] for each in described["Parameters"]}
    assert shown["GitSSHPrivateKey"] == "****"
    assert key not in json.dumps(stack.project, default=str)
    found = aws.client("ssm").get_parameters_by_path(Path="/delta/", Recursive=True)["Parameters"]
    assert len(found) == 8
    assert key not in json.dumps(found, default=str)


def test_the_state_bucket_is_closed(stack: Any, aws: Any) -> None:
    """Versions, a key of its own, no public access, and a policy against plain HTTP and other accounts."""
    s3, bucket = aws.client("s3"), stack.outputs["StateBucketName"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert stack.resources["SeedKey"] in rules[0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    blocked = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert all(blocked[name] is True or blocked[name] == "true" for name in blocked)
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert {rule["ID"]: rule["Filter"]["Prefix"] for rule in rules} == {"replaced-versions": "", "plans": "builds/"}
    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    conditions = [(each["Effect"], each["Condition"]) for each in policy]
    assert ("Deny", {"Bool": {"aws:SecureTransport": "false"}}) in conditions
    assert ("Deny", {"StringNotEquals": {"aws:PrincipalAccount": "000000000000"}}) in conditions
    assert all(each["Resource"] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"] for each in policy)
    assert aws.client("kms").get_key_rotation_status(KeyId=stack.resources["SeedKey"])["KeyRotationEnabled"]


def test_logs_are_kept_for_their_time(stack: Any, aws: Any) -> None:
    """The build's log group is made by the stack, with the retention and the key of the stack."""
    found = aws.client("logs").describe_log_groups(logGroupNamePrefix="/aws/codebuild/delta-")["logGroups"]
    assert [(group["logGroupName"], group["retentionInDays"]) for group in found] == [
        ("/aws/codebuild/delta-seed-deploy", 90)
    ]
    assert stack.project["logsConfig"]["cloudWatchLogs"]["groupName"] == "/aws/codebuild/delta-seed-deploy"


def test_policies_fit_and_grant_no_service_whole(stack: Any, aws: Any) -> None:
    """Each is within IAM's size; the build's own grant no service whole, and change nothing that is not told apart."""
    iam = aws.client("iam")

    def document(arn: str) -> dict[str, Any]:
        return dict(iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"])

    attached = iam.list_attached_role_policies(RoleName="delta-seed-build")["AttachedPolicies"]
    documents = {each["PolicyArn"]: document(each["PolicyArn"]) for each in attached}
    assert len(documents) == 5
    assert [arn for arn, each in documents.items() if compact(each) > MAX_MANAGED_POLICY_CHARACTERS] == []
    for name in ("build", "workload"):
        arn = f"arn:aws:iam::000000000000:policy/delta-seed-{name}-boundary"
        assert compact(document(arn)) <= MAX_MANAGED_POLICY_CHARACTERS
    inline = iam.get_role_policy(RoleName="delta-seed-build", PolicyName="build")["PolicyDocument"]
    assert compact(inline) <= MAX_INLINE_POLICY_CHARACTERS
    for statement in [each for policy in [*documents.values(), inline] for each in policy["Statement"]]:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        assert not [action for action in actions if action == "*" or action.endswith(":*")], statement
        if statement["Resource"] == "*":
            reads = ("Describe", "Get", "List", "Validate")
            writes = [action for action in actions if not action.partition(":")[2].startswith(reads)]
            assert not writes or "Condition" in statement or statement["Sid"] in UNNAMED, statement


# Services that judge these actions by no resource.
UNNAMED = ("SecurityConfigurations", "LakeFormation", "LogDelivery", "CompositeAlarms")


def test_roles_of_the_build_can_tag_nothing_into_its_reach(stack: Any, aws: Any) -> None:
    """The build is told apart by a tag, so no role that it makes may set tags of keys, or of more than interfaces."""
    arn = "arn:aws:iam::000000000000:policy/delta-seed-workload-boundary"
    document = aws.client("iam").get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"]
    tagging = ("ec2:CreateTags", "ec2:DeleteTags", "kms:TagResource", "kms:UntagResource", "kms:PutKeyPolicy")
    reach = {
        (action, str(statement["Resource"]))
        for statement in document["Statement"]
        if statement["Effect"] == "Allow"
        for action in tagging
        for pattern in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        if fnmatch.fnmatchcase(action, pattern)
    }
    interfaces = "arn:aws:ec2:us-east-1:000000000000:network-interface/*"
    assert reach == {("ec2:CreateTags", interfaces), ("ec2:DeleteTags", interfaces)}


def test_databases_are_those_of_the_sources(stack: Any, aws: Any) -> None:
    """The build may make the databases of each source that was named, and no other."""
    glue = aws.as_role("delta-seed-build", "glue")
    for name in ("shop", "bank_cut"):
        glue.create_database(DatabaseInput={"Name": name})
        glue.delete_database(Name=name)
    with pytest.raises(glue.exceptions.ClientError, match="AccessDenied"):
        glue.create_database(DatabaseInput={"Name": "payroll"})


def test_a_build_in_a_vpc_runs_in_its_subnets(
    deploy: Callable[..., Any], parameters: Callable[..., dict[str, str]], aws: Any
) -> None:
    """With a VPC the project gets subnets and a security group that lets nothing in, and HTTPS and SSH out."""
    vpc, subnets = network(aws)
    stack = deploy("inner-seed", parameters(ProjectName="inner", VpcID=vpc, PrivateSubnetIDs=",".join(subnets)))
    inside = stack.project["vpcConfig"]
    assert (inside["vpcId"], inside["subnets"]) == (vpc, subnets)
    group = aws.client("ec2").describe_security_groups(GroupIds=inside["securityGroupIds"])["SecurityGroups"][0]
    assert group["IpPermissions"] == []
    assert sorted(rule["FromPort"] for rule in group["IpPermissionsEgress"]) == [22, 443]
    policy = aws.client("iam").get_role_policy(RoleName="inner-seed-build", PolicyName="network")["PolicyDocument"]
    lent = next(each for each in policy["Statement"] if each["Sid"] == "LentToCodeBuild")
    assert [arn.rpartition("/")[2] for arn in lent["Condition"]["ArnEquals"]["ec2:Subnet"]] == subnets


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"PrivateSubnetIDs": "subnet-0123456789abcdef0"}, "PrivateSubnetIDs: given without VpcID"),
        ({"VpcID": "vpc-0123456789abcdef0"}, "PrivateSubnetIDs: missing"),
        (
            {"VpcID": "vpc-0123456789abcdef0", "PrivateSubnetIDs": "subnet-0123456789abcdef0"},
            "VpcID: there is no such VPC",
        ),
        ({"IAMCodeBuildPoliciesARNs": "arn:aws:iam::aws:policy/AdministratorAccess"}, "not AdministratorAccess"),
        ({"GitSSHPrivateKey": "-----BEGIN OPENSSH PRIVATE KEY----- " * 3}, "GitSSHPrivateKey"),
        ({"GitKnownHosts": "git.example.com"}, "GitKnownHosts"),
        ({"TerraformSHA256": "abc"}, "TerraformSHA256"),
        ({"ConfigRepoURL": "https://git.example.com/group/river.git"}, "ConfigRepoURL"),
        ({"DeploymentDirPath": "../elsewhere"}, "DeploymentDirPath"),
        ({"SourceNames": "shop,*"}, "SourceNames"),
        ({"ProjectName": "River"}, "ProjectName"),
    ],
)
def test_parameters_that_cannot_work_are_refused(
    change_set: Callable[..., Any], parameters: Any, aws: Any, changes: dict[str, str], says: str
) -> None:
    """No change set is made of them, and the message names the parameter."""
    with pytest.raises(aws.client("cloudformation").exceptions.ClientError, match=says):
        change_set("refused-seed", parameters(**changes))


def test_an_update_changes_what_was_changed(deploy: Callable[..., Any], parameters: Any, aws: Any) -> None:
    """Another branch is one parameter more or less: project, role and bucket stay as they are."""
    before = deploy("moving-seed", parameters(ProjectName="moving"))
    after = deploy("moving-seed", parameters(ProjectName="moving", GitBranch="release"), "UPDATE")
    assert after.resources == before.resources
    assert aws.client("ssm").get_parameter(Name="/moving/seed/git_branch")["Parameter"]["Value"] == "release"


def test_state_and_its_key_outlive_the_stack(deploy: Callable[..., Any], parameters: Any, aws: Any) -> None:
    """After the stack is deleted, project and role are gone; bucket, its policy and its key are there."""
    stack = deploy("gone-seed", parameters(ProjectName="gone"))
    bucket = stack.outputs["StateBucketName"]
    aws.client("s3").put_object(Bucket=bucket, Key="state/terraform.tfstate", Body=b"{}")
    cloudformation = aws.client("cloudformation")
    cloudformation.delete_stack(StackName=stack.name)
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=stack.name, WaiterConfig={"Delay": 1, "MaxAttempts": 300}
    )
    assert "gone-seed-deploy" not in aws.client("codebuild").list_projects()["projects"]
    assert aws.client("s3").get_object(Bucket=bucket, Key="state/terraform.tfstate")["Body"].read() == b"{}"
    assert "EncryptedTransportOnly" in aws.client("s3").get_bucket_policy(Bucket=bucket)["Policy"]
    assert aws.client("kms").describe_key(KeyId=stack.resources["SeedKey"])["KeyMetadata"]["KeyState"] == "Enabled"
