"""The VPN and wrong variables, with the real Terraform against the laptop's AWS."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localaws.process import LocalAws, running
from ops import terraform
from ops.terraform import Terraform, TerraformFailed

BUNDLE = terraform.SOURCE / "tests" / "bundle"
SITE = {"enabled": True, "site_cidrs": ["10.20.0.0/16"], "endpoints": [], "flow_logs": False}
GOOD: dict[str, Any] = {
    "laptop": True,
    "artefacts": {"folder": str(BUNDLE)},
    "network": SITE,
    "vpn": {"enabled": True, "device_ip": "203.0.113.7", "logs": False},
}

# Wrong variables and what is said of them. Rules that look at two variables speak once the first one is right.
WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no shard, one subnet": (
        {
            "stream": {"shards": 0},
            "network": {"enabled": True, "vpc_id": "vpc-1", "subnet_ids": ["subnet-1"], "site_cidrs": ["10.20.0.0/16"]},
        },
        (
            "stream.shards: a whole number from 1",
            "network.subnet_ids: a given VPC needs at least two different subnets",
            "network.route_table_ids: name the route tables",
        ),
    ),
    "an overlap with the site": (
        {"network": SITE | {"cidr": "10.20.4.0/22", "site_cidrs": ["192.168.7.0/24", "10.20.0.0/16"]}},
        ("network.cidr: 10.20.4.0/22 overlaps one of network.site_cidrs (192.168.7.0/24, 10.20.0.0/16)",),
    ),
    "a private device, a password in a dsn": (
        {
            "vpn": {"enabled": True, "device_ip": "10.20.0.1"},
            "agent": {"sites": {"shop": {"dsn": "postgresql://headrace:secret@db/shop"}}},
        },
        ("vpn.device_ip: a public IPv4 address", "agent.sites: a dsn holds no password"),
    ),
}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    if why := terraform.missing():
        pytest.skip(why)
    with running(tmp_path_factory.mktemp("aws")) as server:
        yield server


@pytest.fixture(scope="module")
def deployment(aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    prepared = Terraform(tmp_path_factory.mktemp("terraform"), GOOD, aws.environment())
    prepared.prepare()
    return prepared


def _plan(deployment: Terraform, variables: dict[str, Any]) -> str:
    """What a plan with other variables says; an empty text when it says nothing against them."""
    given = deployment.folder / "given.tfvars.json"
    given.write_text(json.dumps(variables))
    try:
        deployment.run("plan", "-input=false", f"-var-file={given}")
    except TerraformFailed as error:
        return " ".join(str(error).replace("│", " ").split())
    return ""


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_variable_is_named(deployment: Terraform, case: str) -> None:
    """The plan fails, and each message begins with the variable to change."""
    variables, told = WRONG[case]
    said = _plan(deployment, GOOD | variables)
    assert [message for message in told if message not in said] == []


def test_no_tunnel_key_is_in_the_state(aws: LocalAws, deployment: Terraform) -> None:
    """After an apply the keys are in their secret, and neither in the state nor in what Terraform printed."""
    printed = deployment.run("apply", "-auto-approve", "-target=aws_vpn_connection.site").stdout
    secrets = aws.client("secretsmanager")
    (made,) = secrets.list_secrets()["SecretList"]
    keys = json.loads(secrets.get_secret_value(SecretId=made["ARN"])["SecretString"])
    state = "".join(path.read_text() for path in Path(deployment.folder).glob("terraform.tfstate*"))
    assert len(keys) == 2
    assert made["ARN"] in state
    assert [name for name, key in keys.items() if key in state or key in printed] == []
