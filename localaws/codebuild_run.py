"""One build, as CodeBuild runs it: phases of commands in bash, with the project's variables, as the project's role.

Every call to a service is made with the role's credentials, so that IAM judges the role and not the server: reading
parameters and secrets, writing the log, uploading the artefacts, and what the commands themselves do.
"""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import child_process
from .codebuild_spec import Artifacts, BuildSpec, Phase
from .roles import Credentials

_LOG_SECONDS = 0.5
_LEFTOVER_GRACE_SECONDS = 0.5
_MASK = "***"

# A command sees what the one before exported and where it went to, and nothing else of it: each is a bash of its own.
_COMMAND = """\
. "$1"; cd "$(cat "$2")" || exit 1
set -a
{command}
_code=$?
set +a
export -p > "$1"; pwd > "$2"
exit $_code
"""


class BuildError(Exception):
    """A build that failed outside its commands; `phase` is the phase's name in the API."""

    def __init__(self, phase: str, message: str) -> None:
        super().__init__(message)
        self.phase = phase


@dataclass(frozen=True, slots=True)
class Build:
    """What a build is started with."""

    spec: BuildSpec
    folder: Path
    endpoint: str
    region: str
    credentials: Credentials
    project: Mapping[str, Any]  # in the API's spelling, overrides applied
    variables: Mapping[str, str]  # what CodeBuild itself sets
    log_group: str
    log_stream: str


