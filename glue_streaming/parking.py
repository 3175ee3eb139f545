"""Parked lanes: a lane whose next block cannot be loaded yet waits, while others flow. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from glue_streaming.shards import Start
from glue_streaming.state import Mark
from glue_streaming.task import GivenUp, LaneKey, Obstacle, Outcome, Unreadable
from schemas.control import partition_key

_MAX_UNREADABLE: Final = 1_000
EXPIRED: Final = "expired: the stream no longer keeps the records behind the mark"
RECREATED: Final = "recreated stream: it does not hold the record of the mark"


@dataclass(frozen=True)
class Parked:
    """Where and why a lane stopped. obstacle: with the sequence number of its first parked block.

    reread: it was read again from its mark. skipped: the first of its blocks that was left alone in each later shard.
    """

    shard: str
    obstacle: Obstacle
    since: float
    reread: bool = False
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def shards(self) -> set[str]:
        """Shards whose position must not be saved: blocks of the lane wait in them."""
        return {self.shard, *self.skipped}

    def starts(self) -> dict[str, Start]:
        """Where the lane is to be taken up again."""
        waiting = {self.shard: self.obstacle.sequence, **self.skipped}
        return {shard: Start(sequence, inclusive=True) for shard, sequence in waiting.items()}


@dataclass(frozen=True)
class Reread:
    """A lane that is being read again from its mark. fate: what became of the mark's own record, where anything did.

    begun: a task has started there; whether it met that record is known, and later tasks start behind it.
    """

    fate: str | None = None
    begun: bool = False


@dataclass
class Parking:
    """All parked lanes, the obstacles that are given up in the next batch, and the lanes that are read again.

    unreadable: the last records that were no blocks.
    """

    lanes: dict[LaneKey, Parked] = field(default_factory=dict)
    give_up: dict[LaneKey, tuple[GivenUp, ...]] = field(default_factory=dict)
    rereading: dict[LaneKey, Reread] = field(default_factory=dict)
    unreadable: deque[Unreadable] = field(default_factory=lambda: deque(maxlen=_MAX_UNREADABLE))

    def meet(self, outcome: Outcome, now: float) -> None:
        """Parks the lanes that a task could not go on with, and notes what it left alone of those that are parked."""
        self.unreadable.extend(item for item in outcome.unreadable if item not in self.unreadable)
        for key, obstacle in outcome.obstacles.items():
            if key not in self.lanes:
                self.lanes[key] = Parked(outcome.shard, obstacle, now, reread=key in self.rereading)
        for key, sequence in outcome.skipped.items():
            parked = self.lanes.get(key)
            if parked is not None and outcome.shard != parked.shard:
                first = parked.skipped.get(outcome.shard, sequence)
                self.lanes[key] = replace(parked, skipped={**parked.skipped, outcome.shard: first})

    def moved(self, key: LaneKey) -> None:
        """The lane went on: whatever stood in its way is dealt with."""
        self.give_up.pop(key, None)
        self.rereading.pop(key, None)

    def abandon(self, key: LaneKey, why: str, where: str | None = None) -> None:
        """Gives the lane's obstacle up: the next batch makes it a hole. Holds until the lane moves."""
        given_up = GivenUp(self.lanes[key].obstacle, why, where)
        self.give_up[key] = (*self.give_up.get(key, ()), given_up)

    def resume(self, key: LaneKey) -> dict[str, Start]:
        """Unparks the lane; returns where it must be read from."""
        return self.lanes.pop(key).starts()

    def read_again(self, key: LaneKey, fate: str | None) -> None:
        """Unparks a lane that is read again from its mark, to see whether what is missing comes after all."""
        self.lanes.pop(key, None)
        self.rereading[key] = Reread(fate)

    def look_for_mark(self, key: LaneKey, mark: Mark | None, outcomes: Iterable[Outcome]) -> None:
        """Whether the first task that read the lane again met the mark's own record; otherwise what follows may be
        gone with it."""
        reread = self.rereading.get(key)
        if reread is None or reread.begun or mark is None:
            return
        for outcome in outcomes:
            if outcome.shard == mark.shard:
                self.rereading[key] = Reread(reread.fate or _fate(mark, outcome), begun=True)

    def fate(self, key: LaneKey) -> str | None:
        return self.rereading[key].fate if key in self.rereading else None

    def between(self, key: LaneKey, mark: Mark | None) -> list[Unreadable]:
        """The unreadable records that say they are the lane's, and lie behind its mark."""
        name = partition_key(key.source, key.table, key.lane)
        return [
            item
            for item in self.unreadable
            if item.partition_key == name
            and (mark is None or mark.shard != item.shard or int(item.sequence) > int(mark.sequence))
        ]

    def shards(self) -> set[str]:
        return {shard for parked in self.lanes.values() for shard in parked.shards}


def earliest(starts: Mapping[str, Start], shard: str, start: Start) -> Start:
    """The earlier of a shard's start and another one in it."""
    current = starts.get(shard)
    if current is None or current.sequence is None or start.sequence is None:
        return Start()
    first, second = int(start.sequence), int(current.sequence)
    return start if first < second or (first == second and start.inclusive) else current


def _fate(mark: Mark, outcome: Outcome) -> str | None:
    if outcome.refused:
        return RECREATED
    if outcome.first_sequence is None:
        return EXPIRED if outcome.at_tip else None
    return EXPIRED if int(outcome.first_sequence) > int(mark.sequence) else None
