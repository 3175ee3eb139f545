"""Snapshots that will never be complete: their end came with something missing, or was itself lost.

They would hold the fold line for ever. They become void, which shows in the table's property, and another one is
asked for where that can help.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from glue_streaming.lake import LakeTable, TableKey
from glue_streaming.state import StreamState
from glue_streaming.task import LaneKey, Outcome
from schemas.control import Progress, parse_snapshot_lane

_LOST: Final = ("gap", "lost tail", "expired", "recreated stream")
_AGENT_SILENT_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Void:
    """A snapshot to give up. lost: its blocks got lost on the way, so that another one can be expected to arrive."""

    table: TableKey
    snapshot: int
    era: int
    why: str
    lost: bool


def ended_with_holes(outcomes: Iterable[Outcome]) -> Iterator[Void]:
    """The source has read these to their end, and takes no other attempt: the holes stay."""
    for outcome in outcomes:
        for key, why in outcome.voids.items():
            parsed, lane = parse_snapshot_lane(key.lane), outcome.lanes[key][0]
            if parsed is not None:
                lost = all(hole.where is None and hole.reason.startswith(_LOST) for hole in lane.holes)
                era = lane.mark.era if lane.mark is not None else 1
                yield Void((key.source, key.table), parsed[0], era, why, lost)


def unended(state: StreamState, activated_through: int) -> list[int]:
    """Snapshots of which something came, itself or a later one, and whose end did not."""
    begun = {parsed[0] for lane in state.marks if (parsed := parse_snapshot_lane(lane)) is not None}
    return [
        number
        for number, snapshot in state.snapshots.items()
        if number > activated_through
        and not snapshot.abandoned
        and not snapshot.complete
        and any(other >= number for other in begun)
    ]


class SnapshotWatch:
    """Waits for ends that do not come, while the agent lives and every shard is read to its tip."""

    def __init__(self) -> None:
        self._moved_at: dict[str, float] = {}
        self._heard_at: dict[str, float] = {}

    def look(
        self,
        tables: Mapping[TableKey, LakeTable],
        outcomes: Sequence[Outcome],
        progresses: Mapping[str, Sequence[Progress]],
        waiting: Collection[LaneKey],
        patience_seconds: float,
        now: float,
    ) -> list[Void]:
        """The snapshots to give up now; none of a table with a lane that waits here, paused or for a schema.

        progresses: those that this batch has read, by source.
        """
        at_tip = bool(outcomes) and all(outcome.at_tip and not outcome.closed for outcome in outcomes)
        moving = {key.source for outcome in outcomes for key in outcome.lanes if parse_snapshot_lane(key.lane)}
        stalled = set()
        for source, heard in progresses.items():
            if heard:
                self._heard_at[source] = now
            silent = now - self._heard_at.get(source, float("-inf")) > _AGENT_SILENT_SECONDS
            if not at_tip or silent or source in moving or source not in self._moved_at:
                self._moved_at[source] = now
            if now - self._moved_at[source] >= patience_seconds:
                stalled.add(source)
        held = {(key.source, key.table) for key in waiting}
        return [
            Void(key, number, table.state.snapshots[number].era, "its end never came", lost=True)
            for key, table in tables.items()
            if key[0] in stalled and key not in held
            for number in unended(table.state, table.fold_state.activated_through)
        ]
