"""The laptop's AWS as a child process: `with running(folder) as aws:` for tests, the demo and the benches."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .settings import ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY, REGION

START_SECONDS = 90  # of which a machine that is not busy needs two
STOP_SECONDS = 60


@dataclass(slots=True)
class LocalAws:
    """A running server. Its child processes end with it."""

    port: int
    state_folder: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        return self.state_folder / "server.log"

    def environment(self) -> dict[str, str]:
        """What a child process needs in its environment to use this AWS as its administrator."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ADMIN_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": ADMIN_SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str, **options: Any) -> Any:
        """A boto3 client of one service, as the administrator unless the options give credentials."""
        import boto3

        credentials = {"aws_access_key_id": ADMIN_ACCESS_KEY, "aws_secret_access_key": ADMIN_SECRET_KEY}
        return boto3.client(service, **{"endpoint_url": self.endpoint, "region_name": REGION, **credentials, **options})

    def session(self, role: str) -> dict[str, str]:
        """The keys of a session of a role, by its name or ARN, as environment variables."""
        return dict(self._control("iam/sessions", {"role": role}))

    def as_role(self, role: str, service: str, **options: Any) -> Any:
        """A boto3 client of one service that acts as a role."""
        names = (("AWS_ACCESS_KEY_ID", "aws_access_key_id"), ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key"))
        session = self.session(role)
        keys = {option: session[name] for name, option in (*names, ("AWS_SESSION_TOKEN", "aws_session_token"))}
        return self.client(service, **keys, **options)

    def decisions(self) -> dict[str, Any]:
        """What IAM decided since the start, or since `forget_decisions`."""
        return dict(self._control("iam/decisions"))

    def forget_decisions(self) -> None:
        self._control("iam/decisions", {})

    def age_objects(self, bucket: str, prefix: str, seconds: float) -> int:
        """Makes the bucket's objects under a prefix so many seconds older; returns how many they are."""
        return int(self._control("s3/age", {"bucket": bucket, "prefix": prefix, "seconds": seconds})["objects"])

    def _control(self, path: str, request: dict[str, Any] | None = None) -> Any:
        body = None if request is None else json.dumps(request).encode()
        with urllib.request.urlopen(f"{self.endpoint}/_local/{path}", data=body, timeout=30) as reply:
            return json.load(reply)

    def stop(self) -> None:
        """End the server; its state is saved. Does nothing when it has ended already."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """End the server as a power failure would: nothing is saved by it, its children are left behind."""
        self.process.kill()
        self.process.wait()


def start(
    state_folder: Path,
    port: int | None = None,
    auth: bool = False,
    seconds_per_minute: float = 60,
    options: Sequence[str] = (),
) -> LocalAws:
    """Start the server and wait until it is healthy. Raises RuntimeError with its log when it does not come up."""
    state_folder = Path(state_folder).resolve()
    state_folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = [sys.executable, "-m", "localaws", "--port", str(port), "--state", str(state_folder)]
    command += ["--seconds-per-minute", str(seconds_per_minute), *(["--auth"] if auth else []), *options]
    root = Path(__file__).resolve().parent.parent  # where `-m localaws` is found, installed or not
    with (state_folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = LocalAws(port, state_folder, process)
    _wait_until_healthy(server)
    return server


@contextlib.contextmanager
def running(
    state_folder: Path,
    port: int | None = None,
    auth: bool = False,
    seconds_per_minute: float = 60,
    options: Sequence[str] = (),
) -> Iterator[LocalAws]:
    """A server for the length of a `with` block, on a free port unless one is given."""
    server = start(state_folder, port, auth, seconds_per_minute, options)
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(server: LocalAws) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server.endpoint}/_local/health", timeout=2) as reply:
                if json.load(reply)["pid"] == server.process.pid:
                    return
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    server.kill()
    log = server.log_path.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the laptop's AWS did not start on port {server.port}; the end of its log:\n{log}")
