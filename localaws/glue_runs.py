"""A Glue job run as a value: its states, its command line, and what the API shows of it. Pure."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

ACTIVE_STATES = frozenset({"STARTING", "RUNNING", "STOPPING"})
LOG_GROUP = "/aws-glue/jobs"
MAX_ERROR_CHARACTERS = 2000
STREAMING_COMMAND = "gluestreaming"
DEFAULT_TIMEOUT_MINUTES = 2880


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run. Times are seconds since 1970; `timeout_minutes` 0 means that it may run for ever."""

    id: str
    job_name: str
    account: str
    region: str
    arguments: dict[str, str]
    started_on: float
    state: str = "STARTING"
    completed_on: float | None = None
    attempt: int = 0
    previous_run_id: str | None = None
    timeout_minutes: int = 0
    error_message: str = ""
    glue_version: str = ""
    worker_type: str = ""
    number_of_workers: int = 0
    process_id: int | None = None
    process_born: str | None = None  # tells the run's process from another that was given its id later

    @property
    def active(self) -> bool:
        return self.state in ACTIVE_STATES

    def ended(self, state: str, now: float, error_message: str = "") -> "JobRun":
        return replace(self, state=state, completed_on=now, error_message=error_message[-MAX_ERROR_CHARACTERS:])

    def describe(self, now: float) -> dict[str, Any]:
        """The run as GetJobRun shows it."""
        end = self.completed_on or now
        shown: dict[str, Any] = {
            "Id": self.id,
            "Attempt": self.attempt,
            "JobName": self.job_name,
            "StartedOn": self.started_on,
            "LastModifiedOn": end,
            "JobRunState": self.state,
            "Arguments": self.arguments,
            "PredecessorRuns": [],
            "ExecutionTime": int(end - self.started_on),
            "LogGroupName": LOG_GROUP,
            "GlueVersion": self.glue_version,
            "WorkerType": self.worker_type,
            "NumberOfWorkers": self.number_of_workers,
        }
        if self.timeout_minutes:
            shown["Timeout"] = self.timeout_minutes
        if self.completed_on is not None:
            shown["CompletedOn"] = self.completed_on
        if self.error_message:
            shown["ErrorMessage"] = self.error_message
        if self.previous_run_id:
            shown["PreviousRunId"] = self.previous_run_id
        return shown

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "JobRun":
        return cls(**values)


def merged_arguments(job: Mapping[str, Any], run_arguments: Mapping[str, str]) -> dict[str, str]:
    """The job's defaults, overlaid by the run's own, overlaid by what the job does not let a run override."""
    return {**job.get("DefaultArguments", {}), **run_arguments, **job.get("NonOverridableArguments", {})}


def log_group_prefix(arguments: Mapping[str, str]) -> str:
    """What the names of a run's log groups begin with: `output` and `error` come behind it."""
    return arguments.get("--custom-logGroup-prefix", LOG_GROUP).rstrip("/")


def script_words(run: JobRun, arguments: Mapping[str, str]) -> list[str]:
    """The words after the script on its command line, as Glue passes them."""
    named = {"--JOB_NAME": run.job_name, "--JOB_RUN_ID": run.id, **arguments}
    return [word for name, value in named.items() for word in (name, value)]


def extra_zips(arguments: Mapping[str, str]) -> list[str]:
    """The S3 addresses of the code that goes before everything else on the import path."""
    listed = arguments.get("--extra-py-files", "")
    return [address.strip() for address in listed.split(",") if address.strip()]


def submit_arguments(arguments: Mapping[str, str]) -> str | None:
    """PYSPARK_SUBMIT_ARGS for Glue's `--conf`, whose value holds further `--conf` words after the first."""
    settings = arguments.get("--conf")
    return f"--conf {settings} pyspark-shell" if settings else None


def timeout_minutes(job: Mapping[str, Any], request: Mapping[str, Any]) -> int:
    """How long a run may take; a streaming job without a timeout, or with 0, runs for ever."""
    streaming = job.get("Command", {}).get("Name") == STREAMING_COMMAND
    given = request.get("Timeout", job.get("Timeout"))
    if given is None or (streaming and given == DEFAULT_TIMEOUT_MINUTES):
        return 0 if streaming else DEFAULT_TIMEOUT_MINUTES
    return int(given)


def concurrency_limit(job: Mapping[str, Any]) -> int:
    return int(job.get("ExecutionProperty", {}).get("MaxConcurrentRuns", 1))


def error_message(stderr_end: str, exit_code: int) -> str:
    """What a failed run says: the last exception of its standard error, else its last line, else its exit code."""
    lines = [line.rstrip() for line in stderr_end.splitlines() if line.strip()]
    for at in range(len(lines) - 1, -1, -1):
        if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Warning)\b", lines[at]):
            return "\n".join(lines[at:])[:MAX_ERROR_CHARACTERS]
    if exit_code < 0:
        return f"The job's process was ended by signal {-exit_code}"
    return lines[-1][:MAX_ERROR_CHARACTERS] if lines else f"The job's process ended with exit code {exit_code}"
