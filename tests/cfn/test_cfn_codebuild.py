"""What the laptop's CodeBuild promises of a build: phases, variables, secrets, artefacts, and how it ends."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localaws.codebuild_spec import SpecError, parse

TRUST = {"Effect": "Allow", "Principal": {"Service": "codebuild.amazonaws.com"}, "Action": "sts:AssumeRole"}
PROGRAMS = str(Path(sys.executable).parent)
NEEDED = ["logs:*", "ssm:GetParameters", "secretsmanager:GetSecretValue", "s3:PutObject"]


KEPT = {
    "type": "S3",
    "location": "kept-builds",
    "name": "out",
    "namespaceType": "BUILD_ID",
    "encryptionDisabled": True,
}


def policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture(scope="module")
def project(aws: Any) -> Iterator[Callable[..., str]]:
    """Makes a project with a role, a log group and a bucket, and gives its name."""
    aws.client("s3").create_bucket(Bucket="kept-builds")
    made = 0

    def make(spec: str, actions: list[str] | None = None, **more: Any) -> str:
        nonlocal made
        made += 1
        name = f"project-{made}"
        iam = aws.client("iam")
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(TRUST))["Role"]["Arn"]
        allowed = {"Effect": "Allow", "Action": NEEDED if actions is None else actions, "Resource": "*"}
        iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=policy(allowed))
        aws.client("logs").create_log_group(logGroupName=f"/aws/codebuild/{name}")
        settings = {
            "artifacts": KEPT,
            "environment": {"type": "LINUX_CONTAINER", "image": "none", "computeType": "BUILD_GENERAL1_SMALL"},
        }
        aws.client("codebuild").create_project(
            name=name, source={"type": "NO_SOURCE", "buildspec": spec}, serviceRole=role, **{**settings, **more}
        )
        return name

    yield make


@pytest.fixture
def finish(aws: Any) -> Callable[..., dict[str, Any]]:
    """Starts a build, and gives its record when it has ended."""

    def wait(name: str, **overrides: Any) -> dict[str, Any]:
        codebuild = aws.client("codebuild")
        started = codebuild.start_build(projectName=name, **overrides)["build"]["id"]
        deadline = time.monotonic() + 3000
        while (record := codebuild.batch_get_builds(ids=[started])["builds"][0])["buildStatus"] == "IN_PROGRESS":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return dict(record)

    return wait


def log(aws: Any, record: dict[str, Any]) -> list[str]:
    names = record["logs"]
    events = aws.client("logs").get_log_events(logGroupName=names["groupName"], logStreamName=names["streamName"])
    return [event["message"] for event in events["events"]]


def ran(lines: list[str]) -> list[str]:
    return [line.removeprefix("ran ") for line in lines if line.startswith("ran ")]


def test_a_failure_in_the_build_phase_still_runs_what_comes_after(aws: Any, project: Any, finish: Any) -> None:
    """The phase ends at the failed command, its `finally` and the next phase run and know of it; the build failed."""
    spec = """
version: 0.2
phases:
  build:
    commands: ["echo ran first", "false", "echo ran never"]
    finally: ["echo ran finally"]
  post_build:
    commands: ['echo "ran after $CODEBUILD_BUILD_SUCCEEDING"']
"""
    record = finish(project(spec))
    assert record["buildStatus"] == "FAILED"
    assert ran(log(aws, record)) == ["first", "finally", "after 0"]


def test_a_failure_before_the_build_phase_ends_the_build(aws: Any, project: Any, finish: Any) -> None:
    """Nothing of a later phase runs, and no artefact is looked for."""
    spec = """
version: 0.2
phases:
  pre_build:
    commands: ["false"]
  build:
    commands: ["echo ran build"]
artifacts:
  files: [out.txt]
"""
    record = finish(project(spec))
    assert (record["buildStatus"], ran(log(aws, record))) == ("FAILED", [])
    assert [phase["phaseType"] for phase in record["phases"]] == ["SUBMITTED", "PRE_BUILD", "COMPLETED"]


def test_commands_share_folder_and_variables(aws: Any, project: Any, finish: Any) -> None:
    """A command finds the folder and the exports of the one before, over phases, and an unset variable stays unset."""
    spec = """
version: 0.2
env:
  variables: {GIVEN: a value, GONE: here}
phases:
  install:
    commands: ["mkdir inside && cd inside", "export MADE='two  words'", "unset GONE"]
  build:
    commands: ['echo "ran ${PWD##*/} $MADE $GIVEN ${GONE:-gone}"']
