"""The seed's build applies the repository's own Terraform, with nothing but the seed's role."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops import unused_statements

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("terraform", "schemas", "glue_streaming", "ops")

# The jobs of a laptop find the wheels in their own environment.
BUNDLE = "--without-wheels"


def variables(certificate: str) -> str:
    """Every part that can be switched on, in the sizes of a test."""
    return json.dumps(
        {
            "sources": {"shop": {}},
            "stream": {"shards": 1, "schedule": {"morning": {"expression": "cron(0 7 * * ? *)", "shards": 2}}},
            "lake": {"force_destroy": True},
            "registry": {"deletion_protection": False},
            "stream_job": {"settings": {"trigger_seconds": "1"}},
            "operations": {"emails": ["someone@example.com"]},
            "network": {"enabled": True, "site_cidrs": ["10.20.0.0/16"]},
            "vpn": {"enabled": True, "device_ip": "203.0.113.7"},
            "jobs_in_vpc": True,
            "agent": {"ca_bundle": certificate, "password_secrets": True},
            "analysts": ["arn:aws:iam::000000000000:root"],
        }
    )


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """The certificate of an authority that nobody trusts."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    files = ["-keyout", str(tmp_path / "ca.key"), "-out", str(tmp_path / "ca.pem")]
    extensions = ["-addext", "keyUsage=critical,keyCertSign"]
    subprocess.run([*words, *files, "-subj", "/CN=river", *extensions], check=True, capture_output=True)
    return (tmp_path / "ca.pem").read_text()


@pytest.fixture
def repository(remote: Any, certificate: str) -> Any:
    """A remote that holds this repository as it is on this machine."""
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", ".terraform", "*.tfstate*")
        shutil.copytree(ROOT / folder, remote.work / folder, ignore=ignored)
    shutil.copy(ROOT / "Makefile", remote.work)
    remote.commit({"terraform/environments/dev.tfvars.json": variables(certificate)})
    return remote


# Why a statement of the build's role may be there although no request of this test used it.
UNUSED = {
    "*/ServiceLinkedRoles": "AWS makes the service-linked roles of VPN and Roles Anywhere at the first use",
    "*/LogDelivery": "services that deliver logs ask for it in the caller's name, which the laptop's AWS does not do",
    "*/TunnelKeys": "EC2 makes a VPN's secret in the caller's name, which the laptop's AWS does not do",
    "*/OwnKeysForServices": "DynamoDB makes its grants in the caller's name, which the laptop's AWS does not do",
    "*/TagWhatIsMade": "EC2 asks for it beside the creation, which the laptop's AWS does not do",
    "*/InTheCallersName": "EC2 and the resolver ask for it in the caller's name, which the laptop's AWS does not do",
    "*/WhatDatabasesAreIn": "the databases' own statement comes first in the laptop's AWS",
    "*/LakeFormation": "only where Lake Formation is hardened",
}


@pytest.mark.slow
def test_the_seed_builds_and_removes_the_whole_deployment(
    aws: Any, deploy: Callable[..., Any], parameters: Any, repository: Any, build: Any
) -> None:
    """A build of an empty account makes the deployment, a build with -destroy removes it; no statement is idle."""
    stack = deploy("whole-seed", parameters(ProjectName="whole"))
    aws.forget_decisions()
    quick = {
        "APPLY": "yes",
        "BUNDLE": BUNDLE,
        "TF_CLI_ARGS_apply": "-parallelism=30",
        "TF_CLI_ARGS_plan": "-parallelism=30",
    }
    applied = build(stack, seconds=600, **quick)
    assert applied.status == "SUCCEEDED", applied.log[-6000:]
    jobs = aws.client("glue").get_jobs()["Jobs"]
    assert {job["Name"] for job in jobs} >= {"whole-stream", "whole-fold"}
    roles = [role for role in aws.client("iam").list_roles()["Roles"] if role["RoleName"].startswith("whole-")]
    unbound = [role["RoleName"] for role in roles if not bounded(aws, role["RoleName"], stack)]
    assert unbound == ["whole-seed-build"]

    removed = build(stack, seconds=600, PLAN_OPTIONS="-destroy", **quick)
    assert removed.status == "SUCCEEDED", removed.log[-6000:]
    state = aws.client("s3").get_object(Bucket=stack.outputs["StateBucketName"], Key="state/terraform.tfstate")
    assert json.loads(state["Body"].read())["resources"] == []

    idle = unused_statements.unexplained(
        each for each in unused_statements.unused(grants(aws), aws.decisions()["decisions"], UNUSED) if each.whole
    )
    assert [str(each) for each in idle] == []


def bounded(aws: Any, role: str, stack: Any) -> bool:
    described = aws.client("iam").get_role(RoleName=role)["Role"]
    found = described.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    return bool(found == stack.outputs["PermissionsBoundaryARN"])


def grants(aws: Any) -> list[unused_statements.Grant]:
    """The build's role's statements."""
    iam, role = aws.client("iam"), "whole-seed-build"
    policies = {"build": iam.get_role_policy(RoleName=role, PolicyName="build")["PolicyDocument"]}
    for each in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        arn = each["PolicyArn"]
        policies[arn] = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"]
    return unused_statements.grants(role, policies)
