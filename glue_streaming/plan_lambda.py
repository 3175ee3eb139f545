"""The fold workflow's planning function: which tables are due, and what becomes of those that a run did not fold.

Everything it needs stands in table parameters, so it runs with nothing but boto3. Environment: SOURCES (comma list),
JOB (the fold job, whose settings count), DYNAMODB_PREFIX, FOLD_HORIZON_SECONDS (optional), MAP_CONCURRENCY and
MAX_WORKERS (bounds of what settings may ask for), WORKERS (of a run, unless its table is large), LOG_GROUP (of the
job's errors).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import boto3

from glue_streaming.fold.cut import Cut, cut_of
from glue_streaming.fold.failing import MOST_PAUSE_SECONDS, Failing, note, read_failing, standing, standing_of
from glue_streaming.fold.failure import ATTEMPTS, Verdict, verdict
from glue_streaming.fold.plan import KINDS, FoldSettings, Work, cut_view, groups, settings_from, work
from glue_streaming.state import fold_state

MAX_ANSWER_BYTES: Final = 200_000
"""Step Functions carries 256 KiB from state to state; what does not fit is due again at the next run."""
WORKER_BYTES: Final = 16 << 30
"""What one worker more is for, where a table has a run of its own."""
_ALIVE: Final = ("STARTING", "RUNNING", "STOPPING", "WAITING")


@dataclass(frozen=True)
class Bounds:
    """workers: of a run of the fold job. max_workers: for a large table. map_concurrency: runs side by side."""

    workers: int = 2
    max_workers: int = 2
    map_concurrency: int = 1


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Either of two questions.

    {"sources": [...], "kind": "auto"}, both optional: what is due, in groups for the workflow's Map. Tables that failed
    before wait longer each time, unless a kind is asked for, and are then tried once, each in a run of its own.
    {"failed": {"tables", "kind", "workers", "attempt", "error", "cause", "execution"}}: what becomes of a failed group.
    """
    return _after_failure(event["failed"]) if "failed" in event else _plan(event)


def _plan(event: Mapping[str, Any]) -> dict[str, Any]:
    environment = os.environ
    sources = event.get("sources") or [name for name in environment.get("SOURCES", "").split(",") if name]
    kind = event.get("kind") or "auto"
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    glue, dynamodb, horizon = boto3.client("glue"), boto3.client("dynamodb"), environment.get("FOLD_HORIZON_SECONDS")
    prefix, job = environment.get("DYNAMODB_PREFIX", "headrace"), environment.get("JOB", "headrace-fold")
    found = read_settings(dynamodb, f"{prefix}-settings", job)
    settings = settings_from(found, float(horizon) if horizon else None)
    failed, failing = read_failing(dynamodb, f"{prefix}-tables"), dict[str, Failing]()
    due: dict[str, Work] = {}
    for source in sources:
        tables, cut = lake_parameters(glue, source), read_cut(glue, source)
        failing |= standing_of(source, failed, tables)
        views = {entry["Name"] for entry in _tables(glue, f"{source}_cut")}
        due |= due_tables(source, tables, cut, kind, settings)
        due |= due_views(source, tables, cut, views, settings, due)
    left_alone = {
        "paused": read_paused(dynamodb, f"{prefix}-tables"),
        "running": read_running(glue, job),
        "failing": waiting(failing, kind, datetime.now(UTC)),
    }
    said = {why: sorted(due.keys() & names) for why, names in left_alone.items()}
    due = {table: item for table, item in due.items() if not any(table in names for names in left_alone.values())}
    _log("planned", kind=kind, left_alone=said, due={table: _reason(item) for table, item in due.items()})
    return {**answer(due, kind, settings, bounds(found, environment), failing.keys()), "left_alone": _counts(said)}


def _after_failure(failed: Mapping[str, Any]) -> dict[str, Any]:
    found = verdict(
        tables=failed["tables"].split(","),
        attempt=failed["attempt"],
        error=failed["error"],
        cause=failed["cause"],
        execution=failed["execution"],
        region=os.environ.get("AWS_REGION", ""),
        log_group=os.environ.get("LOG_GROUP", ""),
    )
    if found.wait_seconds is None:
        _remember(found)
    _log("failed", tables=found.tables, attempt=failed["attempt"], again_in=found.wait_seconds, message=found.message)
    return {
        "tables": ",".join(found.tables),
        "kind": failed["kind"],
        "workers": failed["workers"],
        "attempt": found.attempt,
        "again": found.wait_seconds is not None,
        "wait_seconds": found.wait_seconds or 0,
        "message": found.message,
    }


def _remember(found: Verdict) -> None:
    """Notes for the executions after this one that its tables were not folded, once more."""
    glue, dynamodb = boto3.client("glue"), boto3.client("dynamodb")
    table_name = f"{os.environ.get('DYNAMODB_PREFIX', 'headrace')}-tables"
    sources = sorted({table.partition(".")[0] for table in found.tables})
    parameters = {f"{s}.{table}": own for s in sources for table, own in lake_parameters(glue, s).items()}
    before = standing(read_failing(dynamodb, table_name), parameters)
    for table in found.tables:
        times = before[table].times + 1 if table in before else 1
        note(dynamodb, table_name, table, Failing(times, datetime.now(UTC), found.error))


def waiting(failing: Mapping[str, Failing], kind: str, now: datetime) -> set[str]:
    """The failing tables that are not tried yet: who asks for a kind means now. Pure.

    Nor does one wait for the day of a clock that had jumped: no pause is longer than the longest.
    """
    longest = timedelta(seconds=MOST_PAUSE_SECONDS)
    return {t for t, found in failing.items() if kind == "auto" and now < found.next_try <= now + longest}


