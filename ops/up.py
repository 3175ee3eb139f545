"""`headrace up`: the whole path on this machine, left running to play with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ops import agent_config, provision_terraform, shop
from ops.errors import OpsError
from ops.machine import require_java
from ops.provision import Deployment, Workflows, provision
from ops.stack import Stack
from ops.waiting import until

Tell = Callable[[str], None]

_FIRST_VIEWS_SECONDS: Final = 240.0
SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "headrace-stream": {"trigger_seconds": "1", "freshness_seconds": "1"},
    "headrace-fold": {"fold_max_age_seconds": "20"},
}


def start(stack: Stack, tell: Tell) -> Workflows:
    """Starts every part; the ingest's schedule starts the streaming job. Idempotent."""
    require_java()
    stack.folder.mkdir(parents=True, exist_ok=True)
    tell(_starting("PostgreSQL", stack.postgres.pid is not None))
    stack.start_postgres()
    shop.create(stack.postgres, stack.source)
    tell(_starting("the laptop's AWS", stack.aws_runs()))
    stack.start_aws()
    checkpoint = str(stack.folder / "checkpoint")
    deployment = Deployment(sources=(stack.source,), checkpoint=checkpoint, settings=SETTINGS)
    if stack.facts.terraform:
        tell("applying terraform/ to it, with IAM enforced")
        workflows = provision_terraform.provision(stack.aws, deployment, stack.folder)
    else:
        tell("provisioning it")
        workflows = provision(stack.aws, deployment)
    tell(_starting("the agent", stack.agent_runs()))
    agent_config.write(stack)
    stack.start_agent()
    until(lambda: _agent_answers(stack), f"the agent to answer (see {stack.log('agent')})", 60)
    return workflows


def await_views(stack: Stack, tell: Tell, seconds: float = _FIRST_VIEWS_SECONDS) -> None:
    """Waits until every table can be queried: its snapshot was read, loaded and activated by a fold."""
    if missing_views(stack):
        tell("waiting for the first snapshots to be loaded and folded (the schedules start both jobs)")
    until(
        lambda: _require_agent(stack) and not missing_views(stack),
        lambda: (
            f"the views of {', '.join(missing_views(stack))} (see {stack.folder / 'logs'} and the job runs in "
            f"{stack.aws_state / 'glue_runs'})"
        ),
        seconds,
        every_seconds=1.0,
    )


def missing_views(stack: Stack) -> list[str]:
    """The tables that have no view of their cut yet."""
    database = f"{stack.source}_cut"
    found: list[dict[str, Any]] = []
    for page in stack.aws.client("glue").get_paginator("get_tables").paginate(DatabaseName=database):
        found += page["TableList"]
    return sorted(set(shop.TABLES) - {table["Name"] for table in found})


def _starting(part: str, runs: bool) -> str:
    return f"{part} runs already" if runs else f"starting {part}"


def _agent_answers(stack: Stack) -> bool:
    return _require_agent(stack) and stack.agent_status() is not None


def _require_agent(stack: Stack) -> bool:
    if not stack.agent_runs():
        tail = stack.log("agent").read_text(errors="replace")[-2000:]
        raise OpsError(f"the agent ended; the end of its log:\n{tail}")
    return True
