"""The seed's build, run as CodeBuild would run it: from checkout to what Terraform applied."""

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# A configuration that needs what the real one needs of the seed: the backend, the boundary, a role, a parameter.
STAND_IN = """
terraform {
  required_providers { aws = { source = "hashicorp/aws", version = ">= 5.100, < 6" } }
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}
variable "name" { type = string }
variable "environment" { type = string }
variable "region" { type = string }
variable "permissions_boundary_arn" { type = string }
variable "greeting" {
  type    = string
  default = "none"
}
provider "aws" {
  region                  = var.region
  skip_metadata_api_check = true
  default_tags { tags = { Project = var.name, Environment = var.environment } }
}
resource "aws_ssm_parameter" "greeting" {
  name  = "/${var.name}/greeting"
  type  = "String"
  value = var.greeting
}
resource "aws_iam_role" "worker" {
  name                 = "${var.name}-worker"
  permissions_boundary = var.permissions_boundary_arn
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "glue.amazonaws.com" } }]
  })
}
"""
MAKEFILE = """
glue-bundle:
\t@test -z "$$GIT_SSH_PRIVATE_KEY" && echo bundled without the deploy key
"""
DEPLOY_KEY = base64.b64encode(b"-----BEGIN OPENSSH PRIVATE KEY-----\nnot a key, but as long as one\n").decode()


@pytest.fixture(scope="module")
def stack(deploy: Callable[..., Any], parameters: Callable[..., dict[str, str]]) -> Iterator[Any]:
    yield deploy("river-seed", parameters(GitSSHPrivateKey=DEPLOY_KEY))


@pytest.fixture
def configured(remote: Any) -> Any:
    """A remote that holds the stand-in."""
    remote.commit({"terraform/main.tf": STAND_IN, "Makefile": MAKEFILE})
    return remote


def greeting(aws: Any) -> str | None:
    ssm = aws.client("ssm")
    try:
        return str(ssm.get_parameter(Name="/river/greeting")["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        return None


def test_without_apply_the_plan_is_kept_and_nothing_is_made(aws: Any, stack: Any, configured: Any, build: Any) -> None:
    """A build of a new seed (Apply is "no" unless given) keeps a readable and an applicable plan, and that is all."""
    done = build(stack)
    assert done.status == "SUCCEEDED", done.log
    assert greeting(aws) is None
    bucket = stack.outputs["StateBucketName"]
    assert b"aws_ssm_parameter.greeting will be created" in done.plan(bucket, "terraform.txt")
    assert zipfile.is_zipfile(io.BytesIO(done.plan(bucket, "terraform.tfplan")))
    kept = aws.client("s3").list_objects_v2(Bucket=bucket, Prefix="state/")
    assert kept["KeyCount"] == 0


def test_a_build_checks_out_plans_and_applies(aws: Any, stack: Any, configured: Any, build: Any) -> None:
    """With APPLY=yes a build ends with what Terraform describes, and with its state in the state bucket."""
    configured.commit({"terraform/environments/dev.tfvars": 'greeting = "from the variables file"\n'})
    done = build(stack, APPLY="yes")
    assert done.status == "SUCCEEDED", done.log
    assert greeting(aws) == "from the variables file"
    role = aws.client("iam").get_role(RoleName="river-worker")["Role"]
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == stack.outputs["PermissionsBoundaryARN"]
    bucket = stack.outputs["StateBucketName"]
    state = json.loads(aws.client("s3").get_object(Bucket=bucket, Key="state/terraform.tfstate")["Body"].read())
    assert {resource["name"] for resource in state["resources"]} == {"greeting", "worker"}
    assert "Commit " in done.log
    assert "bundled without the deploy key" in done.log


def test_the_deploy_key_is_used_for_the_checkout_alone(stack: Any, configured: Any, build: Any) -> None:
    """ssh gets the key in a file that only the build can read; no later command sees it, and no log shows it."""
    done = build(stack, TERRAFORM_SHA256="0" * 64)
    assert (configured.seen / "key").read_bytes() == base64.b64decode(DEPLOY_KEY)
    assert (configured.seen / "key_mode").read_text().strip() == "600"
    assert "GIT_SSH_PRIVATE_KEY" not in (configured.seen / "environment").read_text()
    assert DEPLOY_KEY not in done.log


def test_a_git_server_with_another_host_key_gets_no_deploy_key(stack: Any, configured: Any, build: Any) -> None:
    """The build ends before Terraform is downloaded when the server is not the pinned one."""
    done = build(stack, GIT_KNOWN_HOSTS="git.example.com ssh-ed25519 AAAAanother")
    assert done.status == "FAILED"
    assert "Host key verification failed" in done.log
    assert not (configured.seen / "key").exists()
    assert done.phases == ["SUBMITTED", "INSTALL", "COMPLETED"]


def test_an_archive_with_another_checksum_is_not_run(stack: Any, configured: Any, build: Any) -> None:
    """The build ends before Terraform is unpacked when the archive is not the one that was named."""
    done = build(stack, APPLY="yes", TERRAFORM_SHA256="0" * 64)
    assert done.status == "FAILED"
    assert "computed checksum did NOT match" in done.log
    assert done.phases == ["SUBMITTED", "INSTALL", "COMPLETED"]
    assert "Terraform v" not in done.log
