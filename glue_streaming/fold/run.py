"""The fold of one table: looks at its state, lays the work out, merges part by part, commits once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, cast

from pyiceberg.catalog import Catalog
from pyiceberg.io import FileIO
from pyiceberg.table import Table

from glue_streaming import commit
from glue_streaming.data_files import WrittenFile
from glue_streaming.erasures import Erasures
from glue_streaming.fold import expiry, part
from glue_streaming.fold.cut import Cut
from glue_streaming.fold.errors import LineBroken, SnapshotUnusable
from glue_streaming.fold.lake_files import LakeFile, lake_files, written_file
from glue_streaming.fold.layout import Bounds, Layout, lay_out
from glue_streaming.fold.part import Done, Ground, LocalFiles, Part, PartKind
from glue_streaming.fold.plan import FoldSettings, Work, work
from glue_streaming.fold.shape import Shape, shape_of
from glue_streaming.lake_table import identifier
from glue_streaming.state import SOURCE, TABLE, FoldState, FoldTotals, SnapshotState, fold_state, stream_state
from schemas.position import Line, Position

TARGET_FILE_BYTES: Final = "write.target-file-size-bytes"
"""Iceberg's own table property: over the job's setting, for one table."""

RunParts = Callable[[Sequence[Part]], list[Done]]
"""Runs parts somewhere else, side by side; an answer a part, in their order."""


@dataclass(frozen=True)
class Folded:
    """What one fold did. rows and bytes written are by tier; parts: into how many the work was cut.

    unmatched_rows, unmatched: as in Layout.
    """

    table: str
    work: Work
    parts: int
    taken_rows: int
    removed_files: int
    read_bytes: int
    rows: dict[str, int]
    bytes: dict[str, int]
    unmatched_rows: int = 0
    unmatched: tuple[Position, ...] = ()


def fold_table(
    catalog: Catalog,
    source: str,
    name: str,
    cut: Cut,
    kind: str,
    settings: FoldSettings,
    now: datetime,
    spread: RunParts | None = None,
    erasures: Erasures | None = None,
) -> Folded | None:
    """Folds one table as far as it is due; None where there is nothing to do.

    spread: runs the parts of a fold of `spark_bytes` or more; without it all parts run here, one after the other.
    One commit: a fold that dies before it leaves the table as it was, and files that no table reaches.
    Raises FoldError, StaleWriter (another fold of the table ran meanwhile) or CommitUnknown.
    """
    table = catalog.load_table(identifier(source, name))
    due = work(name, table.properties, cut, kind, settings, now)
    if due is None:
        return None
    with expiry.pinned(catalog, table, now) as pin:
        folded = _fold(catalog, f"{source}.{name}", table, due, settings, now, spread, erasures)
    expiry.expire(table, settings.keep, now, pin)
    return folded


def _fold(
    catalog: Catalog,
    name: str,
    table: Table,
    due: Work,
    settings: FoldSettings,
    now: datetime,
    spread: RunParts | None,
    erasures: Erasures | None,
) -> Folded:
    """Merges and commits what is due of the table as it is here."""
    files = lake_files(table)
    layout, done = _merge(table, due, files, settings, spread, erasures)
    written = _written(done)
    _assert_line(table, due.line, files, layout.removed, written)
    before = fold_state(table.properties)
    after = _after(before, due, files, layout, written, now)
    commit.replace(
        catalog,
        identifier(*name.split(".", 1)),
        remove=[file.data_file for file in layout.removed],
        add=[file.to_data_file(table.spec().spec_id) for group in written.values() for file in group],
        expected=before,
        new=after,
        summary={"headrace.fold": due.kind, "headrace.fold.reason": due.reason},
    )
    return Folded(
        table=name,
        work=due,
        parts=len(layout.parts),
        taken_rows=after.totals.log_rows_taken - before.totals.log_rows_taken,
        removed_files=len(layout.removed),
        read_bytes=layout.read_bytes,
        rows={tier: sum(file.rows for file in group) for tier, group in written.items()},
        bytes={tier: sum(file.size for file in group) for tier, group in written.items()},
        unmatched_rows=layout.unmatched_rows or 0,
        unmatched=layout.unmatched,
    )


def merge_files(
    due: Work, ground: Ground, files: Sequence[LakeFile], io: FileIO, bounds: Bounds, spread: RunParts | None = None
) -> tuple[Layout, list[Done]]:
    """Everything between a table's files and the commit. Raises SnapshotUnusable."""
    with tempfile.TemporaryDirectory(prefix="headrace-fold-") as folder:
        local = LocalFiles(io, Path(folder))
        layout = lay_out(cast(PartKind, due.kind), ground, files, local, bounds)
        done = spread(layout.parts) if spread is not None else _here(layout.parts, local)
    if ground.snapshot is not None and due.snapshot is not None:
        _check_snapshot(ground.shape, due.snapshot, ground.snapshot, done)
    return layout, done


def _here(parts: Sequence[Part], local: LocalFiles) -> list[Done]:
    """One part after the other; what only one of them reads is on the disk no longer than it runs."""
    done = []
    for item in parts:
        done.append(part.run(item, local))
        local.drop(path for tier in ("base", "staged") for path in item.files.get(tier, ()))
    return done


