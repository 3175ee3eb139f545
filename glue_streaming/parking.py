"""Parked lanes: a lane whose next block cannot be loaded yet waits, while others flow. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from glue_streaming.load import GivenUp, LaneKey, Obstacle
from glue_streaming.shards import Start
from glue_streaming.state import Mark


@dataclass(frozen=True)
class Parked:
    """Where and why a lane stopped. sequence: of its first parked block. reread: it was read again from its mark."""

    shard: str
    obstacle: Obstacle
    since: float
    reread: bool = False


@dataclass
class Parking:
    """All parked lanes, the obstacles that are given up in the next batch, and the lanes that are read again."""

    lanes: dict[LaneKey, Parked] = field(default_factory=dict)
    give_up: dict[LaneKey, tuple[GivenUp, ...]] = field(default_factory=dict)
    rereading: set[LaneKey] = field(default_factory=set)

    def park(self, key: LaneKey, shard: str, obstacle: Obstacle, now: float) -> None:
        self.lanes[key] = Parked(shard, obstacle, now, reread=key in self.rereading)

    def moved(self, key: LaneKey) -> None:
        """The lane went on: whatever stood in its way is dealt with."""
        self.give_up.pop(key, None)
        self.rereading.discard(key)

    def abandon(self, key: LaneKey, why: str) -> None:
        """Gives the lane's obstacle up: the next batch makes it a hole. Holds until the lane moves."""
        self.give_up[key] = (*self.give_up.get(key, ()), GivenUp(self.lanes[key].obstacle, why))

    def resume(self, key: LaneKey) -> tuple[str, Start]:
        """Unparks the lane; returns the shard, and where it must be read again from: its first parked block."""
        parked = self.lanes.pop(key)
        return parked.shard, Start(parked.obstacle.sequence, inclusive=True)

    def read_again(self, key: LaneKey, mark: Mark | None) -> tuple[str, Start]:
        """Unparks a lane with a gap, to be read again from its mark; from the oldest record where that is elsewhere."""
        parked = self.lanes.pop(key)
        self.rereading.add(key)
        if mark is not None and mark.shard == parked.shard:
            return parked.shard, Start(mark.sequence)
        return parked.shard, Start()

    def shards(self) -> set[str]:
        return {parked.shard for parked in self.lanes.values()}


def earliest(starts: Mapping[str, Start], shard: str, start: Start) -> Start:
    """The earlier of a shard's start and another one in it."""
    current = starts.get(shard)
    if current is None or current.sequence is None or start.sequence is None:
        return Start()
    return start if int(start.sequence) <= int(current.sequence) else current
