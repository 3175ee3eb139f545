"""EventBridge Scheduler: when a rate fires, and that it starts an execution by its role."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from localaws.process import LocalAws
from localaws.schedules import Firing, rate_is_due, rate_seconds

PASS = json.dumps({"StartAt": "Only", "States": {"Only": {"Type": "Pass", "End": True}}})


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [("rate(1 minute)", 60), ("rate(5 minutes)", 300), ("rate(2 hours)", 7200), ("cron(0 * * * ? *)", None)],
)
def test_rate_is_read(expression: str, seconds: float | None) -> None:
    assert rate_seconds(expression, 60) == seconds


def test_minute_can_be_made_shorter() -> None:
    assert rate_seconds("rate(5 minutes)", 2) == 10


def test_new_rate_fires_at_once_and_then_every_period() -> None:
    assert rate_is_due(Firing(100, None), None, 60, server_started=50, now=100)
    assert not rate_is_due(Firing(100, 100), None, 60, server_started=50, now=159)
    assert rate_is_due(Firing(100, 100), None, 60, server_started=50, now=160)


def test_rate_with_a_start_date_waits_for_it() -> None:
    assert not rate_is_due(Firing(100, None), 500, 60, server_started=50, now=499)
    assert rate_is_due(Firing(100, None), 500, 60, server_started=50, now=500)


def test_restart_does_not_fire_a_rate_anew() -> None:
    """Created at 100 with a period of 60: after a start at 230 the next one is at 280."""
    assert not rate_is_due(Firing(100, None), None, 60, server_started=230, now=231)
    assert rate_is_due(Firing(100, None), None, 60, server_started=230, now=280)


def test_schedule_starts_executions_with_its_input(
    guarded: LocalAws, make_role: Callable[..., str], until: Callable[..., Any]
) -> None:
    """At once and again a period later, until it is disabled."""
    states, scheduler = guarded.client("stepfunctions"), guarded.client("scheduler")
    machine = states.create_state_machine(
        name="scheduled", definition=PASS, roleArn=make_role(guarded, "scheduled", "states.amazonaws.com", [])
    )["stateMachineArn"]
    role = make_role(guarded, "schedule", "scheduler.amazonaws.com", ["states:StartExecution"])
    schedule = {
        "Name": "often",
        "ScheduleExpression": "rate(1 minute)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {"Arn": machine, "RoleArn": role, "Input": '{"mode": "drain"}'},
    }
    scheduler.create_schedule(**schedule)

    def executions() -> list[dict[str, Any]]:
        return list(states.list_executions(stateMachineArn=machine)["executions"])

    found = until(executions, lambda seen: len(seen) >= 2)
    scheduler.update_schedule(**schedule, State="DISABLED")
    shown = states.describe_execution(executionArn=found[0]["executionArn"])
    assert json.loads(shown["input"]) == {"mode": "drain"}


def test_schedule_whose_role_does_not_trust_it_starts_nothing(
    guarded: LocalAws, make_role: Callable[..., str], until: Callable[..., Any]
) -> None:
    states = guarded.client("stepfunctions")
    wrong = make_role(guarded, "wrong", "states.amazonaws.com", ["states:StartExecution"])
    machine = states.create_state_machine(name="untouched", definition=PASS, roleArn=wrong)["stateMachineArn"]
    guarded.client("scheduler").create_schedule(
        Name="refused",
        ScheduleExpression="rate(1 minute)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": machine, "RoleArn": wrong},
    )
    until(guarded.log_path.read_text, lambda log: "refused did not fire" in log and "scheduler.amazonaws.com" in log)
    guarded.client("scheduler").delete_schedule(Name="refused")
    assert states.list_executions(stateMachineArn=machine)["executions"] == []
