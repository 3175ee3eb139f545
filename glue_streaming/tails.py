"""Lost tails: positions that a progress record names and that never came, with no later block to show the gap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from glue_streaming import chain
from glue_streaming.lake import Lake, Moves, TableKey
from glue_streaming.obstacles import Obstacles
from glue_streaming.parking import Parking
from glue_streaming.task import LaneKey
from schemas.control import Progress
from schemas.position import Position


class Tails:
    """Looks for them when every shard was read to its tip, and nothing waits. The lane is read again first."""

    def __init__(self, lake: Lake, parking: Parking, obstacles: Obstacles) -> None:
        self._lake = lake
        self._parking = parking
        self._obstacles = obstacles
        self._missing_since: dict[tuple[LaneKey, Position], float] = {}

    @property
    def waiting(self) -> bool:
        """Whether a position is missing whose time to come is not over."""
        return bool(self._missing_since)

    def look(
        self, earlier: Mapping[str, Progress | None], moves: dict[TableKey, Moves], patience_seconds: float, now: float
    ) -> None:
        """Adds to the moves the holes of tails that are lost for good.

        earlier: the newest progress record of each source before this batch: what it speaks of was in the stream when
        the batch began. patience_seconds: how long a position may be missing, before the lane is read again and after.
        """
        missing: dict[tuple[LaneKey, Position], float] = {}
        for source, newest in earlier.items():
            for end in newest.vector if newest else ():
                key = LaneKey(source, end.table, end.lane)
                lane = self._after(key, moves)
                if (lane.mark is not None and lane.mark >= end.last) or key in self._parking.lanes:
                    continue
                missing[key, end.last] = self._missing_since.get((key, end.last), now)
                if now - missing[key, end.last] < patience_seconds:
                    continue
                if key in self._parking.rereading:
                    self._declare(key, lane, end.last, moves, now)
                else:
                    self._obstacles.read_again(key)
                    missing[key, end.last] = now
        self._missing_since = missing

    def look_behind(self, progresses: Iterable[tuple[str, Progress]], moves: dict[TableKey, Moves], now: float) -> None:
        """Adds the holes of lanes that went into a new era short of where a progress record had them in the old one.

        Where the new era's snapshot is activated already, it has repaired the table, and rows would come in below F.
        """
        newest, at = self._newest_era(moves), _text(now)
        for source, progress in progresses:
            for end in progress.vector:
                if end.last.era >= newest:
                    continue
                key = LaneKey(source, end.table, end.lane)
                reason = f"lost tail of era {end.last.era}: announced, and the next era began without it"
                lost = chain.declare_behind(self._after(key, moves), end.last, reason, at)
                if lost is not None and not self._repaired(key, end.last.era):
                    lanes = moves[source, end.table].lanes
                    _, shard, sequence = lanes.get(key.lane, (lost, "", "0"))
                    lanes[key.lane] = (lost, shard, sequence)

    def _newest_era(self, moves: Mapping[TableKey, Moves]) -> int:
        """The newest era that a lane has gone into."""
        marks = [mark.position for table in self._lake.tables.values() for mark in table.state.marks.values()]
        marks += [lane.mark for move in moves.values() for lane, *_ in move.lanes.values() if lane.mark is not None]
        return max((mark.era for mark in marks), default=0)

    def _repaired(self, key: LaneKey, era: int) -> bool:
        table = self._lake.tables.get((key.source, key.table))
        return table is not None and table.fold_state.line.era > era

    def _declare(
        self, key: LaneKey, lane: chain.Lane, last: Position, moves: dict[TableKey, Moves], now: float
    ) -> None:
        """A table of which nothing ever came is made for it."""
        if (key.source, key.table) not in self._lake.tables:
            self._lake.add(key)
        reason, where = self._obstacles.reason(key, "lost tail: announced, and never came")
        lost = chain.declare(lane, last, reason, _text(now), where)
        moves[key.source, key.table].lanes[key.lane] = (lost, "", "0")
        self._parking.moved(key)

    def _after(self, key: LaneKey, moves: Mapping[TableKey, Moves]) -> chain.Lane:
        """The lane as this batch leaves it."""
        table = self._lake.tables.get((key.source, key.table))
        table_moves = moves.get((key.source, key.table))
        moved = table_moves.lanes.get(key.lane) if table_moves else None
        if moved is not None:
            return moved[0]
        return chain.Lane(key.lane) if table is None else table.state.lane(key.lane)


def _text(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
