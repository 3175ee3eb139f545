"""The simulated fold: decides by the real rules what to take, and commits later, over what was appended meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from glue_streaming import watermark
from glue_streaming.fold import line as lines
from glue_streaming.state import SnapshotState
from schemas.position import Line
from tests.simulation.source import Row
from tests.simulation.views import HORIZON, Lake, LakeTable


@dataclass(frozen=True)
class Fold:
    """A fold on its way: what it read. `snapshot`: the one to be activated."""

    table: str
    line: Line
    major: bool
    taken: tuple[Row, ...]
    staged: tuple[Row, ...]
    snapshot: int | None = None


def begin(lake: Lake, name: str, random: Random) -> Fold | None:
    """The fold that the table's state and the catalog's entry allow now; None where there is nothing to do."""
    table, entry = lake.tables[name], lake.entry
    aged = watermark.aged(entry.ring, HORIZON)
    activation = lines.activation(
        table.stream.snapshots,
        table.fold.activated_through,
        aged,
        entry.repair_lines.get(name),
        first=table.fold.activated_through == 0,
        closed=entry.closure is not None and entry.closure.clears(name, entry.ring[-1].at, HORIZON),
    )
    if activation is not None:
        return _taking(table, name, activation.line, activation.snapshot, major=True)
    if table.fold.activated_through == 0:
        return None
    bounds = (aged, entry.lines.get(name))
    line = lines.fold_line(table.fold.line, bounds, table.stream.snapshots, table.fold.activated_through)
    return None if line is None else _taking(table, name, line, None, major=random.random() < 0.4)


def commit(lake: Lake, fold: Fold) -> None:
    """One commit: removes exactly what was read, adds what was merged, and sets F."""
    table = lake.tables[fold.table]
    gone = set(fold.taken)
    if fold.snapshot is None:
        _merge(table, fold)
    else:
        _activate(table, fold, table.stream.snapshots[fold.snapshot])
        table.closed_holes += table.stream.data_holes
    table.log = [row for row in table.log if row not in gone]
    table.history += fold.taken
    activated = table.fold.activated_through if fold.snapshot is None else fold.snapshot
    table.fold = replace(table.fold, line=fold.line, activated_through=activated)
    show(lake, fold.table)


def show(lake: Lake, name: str) -> None:
    """The table's cut view appears when it may."""
    entry = lake.entry
    if name not in entry.excluded and lines.joins_cut(watermark.aged(entry.ring, HORIZON), lake.tables[name].fold):
        lake.entry = replace(entry, shown=entry.shown | {name})


def _taking(table: LakeTable, name: str, line: Line, snapshot: int | None, *, major: bool) -> Fold:
    taken = tuple(row for row in table.log if line.covers(row.position))
    return Fold(name, line, major, taken, tuple(table.staged), snapshot)


def _merge(table: LakeTable, fold: Fold) -> None:
    for row in sorted(fold.taken):
        if row.op == "t":
            table.base, table.delta = {}, {}
        else:
            table.delta[row.key] = row
    if fold.major:
        table.base = _live({**table.base, **table.delta})
        table.delta = {}


def _activate(table: LakeTable, fold: Fold, snapshot: SnapshotState) -> None:
    """The rows read at each group's point, with the changes at or above the lowest one laid over them."""
    points = {group.consistent_point for group in snapshot.ended.values()}
    read = [row for row in fold.staged if row.position.lsn + 1 in points]
    changes = [*table.delta.values(), *fold.taken]
    base: dict[int, Row] = {}
    for row in sorted([*read, *(row for row in changes if row.position.lsn >= snapshot.lowest)]):
        if row.op == "t":
            base = {}
        else:
            base[row.key] = row
    table.base, table.delta = _live(base), {}
    used = {row for row in fold.staged if row.position.lsn < snapshot.highest}
    table.staged = [row for row in table.staged if row not in used]


def _live(rows: dict[int, Row]) -> dict[int, Row]:
    return {key: row for key, row in rows.items() if row.op != "d"}
