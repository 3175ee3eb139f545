"""The simulated agent: lanes, a spool, one record in flight a lane, progress, snapshots in groups, resends."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from glue_streaming.holes import Hole
from schemas.control import Announcement, LaneEnd, Progress, SnapshotEnd, snapshot_lane
from schemas.position import Position
from tests.simulation.source import ERA, KEYS, Row, Source, lane_of
from tests.simulation.stream import Block, Faults, LaneKey, Stream

GROUPS = 2
_NO_TIME = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass
class Snapshot:
    """One snapshot of a table; `todo` are the groups still to be read."""

    number: int
    table: str
    low: int
    todo: list[int] = field(default_factory=lambda: list(range(GROUPS)))
    abandoned: bool = False
    attempts: int = 0


class Agent:
    """Nothing is forgotten: accepted blocks stay in the spool, for resends."""

    def __init__(self, source: Source, stream: Stream) -> None:
        self._source, self._stream = source, stream
        self._buffers: dict[LaneKey, list[Row]] = defaultdict(list)
        self._ends: dict[LaneKey, Position] = {}
        self.spool: dict[LaneKey, list[Block]] = defaultdict(list)
        self.accepted: dict[LaneKey, int] = defaultdict(int)
        self.snapshots: list[Snapshot] = []

    # ---- changes

    def capture(self, changes: list[tuple[str, Row]]) -> None:
        for table, row in changes:
            self._buffers[LaneKey(table, lane_of(row))].append(row)

    def spool_blocks(self, random: Random, chance: float) -> None:
        """Lanes' buffers become blocks; a large one now and then becomes two."""
        for key, rows in self._buffers.items():
            if rows and random.random() < chance:
                cut = random.randint(1, len(rows)) if random.random() < 0.3 else len(rows)
                for part in (rows[:cut], rows[cut:]):
                    if part:
                        self._append(key, part)
                rows.clear()

    def send(self, random: Random, faults: Faults, chance: float) -> None:
        """At most one block of each lane is in flight, so a lane's blocks are accepted in order."""
        for key, blocks in self.spool.items():
            while self.accepted[key] < len(blocks) and random.random() < chance:
                self._stream.put(blocks[self.accepted[key]], random, faults)
                self.accepted[key] += 1

    def unsent(self, key: LaneKey) -> list[Block]:
        return self.spool[key][self.accepted[key] :]

    def resend(self, table: str, hole: Hole, random: Random, faults: Faults) -> None:
        """Puts the spool's blocks of a hole into the stream once more; they fare no better there than others."""
        key = LaneKey(table, hole.lane)
        for block in self.spool[key][: self.accepted[key]]:
            begins_before_its_end = block.prev is None or block.prev < hole.last
            if begins_before_its_end and (hole.after is None or block.last > hole.after):
                self._stream.put(block, random, faults)

    # ---- progress

    def say_progress(self) -> None:
        """Everything up to `through` was accepted. A transaction may still commit exactly at the log's end."""
        data = sorted({*self._buffers, *(key for key in self.spool if not key.lane.startswith("s"))})
        waiting = [row.position for key in data for row in self._waiting(key)]
        self._stream.control.append(
            Progress(
                era=ERA,
                through=min([self._source.wal_end - 1, *(position.lsn - 1 for position in waiting)]),
                committed_at=_NO_TIME,
                vector=tuple(LaneEnd(*key, last) for key in data if (last := self._spoken_end(key)) is not None),
                snapshots=tuple(Announcement(s.number, s.table, s.low, s.abandoned) for s in self.snapshots),
            )
        )

    def _waiting(self, key: LaneKey) -> list[Row]:
        """Rows that Kinesis has not accepted: in the buffer, and in the spool."""
        return [*(row for block in self.unsent(key) for row in block.rows), *self._buffers[key]]

    def _spoken_end(self, key: LaneKey) -> Position | None:
        """The last position of the lane that was accepted."""
        unsent = self.unsent(key)
        return unsent[0].prev if unsent else self._ends.get(key)

    # ---- snapshots

    def request_snapshot(self, table: str) -> None:
        """Announces one, before its first consistent point is fixed. An unfinished one of the table is abandoned."""
        for snapshot in self.snapshots:
            if snapshot.table == table and snapshot.todo:
                snapshot.todo, snapshot.abandoned = [], True
        number = ERA * 1_000_000 + len(self.snapshots) + 1
        self.snapshots.append(Snapshot(number, table, self._source.wal_end))
        self.say_progress()

    def reading(self, table: str) -> bool:
        return any(snapshot.todo for snapshot in self.snapshots if snapshot.table == table)

    def read_snapshots(self, random: Random, killed: float) -> None:
        """One group of each unfinished snapshot; one that is killed half-way is read again under another point."""
        for snapshot in self.snapshots:
            if snapshot.todo and random.random() < 0.5:
                done = self._read_group(snapshot, snapshot.todo[0], random.random() < killed)
                snapshot.todo = snapshot.todo[1:] if done else snapshot.todo

    def _read_group(self, snapshot: Snapshot, group: int, killed: bool) -> bool:
        snapshot.attempts += 1
        point = self._source.create_slot()
        key = LaneKey(snapshot.table, snapshot_lane(snapshot.number, group, snapshot.attempts))
        mine = [(k, v) for k, v in sorted(self._source.tables[snapshot.table].items()) if k * GROUPS // KEYS == group]
        rows = [Row(Position(ERA, point - 1, n), "r", k, v) for n, (k, v) in enumerate(mine)]
        for start in range(0, len(rows) // 2 if killed else len(rows), 2):
            self._append(key, rows[start : start + 2])
        if not killed:
            end = SnapshotEnd(snapshot.number, group, GROUPS, snapshot.attempts, point, None, None, len(rows))
            self._append(key, [], end)
        return not killed

    def _append(self, key: LaneKey, rows: list[Row], end: SnapshotEnd | None = None) -> None:
        last = rows[-1].position if end is None else Position(ERA, end.consistent_point - 1, end.count)
        self.spool[key].append(Block(key, self._ends.get(key), last, tuple(rows), end))
        self._ends[key] = last