def _merge(
    table: Table,
    due: Work,
    files: Sequence[LakeFile],
    settings: FoldSettings,
    spread: RunParts | None,
    erasures: Erasures | None,
) -> tuple[Layout, list[Done]]:
    source, name = (table.properties[key] for key in (SOURCE, TABLE))
    ground = Ground(
        shape=shape_of(source, name, table.schema(), table.properties),
        schema=table.schema(),
        location=table.location(),
        line=due.line,
        snapshot=None if due.snapshot is None else stream_state(table.properties).snapshots[due.snapshot],
        erasures=erasures if erasures is not None and _brings_meant(files, erasures) else None,
    )
    target = int(table.properties.get(TARGET_FILE_BYTES, settings.target_file_bytes))
    bounds = Bounds(target, settings.part_bytes, settings.memory_bytes)
    return merge_files(due, ground, files, table.io, bounds, spread if due.cost_bytes >= settings.spark_bytes else None)


def _brings_meant(files: Sequence[LakeFile], erasures: Erasures) -> bool:
    """Whether rows are to be folded that an erasure may still mean: what was folded before is looked through by it."""
    return any(erasures.reach(file.lowest) for file in files if file.tier in ("log", "staged"))


def _written(done: Sequence[Done]) -> dict[str, list[WrittenFile]]:
    written: dict[str, list[WrittenFile]] = {}
    for item in done:
        for file in item.files:
            written.setdefault(file.tier, []).append(file)
    return written


def _check_snapshot(shape: Shape, number: int, state: SnapshotState, done: Sequence[Done]) -> None:
    """The staged rows are as many as were announced, and no row is left with a value that nobody has."""
    table = f"{shape.source}.{shape.table}: snapshot {number}"
    expected: dict[int, int] = {}
    for group in state.ended.values():
        expected[group.consistent_point] = expected.get(group.consistent_point, 0) + group.count
    found = {point: sum(item.staged.get(point, 0) for item in done) for point in expected}
    wrong = [
        f"read at {point}: {found[point]} of {count}" for point, count in expected.items() if found[point] != count
    ]
    if wrong:
        raise SnapshotUnusable(
            f"{table} has not the rows it announced ({'; '.join(wrong)}). Request another snapshot of the table."
        )
    unknown = [row for item in done for row in item.unknown]
    if unknown:
        raise SnapshotUnusable(
            f"{table} lacks the values of {unknown[:5]}: a key moved between its groups while it was read. "
            "Request another snapshot of the table."
        )


def _after(
    before: FoldState,
    due: Work,
    files: Sequence[LakeFile],
    layout: Layout,
    written: dict[str, list[WrittenFile]],
    now: datetime,
) -> FoldState:
    """The fold's state behind its commit. What it took of the log is what it removed less what it put back."""
    totals, gone = before.totals, {id(file) for file in layout.removed}
    appended = [file for file in layout.removed if file.tier == "log"]
    back = written.get("log", [])
    taken_rows = sum(f.rows for f in appended) - sum(f.rows for f in back)

    def left(tier: str) -> tuple[int, int]:
        kept = [file for file in files if file.tier == tier and id(file) not in gone]
        new = written.get(tier, [])
        return (
            sum(f.rows for f in kept) + sum(f.rows for f in new),
            sum(f.size for f in kept) + sum(f.size for f in new),
        )

    (delta_rows, delta_bytes), (base_rows, base_bytes), (history_rows, history_bytes) = map(
        left, ("delta", "base", "history")
    )
    return replace(
        before,
        line=due.line,
        activated_through=due.snapshot if due.snapshot is not None else before.activated_through,
        totals=FoldTotals(
            log_rows_taken=totals.log_rows_taken + taken_rows,
            log_bytes_taken=totals.log_bytes_taken + sum(f.size for f in appended) - sum(f.size for f in back),
            delta_rows=delta_rows,
            delta_bytes=delta_bytes,
            base_rows=base_rows,
            base_bytes=base_bytes,
            history_rows=history_rows,
            history_bytes=history_bytes,
            log_files_taken=totals.log_files_taken + len(appended) - len(back),
            merged_rows=totals.merged_rows + taken_rows if due.kind == "minor" and not layout.truncated else 0,
            overlap_bytes=layout.overlap_bytes,
            read_bytes=totals.read_bytes + layout.read_bytes,
            written_bytes=totals.written_bytes + sum(f.size for group in written.values() for f in group),
            unmatched_rows=_unmatched(totals, layout),
        ),
        folded_at=now.isoformat(),
    )


def _unmatched(totals: FoldTotals, layout: Layout) -> int:
    """Of delta: those that were there stay until they are looked for again, or their table is truncated."""
    if layout.unmatched_rows is not None:
        return layout.unmatched_rows
    return 0 if layout.truncated else totals.unmatched_rows


def _assert_line(
    table: Table,
    line: Line,
    files: Sequence[LakeFile],
    removed: Sequence[LakeFile],
    written: dict[str, list[WrittenFile]],
) -> None:
    """No log row at or below F, no other row above it: judged by the bounds of all files that will be there."""
    gone = {id(file) for file in removed}
    there = [file for file in files if id(file) not in gone]
    there += [written_file(file, table.schema()) for group in written.values() for file in group]
    for file in there:
        wrong = not file.must_pass(line) if file.tier == "log" else file.tier != "staged" and file.exceeds(line)
        if wrong:
            name = ".".join(table.name())
            raise LineBroken(f"{name}: {file.tier} file {file.data_file.file_path} is on the wrong side of {line}")
