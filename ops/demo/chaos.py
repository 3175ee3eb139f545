"""The kills: each as a crash would do it, SIGKILL without a warning."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import Any, Final

from localaws import child_process
from ops.errors import OpsError
from ops.stack import Stack
from ops.waiting import until

_RESTART_SECONDS: Final = 120.0


def kill_agent(stack: Stack) -> None:
    """kill -9 of the agent, and its start again, as a service manager would do it."""
    stack.kill_agent()
    stack.start_agent()
    until(lambda: stack.agent_status() is not None, f"the agent to be back (see {stack.log('agent')})", 60)


def kill_stream_job(stack: Stack) -> str:
    """kill -9 of the streaming job's run, JVM and all; returns the run's id. Nobody starts it again by hand."""
    run = _active_run(stack)
    if run is None:
        raise OpsError("the streaming job does not run, so it cannot be killed")
    state = json.loads((stack.aws_state / "glue_runs" / run / "run.json").read_text())
    if child_process.born(state["process_id"]) == state["process_born"]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(state["process_id"], signal.SIGKILL)
    return run


def await_new_run(stack: Stack, killed: str) -> str:
    """The id of the run that the ingest workflow started in place of the killed one."""

    def look() -> str | None:
        run = _active_run(stack)
        return run if run != killed else None

    return until(look, "the ingest workflow to start the streaming job again", _RESTART_SECONDS, every_seconds=0.5)


def _active_run(stack: Stack) -> str | None:
    runs: list[dict[str, Any]] = stack.aws.client("glue").get_job_runs(JobName=stack.names.stream_job)["JobRuns"]
    return next((str(run["Id"]) for run in runs if run["JobRunState"] == "RUNNING"), None)
