"""`headrace fold`: what is due to be folded, its cost and its gain, and why the rest is left alone; or folds it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from glue_streaming.fold.failing import read_failing, standing_of
from glue_streaming.fold.plan import Amplification, LeftAlone, Work, amplification, judge, settings_from
from glue_streaming.plan_lambda import lake_parameters, read_cut, read_paused, read_running, read_settings, waiting
from glue_streaming.state import fold_state, stream_state
from ops import asking, stack
from ops.aws import Aws
from ops.errors import OpsError
from ops.names import Names
from ops.waiting import until

WAIT_SECONDS: Final = 1_800.0
_RUNS: Final = ("RUNNING", "STARTING", "STOPPING", "WAITING")


@dataclass(frozen=True)
class Seen:
    """A table (source.table): what is due, or why nothing is, and what its bytes are multiplied by so far."""

    table: str
    found: Work | LeftAlone
    amplification: Amplification

    @property
    def reason(self) -> str:
        return self.found.reason if isinstance(self.found, Work) else self.found.why

    def to_json(self) -> dict[str, Any]:
        due = isinstance(self.found, Work)
        said = {**asdict(self.found), "line": list(self.found.line)} if isinstance(self.found, Work) else {}
        why = "" if isinstance(self.found, Work) else self.found.why
        return {"table": self.table, "due": due, "why": why, **said, "amplification": asdict(self.amplification)}


def add_words(word: argparse.ArgumentParser) -> None:
    asking.add_place(word)
    word.add_argument("tables", nargs="*", metavar="TABLE", help="lake tables; all without one")
    word.add_argument("--plan", action="store_true", help="only say what would be done")
    word.add_argument("--kind", choices=("minor", "major"), help="whatever can be taken up; otherwise what pays")
    word.add_argument("--wait", type=float, default=WAIT_SECONDS, help="seconds to wait for its end")
    word.set_defaults(verb=_run)


def plan(aws: Aws, source: str, names: Names, kind: str, now: datetime) -> list[Seen]:
    """Every lake table of a source, by what the catalog says of it: as the fold workflow sees it."""
    glue, dynamodb = aws.client("glue"), aws.client("dynamodb")
    found = read_settings(dynamodb, names.dynamodb("settings"), names.fold_job)
    settings = settings_from(found, _horizon(glue, names.fold_job))
    paused, running = read_paused(dynamodb, names.dynamodb("tables")), read_running(glue, names.fold_job)
    cut, tables = read_cut(glue, source), lake_parameters(glue, source)
    failed = read_failing(dynamodb, names.dynamodb("tables"))
    failing = standing_of(source, failed, tables)
    later = waiting(failing, kind, now)
    seen = []
    for table, parameters in sorted(tables.items()):
        name = f"{source}.{table}"
        item = judge(table, parameters, cut, kind, settings, now)
        if name in paused:
            item = LeftAlone("paused")
        elif name in running and isinstance(item, Work):
            item = LeftAlone("a run of the fold job is on it")
        elif name in later and isinstance(item, Work):
            item = LeftAlone(str(failing[name]))
        seen.append(Seen(name, item, amplification(stream_state(parameters), fold_state(parameters))))
    return seen


def show(seen: Sequence[Seen], console: Console) -> None:
    """A table that fits a narrow terminal, and the reasons below it."""
    view = Table(show_edge=False, pad_edge=False)
    for name in ("table", "due", "reads", "writes", "queries read less", "written", "read"):
        view.add_column(name, justify="left" if name in ("table", "due") else "right", overflow="fold")
    for item in seen:
        times = [_times(item.amplification.write), _times(item.amplification.read)]
        match item.found:
            case Work() as work:
                gain = f"{_bytes(work.gain_bytes)}, {work.gain_files} files"
                view.add_row(item.table, work.kind, _bytes(work.cost_bytes), _bytes(work.write_bytes), gain, *times)
            case LeftAlone():
                view.add_row(item.table, "-", "", "", "", *times)
    console.print(view)
    for item in seen:
        console.print(f"{item.table}: {item.reason}", markup=False, soft_wrap=True)
    due = [item.found for item in seen if isinstance(item.found, Work)]
    reads, writes = sum(work.cost_bytes for work in due), sum(work.write_bytes for work in due)
    summary = f"{len(due)} of {len(seen)} tables are due: about {_bytes(reads)} to read and {_bytes(writes)} to write"
    console.print(summary, markup=False)


def start(aws: Aws, source: str, names: Names, kind: str, tables: Sequence[str], wait_seconds: float) -> str:
    """Folds the tables in one run of the job, or, without tables, what is due through the workflow.

    Returns how it ended (SUCCEEDED, or another state with its error). Raises OpsError where it cannot be started.
    """
    if tables:
        return _run_job(aws.client("glue"), names.fold_job, source, kind, tables, wait_seconds)
    return _run_workflow(aws.client("stepfunctions"), names.fold_workflow, source, kind, wait_seconds)


def _run(arguments: argparse.Namespace, console: Console) -> int:
    place, names = asking.place(arguments), Names(arguments.prefix)
    aws = Aws(None) if arguments.aws else stack.find(arguments.stack).aws
    kind = arguments.kind or "auto"
    known = lake_parameters(aws.client("glue"), place.source)
    unknown = sorted(set(arguments.tables) - set(known))
    if unknown:
        raise OpsError(f"{place.source} has no lake table {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    wanted = arguments.tables or sorted(known)

    def look() -> list[Seen]:
        seen = plan(aws, place.source, names, kind, datetime.now(UTC))
        return [item for item in seen if item.table.removeprefix(f"{place.source}.") in wanted]

    if arguments.plan:
        seen = look()
        print(json.dumps([item.to_json() for item in seen], indent=1)) if arguments.json else show(seen, console)
        return 0
    ended = start(aws, place.source, names, kind, arguments.tables, arguments.wait)
    now = lake_parameters(aws.client("glue"), place.source)
    lines = {
        table: fold_state(now[table]).line for table in wanted if table in now and _moved(known[table], now[table])
    }
    if arguments.json:
        print(json.dumps({"ended": ended, "folded": {table: str(line) for table, line in lines.items()}}))
    else:
        console.print(ended, markup=False, soft_wrap=True)
        said = {f"{place.source}.{table}": f"folded up to {line}" for table, line in lines.items()}
        for item in look():
            console.print(f"{item.table}: {said.get(item.table, item.reason)}", markup=False, soft_wrap=True)
    return 0 if ended == "SUCCEEDED" else 1


def _moved(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    return fold_state(before).folded_at != fold_state(now).folded_at


def _run_job(glue: Any, job: str, source: str, kind: str, tables: Sequence[str], wait_seconds: float) -> str:
    words = {"--tables": ",".join(f"{source}.{table}" for table in tables), "--kind": kind}
    run = glue.start_job_run(JobName=job, Arguments=words)["JobRunId"]

    def ended() -> dict[str, Any] | None:
        seen: dict[str, Any] = glue.get_job_run(JobName=job, RunId=run)["JobRun"]
        return None if seen["JobRunState"] in _RUNS else seen

    seen = until(ended, f"run {run} of {job}", wait_seconds, every_seconds=1.0)
    return _ended(seen["JobRunState"], seen.get("ErrorMessage"))


def _run_workflow(states: Any, name: str, source: str, kind: str, wait_seconds: float) -> str:
    machines = (
        item for page in states.get_paginator("list_state_machines").paginate() for item in page["stateMachines"]
    )
    arn = next((item["stateMachineArn"] for item in machines if item["name"] == name), None)
    if arn is None:
        raise OpsError(f"there is no workflow {name}")
    asked = json.dumps({"sources": [source], "kind": kind})
    execution = states.start_execution(stateMachineArn=arn, input=asked)["executionArn"]

    def ended() -> dict[str, Any] | None:
        seen: dict[str, Any] = states.describe_execution(executionArn=execution)
        return None if seen["status"] in ("RUNNING", "PENDING_REDRIVE") else seen

    seen = until(ended, f"the execution {execution}", wait_seconds, every_seconds=1.0)
    return _ended(seen["status"], seen.get("cause"))


def _ended(state: str, why: str | None) -> str:
    return state if state == "SUCCEEDED" or not why else f"{state}: {why}"


def _horizon(glue: Any, job: str) -> float | None:
    """The fold horizon as the job is deployed with it."""
    try:
        given = glue.get_job(JobName=job)["Job"].get("DefaultArguments", {}).get("--fold_horizon_seconds")
    except glue.exceptions.EntityNotFoundException:
        return None
    return float(given) if given else None


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
