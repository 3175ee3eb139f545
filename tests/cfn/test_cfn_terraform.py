"""The seed's build applies the repository's own Terraform, with nothing but the seed's role."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("terraform", "schemas", "glue_streaming", "ops")

# The jobs of a laptop find the wheels in their own environment.
MAKEFILE = "glue-bundle:\n\tpython3 -m ops.glue_bundle --without-wheels\n"


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
        ignored = shutil.ignore_patterns("__pycache__", ".terraform*", "*.tfstate*")
        shutil.copytree(ROOT / folder, remote.work / folder, ignore=ignored)
    remote.commit({"Makefile": MAKEFILE, "terraform/environments/dev.tfvars.json": variables(certificate)})
    return remote


@pytest.mark.slow
def test_the_seed_builds_and_removes_the_whole_deployment(
    aws: Any, deploy: Callable[..., Any], parameters: Any, repository: Any, build: Any
) -> None:
    """A build of an empty account ends with the deployment applied, the next plans no change, the last removes it."""
    stack = deploy("river-seed-whole", parameters(ProjectName="whole"))
    aws.forget_decisions()
    applied = build(stack, seconds=600, APPLY="yes", TF_CLI_ARGS_apply="-parallelism=30")
    assert applied.status == "SUCCEEDED", applied.log[-6000:]
