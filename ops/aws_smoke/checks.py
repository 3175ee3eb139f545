"""The claims that only an account can prove, and how each is proven. docs/first-run-on-aws.md lists the same claims."""

from __future__ import annotations

import configparser
import json
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import ClientError

from ops import tables
from ops.athena import Athena
from ops.aws_smoke.script import Check, NotConfigured
from ops.aws_smoke.site import TABLES, Site
from ops.demo.observers import InvariantChecker
from ops.demo.workload import Pgbench
from ops.errors import OpsError
from ops.names import Names, databases
from ops.parts import Part
from ops.verify import Verifier
from ops.waiting import until
from producer.settings import load

LEAST_CUTS: Final = 5
MOST_FAILED_RUNS: Final = 3
_FAILED: Final = ("FAILED", "ERROR", "TIMEOUT")


class CheckFailed(OpsError):
    """What was seen is not what was claimed."""


@dataclass(frozen=True)
class Patience:
    """How long to wait: for a run to start, for the first views, for a message; and how long the load lasts."""

    start_seconds: float = 900.0
    views_seconds: float = 2_400.0
    message_seconds: float = 120.0
    load_seconds: float = 180.0
    rate: float = 20.0


@dataclass(frozen=True)
class RolesAnywhere:
    """The agent's certificate on this machine, and the program that signs with it."""

    certificate: Path
    private_key: Path
    helper: str = "aws_signing_helper"


@dataclass(frozen=True)
class Scene:
    """What the checks look at.

    outputs: Terraform's. changes: what a second plan would change, empty for nothing. parts: every part as it is now.
    """

    names: Names
    source: str
    lake_bucket: str
    client: Callable[[str], Any]
    outputs: Mapping[str, Any]
    changes: Callable[[], str]
    parts: Callable[[], list[Part]]
    site: Site
    patience: Patience
    roles_anywhere: RolesAnywhere | None = None

    @property
    def athena(self) -> Athena:
        return Athena(self.client("athena"), self.names.workgroup, self.source)


def second_plan(scene: Scene) -> str:
    if changes := scene.changes():
        raise CheckFailed(f"a second plan is not empty: {changes}")
    return "a second plan is empty"


def in_place(scene: Scene) -> str:
    """Every part that Terraform names exists and can do its work, as `headrace status` sees it."""
    found = scene.parts()
    lacking = [f"{part.kind} {part.name} ({part.state})" for part in found if not part.in_place]
    if lacking or not found:
        raise CheckFailed(f"{len(lacking)} of {len(found)} parts are not in place: {', '.join(lacking)}")
    return f"all {len(found)} parts are in place"


def worker_type(scene: Scene) -> str:
    """The run that was accepted has the worker type that the job asks for."""
    glue, job = scene.client("glue"), scene.names.stream_job
    wanted = glue.get_job(JobName=job)["Job"]["WorkerType"]
    run = _first_run(scene)
    if run.get("WorkerType") != wanted:
        raise CheckFailed(f"{job} asks for {wanted} and run {run['Id']} got {run.get('WorkerType')}")
    return f"run {run['Id']} has {run['NumberOfWorkers']} workers of {wanted}"


def job_starts(scene: Scene) -> str:
    """The ingest workflow's schedule started the streaming job, and it publishes a watermark."""
    started = time.monotonic()

    def look() -> bool:
        run = _first_run(scene)
        if run["JobRunState"] in _FAILED:
            raise CheckFailed(f"run {run['Id']} ended as {run['JobRunState']}: {run.get('ErrorMessage', '')}")
        scene.site.require_agent()
        return tables.watermark(scene.client("glue"), scene.source).line is not None

    until(look, "the streaming job's first watermark", scene.patience.start_seconds, every_seconds=1.0)
    return f"the ingest workflow started it; first watermark {time.monotonic() - started:.0f} s after the check began"


