"""The seed's build, run as CodeBuild would run it: from checkout to what Terraform applied."""

import json
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
MAKEFILE = "glue-bundle:\n\t@mkdir -p build && echo bundled > build/bundle && env > build/environment\n"


@pytest.fixture(scope="module")
def stack(deploy: Callable[..., Any], parameters: Callable[..., dict[str, str]]) -> Iterator[Any]:
    yield deploy("river-seed", parameters())


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


def test_a_build_checks_out_plans_and_applies(aws: Any, stack: Any, configured: Any, build: Any) -> None:
    """With APPLY=yes a build ends with what Terraform describes, its state and its plan in the state bucket."""
    configured.commit({"terraform/environments/dev.tfvars": 'greeting = "from the variables file"\n'})
    done = build(stack, APPLY="yes")
    assert done.status == "SUCCEEDED", done.log
    assert greeting(aws) == "from the variables file"
    role = aws.client("iam").get_role(RoleName="river-worker")["Role"]
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == stack.outputs["PermissionsBoundaryARN"]
    bucket = stack.outputs["StateBucketName"]
    state = json.loads(aws.client("s3").get_object(Bucket=bucket, Key="state/terraform.tfstate")["Body"].read())
    assert {resource["name"] for resource in state["resources"]} == {"greeting", "worker"}
    assert b"aws_ssm_parameter.greeting will be created" in done.plan(bucket, "terraform.txt")
