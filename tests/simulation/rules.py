"""The rules that the promises rest on, and how each is switched off, to see what it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from glue_streaming import chain, watermark
from glue_streaming.chain import Duplicate, Gap, Lane, Load, Verdict
from glue_streaming.fold import line
from glue_streaming.state import StreamState, newest_complete
from schemas.position import Position
from tests.simulation.agent import Agent


@dataclass(frozen=True)
class Rule:
    """A rule, a scenario that needs it, and the histories within which its absence shows."""

    name: str
    scenario: str
    switch_off: Callable[[pytest.MonkeyPatch], None]
    histories: int = 150


def _accepted_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Agent, "_waiting", lambda agent, key: agent._buffers[key])
    patch.setattr(Agent, "_spoken_end", lambda agent, key: agent._ends.get(key))


def _hole_test(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chain, "_fillable", lambda *_: None)


def _mark_test(patch: pytest.MonkeyPatch) -> None:
    def judge(real: Verdict) -> Verdict:
        return Load() if isinstance(real, Duplicate) else real

    _judging(patch, judge)


def _gap_test(patch: pytest.MonkeyPatch) -> None:
    def judge(real: Verdict) -> Verdict:
        return Load() if isinstance(real, Gap) else real

    _judging(patch, judge)


def _judging(patch: pytest.MonkeyPatch, change: Callable[[Verdict], Verdict]) -> None:
    real = chain.judge

    def judge(lane: Lane, prev: Position | None, last: Position) -> Verdict:
        return change(real(lane, prev, last))

    patch.setattr(chain, "judge", judge)


def _freezing(patch: pytest.MonkeyPatch) -> None:
    real = line.fold_line
    patch.setattr(line, "fold_line", lambda current, bounds, snapshots, through: real(current, bounds, {}, through))


def _activation_bound(patch: pytest.MonkeyPatch) -> None:
    """An activation ignores the snapshots announced behind it."""
    real = line.activation

    def activation(snapshots: Any, through: int, *args: Any, **named: Any) -> Any:
        newest = newest_complete(snapshots, through)
        return real({n: s for n, s in snapshots.items() if newest is None or n <= newest}, through, *args, **named)

    patch.setattr(line, "activation", activation)


def _ageing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(watermark, "aged", lambda ring, horizon: ring[-1].line if ring else None)


def _view_ageing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(line, "joins_cut", lambda aged, fold: fold.activated_through > 0)


def _table_line(patch: pytest.MonkeyPatch) -> None:
    """A repair waits for the watermark, which waits for the repair."""
    patch.setattr(line, "repair", lambda *_: None)


def _closing_horizon(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(line.Closure, "clears", lambda closed, table, *_: table in closed.waits_for)


def _opening(patch: pytest.MonkeyPatch) -> None:
    """The cut opens as soon as the repairs are activated, wherever the watermark is."""
    real = line.closure

    def closure(current: Any, wanted: Any, folds: Any, watermark_: Any, now: float) -> Any:
        closed = real(current, wanted, folds, watermark_, now)
        return closed if closed is not None and closed.waits_for else None

    patch.setattr(line, "closure", closure)


def _sealing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StreamState, "sealed", None)


def _superseding(patch: pytest.MonkeyPatch) -> None:
    """Another snapshot is asked for only where there is none at all."""
    real = line.unrepaired
    patch.setattr(line, "unrepaired", lambda state, through: () if state.snapshots else real(state, through))


def _closing_holes(patch: pytest.MonkeyPatch) -> None:
    real = StreamState.without_snapshots_through
    patch.setattr(
        StreamState,
        "without_snapshots_through",
        lambda state, through: replace(real(state, through), holes=state.holes),
    )


def _hole_below_line(patch: pytest.MonkeyPatch) -> None:
    """A table's line looks at its marks alone."""
    patch.setattr(watermark, "_begins_within", lambda *_: False)


RULES = (
    Rule("progress speaks of accepted blocks only", "clean", _accepted_only),
    Rule("holes are tested before the mark", "loss+resend", _hole_test),
    Rule("what is at or below the mark is a duplicate", "clean", _mark_test),
    Rule("a gap is not loaded", "loss+resend", _gap_test),
    Rule("a line stays below the first hole", "loss+resend", _hole_below_line),
    Rule("an announced snapshot freezes the fold line", "snapshots", _freezing),
    Rule("a later snapshot bounds an activation", "snapshots", _activation_bound, 300),
    Rule("a fold takes the watermark aged", "clean", _ageing),
    Rule("a cut view appears when the aged watermark is at its fold line", "clean", _view_ageing),
    Rule("a repair closes the cut instead of waiting for the watermark", "loss+resnapshot", _table_line),
    Rule("a repair waits the horizon behind the closing", "loss+resnapshot", _closing_horizon),
    Rule("the cut opens when the watermark is at every fold line", "loss+resnapshot", _opening),
    Rule("a complete snapshot seals the holes below it", "loss+both", _sealing, 300),
    Rule("a snapshot below a hole is superseded", "loss+resnapshot", _superseding),
    Rule("an activation closes the holes below it", "loss+resnapshot", _closing_holes),
)
