"""One server for the tests that only need an AWS, and the small things that many of them do."""

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from localaws.process import LocalAws, running


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A server without IAM enforcement, whose minutes last a second."""
    with running(tmp_path_factory.mktemp("aws"), seconds_per_minute=1) as server:
        yield server


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A server that enforces IAM, whose minutes last a second."""
    with running(tmp_path_factory.mktemp("guarded"), auth=True, seconds_per_minute=1) as server:
        yield server


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Looks until a condition holds, and gives what it saw; fails when it takes too long."""

    def look_until(look: Callable[[], Any], holds: Callable[[Any], bool], seconds: float = 120) -> Any:
        deadline = time.monotonic() + seconds
        while not holds(seen := look()):
            assert time.monotonic() < deadline, f"still {seen!r} after {seconds} s"
            time.sleep(0.05)
        return seen

    return look_until


@pytest.fixture(scope="session")
def make_role() -> Callable[..., str]:
    """Creates a role for one of AWS's services, and gives its ARN."""

    def make(server: LocalAws, name: str, service: str, actions: list[str]) -> str:
        statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        allowed = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        iam = server.client("iam")
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy(statement))
        if actions:
            iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=_policy(allowed))
        return str(role["Role"]["Arn"])

    return make


@pytest.fixture(scope="session")
def zipped() -> Callable[[dict[str, str]], bytes]:
    def make(files: dict[str, str]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return buffer.getvalue()

    return make


def _policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
