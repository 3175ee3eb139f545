"""CodeBuild: StartBuild runs the project's build specification as real child processes, in the project's role.

The records of projects and builds are ministack's; this fills them in as a build goes on. There is no image: the
commands find the programs of this machine, and a build's folder is deleted when it ends.
"""

import contextvars
import copy
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from . import roles
from .codebuild_run import Build, BuildError, Runner
from .codebuild_spec import SpecError, parse
from .settings import Settings

logger = logging.getLogger("localaws.codebuild")

_DEFAULT_TIMEOUT_MINUTES = 60

# What StartBuild may say otherwise than the project does.
_OVERRIDES = {"timeoutInMinutesOverride": "timeoutInMinutes", "serviceRoleOverride": "serviceRole"}
_UNSUPPORTED_OVERRIDES = ("artifactsOverride", "secondaryArtifactsOverride", "sourceTypeOverride", "imageOverride")


class Builds:
    """The builds that run in this server."""

    def __init__(self, settings: Settings, inherited: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._endpoint = settings.endpoint
        self._folder = settings.state_folder / "builds"
        self._path = inherited.get("PATH", os.defpath)
        self._clock = clock
        self._lock = threading.Lock()
        self._runners: dict[str, Runner] = {}
        self._threads: dict[str, threading.Thread] = {}

    def start(self, project: Mapping[str, Any], record: dict[str, Any], account: str, region: str) -> None:
        """Run a build in a thread of its own, which keeps `record` up to date."""
        record.pop("endTime", None)
        record |= {"buildStatus": "IN_PROGRESS", "currentPhase": "SUBMITTED", "phases": [], "buildComplete": False}
        record["environment"] = project.get("environment", {})
        record["serviceRole"] = project.get("serviceRole", "")
        context = contextvars.copy_context()  # account and region of the request
        thread = threading.Thread(
            target=context.run, args=(self._run, project, record, account, region), name=record["id"], daemon=True
        )
        self._threads[record["id"]] = thread
        thread.start()

    def stop(self, record: dict[str, Any]) -> None:
        """End a build's command; the build is STOPPED when its thread has seen it."""
        with self._lock:
            runner = self._runners.get(record["id"])
        if runner is not None:
            record["buildStatus"] = "STOPPED"
            runner.stop()

    def close(self) -> None:
        """End every build, and wait for it."""
        with self._lock:
            runners = list(self._runners.values())
        for runner in runners:
            runner.stop()
        for thread in list(self._threads.values()):
            thread.join()

    def _run(self, project: Mapping[str, Any], record: dict[str, Any], account: str, region: str) -> None:
        def phase(name: str, status: str, message: str) -> None:
            self._phase(record, name, status, message)

        try:
            role = roles.role_arn(str(project.get("serviceRole", "")), account)
            credentials = roles.assume(role, "AWSCodeBuild", "codebuild.amazonaws.com")
            spec = parse(str(project.get("source", {}).get("buildspec") or ""))
            folder = self._folder / record["id"].replace(":", "_")
            build = Build(
                spec=spec,
                folder=folder,
                endpoint=self._endpoint,
                region=region,
                credentials=credentials,
                project=project,
                variables=self._variables(project, record, region),
                log_group=record["logs"]["groupName"],
                log_stream=record["logs"]["streamName"],
            )
            phase("SUBMITTED", "SUCCEEDED", "")
            status = self._follow(Runner(build, phase), project, record)
        except (roles.RoleError, SpecError) as error:
            phase("SUBMITTED", "FAILED", str(error))
            status = "FAILED"
        except BuildError as error:
            phase(error.phase, "FAILED", str(error))
            status = "FAILED"
        except Exception as error:
            logger.exception("build %s", record["id"])
            phase("FINALIZING", "FAULT", str(error))
            status = "FAULT"
        self._end(record, status)
        self._threads.pop(record["id"], None)

    def _follow(self, runner: Runner, project: Mapping[str, Any], record: dict[str, Any]) -> str:
        timed_out = threading.Event()

        def time_out() -> None:
            timed_out.set()
            runner.stop()

        minutes = int(project.get("timeoutInMinutes") or _DEFAULT_TIMEOUT_MINUTES)
        timer = threading.Timer(60 * minutes, time_out)
        timer.daemon = True
        with self._lock:
            self._runners[record["id"]] = runner
        timer.start()
        try:
            succeeded = runner.run()
        finally:
            timer.cancel()
            with self._lock:
                self._runners.pop(record["id"], None)
        if timed_out.is_set():
            return "TIMED_OUT"
        if record["buildStatus"] == "STOPPED":
            return "STOPPED"
        return "SUCCEEDED" if succeeded else "FAILED"

    def _variables(self, project: Mapping[str, Any], record: Mapping[str, Any], region: str) -> dict[str, str]:
        return {
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_REGION": region,
            "CI": "true",
            "CODEBUILD_BUILD_ARN": record["arn"],
            "CODEBUILD_BUILD_ID": record["id"],
            "CODEBUILD_BUILD_IMAGE": str(project.get("environment", {}).get("image", "")),
            "CODEBUILD_BUILD_NUMBER": str(record["buildNumber"]),
            "CODEBUILD_INITIATOR": record["initiator"],
            "CODEBUILD_KMS_KEY_ID": str(project.get("encryptionKey", "")),
            "CODEBUILD_LOG_PATH": record["logs"]["streamName"],
            "CODEBUILD_PROJECT_ARN": str(project.get("arn", "")),
            "CODEBUILD_START_TIME": str(int(self._clock() * 1000)),
            "LANG": "C.UTF-8",
            "PATH": self._path,
        }

    def _phase(self, record: dict[str, Any], name: str, status: str, message: str) -> None:
        now = int(self._clock())
        started = record["phases"][-1]["endTime"] if record["phases"] else record["startTime"]
        entry = {"phaseType": name, "phaseStatus": status, "startTime": started, "endTime": now}
        entry["contexts"] = [{"statusCode": "CLIENT_ERROR", "message": message}] if message else []
        record["phases"].append(entry)
        record["currentPhase"] = name

    def _end(self, record: dict[str, Any], status: str) -> None:
        self._phase(record, "COMPLETED", status, "")
        record |= {"endTime": int(self._clock()), "buildComplete": True}
        record["buildStatus"] = status  # last: whoever polls for it finds the rest


def overridden(project: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The project as a StartBuild request changes it for one build. Raises ValueError for what is not done here."""
    if refused := [name for name in _UNSUPPORTED_OVERRIDES if request.get(name)]:
        raise ValueError(f"overrides that are not run here: {', '.join(refused)}")
    changed = copy.deepcopy(dict(project))
    for override, name in _OVERRIDES.items():
        if request.get(override):
            changed[name] = request[override]
    if request.get("buildspecOverride"):
        changed["source"] = {**changed.get("source", {}), "buildspec": request["buildspecOverride"]}
    environment = changed.setdefault("environment", {})
    variables = {each["name"]: each for each in environment.get("environmentVariables") or []}
    variables |= {each["name"]: each for each in request.get("environmentVariablesOverride") or []}
    environment["environmentVariables"] = list(variables.values())
    return changed


def install(builds: Builds) -> None:
    """Put the builds in place of ministack's, which are records without a run."""
    from ministack.core.responses import error_response_json, get_account_id, get_region, json_response
    from ministack.services import codebuild

    def start(data: Mapping[str, Any]) -> Any:
        name = codebuild._project_name_from_identifier(data.get("projectName", ""))
        project = codebuild._projects.get(name) if name else None
        if project is None:
            return error_response_json(
                "ResourceNotFoundException", f"Project cannot be found: {data.get('projectName')}", 400
            )
        try:
            changed = overridden(project, data)
        except ValueError as error:
            return error_response_json("InvalidInputException", str(error), 400)
        record = codebuild._make_build_record(changed, codebuild._build_id(name), data.get("sourceVersion"))
        codebuild._builds[record["id"]] = record
        builds.start(changed, record, get_account_id(), get_region())
        return json_response({"build": copy.deepcopy(record)})

    def stop(data: Mapping[str, Any]) -> Any:
        record = codebuild._builds.get(data.get("id", ""))
        if record is None:
            return error_response_json("ResourceNotFoundException", f"Build cannot be found: {data.get('id')}", 400)
        builds.stop(record)
        return json_response({"build": copy.deepcopy(record)})

    codebuild._start_build, codebuild._stop_build = start, stop
