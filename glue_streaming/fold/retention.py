"""History to its retention, and in large files: what the daily maintenance does to a table's history.

What is older than the policy's days goes, but for the newest version of each key that was live then: it is carried
forward, resolved, so that values which later rows left out are found, and the type-2 view begins with what was valid.
A fold writes a small file of history each time; neighbours of them become one, in the order of their positions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from glue_streaming import commit, data_files
from glue_streaming.data_files import WrittenFile
from glue_streaming.fold import expiry, lake_rows, merge, multiset, packing
from glue_streaming.fold.lake_files import LakeFile, bound, lake_files, of_tier
from glue_streaming.fold.part import LocalFiles
from glue_streaming.fold.plan import FoldSettings
from glue_streaming.fold.scratch import Scratch
from glue_streaming.fold.shape import Shape, shape_of
from glue_streaming.state import SOURCE, TABLE, FoldState, fold_state
from schemas.position import Line, Position

SLACK: Final = 0.1
"""A run rewrites all that is carried forward, so it is made when this part of the time again has passed, or a day."""


@dataclass(frozen=True)
class Tidied:
    """What was done to a table's history. dropped: rows that are gone; merged: small files that became larger ones."""

    dropped: int = 0
    carried: int = 0
    merged: int = 0


def due(history_from: str | None, history_days: float, now: datetime) -> datetime | None:
    """The time before which changes are to go now; None where nothing is, or too little to be worth it. Pure."""
    if history_days == inf:
        return None
    before = now - timedelta(days=history_days)
    slack = timedelta(days=max(1.0, SLACK * history_days))
    if history_from is not None and before - datetime.fromisoformat(history_from) < slack:
        return None
    return before


def tidy(catalog: Catalog, name: tuple[str, str], settings: FoldSettings, now: datetime) -> Tidied:
    """One commit, or none where there is nothing to do.

    Raises StaleWriter where a fold committed meanwhile (the next run does it), or CommitUnknown.
    """
    table = catalog.load_table(name)
    before = fold_state(table.properties)
    history = sorted(of_tier(lake_files(table), "history"), key=lambda file: file.lowest or Line(0, 0))
    oldest = due(before.history_from, settings.history_days, now)
    line = None if oldest is None else _line(table, history, before.line, oldest)
    old = [] if line is None else [file for file in history if file.may_reach(line)]
    packs = packing.packs([file for file in history if file not in old], settings.target_file_bytes)
    merged = [file for pack in packs for file in pack]
    if not old and not merged:
        return Tidied()
    with expiry.pinned(catalog, table, now) as pin:
        carried, rest = _expired(table, old, line, settings) if line is not None and old else ([], [])
        packed = packing.write(packs, table.schema(), table.location(), table.io, _shape(table).searched)
        written = [*carried, *rest, *packed]
        _replace(catalog, name, table, [*old, *merged], written, replace(
            before, history_from=before.history_from if oldest is None else oldest.isoformat(timespec="seconds"),
            tidied_at=now.isoformat(),
        ))  # fmt: skip
    expiry.expire(table, settings.keep, now, pin)
    kept = sum(file.rows for file in carried) + sum(file.rows for file in rest)
    return Tidied(sum(f.rows for f in old) - kept, sum(f.rows for f in carried), len(merged))


def _line(table: Table, history: Sequence[LakeFile], folded: Line, oldest: datetime) -> Line:
    """The line at or below which every change was committed before that time."""
    micros = int(oldest.timestamp() * 1_000_000)
    field = table.schema().find_field("_committed_at")
    young = [folded if folded.lsn == 0 else Line(folded.era, folded.lsn + 1)]
    for file in history:
        low, high = (bound(bounds, field) for bounds in (file.data_file.lower_bounds, file.data_file.upper_bounds))
        if high is not None and high < micros:
            continue
        if low is not None and low >= micros and file.lowest is not None:
            young.append(file.lowest)
        else:
            young += _young(table, file, oldest)
    first = min(young)
    return Line(first.era, first.lsn - 1)