def views(scene: Scene) -> str:
    """Each kind of view answers in Athena, for every table."""
    until(
        lambda: not _missing_views(scene),
        lambda: f"the views of {', '.join(_missing_views(scene))} in {scene.source}_cut",
        scene.patience.views_seconds,
        every_seconds=2.0,
    )
    asked = 0
    for database in databases(scene.source)[:3]:
        for table in TABLES:
            scene.athena.run(f'SELECT count(*) FROM "{database}"."{table}"')
            asked += 1
    return f"{asked} views of {len(TABLES)} tables answer"


def cuts(scene: Scene) -> str:
    """While a load runs, every query over four cut views sees whole transactions."""
    patience = scene.patience
    checker = InvariantChecker(scene.athena, scene.source, every_seconds=0.5)
    log = scene.site.folder / "pgbench.log"
    load = Pgbench(scene.site.postgres, scene.source, patience.rate, patience.load_seconds, log)
    checker.start()
    try:
        load.finish()
    finally:
        load.stop()
        checker.stop()
    seen = checker.seen
    if seen.failures:
        raise CheckFailed(f"{len(seen.failures)} of {seen.checks} queries saw a torn transaction: {seen.failures[0]}")
    if seen.refusals:
        raise CheckFailed(f"{len(seen.refusals)} queries over the cut failed, the first: {seen.refusals[0]}")
    if seen.checks < LEAST_CUTS or len(seen.values) < 2:
        raise CheckFailed(
            f"only {seen.checks} queries with {len(seen.values)} different sums: nothing is shown by that"
        )
    return f"{seen.checks} queries over four cut views, {len(seen.values)} different sums, none torn"


def equal(scene: Scene) -> str:
    """Row by row and value by value, the lake equals the source."""
    found = Verifier(load(scene.site.agent_config), scene.athena, scene.client("glue")).run(TABLES)
    if not found.equal:
        unlike = [f"{table.table} ({table.verdict})" for table in found.tables if not table.equal]
        raise CheckFailed(f"at {found.position} these differ: {', '.join(unlike)}")
    return f"{len(found.tables)} tables, {sum(table.source_rows for table in found.tables):,} rows at {found.position}"


def alarm(scene: Scene) -> str:
    """An alarm of this deployment reaches a queue that is subscribed to its topic."""
    cloudwatch = scene.client("cloudwatch")
    name, topic = _alarm_with_topic(scene)
    with _subscribed_queue(scene, topic) as receive:
        # An alarm acts when its state changes, so it is brought to OK first.
        for state in ("OK", "ALARM"):
            cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="headrace aws-smoke")
        started = time.monotonic()
        until(
            lambda: any(name in body and '"ALARM"' in body.replace("\\", "") for body in receive()),
            f"the message of alarm {name} through {topic}",
            scene.patience.message_seconds,
            every_seconds=0.5,
        )
    return f"{name} arrived in {time.monotonic() - started:.1f} s"


def agent_session(scene: Scene) -> str:
    """The agent's certificate gives a session of the agent's role, which may send and may not read the lake."""
    given = scene.roles_anywhere
    if given is None:
        raise NotConfigured(
            "give --certificate and --private-key (an end-entity certificate that the trust anchor knows)"
        )
    profile = scene.outputs.get("agent_profile", {}).get(scene.source)
    if profile is None:
        raise NotConfigured(
            "Terraform made no identity for the agent: set agent.ca_bundle or agent.ca_arn in --var-file"
        )
    session = _signed_session(given, profile, scene.source)
    keys = {
        "aws_access_key_id": session["AccessKeyId"],
        "aws_secret_access_key": session["SecretAccessKey"],
        "aws_session_token": session["SessionToken"],
    }
    identity = boto3.client("sts", **keys).get_caller_identity()["Arn"]
    boto3.client("kinesis", **keys).describe_stream_summary(StreamName=scene.names.stream)
    try:
        boto3.client("s3", **keys).list_objects_v2(Bucket=scene.lake_bucket, Prefix="lake/", MaxKeys=1)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return f"{identity} sees the stream and is refused the lake"
    raise CheckFailed(f"{identity} may list the lake's tables, which the agent never needs")


