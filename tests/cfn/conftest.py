"""A seed deployed to the laptop's AWS by change set, and a git remote and a Terraform release for its builds."""

import base64
import hashlib
import os
import shutil
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from localaws.process import LocalAws, running

ROOT = Path(__file__).resolve().parents[2]
SEED = ROOT / "cfn" / "seed.yaml"
VERSION = "1.99.0"
HOST_KEY = "git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"


@dataclass(frozen=True, slots=True)
class Stack:
    """A deployed seed."""

    name: str
    outputs: dict[str, str]
    resources: dict[str, str]  # physical ids by logical id
    aws: LocalAws = field(repr=False)

    @property
    def project(self) -> dict[str, Any]:
        found = self.aws.client("codebuild").batch_get_projects(names=[self.outputs["CodeBuildProjectName"]])
        return dict(found["projects"][0])


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A server that judges every request."""
    with running(tmp_path_factory.mktemp("aws"), auth=True, seconds_per_minute=60) as server:
        yield server


@pytest.fixture(scope="session")
def parameters() -> Callable[..., dict[str, str]]:
    """The parameters of a seed, with those that are given."""

    def with_changes(**changes: str) -> dict[str, str]:
        given = {
            "ProjectName": "river",
            "ConfigRepoURL": "git@git.example.com:group/river.git",
            "GitSSHPrivateKey": base64.b64encode(b"no key, but as long as the shortest one would be").decode(),
            "GitKnownHosts": HOST_KEY,
            "TerraformSHA256": "0" * 64,
        }
        return given | changes

    return with_changes


@pytest.fixture(scope="session")
def change_set(aws: LocalAws) -> Callable[..., dict[str, Any]]:
    """Creates a change set for a new stack, and gives its description."""

    def create(stack: str, given: dict[str, str], kind: str = "CREATE") -> dict[str, Any]:
        name = f"seed-{kind.lower()}"
        cloudformation = aws.client("cloudformation")
        cloudformation.create_change_set(
            StackName=stack,
            ChangeSetName=name,
            ChangeSetType=kind,
            TemplateBody=SEED.read_text(),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        )
        cloudformation.get_waiter("change_set_create_complete").wait(
            StackName=stack, ChangeSetName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300}
        )
        return dict(cloudformation.describe_change_set(StackName=stack, ChangeSetName=name))

    return create


@pytest.fixture(scope="session")
def deploy(aws: LocalAws, change_set: Callable[..., dict[str, Any]]) -> Callable[..., Stack]:
    """Deploys a seed by change set."""

    def execute(name: str, given: dict[str, str], kind: str = "CREATE") -> Stack:
        described = change_set(name, given, kind)
        cloudformation = aws.client("cloudformation")
        cloudformation.execute_change_set(ChangeSetName=described["ChangeSetId"])
        waiter = "stack_create_complete" if kind == "CREATE" else "stack_update_complete"
        cloudformation.get_waiter(waiter).wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300})
        stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        return Stack(
            name,
            {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]},
            {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources},
            aws,
        )

    return execute


@dataclass(frozen=True, slots=True)
class Build:
    """A build that has ended."""

    record: dict[str, Any]
    aws: LocalAws = field(repr=False)

    @property
    def status(self) -> str:
        return str(self.record["buildStatus"])

    @property
    def log(self) -> str:
        names = {"logGroupName": self.record["logs"]["groupName"], "logStreamName": self.record["logs"]["streamName"]}
        pages = (
            self.aws.client("logs")
            .get_paginator("filter_log_events")
            .paginate(logGroupName=names["logGroupName"], logStreamNames=[names["logStreamName"]])
        )
        return "\n".join(event["message"] for page in pages for event in page["events"])

    @property
    def phases(self) -> list[str]:
        return [str(phase["phaseType"]) for phase in self.record["phases"]]

    @property
    def failures(self) -> list[str]:
        """What each phase that failed said."""
        return [
            f"{phase['phaseType']}: {context['message']}"
            for phase in self.record["phases"]
            for context in phase.get("contexts", [])
        ]

    def plan(self, bucket: str, name: str) -> bytes:
        """A file that the build kept."""
        build_id = self.record["id"].rpartition(":")[2]
        key = f"builds/{build_id}/plan/{name}"
        return bytes(self.aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())


@dataclass(frozen=True, slots=True)
class Release:
    """A Terraform archive that is served on loopback."""

    url: str
    sha256: str


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """The machine's own terraform as an archive; the tests are skipped where there is none."""
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("no terraform on the PATH")
    folder = tmp_path_factory.mktemp("releases")
    archive = folder / VERSION / f"terraform_{VERSION}_linux_amd64.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.write(terraform, "terraform")
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Release(f"http://127.0.0.1:{server.server_port}", hashlib.sha256(archive.read_bytes()).hexdigest())
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: a test's output is pytest's."""


# Stands where ssh would: keeps what the build called it with, refuses another host key when it is told to be strict,
# and runs git's own command.
_SSH = """#!/bin/bash
set -eu
key=; hosts=; strict=no
echo "$@" > "{folder}/arguments"
while [ $# -gt 1 ]; do
  case "$1" in
    -i) key=$2; shift 2 ;;
    -F) shift 2 ;;
    -o) case "$2" in
          UserKnownHostsFile=*) hosts=${{2#*=}} ;;
          StrictHostKeyChecking=yes) strict=yes ;;
        esac; shift 2 ;;
    *) host=$1; shift; break ;;
  esac
