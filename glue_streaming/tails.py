"""Lost tails: positions that a progress record names and that never came, with no later block to show the gap."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from glue_streaming import chain
from glue_streaming.lake import Lake, Moves, TableKey
from glue_streaming.load import LaneKey
from glue_streaming.obstacles import Obstacles
from glue_streaming.parking import Parking
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

    def _declare(
        self, key: LaneKey, lane: chain.Lane, last: Position, moves: dict[TableKey, Moves], now: float
    ) -> None:
        """A table of which nothing ever came is made for it."""
        if (key.source, key.table) not in self._lake.tables:
            self._lake.add(key)
        reason, where = self._obstacles.reason(key, "lost tail: announced, and never came")
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        lost = chain.declare(lane, last, reason, stamp, where)
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
