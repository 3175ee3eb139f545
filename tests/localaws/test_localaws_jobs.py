"""Glue job runs as clients see them: real processes with the role's credentials, their states, their logs."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localaws import child_process
from localaws.process import LocalAws, running, start

SCRIPT = """
import os, sys, subprocess, time
import boto3
import extra
print("words", sys.argv[1:], "extra", extra.NAME, flush=True)
print("who", boto3.client("sts").get_caller_identity()["Arn"], flush=True)
if "--child" in sys.argv:
    child = subprocess.Popen(["sleep", "300"])
    print("child", child.pid, flush=True)
if "--sleep" in sys.argv:
    time.sleep(300)
if "--fail" in sys.argv:
    raise ValueError("the job's own reason")
"""

ENDED = ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT")


@dataclass(frozen=True)
class Job:
    """A job of one server, and what a test does with its runs."""

    server: LocalAws
    name: str
    until: Callable[..., Any]

    def start(self, **arguments: str) -> str:
        named = {f"--{key}": value for key, value in arguments.items()}
        return str(self.server.client("glue").start_job_run(JobName=self.name, Arguments=named)["JobRunId"])

    def look(self, run_id: str) -> dict[str, Any]:
        return dict(self.server.client("glue").get_job_run(JobName=self.name, RunId=run_id)["JobRun"])

    def ended(self, run_id: str) -> dict[str, Any]:
        return dict(self.until(lambda: self.look(run_id), lambda run: run["JobRunState"] in ENDED))

    def stop(self, run_id: str) -> None:
        self.server.client("glue").batch_stop_job_run(JobName=self.name, JobRunIds=[run_id])

    def output(self, run_id: str, kind: str = "output") -> list[str]:
        logs = self.server.client("logs")
        found = logs.filter_log_events(logGroupName=f"/aws-glue/jobs/{kind}", logStreamNames=[run_id])
        return [event["message"] for event in found["events"]]

    def printed(self, run_id: str, word: str) -> str:
        """The rest of the line that the run printed after a word, as soon as it is there."""

        def look() -> list[str]:
            file = self.server.state_folder / "glue_runs" / run_id / "stdout.log"
            text = file.read_text() if file.exists() else ""
            return [line.partition(" ")[2] for line in text.splitlines() if line.startswith(word)]

        return str(self.until(look, bool)[0])


@pytest.fixture(scope="module")
def make_job(
    until: Callable[..., Any], make_role: Callable[..., str], zipped: Callable[..., bytes]
) -> Callable[..., Job]:
    def make(server: LocalAws, name: str, script: str = SCRIPT, **more: Any) -> Job:
        role = make_role(server, name, "glue.amazonaws.com", ["s3:GetObject"])
        s3 = server.client("s3")
        s3.create_bucket(Bucket=f"{name}-code")
        s3.put_object(Bucket=f"{name}-code", Key="job.py", Body=script.encode())
        s3.put_object(Bucket=f"{name}-code", Key="extra.zip", Body=zipped({"extra.py": f"NAME = {name!r}"}))
        server.client("glue").create_job(
            Name=name,
            Role=role,
            Command={"Name": "glueetl", "ScriptLocation": f"s3://{name}-code/job.py"},
            DefaultArguments={"--extra-py-files": f"s3://{name}-code/extra.zip"},
            **more,
        )
        return Job(server, name, until)

    return make


@pytest.fixture(scope="module")
def job(aws: LocalAws, make_job: Callable[..., Job]) -> Job:
    return make_job(aws, "job", ExecutionProperty={"MaxConcurrentRuns": 2})


def test_successful_run_has_its_arguments_its_code_and_its_role(job: Job) -> None:
    """Words, the zip's module and the caller are in the output log."""
    run = job.ended(job.start(x="1"))
    assert run["JobRunState"] == "SUCCEEDED"
    assert run["CompletedOn"] >= run["StartedOn"]
    words, who = job.output(run["Id"])
    assert f"'--JOB_RUN_ID', '{run['Id']}'" in words
    assert words.endswith("'--x', '1'] extra job")
    assert ":assumed-role/job/" in who


def test_failed_run_gives_its_exception(job: Job) -> None:
    run = job.ended(job.start(fail="1"))
    assert (run["JobRunState"], run["ErrorMessage"]) == ("FAILED", "ValueError: the job's own reason")
    assert job.output(run["Id"], "error")[-1] == "ValueError: the job's own reason"


def test_stop_ends_the_process_and_its_children(job: Job) -> None:
    """Also a child that the job did not end itself."""
    run_id = job.start(child="1", sleep="1")
    child = int(job.printed(run_id, "child"))
    job.stop(run_id)
    assert job.ended(run_id)["JobRunState"] == "STOPPED"
    assert child_process.born(child) is None