def _young(table: Table, file: LakeFile, oldest: datetime) -> list[Line]:
    naive = oldest.astimezone(UTC).replace(tzinfo=None)
    return [
        Line(era, lsn)
        for part in lake_rows.rows(table, file, ("_era", "_lsn", "_committed_at"))
        for era, lsn, at in zip(*(part.column(c).to_pylist() for c in ("_era", "_lsn", "_committed_at")), strict=True)
        if at is not None and at >= naive
    ]


def _expired(
    table: Table, old: Sequence[LakeFile], line: Line, settings: FoldSettings
) -> tuple[list[WrittenFile], list[WrittenFile]]:
    """What is carried forward of rows up to the line, and the rows behind it of the same files.

    The fold's own queries over the history in the log's place: what a key's newest change is, with what it left out.
    """
    shape = _shape(table)
    with tempfile.TemporaryDirectory(prefix="headrace-history-") as folder:
        scratch = Scratch(shape, Path(folder), memory_bytes=settings.memory_bytes)
        try:
            local = LocalFiles(table.io, Path(folder))
            scratch.load("staged", local.of(file.data_file.file_path for file in old))
            scratch.view("log", "SELECT * REPLACE ('log' AS _tier) FROM staged")
            carried = _live(scratch, shape, line)
            kept = [] if carried is None else _written(table, scratch.batches(carried))
            return kept, _written(table, scratch.batches(merge.younger(line)))
        finally:
            scratch.close()


def _live(scratch: Scratch, shape: Shape, line: Line) -> str | None:
    """What is carried forward; nothing of an append-only table, all of whose rows would be."""
    if shape.key:
        return _carried(scratch, shape, line)
    return _carried_whole(scratch, shape, line) if shape.whole_rows else None


def _carried_whole(scratch: Scratch, shape: Shape, line: Line) -> str:
    """The rows of a table without a key that nothing up to the line deleted."""
    scratch.take(line)
    found = scratch.rows(multiset.beginning())
    scratch.change(Position.of(found[0]) if found else None, with_delta=False)
    if scratch.delete():
        scratch.find("changes")
        scratch.cancelled()
    return multiset.carried(shape)


def _carried(scratch: Scratch, shape: Shape, line: Line) -> str:
    """A key change in front of a truncate was folded as it came, so key changes are completed here first."""
    scratch.take(line)
    found = scratch.rows(merge.last_truncate())
    truncate = Position.of(found[0]) if found else None
    scratch.change(truncate, with_delta=False)
    if shape.torn:
        scratch.complete(scratch.completed())
        scratch.take(line)
        scratch.change(truncate, with_delta=False)
    scratch.resolve(with_base=False)
    return merge.carried(shape)


def _written(table: Table, batches: Iterator[pa.RecordBatch]) -> list[WrittenFile]:
    schema = table.schema()
    rows = data_files.conformed(batches, data_files.arrow_schema(schema))
    bloom = _shape(table).searched
    written = data_files.write(rows, schema=schema, location=table.location(), tier="history", io=table.io, bloom=bloom)
    return [] if written is None else [written]


def _shape(table: Table) -> Shape:
    return shape_of(table.properties[SOURCE], table.properties[TABLE], table.schema(), table.properties)


def _replace(
    catalog: Catalog,
    name: tuple[str, str],
    table: Table,
    gone: Sequence[LakeFile],
    written: Sequence[WrittenFile],
    new: FoldState,
) -> None:
    rows = sum(f.rows for f in written) - sum(f.rows for f in gone)
    size = sum(f.size for f in written) - sum(f.size for f in gone)
    commit.replace(
        catalog,
        ".".join(name),
        remove=[file.data_file for file in gone],
        add=[file.to_data_file(table.spec().spec_id) for file in written],
        expected=fold_state(table.properties),
        new=replace(new, totals=new.totals.moved("history", rows, size)),
        summary={"headrace.history": "true"},
    )