CHECKS: Final[tuple[Check[Scene], ...]] = (
    Check("plan", "after an apply nothing is left to change", second_plan),
    Check("parts", "every part is in place", in_place),
    Check("worker", "Glue offers the worker type for this region and job", worker_type, only_on_aws=True),
    Check("job", "the ingest workflow starts the streaming job, which publishes a watermark", job_starts),
    Check("views", "Athena reads the views that Headrace writes", views, after=("job",)),
    Check("cuts", "a query over several cut views sees whole transactions", cuts, after=("views",)),
    Check("equal", "the lake equals the source", equal, after=("views",)),
    Check("alarm", "an alarm passes the encrypted topic and arrives", alarm),
    Check("session", "a certificate gives the agent's session, and nothing more", agent_session, only_on_aws=True),
)


def _first_run(scene: Scene) -> dict[str, Any]:
    """The newest run of the streaming job, awaited. A refused worker type shows as a failed ingest execution."""

    def look() -> dict[str, Any] | None:
        runs: list[dict[str, Any]] = scene.client("glue").get_job_runs(JobName=scene.names.stream_job)["JobRuns"]
        return runs[0] if runs else None

    hint = f"a run of {scene.names.stream_job} (see the executions of {scene.names.ingest_workflow})"
    return until(look, hint, scene.patience.start_seconds, every_seconds=1.0)


def _require_lasting_runs(scene: Scene) -> None:
    """The ingest workflow starts a run anew that failed. What fails again and again is not waited for at a price."""
    for job in (scene.names.stream_job, scene.names.fold_job):
        runs = scene.client("glue").get_job_runs(JobName=job)["JobRuns"]
        failed = [run for run in runs if run["JobRunState"] in _FAILED]
        if len(failed) >= MOST_FAILED_RUNS:
            raise CheckFailed(
                f"{len(failed)} runs of {job} failed, the last: {failed[0].get('ErrorMessage', '')[:500]}"
            )


def _missing_views(scene: Scene) -> list[str]:
    scene.site.require_agent()
    _require_lasting_runs(scene)
    pages = scene.client("glue").get_paginator("get_tables").paginate(DatabaseName=f"{scene.source}_cut")
    return sorted(set(TABLES) - {table["Name"] for page in pages for table in page["TableList"]})


def _alarm_with_topic(scene: Scene) -> tuple[str, str]:
    pages = scene.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=scene.names.prefix)
    for page in pages:
        for found in page["MetricAlarms"]:
            topics = [action for action in found.get("AlarmActions", ()) if ":sns:" in action]
            if topics:
                return str(found["AlarmName"]), str(topics[0])
    raise CheckFailed(f"no alarm named {scene.names.prefix}* tells a topic")


@contextmanager
def _subscribed_queue(scene: Scene, topic: str) -> Iterator[Callable[[], list[str]]]:
    """A queue of its own for the length of the block; it is deleted with its subscription."""
    sqs, sns = scene.client("sqs"), scene.client("sns")
    url = sqs.create_queue(QueueName=f"{scene.names.prefix}-smoke-{uuid.uuid4().hex[:8]}")["QueueUrl"]
    try:
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, ReturnSubscriptionArn=True)
        try:
            yield lambda: [
                str(message["Body"])
                for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", ())
            ]
        finally:
            sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    finally:
        sqs.delete_queue(QueueUrl=url)


def _signed_session(given: RolesAnywhere, profile: str, source: str) -> dict[str, str]:
    """Runs the credential process of the profile that Terraform gives the site, with this machine's certificate."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(profile)
    command = shlex.split(parser[f"profile headrace-{source}"]["credential_process"])
    command[0] = given.helper
    command[command.index("--certificate") + 1] = str(given.certificate)
    command[command.index("--private-key") + 1] = str(given.private_key)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NotConfigured(f"{given.helper} is not installed: name it with --signing-helper") from error
    if done.returncode:
        raise CheckFailed(f"{given.helper} got no session: {done.stderr.strip()[-500:]}")
    session: dict[str, str] = json.loads(done.stdout)
    return session