"""
    record = finish(project(spec))
    assert record["buildStatus"] == "SUCCEEDED"
    assert ran(log(aws, record)) == ["inside two  words a value gone"]


def test_parameters_and_secrets_are_read_as_the_role(aws: Any, project: Any, finish: Any) -> None:
    """Both come as variables; the log shows the parameter and never the secret. A role that may not ends the build."""
    aws.client("ssm").put_parameter(Name="/build/branch", Value="main", Type="String", Overwrite=True)
    secret = aws.client("secretsmanager").create_secret(Name="build-secret", SecretString="hunter2hunter2")["ARN"]
    spec = """
version: 0.2
phases:
  build:
    commands: ['echo "ran $BRANCH ${#WORD} $WORD"']
"""
    variables = [
        {"name": "BRANCH", "type": "PARAMETER_STORE", "value": "/build/branch"},
        {"name": "WORD", "type": "SECRETS_MANAGER", "value": secret},
    ]
    environment = {"type": "LINUX_CONTAINER", "image": "none", "computeType": "BUILD_GENERAL1_SMALL"}
    given = {**environment, "environmentVariables": variables}
    record = finish(project(spec, environment=given))
    assert ran(log(aws, record)) == ["main 14 ***"]
    record = finish(project(spec, actions=["logs:*", "ssm:GetParameters"], environment=given))
    assert record["buildStatus"] == "FAILED"
    assert "secretsmanager:GetSecretValue" in json.dumps(record["phases"], default=str)


def test_artefacts_are_kept_under_the_build(aws: Any, project: Any, finish: Any) -> None:
    """What matches goes to the bucket below the build's id, also when the build phase failed."""
    spec = """
version: 0.2
phases:
  build:
    commands: ["mkdir out && echo kept > out/a.txt && echo not > out/b.log", "false"]
artifacts:
  base-directory: out
  files: ["*.txt"]
"""
    record = finish(project(spec))
    assert record["buildStatus"] == "FAILED"
    prefix = f"{record['id'].rpartition(':')[2]}/out/"
    found = aws.client("s3").list_objects_v2(Bucket="kept-builds", Prefix=prefix)["Contents"]
    assert [each["Key"] for each in found] == [f"{prefix}a.txt"]


def test_a_build_acts_as_its_role(aws: Any, project: Any, finish: Any) -> None:
    """The commands have the role's credentials, and the override of a variable holds for one build."""
    spec = """
version: 0.2
phases:
  build:
    commands:
      - python3 -c 'import boto3; print("ran", boto3.client("sts").get_caller_identity()["Arn"])'
      - echo "ran ${EXTRA:-nothing}"
"""
    name = project(spec)
    path = [{"name": "PATH", "value": f"{PROGRAMS}:/usr/bin:/bin"}]
    record = finish(name, environmentVariablesOverride=[*path, {"name": "EXTRA", "value": "something"}])
    assert ran(log(aws, record)) == [
        f"arn:aws:sts::000000000000:assumed-role/{name}/AWSCodeBuild",
        "something",
    ]
    assert ran(log(aws, finish(name, environmentVariablesOverride=path)))[1] == "nothing"


def test_a_stopped_build_ends_with_all_that_it_started(aws: Any, project: Any) -> None:
    """StopBuild ends the command that runs; later ones are not started."""
    spec = """
version: 0.2
phases:
  build:
    commands: ["sleep 300", "echo ran never"]
"""
    name, codebuild = project(spec), aws.client("codebuild")
    started = codebuild.start_build(projectName=name)["build"]["id"]
    deadline = time.monotonic() + 300
    while True:
        record = codebuild.batch_get_builds(ids=[started])["builds"][0]
        if record["phases"]:
            break
        assert time.monotonic() < deadline
    codebuild.stop_build(id=started)
    while record["phases"][-1]["phaseType"] != "COMPLETED":
        assert time.monotonic() < deadline
        time.sleep(0.05)
        record = codebuild.batch_get_builds(ids=[started])["builds"][0]
    assert record["buildStatus"] == "STOPPED"
    assert ran(log(aws, record)) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 0.1", "version"),
        ("version: 0.2\nphases: {deploy: {}}", "phases.deploy"),
        ("version: 0.2\ncache: {paths: [x]}", "cache"),
        ("version: 0.2\nenv: {shell: powershell.exe}", "env.shell"),
        ("version: 0.2\nartifacts: {name: x}", "artifacts.files"),
        ("just a text", "empty"),
        ("a: [", "YAML"),
    ],
)
def test_a_specification_that_is_not_run_here_is_refused(text: str, says: str) -> None:
    """Nothing is passed over silently: the message names the key."""
    with pytest.raises(SpecError, match=says):
        parse(text)
