"""Glue job runs as real child processes, behind ministack's Glue seams.

A run's script and zips come from S3 with the job role's credentials; its process gets the same, so that IAM judges
what the job does. Runs are kept in a folder each, and outlive the server.
"""

import contextvars
import json
import logging
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import child_process, glue_runs, log_groups, roles
from .glue_runs import JobRun
from .settings import REGION, Settings

STOP_GRACE_SECONDS = 25.0
_LOOK_SECONDS = 0.25
_DEFAULT_PAGE = 200
_RESTARTED = "the laptop's AWS was restarted"

# What CreateJob and UpdateJob accept and ministack would drop.
_FURTHER_JOB_FIELDS = (
    "ExecutionProperty",
    "ExecutionClass",
    "JobMode",
    "JobRunQueuingEnabled",
    "LogUri",
    "MaintenanceWindow",
    "NotificationProperty",
)

logger = logging.getLogger("localaws.glue")


class GlueError(Exception):
    """A Glue request was refused; `code` is the exception's name in the API."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class GlueJobs:
    """Every run of this server, and the threads that watch the active ones."""

    def __init__(
        self,
        settings: Settings,
        inherited: Mapping[str, str],
        clock: Callable[[], float],
        role_may: log_groups.RoleMay,
    ) -> None:
        self._role_may = role_may
        self._endpoint = settings.endpoint
        self._folder = settings.state_folder / "glue_runs"
        self._inherited = dict(inherited)
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[str, JobRun] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._closing = False
        self._folder.mkdir(parents=True, exist_ok=True)
        self._recover()

    # The API

    def start(self, job: Mapping[str, Any], request: Mapping[str, Any], account: str, region: str) -> JobRun:
        """Start a run. Raises GlueError when the job already has as many as it allows."""
        name = str(job["Name"])
        run = JobRun(
            id=f"jr_{uuid.uuid4().hex}{uuid.uuid4().hex}",
            job_name=name,
            account=account,
            region=region,
            arguments=dict(request.get("Arguments", {})),
            started_on=self._clock(),
            timeout_minutes=glue_runs.timeout_minutes(job, request),
            glue_version=str(job.get("GlueVersion", "")),
            worker_type=str(request.get("WorkerType") or job.get("WorkerType", "")),
            number_of_workers=int(request.get("NumberOfWorkers") or job.get("NumberOfWorkers") or 0),
        )
        with self._lock:
            active = sum(other.active for other in self._runs.values() if _same_job(other, run))
            limit = glue_runs.concurrency_limit(job)
            if self._closing or active >= limit:
                raise GlueError(
                    "ConcurrentRunsExceededException", f"Concurrent runs exceeded for {name}: {limit} allowed"
                )
            self._keep(run)
        self._watch_in_background(job, run)
        return run

    def get(self, job_name: str, run_id: str, account: str, region: str) -> JobRun:
        run = self._runs.get(run_id)
        if run is None or (run.job_name, run.account, run.region) != (job_name, account, region):
            raise GlueError("EntityNotFoundException", f"Job Run {run_id} of job {job_name} not found")
        return run

    def of_job(self, job_name: str, account: str, region: str) -> list[JobRun]:
        """A job's runs, the newest first."""
        wanted = (job_name, account, region)
        with self._lock:
            found = [run for run in self._runs.values() if (run.job_name, run.account, run.region) == wanted]
        return sorted(found, key=lambda run: run.started_on, reverse=True)

    def stop(self, run: JobRun) -> None:
        """Ask a run to stop; its watcher kills it when it does not. Raises GlueError when it is not active."""
        with self._lock:
            current = self._runs[run.id]
            if not current.active:
                raise GlueError("InvalidInputException", f"Job Run {run.id} is in state {current.state}")
            self._keep(replace(current, state="STOPPING"))
            process = self._processes.get(run.id)
        if process:
            child_process.ask_to_stop(process)

    def now(self) -> float:
        return self._clock()

    def close(self) -> None:
        """End every run, and wait for it."""
        with self._lock:
            self._closing = True
            active = [run for run in self._runs.values() if run.active]
            threads = list(self._threads.values())
        for run in active:
            try:
                self.stop(run)
            except GlueError:
                logger.debug("run %s had ended already", run.id)
        for thread in threads:
            thread.join()

    # One run

    def _watch_in_background(self, job: Mapping[str, Any], run: JobRun) -> None:
        context = contextvars.copy_context()  # account and region of the request
        thread = threading.Thread(
            target=context.run, args=(self._watch, dict(job), run), name=f"glue-run-{run.id[:12]}", daemon=True
        )
        self._threads[run.id] = thread
        thread.start()

    def _watch(self, job: Mapping[str, Any], run: JobRun) -> None:
        folder = self._folder / run.id
        try:
            process = self._launch(job, run, folder)
        except Exception as error:
            logger.error("Glue run %s of %s did not start: %s", run.id, run.job_name, error)
            self._end(run.id, "FAILED", f"LAUNCH ERROR | {error}")
            process = None
        if process is not None:
            self._follow(job, run, process, folder)
        self._threads.pop(run.id, None)
        self._retry(job, self._runs[run.id])

    def _launch(self, job: Mapping[str, Any], run: JobRun, folder: Path) -> subprocess.Popen[bytes] | None:
        """Fetch the code and start the process; None when the run was stopped before that."""
        role = roles.role_arn(str(job.get("Role", "")), run.account)
        credentials = roles.assume(role, "GlueJobRunnerSession", "glue.amazonaws.com")
        arguments = glue_runs.merged_arguments(job, run.arguments)
        script = self._fetch(str(job["Command"]["ScriptLocation"]), folder, credentials)
        zips = [self._fetch(address, folder, credentials) for address in glue_runs.extra_zips(arguments)]
        command = [sys.executable, str(script), *glue_runs.script_words(run, arguments)]
        environment = self._environment(run, arguments, zips) | credentials.environment()
        with self._lock:
            if self._runs[run.id].state == "STOPPING":
                self._keep(self._runs[run.id].ended("STOPPED", self._clock()))
                return None
            process = child_process.start(command, environment, folder)
            self._processes[run.id] = process
            running = replace(self._runs[run.id], state="RUNNING", process_id=process.pid)
            self._keep(replace(running, process_born=child_process.born(process.pid)))
        return process

    def _environment(self, run: JobRun, arguments: Mapping[str, str], zips: list[Path]) -> dict[str, str]:
        path = [str(file) for file in zips]
        path += [self._inherited["PYTHONPATH"]] if self._inherited.get("PYTHONPATH") else []
        environment = self._inherited | {
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_DEFAULT_REGION": run.region,
            "AWS_REGION": run.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
        }
        if submit := glue_runs.submit_arguments(arguments):
            environment["PYSPARK_SUBMIT_ARGS"] = submit
        return environment

    def _fetch(self, address: str, folder: Path, credentials: roles.Credentials) -> Path:
        import boto3

        bucket, _, key = address.removeprefix("s3://").partition("/")
        if not address.startswith("s3://") or not key:
            raise ValueError(f"{address!r} is not an s3:// address of an object")
        target = folder / Path(key).name
        s3 = boto3.session.Session().client(
            "s3", endpoint_url=self._endpoint, region_name=REGION, **credentials.client_options()
        )
        try:
            s3.download_file(bucket, key, str(target))
        except Exception as error:
            raise RuntimeError(f"{address} cannot be read with the job's role: {error}") from error
        return target

    def _follow(self, job: Mapping[str, Any], run: JobRun, process: subprocess.Popen[bytes], folder: Path) -> None:
        """Copy the logs and keep the time until the process has ended; then say how."""
        role = roles.role_arn(str(job.get("Role", "")), run.account)

        def allowed(group: str, stream: str) -> bool:
            return log_groups.role_may_write(
                self._role_may, role, group, stream, run.region, run.account, makes_group=True
            )

        groups = glue_runs.log_group_prefix(glue_runs.merged_arguments(job, run.arguments))
        tails = [
            log_groups.FileTail(folder / "stdout.log", f"{groups}/output", run.id, allowed),
            log_groups.FileTail(folder / "stderr.log", f"{groups}/error", run.id, allowed),
        ]
        kill_at: float | None = None
        timed_out = False
        while True:
            try:
                code = process.wait(_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                pass
            now = self._clock()
            if not timed_out and run.timeout_minutes and now > run.started_on + 60 * run.timeout_minutes:
                timed_out = True
                child_process.ask_to_stop(process)
            if kill_at is None and (timed_out or self._runs[run.id].state == "STOPPING"):
                kill_at = now + STOP_GRACE_SECONDS
            if kill_at is not None and now > kill_at:
                child_process.kill_group(process)
            self._copy(tails, to_the_end=False)
        child_process.end_group(process.pid)
        self._copy(tails, to_the_end=True)
        self._processes.pop(run.id, None)
        if timed_out:
            self._end(run.id, "TIMEOUT", f"Job run timed out after {run.timeout_minutes} minutes")
        elif self._runs[run.id].state == "STOPPING":
            self._end(run.id, "STOPPED")
        elif code == 0:
            self._end(run.id, "SUCCEEDED")
        else:
            self._end(run.id, "FAILED", glue_runs.error_message(_end_of(folder / "stderr.log"), code))

    def _copy(self, tails: list[log_groups.FileTail], *, to_the_end: bool) -> None:
        """Copy to CloudWatch Logs; a failure there does not disturb the run."""
        for tail in list(tails):
            try:
                tail.copy(to_the_end=to_the_end)
            except PermissionError as error:
                logger.warning("a job's log is not copied: %s", error)
                tails.remove(tail)
            except Exception:
                logger.exception("a job's log could not be copied")

    def _retry(self, job: Mapping[str, Any], run: JobRun) -> None:
        if run.state != "FAILED" or run.attempt >= int(job.get("MaxRetries") or 0) or self._closing:
            return
        base = run.id.partition("_attempt_")[0]
        again = replace(
            JobRun(run.id, run.job_name, run.account, run.region, run.arguments, self._clock()),
            id=f"{base}_attempt_{run.attempt + 1}",
            attempt=run.attempt + 1,
            previous_run_id=run.id,
            timeout_minutes=run.timeout_minutes,
            glue_version=run.glue_version,
            worker_type=run.worker_type,
            number_of_workers=run.number_of_workers,
        )
        with self._lock:
            self._keep(again)
        self._watch_in_background(job, again)

    # Keeping

    def _end(self, run_id: str, state: str, message: str = "") -> None:
        with self._lock:
            self._keep(self._runs[run_id].ended(state, self._clock(), message))

    def _keep(self, run: JobRun) -> None:
        folder = self._folder / run.id
        folder.mkdir(exist_ok=True)
        temporary = folder / "run.json.new"
        temporary.write_text(json.dumps(run.to_json()))
        temporary.replace(folder / "run.json")
        self._runs[run.id] = run

    def _recover(self) -> None:
        """Take up the runs of an earlier server; those it left active have failed, and their processes are ended."""
        for path in self._folder.glob("*/run.json"):
            run = JobRun.from_json(json.loads(path.read_text()))
            if run.active:
                if run.process_id and run.process_born:
                    child_process.end_leftover(run.process_id, run.process_born)
                run = run.ended("FAILED", self._clock(), _RESTARTED)
            self._keep(run)


def install(jobs: GlueJobs) -> None:
    """Put the runs in place of ministack's."""
    from ministack.core.responses import error_response_json, get_account_id, get_region, json_response
    from ministack.services import glue

    def answering(handler: Callable[[Mapping[str, Any], str, str], dict[str, Any]]) -> Callable[[Any], Any]:
        def answer(data: Mapping[str, Any]) -> Any:
            try:
                return json_response(handler(data, get_account_id(), get_region()))
            except GlueError as error:
                return error_response_json(error.code, error.message, 400)

        return answer

    def start(data: Mapping[str, Any], account: str, region: str) -> dict[str, Any]:
        job = glue._jobs.get(data["JobName"])
        if job is None:
            raise GlueError(
                "EntityNotFoundException", f"Failed to start job run due to missing metadata: {data['JobName']}"
            )
        return {"JobRunId": jobs.start(job, data, account, region).id}

    def get(data: Mapping[str, Any], account: str, region: str) -> dict[str, Any]:
        return {"JobRun": jobs.get(data["JobName"], data["RunId"], account, region).describe(jobs.now())}

    def get_all(data: Mapping[str, Any], account: str, region: str) -> dict[str, Any]:
        name = data["JobName"]
        if name not in glue._jobs:
            raise GlueError("EntityNotFoundException", f"Job {name} not found")
        found = jobs.of_job(name, account, region)
        start_at = int(data.get("NextToken") or 0)
        page = found[start_at : start_at + int(data.get("MaxResults") or _DEFAULT_PAGE)]
        reply: dict[str, Any] = {"JobRuns": [run.describe(jobs.now()) for run in page]}
        if start_at + len(page) < len(found):
            reply["NextToken"] = str(start_at + len(page))
        return reply

    def stop(data: Mapping[str, Any], account: str, region: str) -> dict[str, Any]:
        stopped: list[dict[str, str]] = []
        errors: list[dict[str, Any]] = []
        for run_id in data["JobRunIds"]:
            named = {"JobName": data["JobName"], "JobRunId": run_id}
            try:
                jobs.stop(jobs.get(data["JobName"], run_id, account, region))
                stopped.append(named)
            except GlueError as error:
                errors.append(named | {"ErrorDetail": {"ErrorCode": error.code, "ErrorMessage": error.message}})
        return {"SuccessfulSubmissions": stopped, "Errors": errors}

    glue._start_job_run = answering(start)
    glue._get_job_run = answering(get)
    glue._get_job_runs = answering(get_all)
    glue._batch_stop_job_run = answering(stop)
    _keep_job_fields(glue)


def _keep_job_fields(glue: Any) -> None:
    """Let CreateJob and UpdateJob keep what ministack drops: concurrency, mode, tags."""
    create, update = glue._create_job, glue._update_job

    def create_job(data: Mapping[str, Any]) -> Any:
        reply = create(data)
        if reply[0] == 200:
            glue._jobs[data["Name"]].update({key: data[key] for key in _FURTHER_JOB_FIELDS if key in data})
            glue._jobs[data["Name"]].setdefault("ExecutionProperty", {"MaxConcurrentRuns": 1})
            if data.get("Tags"):
                glue._tags[glue._arn("job", data["Name"])] = dict(data["Tags"])
        return reply

    def update_job(data: Mapping[str, Any]) -> Any:
        reply = update(data)
        if reply[0] == 200:
            changes = data.get("JobUpdate", {})
            glue._jobs[data["JobName"]].update({key: changes[key] for key in _FURTHER_JOB_FIELDS if key in changes})
        return reply

    glue._create_job, glue._update_job = create_job, update_job


def _same_job(first: JobRun, second: JobRun) -> bool:
    return (first.job_name, first.account, first.region) == (second.job_name, second.account, second.region)


def _end_of(path: Path, size: int = 20_000) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace")
