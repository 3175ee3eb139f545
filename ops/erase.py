"""`headrace erase`: removes every version of a key from the lake, and says what was rewritten and what ends when.

It leaves a record (a keyed hash of the key, up to a line) and starts the maintenance job, which rewrites what the lake
holds; load and folds drop what still arrives. The same words again show how far it is, and go on where it is not done.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
from botocore.exceptions import ClientError
from rich.console import Console

from glue_streaming import data_files
from glue_streaming.erasure_records import Record, Records, item_name
from glue_streaming.erasures import Erasure, digest, given_texts
from glue_streaming.fold.orphans import LEAST_DAYS
from glue_streaming.fold.plan import settings_from
from glue_streaming.lake_table import iceberg_schema, lake_database
from glue_streaming.plan_lambda import lake_parameters, read_cut, read_settings
from glue_streaming.state import stream_state
from ops import asking, holes
from ops.errors import NotApplicable, OpsError, TookTooLong
from ops.names import Names
from schemas.change_record import RESERVED
from schemas.position import Line, parse_lsn
from schemas.registry import Registry

WAIT_SECONDS: Final = 900.0
_LOOK_SECONDS: Final = 0.5
_ENDED: Final = ("SUCCEEDED", "FAILED", "TIMEOUT", "STOPPED", "ERROR", "EXPIRED")


@dataclass(frozen=True)
class Place:
    """Where the source's lake is. client: of a service of boto3."""

    client: Callable[[str], Any]
    source: str
    names: Names


@dataclass(frozen=True)
class LastDates:
    """When the last copy that this cannot reach by itself is gone; None where nothing says so."""

    snapshots: datetime
    files: datetime
    object_versions: datetime | None
    stream: datetime
    query_results: datetime | None


def add_words(word: argparse.ArgumentParser) -> None:
    word.add_argument("--table", required=True, help="the lake table, as headrace status names it")
    word.add_argument(
        *("--key", "-k"), action="append", required=True, metavar="COLUMN=VALUE",
        help="the key; once for every column of it. A value alone where the key has one column",
    )  # fmt: skip
    word.add_argument("--through", help="up to this line, ERA:LSN; up to what the lake holds now without it")
    word.add_argument("--by", default=holes.whoever(), help="who asks; this user's name otherwise")
    word.add_argument(
        "--wait", type=float, default=WAIT_SECONDS,
        help="seconds to wait for the run; 0: only leave the request, which the daily maintenance carries out",
    )  # fmt: skip
    asking.add_place(word)
    word.set_defaults(verb=run)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Exit status 0 where nothing is left in the lake, or nobody waits; 1 where something waits for a fold."""
    place = _place(arguments)
    record = request(place, arguments.table, arguments.key, arguments.through, arguments.by)
    if arguments.wait > 0 and record.done_at is None:
        if not arguments.json:
            console.print("the request is on record; rewriting takes half a minute and more", markup=False)
        carry_out(place, arguments.wait)
    record = _found(place, record.item)
    dates = last_dates(place, record, datetime.now(UTC))
    if arguments.json:
        print(json.dumps(to_json(record, dates), indent=1))
    else:
        show(record, dates, console)
    return 0 if record.done_at is not None or arguments.wait <= 0 else 1


def request(place: Place, table: str, given: Sequence[str], through: str | None, by: str) -> Record:
    """Leaves the record. The same request is the same record; a higher line opens it again."""
    dynamodb, names = place.client("dynamodb"), place.names
    registered = Registry(dynamodb, names.dynamodb("schemas")).latest(place.source, table)
    properties = lake_parameters(place.client("glue"), place.source).get(table)
    if registered is None or properties is None:
        raise NotApplicable(f"there is no table {lake_database(place.source)}.{table}")
    fields = data_files.arrow_schema(iceberg_schema(registered.schema))
    types = {each.name: each.type for each in fields if each.name not in RESERVED}
    values = key_values(given, registered.schema.key, types)
    try:
        texts = given_texts(values, types)
    except ValueError as error:
        raise NotApplicable(str(error)) from error
    records = Records(dynamodb, names.dynamodb("sources"), place.source)
    secret = records.secret()
    old_key = ", ".join(f"{column}={value}" for column, value in values.items())
    line = _line(through) if through else held(place, table, properties)
    erasure = Erasure(tuple(values), digest(secret, texts), digest(secret, [old_key]), line)
    item = item_name(table, erasure.digest)
    known = next((record for record in records.all() if record.item == item), None)
    if known is not None and (through is None or known.erasure.through >= line):
        return known
    record = Record(item, table, erasure, datetime.now(UTC).isoformat(timespec="seconds"), by)
    records.add(record)
    return record


def key_values(given: Sequence[str], columns: Sequence[str], types: Mapping[str, pa.DataType]) -> dict[str, str]:
    """The values by column, in the key's order; a table without a key takes any columns. Pure."""
    pairs = [item.partition("=") for item in given]
    if len(columns) == 1 and len(given) == 1 and not (pairs[0][1] and pairs[0][0] in types):
        if pairs[0][1] and pairs[0][0].isidentifier():
            raise NotApplicable(
                f"the table has no column {pairs[0][0]}: the key is to be given as --key {columns[0]}=..., also where"
                f" the value itself holds a =, as in --key {columns[0]}={given[0]}"
            )
        return {columns[0]: given[0]}
    found = {name: value for name, equals, value in pairs if equals and name in types}
    wanted = columns or tuple(found)
    if len(found) != len(given) or set(found) != set(wanted) or not wanted:
        named = ", ".join(f"--key {column}=..." for column in columns) or "--key COLUMN=..., for columns of the table"
        raise NotApplicable(f"the key is to be given as {named}")
    return {column: found[column] for column in wanted}


