"""One deployment of everything that Terraform can make, applied once to the laptop's AWS with IAM enforced."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from localaws.process import LocalAws, running
from ops import glue_bundle, terraform
from ops.provision import maintenance_conf
from ops.terraform import Terraform

SITE_AUTHORITY = """-----BEGIN CERTIFICATE-----
MIIBiDCCAS+gAwIBAgIUWkRMjUk43RyM5GiksnJq9qZDVFcwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOU2l0ZSBhdXRob3JpdHkwIBcNMjYxMTIzMTMzMjA4WhgPMjEy
NjEwMzAxMzMyMDhaMBkxFzAVBgNVBAMMDlNpdGUgYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEY49EEq0XJXxSvN1KyU8sC2QKc8343R5ol81UWRyw
xvRFGRvyXl9eTIORPi7Ct57sSfJtH68of5oANulz7DdluKNTMFEwHQYDVR0OBBYE
FPajPBztS0zQKoP+MT6VN7BY7/32MB8GA1UdIwQYMBaAFPajPBztS0zQKoP+MT6V
N7BY7/32MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIfKOOX2gVN
7dacKJ3M0IqHCHFjp+JstPPR44TixSD4rAIhAIjqd8r/rNk532GdO/xydX1Wi/Jw
bfDoB1ugjnLjl6Si
-----END CERTIFICATE-----
"""


@dataclass(frozen=True)
class Applied:
    """A deployment: its AWS, its Terraform, and the names of what was made."""

    aws: LocalAws
    terraform: Terraform
    names: dict[str, Any]
    clients: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)

    def as_role(self, role: str, service: str) -> Any:
        """A client in a session of a role, by the role's name behind the deployment's."""
        if (role, service) not in self.clients:
            self.clients[role, service] = self.aws.as_role(f"{self.names['name']}-{role}", service)
        return self.clients[role, service]


@pytest.fixture(scope="session")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    """Applied at its first use and destroyed at the end; what a destroy leaves behind is an error."""
    if why := terraform.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("applied")
    glue_bundle.build(folder / "bundle", with_wheels=False)
    with running(folder / "aws", auth=True) as aws:
        deployment = Terraform(folder / "terraform", variables(folder / "bundle"), aws.environment())
        deployment.prepare()
        timed("apply", deployment.apply)
        yield Applied(aws, deployment, deployment.output()["deployment"])
        timed("destroy", deployment.destroy)
        assert leftovers(aws) == []


def timed(name: str, step: Any) -> None:
    started = time.monotonic()
    step()
    print(f"terraform {name}: {time.monotonic() - started:.0f} s", file=sys.stderr)


def variables(bundle: Path) -> dict[str, Any]:
    """Every part that can be switched on, with two sources, so that each agent has another's things beside its own."""
    return {
        "laptop": True,
        "sources": {"shop": {}, "crm": {}},
        "lake": {"bucket_name": "headrace-lake", "force_destroy": True},
        "registry": {"deletion_protection": False},
        "artefacts": {"folder": str(bundle)},
        "stream": {"schedule": {"morning": {"expression": "cron(0 6 * * ? *)", "shards": 4}}},
        "stream_job": {"settings": {"trigger_seconds": "1"}},
        "schedules": {"ingest": "rate(365 days)", "fold": "rate(365 days)"},
        "maintenance": {"conf": maintenance_conf(512)},
        "analysts": ["arn:aws:iam::000000000000:root"],
        "operations": {"emails": ["team@example.com"], "athena_gib_a_day": 10},
        "network": {"enabled": True, "site_cidrs": ["10.20.0.0/16"]},
        "vpn": {"enabled": True, "device_ip": "203.0.113.7"},
        "jobs_in_vpc": True,
        "agent": {"ca_bundle": SITE_AUTHORITY, "password_secrets": True},
    }


def leftovers(aws: LocalAws) -> list[str]:
    """What is still there of each kind that the deployment makes."""
    found = [
        *aws.client("kinesis").list_streams()["StreamNames"],
        *aws.client("dynamodb").list_tables()["TableNames"],
        *(bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]),
        *(job["Name"] for job in aws.client("glue").get_jobs()["Jobs"]),
        *(database["Name"] for database in aws.client("glue").get_databases()["DatabaseList"]),
        *(connection["Name"] for connection in aws.client("glue").get_connections()["ConnectionList"]),
        *(role["RoleName"] for role in aws.client("iam").list_roles()["Roles"]),
        *(machine["name"] for machine in aws.client("stepfunctions").list_state_machines()["stateMachines"]),
        *(function["FunctionName"] for function in aws.client("lambda").list_functions()["Functions"]),
        *(schedule["Name"] for schedule in aws.client("scheduler").list_schedules()["Schedules"]),
        *(group["logGroupName"] for group in aws.client("logs").describe_log_groups()["logGroups"]),
        *(alarm["AlarmName"] for alarm in aws.client("cloudwatch").describe_alarms()["MetricAlarms"]),
        *(topic["TopicArn"] for topic in aws.client("sns").list_topics()["Topics"]),
        *aws.client("sqs").list_queues().get("QueueUrls", []),
        *(rule["Name"] for rule in aws.client("events").list_rules()["Rules"]),
        *(parameter["Name"] for parameter in aws.client("ssm").describe_parameters()["Parameters"]),
        *(anchor["name"] for anchor in aws.client("rolesanywhere").list_trust_anchors()["trustAnchors"]),
    ]
    ec2 = aws.client("ec2")
    found += [each["VpcEndpointId"] for each in ec2.describe_vpc_endpoints()["VpcEndpoints"]]
    found += [each["VpnConnectionId"] for each in ec2.describe_vpn_connections()["VpnConnections"]]
    found += [each["VpcId"] for each in ec2.describe_vpcs()["Vpcs"] if not each["IsDefault"]]
    return [name for name in found if not name.startswith("AWS")]