def test_more_runs_than_allowed_are_refused(job: Job) -> None:
    """MaxConcurrentRuns 2: the third waits for nothing, it is refused; when one has ended there is room again."""
    glue = job.server.client("glue")
    runs = [job.start(sleep="1") for _ in range(2)]
    with pytest.raises(glue.exceptions.ConcurrentRunsExceededException):
        job.start()
    for run_id in runs:
        job.stop(run_id)
        job.ended(run_id)
    assert job.ended(job.start())["JobRunState"] == "SUCCEEDED"


def test_runs_are_listed_newest_first_in_pages(job: Job) -> None:
    started = [job.ended(job.start())["Id"] for _ in range(2)]
    glue = job.server.client("glue")
    pages = glue.get_paginator("get_job_runs").paginate(JobName=job.name, PaginationConfig={"PageSize": 1})
    listed = [run["Id"] for page in pages for run in page["JobRuns"]]
    assert listed[:2] == started[::-1]
    assert len(listed) == len(set(listed)) == len(glue.get_job_runs(JobName=job.name)["JobRuns"])


def test_missing_script_fails_the_run_with_its_address(job: Job) -> None:
    glue = job.server.client("glue")
    location = "s3://job-code/none.py"
    glue.create_job(Name="lost", Role=_role(glue, job), Command={"Name": "glueetl", "ScriptLocation": location})
    run_id = glue.start_job_run(JobName="lost")["JobRunId"]
    run = Job(job.server, "lost", job.until).ended(run_id)
    assert run["JobRunState"] == "FAILED"
    assert location in run["ErrorMessage"]


def test_unknown_job_is_refused(aws: LocalAws) -> None:
    glue = aws.client("glue")
    with pytest.raises(glue.exceptions.EntityNotFoundException):
        glue.start_job_run(JobName="none")


def test_failed_run_is_tried_again(aws: LocalAws, make_job: Callable[..., Job]) -> None:
    """MaxRetries 1: a second run with attempt 1 follows the first."""
    again = make_job(aws, "again", script="raise SystemExit('no')", MaxRetries=1)
    first = again.ended(again.start())
    second = again.until(lambda: again.look(f"{first['Id']}_attempt_1"), lambda run: run["JobRunState"] in ENDED)
    assert (second["Attempt"], second["PreviousRunId"]) == (1, first["Id"])
    assert len(aws.client("glue").get_job_runs(JobName="again")["JobRuns"]) == 2


def test_job_keeps_its_concurrency_and_tags(aws: LocalAws, make_job: Callable[..., Job]) -> None:
    """What Terraform sets and reads back."""
    make_job(aws, "kept", ExecutionProperty={"MaxConcurrentRuns": 7}, Tags={"a": "b"})
    glue = aws.client("glue")
    assert glue.get_job(JobName="kept")["Job"]["ExecutionProperty"] == {"MaxConcurrentRuns": 7}
    assert glue.get_tags(ResourceArn="arn:aws:glue:us-east-1:000000000000:job/kept")["Tags"] == {"a": "b"}


def test_orderly_stop_of_the_server_stops_its_runs(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    """The run is STOPPED after the restart, and its process is gone before the server is."""
    with running(tmp_path) as server:
        stopped = make_job(server, "job")
        run_id = stopped.start(child="1", sleep="1")
        child = int(stopped.printed(run_id, "child"))
    assert child_process.born(child) is None
    with running(tmp_path) as server:
        run = Job(server, "job", stopped.until).look(run_id)
        assert run["JobRunState"] == "STOPPED"


def test_killed_server_ends_leftover_processes_at_its_next_start(
    tmp_path: Path, make_job: Callable[..., Job], until: Callable[..., Any]
) -> None:
    """What was running has failed, and does not go on beside its successor."""
    with running(tmp_path) as server:
        make_job(server, "job")
    server = start(tmp_path)
    killed = Job(server, "job", until)
    run_id = killed.start(child="1", sleep="1")
    child = int(killed.printed(run_id, "child"))
    until(lambda: killed.look(run_id)["JobRunState"], lambda state: state == "RUNNING")
    server.kill()
    assert child_process.born(child)
    with running(tmp_path) as server:
        run = Job(server, "job", until).look(run_id)
        assert (run["JobRunState"], run["ErrorMessage"]) == ("FAILED", "the laptop's AWS was restarted")
        until(lambda: child_process.born(child), lambda birth: birth is None)


def test_process_of_another_birth_is_left_alone() -> None:
    """A process id that was given to somebody else meanwhile."""
    assert child_process.end_leftover(os.getpid(), "Mon Jan  1 00:00:00 2001") is False


def test_process_table_and_ps_agree() -> None:
    """Where there is no /proc, ps is asked: the same processes in the same groups."""
    if Path("/proc/self/stat").exists():
        tables = [{p.id: p.group for p in table()} for table in (child_process._from_proc, child_process._from_ps)]
        assert tables[0][os.getpid()] == tables[1][os.getpid()] == os.getpgid(0)


def _role(glue: Any, job: Job) -> str:
    return str(glue.get_job(JobName=job.name)["Job"]["Role"])
