"""The fold line and activation: how far a table may be folded, and when a snapshot becomes its state. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from glue_streaming.holes import Hole
from glue_streaming.state import FoldState, SnapshotState, StreamState, newest_complete
from schemas.position import Line


@dataclass(frozen=True)
class Activation:
    """A complete snapshot that can become the table's state, in one commit that sets F to `line`."""

    snapshot: int
    line: Line


@dataclass(frozen=True)
class CloseCut:
    """The watermark cannot pass the hole that the snapshot repairs: close the cut, wait the horizon, then activate."""

    snapshot: int


@dataclass(frozen=True)
class Closure:
    """The cut is closed since `at` (epoch seconds), for the activation of these snapshots (table to snapshot).

    Once a table is in `waits_for`, only its activation takes it out: a fold of it may be on its way, and would set an
    F above whatever watermark was published meanwhile.
    """

    at: float
    waits_for: Mapping[str, int] = field(default_factory=dict)

    def clears(self, table: str, now: float, horizon_seconds: float) -> bool:
        """Whether the table may be activated beyond the watermark: the cut is closed for it, and no query can still be
        planned with a watermark that it read before. now: the time of the ring's newest entry."""
        return table in self.waits_for and self.at <= now - horizon_seconds


def fold_line(
    current: Line, bounds: tuple[Line | None, ...], snapshots: Mapping[int, SnapshotState], activated_through: int
) -> Line | None:
    """The new fold line, or None where it would not move.

    bounds: the aged watermark, and the table's own line; a None among them holds the fold back.
    An announced snapshot holds it below its lowest consistent point, until it is activated or abandoned: a change
    that was folded away could not be laid over the snapshot's rows any more. Into the next era only an activation
    leads: the table's own line does not go there before (`continues`).
    """
    known = [bound for bound in bounds if bound is not None]
    if not known or len(known) < len(bounds):
        return None
    line = min([*known, *_frozen(snapshots, activated_through)])
    return line if line > current else None


def activation(
    snapshots: Mapping[int, SnapshotState],
    activated_through: int,
    aged: Line | None,
    line: Line | None,
    *,
    first: bool,
    closed: bool = False,
) -> Activation | None:
    """The newest complete snapshot, if the table's line has reached its highest consistent point.

    aged: the aged watermark. line: L of the table, ignoring holes wholly below the snapshot's lowest consistent point
    (`watermark.repair_line`). No ageing is needed where no query can hold an older watermark of the table's cut view:
    first: the table was never activated, so it has no view. closed: the cut was closed for it (`Closure.clears`).
    A later snapshot that is announced bounds F here as well, or its own activation would miss changes. The line lies
    in the snapshot's era: a snapshot does not carry a table into the next one.
    """
    number = newest_complete(snapshots, activated_through)
    ageing = [] if first or closed else [aged]
    bounds = [bound for bound in (line, *ageing) if bound is not None]
    if number is None or len(bounds) < 1 + len(ageing):
        return None
    upto = min([*bounds, *_frozen(snapshots, number)])
    state = snapshots[number]
    return Activation(number, upto) if upto >= Line(state.era, state.highest) and upto.era == state.era else None


def repair(state: StreamState, fold: FoldState, repair_line: Line | None) -> CloseCut | None:
    """Whether the table's newest complete snapshot could be activated if the watermark were not held by its own hole,
    or by an era in which the table was not activated yet.

    A table that was never activated needs no closing: it has no view.
    """
    number = newest_complete(state.snapshots, fold.activated_through)
    if number is None or repair_line is None or fold.activated_through == 0:
        return None
    snapshot = state.snapshots[number]
    repaired = any(hole.ends_below(Line(snapshot.era, snapshot.lowest)) for hole in state.data_holes)
    reached = min([repair_line, *_frozen(state.snapshots, number)]) >= Line(snapshot.era, snapshot.highest)
    crosses = snapshot.era > fold.line.era
    return CloseCut(number) if (repaired or crosses) and reached else None


def continues(stream: StreamState, fold: FoldState, era: int) -> bool:
    """Whether a table's rows say something of an era: its views show a state of that era, or nothing yet.

    Between eras the source was out of sight; only a snapshot says what became of the rows before. A table whose first
    activation may still be of an earlier era, by a fold that is on its way perhaps, does not continue.
    """
    if fold.activated_through > 0:
        return fold.line.era >= era
    return all(snapshot.era >= era for snapshot in stream.snapshots.values() if snapshot.complete)


def together(wanted: Mapping[str, CloseCut], behind: Set[str]) -> dict[str, CloseCut]:
    """The closings that are worth it: tables enter a new era together, or the cut would be closed from the first
    table's snapshot to the last one's. behind: the tables in the cut that do not continue in the newest era."""
    if behind <= set(wanted):
        return dict(wanted)
    return {table: close for table, close in wanted.items() if table not in behind}


def closure(
    current: Closure | None,
    wanted: Mapping[str, CloseCut],
    folds: Mapping[str, FoldState],
    watermark: Line | None,
    now: float,
) -> Closure | None:
    """The cut's closure from now on; None: it is open.

    wanted: what `repair` says of the tables in the cut. folds: the state of those tables, read after the closing.
    watermark: what is to be published now. It opens when all that it waited for is activated and no table in the cut
    is folded beyond the watermark.
    """
    if current is None and not wanted:
        return None
    earlier = {} if current is None else current.waits_for
    asked = {**earlier, **{table: close.snapshot for table, close in wanted.items()}}
    waits_for = {
        table: number
        for table, number in asked.items()
        if table in folds and folds[table].activated_through < earlier.get(table, number)
    }
    closed = Closure(now if current is None else current.at, waits_for)
    if waits_for or watermark is None or any(fold.line > watermark for fold in folds.values()):
        return closed
    return None


def joins_cut(aged: Line | None, fold: FoldState) -> bool:
    """Whether the table's cut view may appear (after its first activation, or after `include`).

    The aged watermark has to be at F: a query that is being planned may have read an older one for its other tables.
    """
    return aged is not None and fold.activated_through > 0 and aged >= fold.line


def unrepaired(state: StreamState, activated_through: int) -> tuple[Hole, ...]:
    """The open holes that no snapshot at hand repairs: another one has to supersede it.

    While one is being read, nobody knows yet how low its consistent points are, so nothing is reported.
    """
    waiting = {n: s for n, s in state.snapshots.items() if n > activated_through and not s.abandoned}
    if not waiting:
        return state.data_holes
    newest = waiting[max(waiting)]
    if not newest.complete:
        return ()
    return tuple(hole for hole in state.data_holes if not hole.ends_below(Line(newest.era, newest.lowest)))


def _frozen(snapshots: Mapping[int, SnapshotState], after: int) -> list[Line]:
    """The lines that announced snapshots behind `after` hold F at, or below."""
    return [
        Line(state.era, state.lowest - 1)
        for number, state in snapshots.items()
        if number > after and not state.abandoned
    ]
