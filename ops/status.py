"""`headrace status`: where the changes are on their path, from the agent's page and the tables' own properties."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from glue_streaming.fold.failing import read_failing, standing_of
from glue_streaming.plan_lambda import lake_parameters
from glue_streaming.state import SnapshotState
from ops import tables
from ops.stack import Stack
from schemas.position import format_lsn


@dataclass(frozen=True)
class TableStatus:
    """One table's way: rows that its snapshots and changes appended, rows that folds took up, its holes, its
    snapshots that a fold has not taken in, and deletes of a table without a key that found no row."""

    table: str
    loaded: int
    folded: int
    base_rows: int
    holes: tuple[str, ...]
    snapshots: tuple[str, ...] = ()
    unmatched_deletes: int = 0


@dataclass(frozen=True)
class PathStatus:
    """The whole path at one moment. Counts of the agent start at its start; rows of the tables never go back.

    not_folded: the tables that the fold workflow could not fold, and why.
    """

    agent: dict[str, Any] | None
    watermark: str | None
    watermark_age_seconds: float | None
    frozen_by: tuple[str, ...]
    tables: tuple[TableStatus, ...]
    stream_job: str
    fold_job: str
    not_folded: dict[str, str] = field(default_factory=dict)

    @property
    def loaded(self) -> int:
        return sum(table.loaded for table in self.tables)

    @property
    def folded(self) -> int:
        return sum(table.folded for table in self.tables)

    @property
    def holes(self) -> int:
        return sum(len(table.holes) for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        return {
            **{key: value for key, value in vars(self).items() if key != "tables"},
            "tables": [vars(table) for table in self.tables],
            "loaded": self.loaded,
            "folded": self.folded,
            "holes": self.holes,
        }


def read(stack: Stack) -> PathStatus:
    """The path as it is now."""
    glue = stack.aws.client("glue")
    watermark = tables.watermark(glue, stack.source)
    age = None if watermark.published_at is None else (datetime.now(UTC) - watermark.published_at).total_seconds()
    return PathStatus(
        agent=stack.agent_status(),
        watermark=None if watermark.line is None else f"{watermark.line.era}:{format_lsn(watermark.line.lsn)}",
        watermark_age_seconds=age,
        frozen_by=tuple(watermark.status.get("frozen_by", ())),
        tables=tuple(_table(table) for table in tables.lake_tables(glue, stack.source)),
        stream_job=_job_state(glue, stack.names.stream_job),
        fold_job=_job_state(glue, stack.names.fold_job),
        not_folded=_not_folded(stack),
    )


def shown(path: PathStatus, title: str = "the path") -> Table:
    """A table that a person can watch."""
    agent = path.agent or {}
    view = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in ("committed", "spooled", "sent", "loaded", "folded", "lag", "holes", "watermark", "jobs"):
        view.add_column(name, justify="left" if name in ("watermark", "jobs") else "right")
    counts = [_count(agent.get(f"{stage}_changes")) for stage in ("captured", "spooled", "accepted")]
    lag = agent.get("lag_seconds")
    view.add_row(
        *counts,
        _count(path.loaded),
        _count(path.folded),
        "-" if lag is None else f"{lag:.1f} s",
        str(path.holes),
        path.watermark or "-",
        f"stream {path.stream_job.lower()}, fold {path.fold_job.lower()}",
    )
    return view


def said(path: PathStatus) -> list[str]:
    """For people, a sentence each: what troubles the agent (tables that it left out among it), what is missing from
    which table and why, and what the cut waits for."""
    agent = path.agent or {}
    trouble = [agent["trouble"]] if agent.get("trouble") else []
    sentences = [f"the agent: {said}" for said in (*trouble, *agent.get("warnings", ()))]
    for table in path.tables:
        sentences += [f"hole in {table.table}: {hole}" for hole in table.holes]
        sentences += [f"{table.table}: {snapshot}" for snapshot in table.snapshots]
        if table.unmatched_deletes:
            sentences.append(
                f"{table.table}: {table.unmatched_deletes:,} deletes found no equal row: take a new snapshot "
                f"(headrace holes resnapshot {table.table})"
            )
    sentences += [f"{table} is not folded: {why}" for table, why in path.not_folded.items()]
    if path.frozen_by:
        sentences.append(f"the cut stands still because of: {', '.join(path.frozen_by)}")
    return sentences


def _table(table: tables.LakeTable) -> TableStatus:
    totals = table.fold.totals
    waiting = ((number, state) for number, state in table.stream.snapshots.items() if not _taken(table, number))
    return TableStatus(
        table=table.name,
        loaded=table.stream.totals.rows,
        folded=totals.log_rows_taken,
        base_rows=totals.base_rows,
        holes=tuple(f"{hole.lane} ..{hole.last}: {hole.reason}" for hole in table.stream.holes),
        snapshots=tuple(_snapshot(number, state) for number, state in sorted(waiting)),
        unmatched_deletes=totals.unmatched_rows,
    )


def _not_folded(stack: Stack) -> dict[str, str]:
    own = lake_parameters(stack.aws.client("glue"), stack.source)
    failed = read_failing(stack.aws.client("dynamodb"), stack.names.dynamodb("tables"))
    found = standing_of(stack.source, failed, own)
    return {table.removeprefix(f"{stack.source}."): str(failing) for table, failing in sorted(found.items())}


def _taken(table: tables.LakeTable, snapshot: int) -> bool:
    return snapshot <= table.fold.activated_through


def _snapshot(number: int, state: SnapshotState) -> str:
    if state.void is not None:
        return f"snapshot {number} is void: {state.void}"
    if state.abandoned:
        return f"snapshot {number} was abandoned by the agent"
    if state.complete:
        return f"snapshot {number} is complete, and waits for a fold"
    groups = "its groups" if state.groups is None else f"{state.groups} groups"
    return f"snapshot {number} is not complete: {len(state.ended)} of {groups} have ended"


def _job_state(glue: Any, name: str) -> str:
    runs = glue.get_job_runs(JobName=name, MaxResults=1)["JobRuns"]
    return str(runs[0]["JobRunState"]) if runs else "NEVER RUN"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