def held(place: Place, table: str, properties: Mapping[str, str]) -> Line:
    """The last line of which the lake holds anything: the watermark, or a mark of the table beyond it."""
    newest = read_cut(place.client("glue"), place.source).newest
    marks = [Line(m.position.era, m.position.lsn) for m in stream_state(properties).marks.values()]
    lines = [*marks, *([newest] if newest is not None else [])]
    if not lines:
        raise NotApplicable(f"nothing of {table} was loaded yet; name a line with --through")
    return max(lines)


def carry_out(place: Place, seconds: float) -> None:
    """Runs the maintenance job's erasures. Raises OpsError where the run fails, TookTooLong where it does not end."""
    glue, job = place.client("glue"), place.names.maintain_job
    deadline = time.monotonic() + seconds
    run_id = None
    while run_id is None:
        try:
            run_id = glue.start_job_run(JobName=job, Arguments={"--only": "erasures"})["JobRunId"]
        except glue.exceptions.ConcurrentRunsExceededException:
            if time.monotonic() > deadline:
                raise TookTooLong(
                    f"another run of {job} does not end; the record stands, and it is tried daily"
                ) from None
            time.sleep(_LOOK_SECONDS)
    while True:
        found = glue.get_job_run(JobName=job, RunId=run_id)["JobRun"]
        if found["JobRunState"] in _ENDED:
            break
        if time.monotonic() > deadline:
            raise TookTooLong(f"run {run_id} of {job} goes on; the same words again show how far it is")
        time.sleep(_LOOK_SECONDS)
    if found["JobRunState"] != "SUCCEEDED":
        raise OpsError(f"run {run_id} of {job}: {found['JobRunState']}: {found.get('ErrorMessage', '')}")


