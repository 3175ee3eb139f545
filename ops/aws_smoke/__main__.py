"""The words of the command line: what is asked, what it costs, the confirmation, and the exit status."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from ops import parts
from ops.aws import Aws
from ops.aws_smoke import price, report, site
from ops.aws_smoke.checks import CHECKS, Patience, RolesAnywhere, Scene
from ops.aws_smoke.infrastructure import SmokeInfrastructure
from ops.aws_smoke.script import run
from ops.errors import OpsError
from ops.names import Names

ROOT: Final = Path(".headrace/smoke")
_LAPTOP: Final = ("127.0.0.1", "localhost")


def main(words: Sequence[str] | None = None) -> int:
    """0: no check failed and nothing is left behind. 1: something failed. 2: it was not started."""
    arguments = _parser().parse_args(words)
    console = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        return _remove(arguments, console) if arguments.remove else _smoke(arguments, console)
    except OpsError as error:
        console.print(f"aws-smoke: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    except (BotoCoreError, ClientError) as error:
        console.print(f"aws-smoke: AWS does not answer as it should: {error}", markup=False, soft_wrap=True)
        return OpsError.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ops.aws_smoke", description=__doc__)
    parser.add_argument("--var-file", type=Path, help="tfvars of your own; names, source, bucket and stream stay ours")
    parser.add_argument("--artefacts", type=Path, default=Path("build/glue"), help="what `make glue-bundle` wrote")
    parser.add_argument("--yes", action="store_true", help="do not ask before money is spent")
    parser.add_argument("--certificate", type=Path, help="the agent's certificate, for IAM Roles Anywhere")
    parser.add_argument("--private-key", type=Path, help="its private key; only the signing helper reads it")
    parser.add_argument("--signing-helper", default="aws_signing_helper", help="the program that signs for a session")
    parser.add_argument("--subject", help="common name in that certificate")
    parser.add_argument("--load-seconds", type=float, default=Patience.load_seconds)
    parser.add_argument("--remove", metavar="NAME", help="destroy what a killed run of that name left behind")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _smoke(arguments: argparse.Namespace, console: Console) -> int:
    def tell(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    rehearsal = is_laptop(os.environ.get("AWS_ENDPOINT_URL"))
    region = boto3.session.Session().region_name
    if not region:
        raise OpsError("no region: set AWS_REGION, or a profile that names one")
    if not arguments.artefacts.is_dir():
        raise OpsError(f"{arguments.artefacts} is not there: run make glue-bundle first")
    name = f"hr-smoke-{secrets.token_hex(2)}"
    account = boto3.client("sts").get_caller_identity()["Account"]
    tell(f"account {account}, region {region}, deployment {name}" + (", a rehearsal" if rehearsal else ""))
    tell(price.statement(rehearsal))
    if not (arguments.yes or rehearsal or _confirmed(console)):
        tell("nothing was made")
        return 2
    folder = (ROOT / name).resolve()
    folder.mkdir(parents=True)
    folder.chmod(0o711)  # PostgreSQL, started by root, runs as nobody and must reach its folder in here
    source = name.replace("-", "_")
    infrastructure = SmokeInfrastructure(
        folder, variables(folder, source, region, rehearsal, arguments), arguments.var_file
    )
    stage = _stage(folder, source, region, infrastructure, arguments)
    found = run(name, infrastructure, stage, CHECKS, rehearsal, tell)
    (folder / "report.json").write_text(json.dumps(found.to_json(), indent=1) + "\n")
    if arguments.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        report.show(found, Console(highlight=False))
    tell(f"written to {folder / 'report.json'}")
    return 0 if found.good else 1


def variables(folder: Path, source: str, region: str, rehearsal: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a smoke run sets itself, whatever the var file says: names of its own, and nothing that outlives it."""
    return {
        "name": folder.name,
        "environment": "smoke",
        "region": region,
        "sources": {source: {"certificate_subject": arguments.subject}},
        "stream": {"mode": "PROVISIONED", "shards": 1, "retention_hours": 24},
        "lake": {"force_destroy": True, "scan_limit_gib": 1},
        "registry": {"deletion_protection": False},
        "artefacts": {"folder": str(arguments.artefacts.resolve())},
        "laptop": rehearsal,
        **(_small(folder) if rehearsal else {}),
    }


def _small(folder: Path) -> dict[str, Any]:
    """The jobs as a laptop holds them: small heaps, Spark's checkpoint in a folder, folds that wait seconds."""
    checkpoint = str(folder / "checkpoint")
    return {
        "stream_job": {"checkpoint": checkpoint, "conf": "spark.driver.memory=512m"},
        "fold_job": {"map_concurrency": 1, "horizon_seconds": 5, "conf": "spark.driver.memory=384m"},
    }


def is_laptop(endpoint: str | None) -> bool:
    """Whether requests go to loopback. An endpoint elsewhere is refused: it is neither AWS nor the laptop's."""
    if not endpoint:
        return False
    if urlsplit(endpoint).hostname in _LAPTOP:
        return True
    raise OpsError(f"AWS_ENDPOINT_URL is {endpoint}: unset it for an account, or start `python -m localaws`")


def _stage(
    folder: Path,
    source: str,
    region: str,
    infrastructure: SmokeInfrastructure,
    arguments: argparse.Namespace,
) -> Any:
    @contextmanager
    def stage() -> Iterator[Scene]:
        outputs = infrastructure.outputs()
        bucket = str(outputs["deployment"]["bucket"])
        target = site.Target(source, folder.name, folder.name, bucket, region, os.environ.get("AWS_ENDPOINT_URL"))
        with site.running(folder, target) as running:
            aws = Aws(None)
            yield Scene(
                names=Names(folder.name),
                source=source,
                lake_bucket=bucket,
                client=aws.client,
                outputs=outputs,
                changes=infrastructure.changes,
                parts=lambda: parts.look(aws, parts.wanted(parts.read_deployment(aws, folder.name))),
                site=running,
                patience=Patience(load_seconds=arguments.load_seconds),
                roles_anywhere=_roles_anywhere(arguments),
            )

    return stage


def _roles_anywhere(arguments: argparse.Namespace) -> RolesAnywhere | None:
    if not (arguments.certificate and arguments.private_key):
        return None
    return RolesAnywhere(arguments.certificate, arguments.private_key, arguments.signing_helper)


def _remove(arguments: argparse.Namespace, console: Console) -> int:
    folder = (ROOT / arguments.remove).resolve()
    if not folder.is_dir():
        raise OpsError(f"{folder} is not there: there is no state of a run of that name")
    SmokeInfrastructure(folder, {}).destroy()
    shutil.rmtree(folder)
    console.print(f"destroyed {arguments.remove}", markup=False)
    return 0


def _confirmed(console: Console) -> bool:
    if not sys.stdin.isatty():
        raise OpsError("nobody is there to confirm the cost: give --yes")
    console.print("This spends money. Go on? Type yes: ", end="", markup=False)
    return sys.stdin.readline().strip() == "yes"


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
