"""The fold of one table: looks at its state, chooses files, merges them, commits once, expires snapshots."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from glue_streaming import commit
from glue_streaming.data_files import WrittenFile
from glue_streaming.fold import expiry, output
from glue_streaming.fold.cut import Cut
from glue_streaming.fold.errors import LineBroken
from glue_streaming.fold.lake_files import LakeFile, download, key_ranges, lake_files, of_tier, written_file
from glue_streaming.fold.plan import FoldSettings, Work, work
from glue_streaming.fold.scratch import Outputs, Scratch
from glue_streaming.fold.shape import Shape, shape_of
from glue_streaming.lake_table import identifier
from glue_streaming.state import FoldState, FoldTotals, fold_state, stream_state
from schemas.position import Line

MERGED: Final = ("delta", "base")


@dataclass(frozen=True)
class Folded:
    """What one fold did. rows and bytes written are by tier."""

    table: str
    work: Work
    taken_rows: int
    removed_files: int
    rows: dict[str, int]
    bytes: dict[str, int]


@dataclass(frozen=True)
class _Chosen:
    """The files a fold reads (and so removes), by tier, with those it only removes."""

    read: dict[str, list[LakeFile]]
    dropped: list[LakeFile]

    @property
    def removed(self) -> list[LakeFile]:
        return [*(file for files in self.read.values() for file in files), *self.dropped]


def fold_table(
    catalog: Catalog, source: str, name: str, cut: Cut, kind: str, settings: FoldSettings, now: datetime
) -> Folded | None:
    """Folds one table as far as it is due; None where there is nothing to do.

    One commit: a fold that dies before it leaves the table as it was, and files that no table reaches.
    Raises FoldError, StaleWriter (another fold of the table ran meanwhile) or CommitUnknown.
    """
    table = catalog.load_table(identifier(source, name))
    due = work(name, table.properties, cut, kind, settings, now)
    if due is None:
        return None
    shape = shape_of(source, name, table.schema(), table.properties)
    files = lake_files(table)
    with tempfile.TemporaryDirectory(prefix="headrace-fold-") as folder:
        scratch = Scratch(shape, Path(folder))
        try:
            outputs, chosen = _merge(scratch, table, shape, files, due, Path(folder), settings)
            written = {
                tier: output.write(table, tier, scratch.batches(sql), settings.target_file_bytes)
                for tier, sql in outputs.queries.items()
            }
        finally:
            scratch.close()
    _assert_line(table, due.line, files, chosen.removed, written)
    before = fold_state(table.properties)
    after = _after(before, due, files, chosen, written, now)
    commit.replace(
        catalog,
        identifier(source, name),
        remove=[file.data_file for file in chosen.removed],
        add=[file.to_data_file(table.spec().spec_id) for group in written.values() for file in group],
        expected=before,
        new=after,
        summary={"headrace.fold": due.kind, "headrace.fold.reason": due.reason},
        tag_replaced=expiry.replaced_tag(now) if any(chosen.read[tier] for tier in MERGED) else None,
        tag_age_seconds=settings.longest_query_seconds,
    )
    expiry.expire(table, settings.longest_query_seconds, now)
    return Folded(
        table=f"{source}.{name}",
        work=due,
        taken_rows=outputs.taken_rows,
        removed_files=len(chosen.removed),
        rows={tier: sum(file.rows for file in group) for tier, group in written.items()},
        bytes={tier: sum(file.size for file in group) for tier, group in written.items()},
    )


def _merge(
    scratch: Scratch, table: Table, shape: Shape, files: list[LakeFile], due: Work, folder: Path, settings: FoldSettings
) -> tuple[Outputs, _Chosen]:
    """Loads what the fold needs and sets up its output. Base files are chosen when the changed keys are known."""
    read = {
        "log": [file for file in of_tier(files, "log") if file.may_reach(due.line)],
        "delta": of_tier(files, "delta"),
        "staged": [],
        "base": [],
    }
    base = of_tier(files, "base")
    _load(scratch, table, folder, {tier: read[tier] for tier in ("log", "delta")})
    truncate = scratch.take(due.line)
    if due.kind == "activate" and due.snapshot is not None:
        state = stream_state(table.properties).snapshots[due.snapshot]
        highest = Line(state.era, state.highest - 1)
        read |= {"staged": [f for f in of_tier(files, "staged") if f.may_reach(highest)], "base": base}
        _load(scratch, table, folder, {tier: read[tier] for tier in ("staged", "base")})
        return scratch.activate(due.line, truncate, due.snapshot, state), _Chosen(read, [])
    if not shape.key:
        merged = [] if truncate else _small(base, settings) if due.kind == "major" else []
        read["base"] = merged if len(merged) > 1 else []
        _load(scratch, table, folder, {"base": read["base"]})
        return scratch.keyless(due.line, truncate), _Chosen(read, base if truncate else [])
    if truncate:
        return scratch.major(due.line, truncate), _Chosen(read, base)
    if due.kind == "major":
        read["base"] = _touched(scratch, table, shape, base, settings)
        _load(scratch, table, folder, {"base": read["base"]})
        return scratch.major(due.line, None), _Chosen(read, [])
    if scratch.old_keys():
        needed = scratch.touched(key_ranges(base, table.schema(), shape.key[0]), old_keys_only=True)
        _load(scratch, table, folder, {"base": [base[index] for index in needed]})
    return scratch.minor(due.line), _Chosen(read, [])


def _load(scratch: Scratch, table: Table, folder: Path, files: dict[str, list[LakeFile]]) -> None:
    for tier, group in files.items():
        scratch.load(tier, download(group, table.io, folder))


def _touched(
    scratch: Scratch, table: Table, shape: Shape, base: list[LakeFile], settings: FoldSettings
) -> list[LakeFile]:
    """The base files whose key range holds a changed key, and small ones, which become one by the way."""
    indexes = set(scratch.touched(key_ranges(base, table.schema(), shape.key[0])))
    touched = [file for index, file in enumerate(base) if index in indexes]
    small = [file for file in _small(base, settings) if file not in touched]
    return [*touched, *small] if touched or len(small) > 1 else touched


def _small(files: Sequence[LakeFile], settings: FoldSettings) -> list[LakeFile]:
    return [file for file in files if file.size < settings.target_file_bytes // 4]


def _after(
    before: FoldState,
    due: Work,
    files: Sequence[LakeFile],
    chosen: _Chosen,
    written: dict[str, list[WrittenFile]],
    now: datetime,
) -> FoldState:
    """The fold's state behind its commit. What it took of the log is what it removed less what it put back."""
    totals, gone = before.totals, {id(file) for file in chosen.removed}
    appended = [file for file in chosen.removed if file.tier == "log"]
    back = written.get("log", [])

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
            log_rows_taken=totals.log_rows_taken + sum(f.rows for f in appended) - sum(f.rows for f in back),
            log_bytes_taken=totals.log_bytes_taken + sum(f.size for f in appended) - sum(f.size for f in back),
            delta_rows=delta_rows,
            delta_bytes=delta_bytes,
            base_rows=base_rows,
            base_bytes=base_bytes,
            history_rows=history_rows,
            history_bytes=history_bytes,
        ),
        folded_at=now.isoformat(),
    )


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
