"""The smoke run: what it proves, that it destroys whatever happened, and that it spends nothing unasked."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from localaws.process import LocalAws
from ops.aws import Aws
from ops.aws_smoke import __main__ as command
from ops.aws_smoke import checks, price
from ops.aws_smoke.checks import CHECKS, CheckFailed, Patience, RolesAnywhere
from ops.aws_smoke.infrastructure import SmokeInfrastructure
from ops.aws_smoke.report import Report, Standing
from ops.aws_smoke.script import Check, NotConfigured, run
from ops.cost import bill, read_prices
from ops.errors import OpsError, TookTooLong
from ops.names import Names
from ops.parts import Part
from ops.terraform import TerraformFailed


@dataclass
class Account:
    """An infrastructure that only notes what was asked of it."""

    apply_error: BaseException | None = None
    destroy_error: OpsError | None = None
    asked: list[str] = field(default_factory=list)

    def apply(self) -> None:
        self.asked.append("apply")
        if self.apply_error:
            raise self.apply_error

    def destroy(self) -> None:
        self.asked.append("destroy")
        if self.destroy_error:
            raise self.destroy_error


def smoke(account: Account, *found: Check[Any], rehearsal: bool = False) -> Report:
    @contextmanager
    def stage() -> Iterator[None]:
        account.asked.append("stage")
        try:
            yield None
        finally:
            account.asked.append("left")

    return run("hr-smoke-test", account, stage, found, rehearsal, lambda _line: None)


def check(name: str, outcome: str | BaseException | Callable[[], str], **more: Any) -> Check[Any]:
    def prove(_scene: Any) -> str:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome() if callable(outcome) else outcome

    return Check(name, f"claim of {name}", prove, **more)


def standings(report: Report) -> dict[str, Standing]:
    return {result.check: result.standing for result in report.results}


def test_what_passes_on_an_account_is_proven_and_everything_is_destroyed() -> None:
    """Apply, enter the site, check, leave the site, destroy: in this order."""
    account = Account()
    report = smoke(account, check("one", "seen"), check("two", "seen", only_on_aws=True))
    assert standings(report) == {"one": Standing.PROVEN, "two": Standing.PROVEN}
    assert account.asked == ["apply", "stage", "left", "destroy"]
    assert report.good


def test_a_rehearsal_proves_nothing() -> None:
    """On the laptop's AWS a passed check is rehearsed, and what only AWS can answer is not proven."""
    report = smoke(Account(), check("one", "seen"), check("two", "seen", only_on_aws=True), rehearsal=True)
    assert standings(report) == {"one": Standing.REHEARSED, "two": Standing.NOT_PROVEN}
    assert report.results[1].evidence == "only on AWS"
    assert report.count(Standing.PROVEN) == 0


@pytest.mark.parametrize("error", [CheckFailed("torn"), TookTooLong("waited 3 s")])
def test_a_failed_check_stops_no_other_and_fails_the_run(error: OpsError) -> None:
    """The others are still worth their money; what needs the failed one is not asked."""
    account = Account()
    report = smoke(account, check("one", error), check("two", "seen", after=("one",)), check("three", "seen"))
    assert standings(report) == {"one": Standing.FAILED, "two": Standing.NOT_PROVEN, "three": Standing.PROVEN}
    assert not report.good
    assert account.asked[-1] == "destroy"


def test_what_was_not_configured_is_not_proven_and_says_how() -> None:
    """A missing certificate is no failure, and no proof."""
    report = smoke(Account(), check("one", NotConfigured("give --certificate")))
    assert standings(report) == {"one": Standing.NOT_PROVEN}
    assert report.results[0].evidence == "give --certificate"
    assert report.good


def test_a_failed_apply_is_destroyed() -> None:
    """What an apply made before it failed costs money too."""
    account = Account(apply_error=TerraformFailed("no such subnet"))
    report = smoke(account, check("one", "seen"))
    assert account.asked == ["apply", "destroy"]
    assert not report.good
    assert standings(report) == {"one": Standing.NOT_PROVEN}


def test_an_interrupt_in_a_check_destroys() -> None:
    """Ctrl-C ends the checks and not the destroying."""
    account = Account()
    report = smoke(account, check("one", KeyboardInterrupt()), check("two", "seen"))
    assert account.asked == ["apply", "stage", "left", "destroy"]
    assert "interrupted" in report.problems
    assert standings(report) == {"one": Standing.NOT_PROVEN, "two": Standing.NOT_PROVEN}


