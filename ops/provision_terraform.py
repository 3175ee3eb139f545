"""Everything that Headrace needs on the laptop's AWS, made by the Terraform that makes it on AWS.

Where this is used IAM is enforced and each process has its own role. `provision.py` is the other way: without
Terraform, without IAM.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops import glue_bundle, identities
from ops.aws import Aws
from ops.provision import Deployment, Workflows, maintenance_conf
from ops.terraform import Terraform


def provision(aws: Aws, deployment: Deployment, folder: Path) -> Workflows:
    """Builds the bundle and applies; a second run brings what is there up to date."""
    bundle = folder / "bundle"
    glue_bundle.build(bundle, with_wheels=False)  # the jobs run in this interpreter's environment
    identities.make_users(aws)
    terraform = Terraform(folder / "terraform", variables(deployment, bundle), aws.environment())
    terraform.prepare()
    kept = terraform.output().get("bundles", [])
    terraform.apply(earlier_bundles=kept)  # the streaming run has the code before until the ingest workflow stops it
    outputs = terraform.output()["deployment"]
    (source,) = deployment.sources
    roles = {
        identities.AGENT: outputs["roles"][f"agent_{source}"],
        identities.ANALYST: outputs["roles"]["analyst"],
    }
    identities.write(aws, roles, folder / "aws_config")
    return Workflows(outputs["workflows"]["ingest"], outputs["workflows"]["fold"])


def variables(deployment: Deployment, bundle: Path) -> dict[str, Any]:
    """Terraform's variables for a deployment on the laptop."""
    names = deployment.names
    return {
        "laptop": True,
        "name": names.prefix,
        "sources": {source: {} for source in deployment.sources},
        "stream": {"shards": deployment.shards},
        "lake": {"bucket_name": names.bucket, "force_destroy": True},
        "registry": {"deletion_protection": False},
        "artefacts": {"folder": str(bundle)},
        "stream_job": {
            "mode": deployment.mode,
            "checkpoint": deployment.checkpoint,
            "conf": f"spark.driver.memory={deployment.stream_heap_mib}m",
            "settings": _settings(deployment, names.stream_job),
        },
        "fold_job": {
            "map_concurrency": deployment.map_concurrency,
            "horizon_seconds": deployment.fold_horizon_seconds,
            "conf": f"spark.driver.memory={deployment.fold_heap_mib}m",
            "settings": _settings(deployment, names.fold_job),
        },
        "maintenance": {
            "schedule": deployment.maintenance,
            "conf": maintenance_conf(deployment.maintain_heap_mib),
        },
        "schedules": {"ingest": deployment.schedule, "fold": deployment.schedule},
        "agent": {"trusted_principals": [identities.user_arn(identities.AGENT)]},
        "analysts": [identities.user_arn(identities.ANALYST)],
    }


def _settings(deployment: Deployment, job: str) -> Mapping[str, str]:
    return dict(deployment.settings.get(job, {}))