def due_tables(
    source: str, tables: Mapping[str, Mapping[str, str]], cut: Cut, kind: str, settings: FoldSettings
) -> dict[str, Work]:
    """The work due, by `source.table`."""
    now = datetime.now(UTC)
    found = {table: work(table, parameters, cut, kind, settings, now) for table, parameters in tables.items()}
    return {f"{source}.{table}": item for table, item in found.items() if item is not None}


def due_views(
    source: str,
    tables: Mapping[str, Mapping[str, str]],
    cut: Cut,
    views: Set[str],
    settings: FoldSettings,
    due: Mapping[str, Work],
) -> dict[str, Work]:
    """The tables that are not to be folded but may have their cut view now, and have none."""
    return {
        f"{source}.{table}": Work("views", fold_state(parameters).line, "its cut view may appear", 0)
        for table, parameters in tables.items()
        if table not in views and f"{source}.{table}" not in due and cut_view(table, parameters, cut, settings)
    }


def answer(
    due: Mapping[str, Work], kind: str, settings: FoldSettings, allowed: Bounds, failing: Set[str] = frozenset()
) -> dict[str, Any]:
    """Groups for the Map state and how many run side by side; as many groups as the workflow can carry.

    failing: each of these costs no other table's attempts, and gets one.
    """
    packed = groups({table: item for table, item in due.items() if table not in failing}, settings)
    packed += [[table] for table in sorted(due.keys() & failing)]
    listed = [
        {
            "tables": ",".join(group),
            "kind": kind,
            "workers": workers(sum(due[table].cost_bytes for table in group), settings, allowed),
            "attempt": ATTEMPTS if group[0] in failing else 1,
        }
        for group in packed
    ]
    fitting, size = 0, 0
    for item in listed:
        size += len(json.dumps(item))
        if size > MAX_ANSWER_BYTES:
            break
        fitting += 1
    return {
        "groups": listed[:fitting],
        "due": sum(len(group) for group in packed[:fitting]),
        "later": sum(len(group) for group in packed[fitting:]),
        "concurrency": allowed.map_concurrency,
    }


def workers(cost_bytes: int, settings: FoldSettings, allowed: Bounds) -> int:
    """The workers of a run: more than usual only where one table is too large for a group. Pure."""
    if cost_bytes <= settings.group_bytes:
        return allowed.workers
    return min(max(allowed.workers, 1 + -(-cost_bytes // WORKER_BYTES)), max(allowed.workers, allowed.max_workers))


def bounds(settings: Mapping[str, str], environment: Mapping[str, str]) -> Bounds:
    """What is allowed: settings (`fold_map_concurrency`, `fold_max_workers`) within what was deployed. Pure."""

    def within(name: str, deployed: str, least: int) -> int:
        limit = int(environment.get(deployed, least))
        text = settings.get(name, str(limit))
        if not text.isdecimal():
            raise ValueError(f"{name} = {text!r} is not a whole number")
        return min(max(int(text), least), limit)

    usual = int(environment.get("WORKERS", 2))
    return Bounds(
        usual, within("fold_max_workers", "MAX_WORKERS", usual), within("fold_map_concurrency", "MAP_CONCURRENCY", 1)
    )


def lake_parameters(glue: Any, source: str) -> dict[str, dict[str, str]]:
    """The parameters of every lake table of a source: of the tables that Headrace made, not of its own records."""
    return {
        table["Name"]: table["Parameters"]
        for table in _tables(glue, f"{source}_lake")
        if "headrace.table" in table.get("Parameters", {})
    }


def read_cut(glue: Any, source: str) -> Cut:
    """The cut as the catalog holds it now; an empty one where nothing was published yet."""
    try:
        entry = glue.get_table(DatabaseName=f"{source}_cut", Name="watermark")["Table"]
    except glue.exceptions.EntityNotFoundException:
        return Cut()
    return cut_of(entry.get("Parameters", {}))


def read_settings(dynamodb: Any, table: str, job: str) -> dict[str, str]:
    """The settings of a job, by name."""
    pages = dynamodb.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="#job = :job",
        ExpressionAttributeNames={"#job": "job"},
        ExpressionAttributeValues={":job": {"S": job}},
    )
    return {item["name"]["S"]: item["value"]["S"] for page in pages for item in page["Items"]}


def read_paused(dynamodb: Any, table: str) -> set[str]:
    """The tables (source.table) that operators have paused."""
    pages = dynamodb.get_paginator("scan").paginate(
        TableName=table,
        FilterExpression="paused = :yes",
        ProjectionExpression="#table",
        ExpressionAttributeNames={"#table": "table"},
        ExpressionAttributeValues={":yes": {"BOOL": True}},
    )
    return {item["table"]["S"] for page in pages for item in page["Items"]}


def read_running(glue: Any, job: str) -> set[str]:
    """The tables that a run of the fold job is on right now: it has planned from the same log files."""
    try:
        runs = glue.get_job_runs(JobName=job, MaxResults=100)["JobRuns"]
    except glue.exceptions.EntityNotFoundException:
        return set()
    alive = [run.get("Arguments", {}).get("--tables", "") for run in runs if run["JobRunState"] in _ALIVE]
    return {table for listed in alive for table in listed.split(",") if table}


def _tables(glue: Any, database: str) -> Iterator[dict[str, Any]]:
    try:
        for page in glue.get_paginator("get_tables").paginate(DatabaseName=database):
            yield from page["TableList"]
    except glue.exceptions.EntityNotFoundException:
        return


def _reason(item: Work) -> dict[str, Any]:
    return {**asdict(item), "line": list(item.line)}


def _counts(said: Mapping[str, Iterable[str]]) -> dict[str, int]:
    return {why: len(list(names)) for why, names in said.items()}


def _log(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}, default=str))
