"""The demo from its start to its verdict."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from ops import iam_use, shop, stack, up, verify
from ops.demo import chaos, measures
from ops.demo import summary as summaries
from ops.demo.display import Display
from ops.demo.observers import FoldWatcher, FreshnessProbe, InvariantChecker, percentile, write_probe
from ops.demo.summary import Figure, Summary
from ops.demo.workload import EveryType, Pgbench
from ops.errors import OpsError, QueryFailed
from ops.provision import Workflows
from ops.stack import Stack
from ops.waiting import until
from schemas.position import parse_lsn

LOAD_SECONDS: Final = 75.0
RATE: Final = 30.0
_SECONDS_PER_MINUTE: Final = 12.0
_SEED: Final = 20
_DRAIN_SECONDS: Final = 120.0
_FOLD_SECONDS: Final = 180.0
_MARKER: Final = 1_000_000_000


@dataclass(frozen=True)
class Options:
    """How long the load runs, pgbench's transactions a second, what is left and printed at the end, and whether
    Terraform makes what it runs on."""

    seconds: float = LOAD_SECONDS
    rate: float = RATE
    keep: bool = False
    as_json: bool = False
    terraform: bool = False


@dataclass(frozen=True)
class _Observed:
    """The threads that look while the load runs."""

    invariant: InvariantChecker
    freshness: FreshnessProbe
    folds: FoldWatcher


def run(name: str, options: Options, console: Console) -> int:
    """Exit status 0 only when everything is verified. The stack is stopped at the end, also when something fails."""
    stack.remove(name)
    made = stack.create(name, seconds_per_minute=_SECONDS_PER_MINUTE, terraform=options.terraform)
    display = Display(console)
    try:
        found = _play(made, options, display)
    finally:
        if not options.keep:
            display.tell("stopping everything")
            made.stop()
    path = made.folder / "summary.json"
    found.write(path)
    if options.as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        summaries.show(found, console)
        console.print(f"written to {path}", markup=False, soft_wrap=True)
    return 0 if found.verified else 1


def _play(made: Stack, options: Options, display: Display) -> Summary:
    workflows = up.start(made, display.tell)
    up.await_views(made, display.tell)
    measures.open_slot(made.facts.dsn)
    since = parse_lsn(made.postgres.psql("SELECT pg_current_wal_insert_lsn()"))
    observed = _Observed(
        InvariantChecker(made.athena(), made.source),
        FreshnessProbe(made.facts.dsn, made.athena(), made.source),
        FoldWatcher(made.aws.client("glue"), made.source),
    )
    display.tell(f"load: pgbench at {options.rate:g} transactions a second, and every type, for {options.seconds:g} s")
    with display.watching(made):
        with _watching(observed):
            _load(made, options, display)
            display.tell("the load has ended; waiting until its last commit can be read at the cut")
            _drain(made)
            display.tell("one major fold of every table")
            _major_fold(made, workflows)
        display.tell("comparing every table with the source")
        verification = verify.of(made).run(shop.TABLES)
        display.tell("counting changes at the source, in the stream and in the lake")
        figures = _figures(made, observed, verification, since)
    if made.facts.terraform:
        for statement in iam_use.report(made.aws.client("iam"), made.facts.endpoint, made.names.prefix):
            display.tell(f"permission that no request used: {statement}")
    for table in verification.tables:
        for difference in table.differences[:3]:
            display.tell(f"differs: {difference.table}: {difference.key}: {difference.problem}"[:600])
    return Summary(figures, summaries.problems_of(figures))


@contextmanager
def _watching(observed: _Observed) -> Iterator[None]:
    watchers = (observed.invariant, observed.freshness, observed.folds)
    for watcher in watchers:
        watcher.start()
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.stop()


def _load(made: Stack, options: Options, display: Display) -> None:
    """The load with everything that happens in its middle, each at its share of the time."""
    every_type = EveryType(made.facts.dsn, _SEED)
    pgbench = Pgbench(made.postgres, made.source, options.rate, options.seconds, made.log("pgbench"))
    started = time.monotonic()

    def wait_for(share: float) -> None:
        time.sleep(max(0.0, started + share * options.seconds - time.monotonic()))

    every_type.start()
    try:
        wait_for(0.15)
        display.tell("ALTER TABLE every_type ADD COLUMN, in mid-stream")
        every_type.add_column()
        wait_for(0.3)
        display.tell("kill -9 of the agent; it is started again")
        chaos.kill_agent(made)
        wait_for(0.5)
        display.tell("TRUNCATE every_type")
        every_type.truncate()
        wait_for(0.6)
        display.tell("kill -9 of the streaming job; the ingest workflow has to bring it back")
        killed = chaos.kill_stream_job(made)
        chaos.await_new_run(made, killed)
        display.tell("the ingest workflow has started a new run")
        pgbench.finish()
    finally:
        pgbench.stop()
        every_type.stop()


def _drain(made: Stack) -> None:
    """A last marker is committed after everything else; where the cut shows it, the cut holds everything."""
    write_probe(made.facts.dsn, _MARKER)
    sql = f'SELECT count(*) FROM "{made.source}_cut".probes WHERE id = {_MARKER}'

    def shown() -> bool:
        try:
            return made.athena().run(sql).rows[0][0] == "1"
        except QueryFailed:
            return False

    until(shown, "the last commit to be visible at the cut (see `headrace status`)", _DRAIN_SECONDS, 0.5)


def _major_fold(made: Stack, workflows: Workflows) -> None:
    """The fold workflow, asked for a major fold of everything."""
    states = made.aws.client("stepfunctions")
    execution = states.start_execution(stateMachineArn=workflows.fold, input=json.dumps({"kind": "major"}))
    arn = execution["executionArn"]

    def ended() -> str | None:
        state = str(states.describe_execution(executionArn=arn)["status"])
        return None if state == "RUNNING" else state

    state = until(ended, "the major fold", _FOLD_SECONDS, every_seconds=0.5)
    if state != "SUCCEEDED":
        shown = states.describe_execution(executionArn=arn)
        raise OpsError(f"the major fold {state.lower()}: {shown.get('error')}: {shown.get('cause')}")


def _figures(made: Stack, observed: _Observed, verification: verify.Verification, since: int) -> dict[str, Figure]:
    expected = measures.committed(made.facts.dsn)
    held = measures.loaded(made.athena(), made.source, shop.TABLES, since)
    wire = measures.wire(made.aws.client("kinesis"), made.names.stream)
    invariant, seconds = observed.invariant.seen, observed.freshness.seconds
    equal = sum(table.equal for table in verification.tables)
    return {
        "changes_committed": Figure(sum(expected.values()), "a logical slot of the demo's own, read at the end"),
        "changes_loaded": Figure(sum(held.changes.values()), "distinct positions in the lake's history and log"),
        "lost": Figure(measures.lost(expected, held.changes), "committed less loaded, by table and transaction"),
        "duplicated": Figure(held.duplicated, "rows less distinct positions in the lake's history and log"),
        "unexpected": Figure(
            measures.unexpected(expected, held.changes), "loaded less committed, by table and transaction"
        ),
        "tables": Figure(len(shop.TABLES), "the source's tables"),
        "tables_equal": Figure(equal, "every row and value of the source against the cut views, through Athena"),
        "rows_compared": Figure(sum(table.source_rows for table in verification.tables), "the source"),
        "invariant_checks": Figure(invariant.checks, "Athena's answers over the cut views while the load ran"),
        "invariant_failures": Figure(len(invariant.failures), "the same answers: four sums, not all equal"),
        "invariant_values": Figure(len(invariant.values), "distinct sums among these answers"),
        "queries_refused": Figure(len(invariant.refusals), "queries that Athena failed instead of answering"),
        "freshness_seconds": Figure(
            {"p50": percentile(seconds, 0.5), "p99": percentile(seconds, 0.99), "probes": len(seconds)},
            "just before a probe's commit to the first Athena answer that holds it, both kills included",
        ),
        "bytes_per_change": Figure(
            wire.bytes_per_change, "data records of the stream and their keys, resends included"
        ),
        "stream_bytes": Figure(wire.all_bytes, f"all {wire.records} records of the stream"),
        "folds": Figure(len(observed.folds.folds), "distinct headrace.fold.at of the lake's tables"),
    }