def test_an_interrupt_in_an_apply_waits_for_its_state() -> None:
    """Terraform ends what it began and writes it down; then everything is destroyed and nothing is checked."""

    class Interrupted(Account):
        def apply(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            super().apply()

    account = Interrupted()
    report = smoke(account, check("one", "seen"))
    assert account.asked == ["apply", "destroy"]
    assert "interrupted" in report.problems


def test_an_error_that_nobody_expected_destroys() -> None:
    """A defect of the script itself must not leave anything standing."""
    account = Account()
    with pytest.raises(ZeroDivisionError):
        smoke(account, check("one", ZeroDivisionError()))
    assert account.asked[-1] == "destroy"


def test_an_interrupt_while_destroying_is_only_heard() -> None:
    """A second Ctrl-C comes while Terraform destroys: it goes on."""

    class Interrupted(Account):
        def destroy(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            super().destroy()

    account = Interrupted()
    assert smoke(account, check("one", "seen")).good
    assert account.asked[-1] == "destroy"


def test_what_could_not_be_destroyed_fails_the_run_loudly() -> None:
    """Something that goes on costing is a failure, whatever was proven."""
    report = smoke(Account(destroy_error=TerraformFailed("bucket not empty")), check("one", "seen"))
    assert not report.good
    assert "NOT DESTROYED" in report.problems[0]
    assert "bucket not empty" in report.problems[0]


@pytest.fixture(scope="module")
def laptop(server: LocalAws) -> Aws:
    """The laptop's AWS with nothing in it that these tests need."""
    return Aws(server.endpoint)


@pytest.fixture
def scene(laptop: Aws, tmp_path: Path) -> Callable[..., Any]:
    """A scene on the laptop's AWS, without a site."""

    def make(**more: Any) -> Any:
        patience = Patience(start_seconds=0.5, views_seconds=0.5, message_seconds=120.0)
        values = {"names": Names(), "source": "shop", "lake_bucket": "headrace-lake", "client": laptop.client}
        return SimpleNamespace(**{**values, "patience": patience, "outputs": {}, "roles_anywhere": None, **more})

    return make


@pytest.fixture
def alarm_name(laptop: Aws) -> Iterator[str]:
    """An alarm that tells the deployment's topic."""
    topic = laptop.client("sns").create_topic(Name=Names().topic)["TopicArn"]
    cloudwatch = laptop.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="headrace-smoke-test",
        Namespace="Headrace",
        MetricName="lag_seconds",
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[topic],
    )
    yield "headrace-smoke-test"
    cloudwatch.delete_alarms(AlarmNames=["headrace-smoke-test"])


def test_an_alarm_that_arrives_is_seen_and_leaves_no_queue(
    scene: Callable[..., Any], alarm_name: str, laptop: Aws
) -> None:
    """The alarm's message comes through the topic into a queue that is gone afterwards."""
    assert alarm_name in checks.alarm(scene())
    assert not [url for url in laptop.client("sqs").list_queues().get("QueueUrls", []) if "smoke" in url]
    assert not [
        found
        for found in laptop.client("sns").list_subscriptions()["Subscriptions"]
        if found["Protocol"] == "sqs" and "smoke" in found["Endpoint"]
    ]


def test_an_alarm_that_does_not_arrive_fails(scene: Callable[..., Any], alarm_name: str, laptop: Aws) -> None:
    """An alarm whose actions are switched off tells nobody; the queue is gone all the same."""
    laptop.client("cloudwatch").disable_alarm_actions(AlarmNames=[alarm_name])
    with pytest.raises(TookTooLong, match=alarm_name):
        checks.alarm(scene(patience=Patience(message_seconds=1.0)))
    assert not [url for url in laptop.client("sqs").list_queues().get("QueueUrls", []) if "smoke" in url]


def test_a_deployment_without_an_alarm_on_its_topic_fails(scene: Callable[..., Any]) -> None:
    """Nothing that could arrive is a failure, not a pass."""
    with pytest.raises(CheckFailed, match="tells a topic"):
        checks.alarm(scene(names=Names("another")))


def test_another_worker_type_than_asked_for_fails(scene: Callable[..., Any]) -> None:
    """Glue took the run, with other workers than the job asks for."""
    glue = SimpleNamespace(
        get_job=lambda **_job: {"Job": {"WorkerType": "G.025X"}},
        get_job_runs=lambda **_job: {"JobRuns": [{"Id": "jr_1", "WorkerType": "G.1X", "NumberOfWorkers": 2}]},
    )
    with pytest.raises(CheckFailed, match=r"asks for G\.025X and run jr_1 got G\.1X"):
        checks.worker_type(scene(client=lambda _service: glue))


def test_a_job_that_fails_again_and_again_is_not_waited_for(scene: Callable[..., Any]) -> None:
    """The third failed run ends the waiting, with the job's own words."""
    runs = [{"JobRunState": "FAILED", "ErrorMessage": "AccessDenied: s3:GetObject"}] * 3
    glue = SimpleNamespace(
        get_job_runs=lambda **_job: {"JobRuns": runs},
        get_paginator=lambda _name: SimpleNamespace(paginate=lambda **_database: []),
    )
    site = SimpleNamespace(require_agent=lambda: None)
    seen = scene(client=lambda _service: glue, site=site, patience=Patience(views_seconds=60.0))
    with pytest.raises(CheckFailed, match="3 runs of headrace-stream failed, the last: AccessDenied"):
        checks.views(seen)
    runs.pop()
    with pytest.raises(TookTooLong, match="the views of"):
        checks.views(scene(client=lambda _service: glue, site=site))


def test_a_second_plan_that_is_not_empty_fails(scene: Callable[..., Any]) -> None:
    """What a second apply would change was not applied as written."""
    with pytest.raises(CheckFailed, match="1 to change"):
        checks.second_plan(scene(changes=lambda: "Plan: 0 to add, 1 to change"))
    assert checks.second_plan(scene(changes=lambda: "")) == "a second plan is empty"


PROFILE = """
[profile headrace-shop]
region = us-east-1
credential_process = aws_signing_helper credential-process --certificate /etc/a.pem --private-key /a.key --role-arn r
"""


def test_a_part_that_is_not_in_place_fails_by_its_name(scene: Callable[..., Any]) -> None:
    """What Terraform names and AWS lacks is named; a deployment without any part proves nothing."""
    there = Part("stream", "hr-smoke", "ACTIVE", True)
    assert checks.in_place(scene(parts=lambda: [there])) == "all 1 parts are in place"
    with pytest.raises(CheckFailed, match=r"1 of 2 parts are not in place: key k \(MISSING\)"):
        checks.in_place(scene(parts=lambda: [there, Part("key", "k", "MISSING", False)]))
    with pytest.raises(CheckFailed, match="0 of 0"):
        checks.in_place(scene(parts=list))


def test_a_session_needs_a_certificate_and_its_program(scene: Callable[..., Any], tmp_path: Path) -> None:
    """What is missing is named, with the word that gives it."""
    given = RolesAnywhere(tmp_path / "agent.pem", tmp_path / "agent.key", helper=str(tmp_path / "nowhere"))
    with pytest.raises(NotConfigured, match="--certificate and --private-key"):
        checks.agent_session(scene())
    with pytest.raises(NotConfigured, match=r"agent\.ca_bundle"):
        checks.agent_session(scene(roles_anywhere=given))
    with pytest.raises(NotConfigured, match="--signing-helper"):
        checks.agent_session(scene(roles_anywhere=given, outputs={"agent_profile": {"shop": PROFILE}}))


def test_a_session_that_may_list_the_lake_fails(
    scene: Callable[..., Any], laptop: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signing program is asked with this machine's certificate; a session that may too much is a failure."""
    helper = tmp_path / "helper"
    session = {"AccessKeyId": "test", "SecretAccessKey": "test", "SessionToken": "test"}
    helper.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/words\necho '{json.dumps(session)}'\n")
    helper.chmod(0o755)
    for name, value in laptop.environment().items():
        monkeypatch.setenv(name, value)
    laptop.client("s3").create_bucket(Bucket="smoke-lake")
    laptop.client("kinesis").create_stream(StreamName="smoke", ShardCount=1)
    given = RolesAnywhere(tmp_path / "agent.pem", tmp_path / "agent.key", helper=str(helper))
    outputs = {"agent_profile": {"shop": PROFILE}}
    seen = scene(roles_anywhere=given, outputs=outputs, names=Names("smoke"), lake_bucket="smoke-lake")
    with pytest.raises(CheckFailed, match="may list the lake"):
        checks.agent_session(seen)
    words = (tmp_path / "words").read_text()
    assert words.strip() == (
        f"credential-process --certificate {tmp_path}/agent.pem --private-key {tmp_path}/agent.key --role-arn r"
    )


def test_every_check_that_another_needs_comes_before_it() -> None:
    """A check is judged by what was shown before it."""
    names = [found.name for found in CHECKS]
    assert len(set(names)) == len(names)
    for at, found in enumerate(CHECKS):
        assert set(found.after) <= set(names[:at])


# Terraform itself, on a module that needs no provider.

MODULE = """
terraform {
  backend "s3" {}
}
variable "name" { type = string }
variable "given" {
  type    = string
  default = "nothing"
}
resource "terraform_data" "first" { input = var.name }
%s
output "name" { value = terraform_data.first.output }
output "given" { value = var.given }
"""
BROKEN = """
resource "terraform_data" "second" {
  input = terraform_data.first.id
  provisioner "local-exec" { command = "exit 7" }
}
"""
needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")


def terraform(tmp_path: Path, more: str = "", var_file: Path | None = None) -> SmokeInfrastructure:
    source = tmp_path / "source"
    source.mkdir()
    (source / "main.tf").write_text(MODULE % more)
    return SmokeInfrastructure(tmp_path / "hr-smoke-1", {"name": "hr-smoke-1"}, var_file, source=source)


def state(tmp_path: Path) -> list[Any]:
    found = json.loads((tmp_path / "hr-smoke-1/terraform/terraform.tfstate").read_text())
    return list(found["resources"])


@needs_terraform
def test_terraform_is_applied_under_a_name_and_a_state_of_its_own(tmp_path: Path) -> None:
    """The backend of the repository is not touched, our variables win over the given file, and all is destroyed."""
    given = tmp_path / "mine.tfvars"
    given.write_text('name = "production"\ngiven = "mine"\n')
    made = terraform(tmp_path, var_file=given)
    made.apply()
    assert made.outputs() == {"name": "hr-smoke-1", "given": "mine"}
    assert made.changes() == ""
    assert state(tmp_path)
    made.destroy()
    assert not state(tmp_path)


@needs_terraform
def test_what_a_failed_apply_made_is_destroyed(tmp_path: Path) -> None:
    """Terraform's own words are in the error, and the half that was made goes."""
    made = terraform(tmp_path, BROKEN)
    with pytest.raises(TerraformFailed, match="exit status 7"):
        made.apply()
    assert state(tmp_path)
    made.destroy()
    assert not state(tmp_path)


@needs_terraform
def test_what_a_killed_run_left_is_removed_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state lies in the run's folder, so another process can destroy what it names."""
    monkeypatch.setattr(command, "ROOT", tmp_path)
    terraform(tmp_path).apply()
    assert command.main(["--remove", "hr-smoke-1"]) == 0
    assert not (tmp_path / "hr-smoke-1").exists()
    assert command.main(["--remove", "hr-smoke-1"]) == 1


def test_destroy_without_an_apply_does_nothing(tmp_path: Path) -> None:
    """A run that ended before Terraform made anything has nothing to destroy."""
    SmokeInfrastructure(tmp_path / "never", {}).destroy()


# The command line.


@pytest.fixture
def on_account(laptop: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if the laptop's AWS were an account: nothing may be made there without a yes."""
    for name, value in laptop.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(command, "ROOT", tmp_path / "smoke")
    monkeypatch.setattr(command, "is_laptop", lambda _endpoint: False)
    monkeypatch.setattr(command, "SmokeInfrastructure", None)
    (tmp_path / "glue").mkdir()
    return tmp_path


def test_nothing_is_made_where_nobody_can_confirm(on_account: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal and without --yes the run ends before it has a folder, and has said what it would cost."""
    assert command.main(["--artefacts", str(on_account / "glue")]) == 1
    assert not (on_account / "smoke").exists()
    said = capsys.readouterr().err
    assert "give --yes" in said
    assert re.search(r"costs about [0-9.]+ USD", said)


def test_the_cost_is_of_the_bill_that_headrace_draws_up() -> None:
    """An hour's share of a month, more with a network, and nothing for a rehearsal."""
    said = price.statement(rehearsal=False)
    plain, networked = (float(found) for found in re.findall(r"(?:costs about|endpoints) ([0-9]+\.[0-9]{2})", said))
    assert plain == pytest.approx(bill(price.SMOKE, read_prices()).total / 730, abs=0.01)
    assert 0 < plain < networked < 10
    assert "costs nothing" in price.statement(rehearsal=True)


def test_an_endpoint_that_is_neither_aws_nor_the_laptop_is_refused() -> None:
    """A smoke run must know whether it spends money."""
    assert command.is_laptop("http://127.0.0.1:4566")
    assert not command.is_laptop(None)
    with pytest.raises(OpsError, match="unset it"):
        command.is_laptop("https://aws.example.com")
