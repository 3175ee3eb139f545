"""`headrace status`: where the changes are on their path, from the agent's page and the tables' own properties."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from ops import tables
from ops.stack import Stack
from schemas.position import format_lsn


@dataclass(frozen=True)
class TableStatus:
    """One table's way: rows that its snapshots and changes appended, rows that folds took up, and its holes."""

    table: str
    loaded: int
    folded: int
    base_rows: int
    holes: tuple[str, ...]


@dataclass(frozen=True)
class PathStatus:
    """The whole path at one moment. Counts of the agent start at its start; rows of the tables never go back."""

    agent: dict[str, Any] | None
    watermark: str | None
    watermark_age_seconds: float | None
    frozen_by: tuple[str, ...]
    tables: tuple[TableStatus, ...]
    stream_job: str
    fold_job: str

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


def _table(table: tables.LakeTable) -> TableStatus:
    totals = table.fold.totals
    reasons = tuple(f"{hole.lane} ..{hole.last}: {hole.reason}" for hole in table.stream.holes)
    return TableStatus(table.name, table.stream.totals.rows, totals.log_rows_taken, totals.base_rows, reasons)


def _job_state(glue: Any, name: str) -> str:
    runs = glue.get_job_runs(JobName=name, MaxResults=1)["JobRuns"]
    return str(runs[0]["JobRunState"]) if runs else "NEVER RUN"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
