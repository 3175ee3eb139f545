"""The fold line and activation: how far a table may be folded, and when a snapshot becomes its state. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from glue_streaming.state import SnapshotState
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


def fold_line(
    current: Line, bounds: tuple[Line | None, ...], snapshots: Mapping[int, SnapshotState], activated_through: int
) -> Line | None:
    """The new fold line, or None where it would not move.

    bounds: the aged watermark, and for a table outside the cut its own line; a None among them holds the fold back.
    An announced snapshot holds it below its lowest consistent point, until it is activated or abandoned: a change
    that was folded away could not be laid over the snapshot's rows any more.
    """
    known = [bound for bound in bounds if bound is not None]
    if not known or len(known) < len(bounds):
        return None
    lows = [
        Line(state.era, state.lowest - 1)
        for number, state in snapshots.items()
        if number > activated_through and not state.abandoned
    ]
    line = min([*known, *lows])
    return line if line > current else None


def activation(
    snapshots: Mapping[int, SnapshotState], activated_through: int, aged: Line | None, line: Line | None, *, first: bool
) -> Activation | None:
    """The newest complete snapshot, if the table's line has reached its highest consistent point.

    aged: the aged watermark. line: L of the table, ignoring holes wholly below the snapshot's lowest consistent point.
    first: the table was never activated, so it has no view yet that could be ahead of a cut: no ageing is needed.
    """
    number = newest_complete(snapshots, activated_through)
    if number is None or line is None:
        return None
    bounds = [line] if first else [line, *([aged] if aged is not None else [])]
    if not first and aged is None:
        return None
    upto = min(bounds)
    state = snapshots[number]
    return Activation(number, upto) if upto >= Line(state.era, state.highest) else None


def newest_complete(snapshots: Mapping[int, SnapshotState], activated_through: int) -> int | None:
    """The newest snapshot whose groups have all ended and that is not activated yet."""
    return max(
        (number for number, state in snapshots.items() if number > activated_through and state.complete), default=None
    )