@dataclass(slots=True)
class Runner:
    """Runs one build in the calling thread. `on_phase` is told of each phase and how it ended."""

    build: Build
    on_phase: Callable[[str, str, str], None]
    _process: subprocess.Popen[bytes] | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)
    _secrets: list[str] = field(default_factory=list)
    _clients: dict[str, Any] = field(default_factory=dict)
    _waiting: list[str] = field(default_factory=list)
    _written_at: float = 0.0

    def stop(self) -> None:
        """End the command that runs; no other is started."""
        self._stopped.set()
        if self._process is not None:
            child_process.kill_group(self._process)

    def run(self) -> bool:
        """Whether the build succeeded. Raises BuildError for what failed outside its commands."""
        source = self.build.folder / "src"
        source.mkdir(parents=True)
        try:
            self._create_stream()
            self._write_environment(source, self._environment(source))
            succeeded = self._phases()
            if self.build.spec.artifacts and self._ran("build") and not self._stopped.is_set():
                self._upload(source, self.build.spec.artifacts)
            return succeeded
        finally:
            self._write_log(force=True)
            shutil.rmtree(source, ignore_errors=True)
            for name in ("env.sh", "dir.txt"):
                (self.build.folder / name).unlink(missing_ok=True)

    # Variables

    def _environment(self, source: Path) -> dict[str, str]:
        """The variables of the first command. The project's win over the buildspec's."""
        spec = self.build.spec
        plain = dict(spec.variables)
        parameters, secrets = dict(spec.parameters), dict(spec.secrets)
        for variable in self.build.project.get("environment", {}).get("environmentVariables") or []:
            name, value = str(variable["name"]), str(variable["value"])
            for others in (plain, parameters, secrets):
                others.pop(name, None)
            kinds = {"PLAINTEXT": plain, "PARAMETER_STORE": parameters, "SECRETS_MANAGER": secrets}
            kinds[variable.get("type", "PLAINTEXT")][name] = value
        plain |= self._parameters(parameters)
        for name, reference in secrets.items():
            plain[name] = self._secret(reference)
            self._secrets.append(plain[name])
        given = {"CODEBUILD_SRC_DIR": str(source), "CODEBUILD_BUILD_SUCCEEDING": "1", "HOME": str(self.build.folder)}
        return {**given, **self.build.variables, **plain, **self.build.credentials.environment()}

    def _parameters(self, wanted: Mapping[str, str]) -> dict[str, str]:
        if not wanted:
            return {}
        names = sorted(set(wanted.values()))
        found: dict[str, str] = {}
        for start in range(0, len(names), 10):
            with _failing("DOWNLOAD_SOURCE", "parameters"):
                reply = self._client("ssm").get_parameters(Names=names[start : start + 10], WithDecryption=True)
            if missing := reply["InvalidParameters"]:
                raise BuildError("DOWNLOAD_SOURCE", f"parameters do not exist: {', '.join(missing)}")
            found |= {parameter["Name"]: parameter["Value"] for parameter in reply["Parameters"]}
        return {variable: found[name] for variable, name in wanted.items()}

    def _secret(self, reference: str) -> str:
        """`id[:json-key[:stage[:version]]]`, where the id may be an ARN."""
        words = reference.split(":")
        at = 7 if reference.startswith("arn:") else 1
        name, key, stage, version = [":".join(words[:at]), *words[at:], "", "", ""][:4]
        options = {"VersionStage": stage, "VersionId": version}
        with _failing("DOWNLOAD_SOURCE", f"secret {name}"):
            reply = self._client("secretsmanager").get_secret_value(
                SecretId=name, **{option: value for option, value in options.items() if value}
            )
        text = str(reply["SecretString"])
        return str(json.loads(text)[key]) if key else text

    def _write_environment(self, source: Path, variables: Mapping[str, str]) -> None:
        path = self.build.folder / "env.sh"
        path.touch(mode=0o600)
        path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))
        (self.build.folder / "dir.txt").write_text(f"{source}\n")

    # Phases

    def _ran(self, name: str) -> bool:
        return (self.build.folder / f"{name}.ran").exists()

    def _phases(self) -> bool:
        """Run the phases in order: a failure before BUILD ends the build, one in BUILD still runs POST_BUILD."""
        succeeded = True
        for phase in self.build.spec.phases:
            if self._stopped.is_set():
                return False
            (self.build.folder / f"{phase.name}.ran").touch()
            self._say(f"Entering phase {phase.name.upper()}")
            failed = self._phase(phase)
            self.on_phase(phase.name.upper(), "FAILED" if failed else "SUCCEEDED", failed or "")
            if failed:
                succeeded = False
                self._set("CODEBUILD_BUILD_SUCCEEDING", "0")
                if phase.name in ("install", "pre_build") or phase.abort_on_failure:
                    return False
        return succeeded

    def _phase(self, phase: Phase) -> str | None:
        """None, or what failed. The commands end at the first failure; `finally` is run in any case."""
        failed = self._commands(phase.commands)
        return self._commands(phase.last) or failed if phase.last else failed

    def _commands(self, commands: Sequence[str]) -> str | None:
        for command in commands:
            first_line = command.strip().partition("\n")[0]
            self._say(f"Running command {first_line}")
            if code := self._command(command):
                reason = f"Error while executing command: {first_line}. Reason: exit status {code}"
                self._say(reason)
                return reason
        return None

    def _command(self, command: str) -> int:
        if self._stopped.is_set():
            return -1
        script = _COMMAND.replace("{command}", command)
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", str(self.build.folder / "env.sh"), str(self.build.folder / "dir.txt")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": self.build.variables.get("PATH", os.defpath)},
            start_new_session=True,
        )
        self._process = process
        if self._stopped.is_set():
            child_process.kill_group(process)
        assert process.stdout is not None
        for line in process.stdout:
            self._say(line.decode(errors="replace").rstrip("\n"))
        code = process.wait()
        child_process.end_group(process.pid, _LEFTOVER_GRACE_SECONDS)
        self._process = None
        return code

    def _set(self, name: str, value: str) -> None:
        with (self.build.folder / "env.sh").open("a") as file:
            file.write(f"export {name}={shlex.quote(value)}\n")

    # The log and the artefacts

    def _create_stream(self) -> None:
        with _failing("SUBMITTED", f"log group {self.build.log_group}"):
            logs = self._client("logs")
            names = {"logGroupName": self.build.log_group, "logStreamName": self.build.log_stream}
            logs.create_log_stream(**names)

    def _say(self, line: str) -> None:
        for secret in self._secrets:
            line = line.replace(secret, _MASK)
        self._waiting.append(line)
        self._write_log(force=False)

    def _write_log(self, *, force: bool) -> None:
        now = time.time()
        if not self._waiting or not (force or now > self._written_at + _LOG_SECONDS):
            return
        events = [{"timestamp": int(now * 1000), "message": line or " "} for line in self._waiting]
        with _failing("FINALIZING", "log"):
            self._client("logs").put_log_events(
                logGroupName=self.build.log_group, logStreamName=self.build.log_stream, logEvents=events
            )
        self._waiting.clear()
        self._written_at = now

    def _upload(self, source: Path, artifacts: Artifacts) -> None:
        target = self.build.project.get("artifacts") or {}
        if target.get("type") != "S3":
            return
        base = source / artifacts.base_directory
        files = sorted({path for pattern in artifacts.files for path in base.glob(pattern) if path.is_file()})
        if not files:
            raise BuildError("UPLOAD_ARTIFACTS", f"no matching artifact paths found: {', '.join(artifacts.files)}")
        build_id = self.build.variables["CODEBUILD_BUILD_ID"].rpartition(":")[2]
        folders = [str(target.get("path") or "").strip("/")]
        folders += [build_id] if target.get("namespaceType") == "BUILD_ID" else []
        folders += [str(target.get("name") or self.build.project["name"])]
        prefix = "/".join(folder for folder in folders if folder)
        for path in files:
            key = f"{prefix}/{path.relative_to(base)}"
            with _failing("UPLOAD_ARTIFACTS", key):
                self._client("s3").put_object(
                    Bucket=target["location"], Key=key, Body=path.read_bytes(), **self._encryption(target)
                )
        self.on_phase("UPLOAD_ARTIFACTS", "SUCCEEDED", "")

    def _encryption(self, target: Mapping[str, Any]) -> dict[str, str]:
        key = self.build.project.get("encryptionKey")
        if target.get("encryptionDisabled") or not key:
            return {}
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": str(key)}

    def _client(self, service: str) -> Any:
        import boto3

        if service not in self._clients:
            self._clients[service] = boto3.session.Session().client(
                service,
                endpoint_url=self.build.endpoint,
                region_name=self.build.region,
                **self.build.credentials.client_options(),
            )
        return self._clients[service]


@contextlib.contextmanager
def _failing(phase: str, what: str) -> Iterator[None]:
    """Turn a service's refusal into the build's."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise BuildError(phase, f"{what}: {error}") from error