done
if [ $strict = yes ] && ! grep -qxF "{host_key}" "$hosts"; then echo "Host key verification failed." >&2; exit 255; fi
stat -c %a "$key" > "{folder}/key_mode"
cp "$key" "{folder}/key"
env > "{folder}/environment"
exec bash -c "$1"
"""


@dataclass(frozen=True, slots=True)
class Remote:
    """A git repository that is reached by a stand-in for ssh."""

    url: str
    programs: Path  # the folder of the stand-in
    seen: Path  # what it was called with
    work: Path

    def commit(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.commit_all()

    def commit_all(self) -> None:
        self.git("add", "-A")
        self.git("commit", "--quiet", "--message", "Change what is deployed")
        self.git("push", "--quiet", "origin", "main")

    def git(self, *arguments: str) -> None:
        who = ("-c", "user.name=Someone", "-c", "user.email=someone@example.com")
        subprocess.run(["git", *who, *arguments], cwd=self.work, check=True, capture_output=True)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    """An empty repository with the branch main."""
    bare, work, seen, programs = (tmp_path / name for name in ("remote.git", "work", "seen", "programs"))
    for folder in (work, seen, programs):
        folder.mkdir()
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", bare], check=True)
    found = Remote(f"git@git.example.com:{bare}", programs, seen, work)
    found.git("init", "--quiet", "--initial-branch=main")
    found.git("remote", "add", "origin", str(bare))
    ssh = programs / "ssh"
    ssh.write_text(_SSH.format(folder=seen, host_key=HOST_KEY))
    ssh.chmod(0o755)
    return found


@pytest.fixture(scope="session")
def plugins() -> Path:
    """The folder of Terraform's providers on this machine; the tests are skipped where there is none."""
    given = os.environ.get("HEADRACE_TERRAFORM_PLUGINS")
    home = Path.home() / ".terraform.d"
    usual = [
        *Path("/opt").glob("*"),
        home / "plugins",
        home / "plugin-cache",
        Path("/usr/local/share/terraform/plugins"),
    ]
    for folder in [Path(given)] if given else usual:
        if any(folder.glob("*/hashicorp/aws/*/*/terraform-provider-aws*")):
            return folder
    pytest.skip("no terraform-provider-aws on this machine: name its folder in HEADRACE_TERRAFORM_PLUGINS")


@pytest.fixture
def build(aws: LocalAws, release: Release, plugins: Path, remote: Remote) -> Callable[..., Build]:
    """Starts a build of a seed's project with the archive and the remote of the test, and waits for its end."""

    def run(stack: Stack, seconds: float = 300, **changes: str) -> Build:
        settings = {
            "CONFIG_REPO_URL": remote.url,
            "GIT_KNOWN_HOSTS": HOST_KEY,
            "PATH": f"{remote.programs}{os.pathsep}{os.environ['PATH']}",
            "TERRAFORM_RELEASES_URL": release.url,
            "TERRAFORM_SHA256": release.sha256,
            "TERRAFORM_VERSION": VERSION,
            "TF_CLI_ARGS_init": f"-plugin-dir={plugins} -backend-config=use_path_style=true",
            "TF_VAR_laptop": "true",
            "CHECKPOINT_DISABLE": "1",
        }
        codebuild = aws.client("codebuild")
        override = [{"name": name, "value": value} for name, value in (settings | changes).items()]
        started = codebuild.start_build(
            projectName=stack.outputs["CodeBuildProjectName"], environmentVariablesOverride=override
        )
        deadline = time.monotonic() + seconds
        while True:
            record = codebuild.batch_get_builds(ids=[started["build"]["id"]])["builds"][0]
            if record["buildStatus"] != "IN_PROGRESS":
                return Build(record, aws)
            assert time.monotonic() < deadline, f"the build did not end in {seconds} s"
            time.sleep(0.2)

    return run
