"""The simulated fold: decides by the real rules what to take, and commits later, over what was appended meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from glue_streaming import watermark
from glue_streaming.fold import line as lines
from glue_streaming.state import SnapshotState
from schemas.position import Line, Position
from tests.simulation.source import Row
from tests.simulation.views import HORIZON, Lake, LakeTable, laid_over, ordered, origin


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
        fold = _taking(table, name, activation.line, activation.snapshot, major=True)
        if _knows_all(_activated(table, fold, table.stream.snapshots[activation.snapshot])):
            return fold
        table.unusable.add(activation.snapshot)
        return None
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
    deleted: Row | None = None
    for row in ordered(fold.taken):
        before = _before(table, row)
        if row.op == "t":
            table.base, table.delta = {}, {}
        elif row.op == "d":
            deleted, table.delta[row.identity] = before, row
        else:
            table.delta[row.identity] = _whole(row, before, deleted)
    if fold.major:
        table.base = laid_over(table.base, table.delta.values())
        table.delta = {}


def _before(table: LakeTable, row: Row) -> Row | None:
    """The newest version of the row's key that delta and base hold; None where it is deleted."""
    newest = table.delta.get(row.identity)
    older = table.base.get(row.identity)
    if newest is None or newest.op == "d":
        return older if newest is None else None
    return newest if newest.big is not None or older is None else newest._replace(big=older.big)


def _whole(row: Row, own: Row | None, deleted: Row | None) -> Row:
    """A minor fold resolves a key change at once: its old row is found nowhere later. It is a row like others then."""
    found = origin(row, own, deleted)
    if row.big is not None or not row.moved:
        return row._replace(big=own.big) if row.big is None and own is not None else row
    return row._replace(big=found.big if found is not None else None, moved=False)


def _activated(table: LakeTable, fold: Fold, snapshot: SnapshotState) -> dict[int | Position, Row]:
    """The rows read at each group's point, with the changes at or above the lowest one laid over them."""
    points = {group.consistent_point for group in snapshot.ended.values()}
    read = [row for row in fold.staged if row.position.era == snapshot.era and row.position.lsn + 1 in points]
    changes = [*table.delta.values(), *fold.taken]
    above = [row for row in changes if not Line(snapshot.era, snapshot.lowest - 1).covers(row.position)]
    return laid_over({}, [*read, *above])


def _activate(table: LakeTable, fold: Fold, snapshot: SnapshotState) -> None:
    table.base, table.delta = _activated(table, fold, snapshot), {}
    table.closed_holes += table.stream.data_holes
    table.repaired_below = Line(snapshot.era, snapshot.lowest)
    used = {row for row in fold.staged if Line(snapshot.era, snapshot.highest - 1).covers(row.position)}
    table.staged = [row for row in table.staged if row not in used]


def _knows_all(rows: dict[int | Position, Row]) -> bool:
    """A value that a key change left out may lie in no row at hand: the groups are read at different points."""
    return all(row.big is not None for row in rows.values())