def last_dates(place: Place, record: Record, now: datetime) -> LastDates:
    """From the deployment's own settings, counted from when it was done (from now on, where it is not)."""
    done = datetime.fromisoformat(record.done_at) if record.done_at else now
    names = place.names
    fold = settings_from(read_settings(place.client("dynamodb"), names.dynamodb("settings"), names.fold_job), None)
    snapshots = done + timedelta(seconds=fold.longest_query_seconds)
    files = snapshots + timedelta(days=math.ceil(LEAST_DAYS) + 1)
    described = place.client("kinesis").describe_stream_summary(StreamName=names.stream)["StreamDescriptionSummary"]
    retention = timedelta(hours=described["RetentionPeriodHours"])
    rules = _rules(place)
    noncurrent = _days(rules, "NoncurrentVersionExpiration", "NoncurrentDays")
    results = _days([r for r in rules if _prefix(r).startswith("results")], "Expiration", "Days")
    return LastDates(
        snapshots,
        files,
        None if noncurrent is None else files + timedelta(days=noncurrent),
        datetime.fromisoformat(record.requested_at) + retention,
        None if results is None else done + timedelta(days=results),
    )


def to_json(record: Record, dates: LastDates) -> dict[str, Any]:
    return {
        "record": record.item,
        "table": record.table,
        "columns": list(record.erasure.columns),
        "through": str(record.erasure.through),
        "requested_at": record.requested_at,
        "by": record.by,
        "done_at": record.done_at,
        "done": dict(record.report or {}),
        "last_dates": {
            name: None if at is None else at.isoformat(timespec="minutes") for name, at in vars(dates).items()
        },
    }


def show(record: Record, dates: LastDates, console: Console) -> None:
    report = record.report or {}
    state = (
        f"done at {record.done_at}"
        if record.done_at
        else "not done: rows wait for a fold, or for the next run (the daily maintenance; the same words start one)"
    )
    lines = [f"{record.table}: erased up to {record.erasure.through}, {state}"]
    lines += [f"  {name.replace('_', ' ')}: {count}" for name, count in sorted(report.items())]
    if record.done_at and not report:
        lines.append("  no row of the key was found")
    lines.append(
        "if the source still has the row, the lake lacks it until its next change or snapshot brings it back: delete it"
        " at the source first (docs/erasure.md)"
    )
    lines.append("the last copies are gone from")
    words = {
        "snapshots": "states that a query may still read",
        "files": "files, by the daily maintenance",
        "object_versions": "earlier versions of objects",
        "stream": "the stream",
        "query_results": "results of queries in the bucket",
    }
    for name, words_for in words.items():
        at = getattr(dates, name)
        lines.append(f"  {words_for}: {'no rule says when' if at is None else at.isoformat(timespec='minutes')}")
    lines.append("  the agent's spool: when it is full, or when its folder is emptied (docs/erasure.md)")
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _place(arguments: argparse.Namespace) -> Place:
    aws, source = asking.where(arguments)
    return Place(aws.client, source, Names(arguments.prefix))


def _found(place: Place, item: str) -> Record:
    records = Records(place.client("dynamodb"), place.names.dynamodb("sources"), place.source).all()
    return next(record for record in records if record.item == item)


def _line(text: str) -> Line:
    era, _, lsn = text.partition(":")
    try:
        return Line(int(era), parse_lsn(lsn) if "/" in lsn else int(lsn))
    except ValueError as error:
        raise NotApplicable(f"--through {text}: expected ERA:LSN, for example 1:0/16B3748") from error


def _rules(place: Place) -> list[dict[str, Any]]:
    try:
        found = place.client("s3").get_bucket_lifecycle_configuration(Bucket=place.names.bucket)
    except ClientError:
        return []
    rules: list[dict[str, Any]] = found["Rules"]
    return rules


def _prefix(rule: Mapping[str, Any]) -> str:
    return str(rule.get("Filter", {}).get("Prefix") or rule.get("Prefix") or "")


def _days(rules: Sequence[Mapping[str, Any]], part: str, name: str) -> int | None:
    return max((int(rule[part][name]) for rule in rules if name in rule.get(part, {})), default=None)
