"""The simulated agent: lanes, a spool, one record in flight a lane, progress, snapshots in groups, resends, crashes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from random import Random

from glue_streaming.holes import Hole
from schemas.control import Announcement, LaneEnd, Progress, SnapshotEnd, snapshot_lane
from schemas.position import Position
from tests.simulation.source import KEYLESS, KEYS, NO_KEY, TABLES, Row, Source, Transaction
from tests.simulation.stream import Block, Faults, LaneKey, Stream

_NO_TIME = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass
class Snapshot:
    """One snapshot of a table; `todo` are the groups still to be read, each under a point of its own."""

    number: int
    table: str
    low: int
    groups: int
    todo: list[int] = field(default_factory=list)
    abandoned: bool = False
    attempts: int = 0

    def __post_init__(self) -> None:
        self.todo = list(range(self.groups))


Buffered = tuple[Row, int]
"""A row, and the version of its table's structure."""


class Agent:
    """`spool` is on disk, with `durable`: every transaction up to there is in it, whole. The rest is memory.

    Nothing of the spool is forgotten: accepted blocks stay, for resends.
    """

    def __init__(self, source: Source, stream: Stream) -> None:
        self._source, self._stream = source, stream
        self._begin()

    def _begin(self) -> None:
        """With an empty spool, in the source's era."""
        self.era = self._source.era
        self.durable = self._source.wal_end - 1
        self._captured = self.durable
        self._lanes = dict.fromkeys(TABLES, 2)
        self._buffers: dict[LaneKey, list[Buffered]] = defaultdict(list)
        self._open: Transaction | None = None
        self._tail: list[Block] = []
        self.spool: dict[LaneKey, list[Block]] = defaultdict(list)
        self.accepted: defaultdict[LaneKey, int] = defaultdict(int)
        self._spoken: defaultdict[LaneKey, int] = defaultdict(int)
        self.snapshots: list[Snapshot] = []

    # ---- changes

    def capture(self, transaction: Transaction, random: Random) -> None:
        """Into memory; a large one in two parts, of which the first may be spooled before its commit came."""
        self._finish_open(random)
        if len(transaction.changes) > 2 and random.random() < 0.3:
            self.spool_whole(random)
            self._open = transaction
            first = transaction.changes[: len(transaction.changes) // 2]
            self._tail = self._blocks(self._in_lanes(first, transaction), random)
            self._spool_tail()
        else:
            for key, row in self._in_lanes(transaction.changes, transaction):
                self._buffers[key].append(row)
            self._captured = transaction.lsn

    def _spool_tail(self) -> None:
        """Blocks before their transaction's commit: on disk, and not to be sent."""

    def _finish_open(self, random: Random) -> None:
        if self._open is None:
            return
        transaction, self._open = self._open, None
        rest = transaction.changes[len(transaction.changes) // 2 :]
        for block in self._tail:
            self.spool[block.key].append(block)
        self._tail = []
        for block in self._blocks(self._in_lanes(rest, transaction), random):
            self.spool[block.key].append(block)
        self._captured = self.durable = transaction.lsn

    def spool_whole(self, random: Random) -> None:
        """All transactions captured so far become blocks, and the source is told, once they are on disk."""
        if self._open is not None:
            return
        rows = ((key, row) for key, buffered in self._buffers.items() for row in buffered)
        for block in self._blocks(rows, random):
            self.spool[block.key].append(block)
        self._buffers.clear()
        self.durable = self._captured = self._heard()

    def spool_blocks(self, random: Random, chance: float) -> None:
        if random.random() < chance:
            self._finish_open(random)
            self.spool_whole(random)

    def _heard(self) -> int:
        """The source has said that there is nothing more up to here. A transaction may commit exactly at its end."""
        behind = [item for item in self._source.wal if item.lsn > self._captured]
        return self._captured if behind else self._source.wal_end - 1

    def change_lanes(self, table: str, lanes: int) -> None:
        """Between transactions, for the rows to come."""
        if self._open is None:
            self._lanes[table] = lanes

    def _in_lanes(
        self, changes: Iterable[tuple[str, Row]], transaction: Transaction
    ) -> Iterator[tuple[LaneKey, Buffered]]:
        for table, row in changes:
            number = row.position.idx if row.key == NO_KEY else row.key
            lane = 0 if row.op == "t" else number % self._lanes[table]
            yield LaneKey(table, str(lane)), (row, transaction.versions[table])

    def _blocks(self, rows: Iterable[tuple[LaneKey, Buffered]], random: Random) -> list[Block]:
        """Rows in blocks of one structure; a large one now and then becomes two."""
        lanes: dict[LaneKey, list[Buffered]] = defaultdict(list)
        for key, row in rows:
            lanes[key].append(row)
        blocks: list[Block] = []
        for key, buffered in lanes.items():
            end = self._end(key)
            for version, several in groupby(buffered, key=lambda item: item[1]):
                some = [row for row, _ in several]
                cut = random.randint(1, len(some)) if random.random() < 0.3 else len(some)
                for part in (some[:cut], some[cut:]):
                    if part:
                        blocks.append(Block(key, end, part[-1].position, tuple(part), version=version))
                        end = part[-1].position
        return blocks

    def _end(self, key: LaneKey) -> Position | None:
        """The lane's last position on disk, which is kept for ever; None where it has none in this era."""
        tail = [block.last for block in self._tail if block.key == key]
        return tail[-1] if tail else self.spool[key][-1].last if self.spool[key] else None

    # ---- sending

    def send(self, random: Random, faults: Faults, chance: float, of_snapshots: float = 1.0) -> None:
        """At most one block of each lane is in flight, so a lane's blocks are accepted in order.

        of_snapshots: how much less often a snapshot's lane has its turn.
        """
        for key, blocks in list(self.spool.items()):
            turn = chance * (of_snapshots if key.lane.startswith("s") else 1.0)
            while self.accepted[key] < len(blocks) and random.random() < turn:
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

    # ---- crashes

    def crash(self, random: Random) -> None:
        """Killed and started again: memory is lost, and what the spool had not yet noted of Kinesis' answers.

        The source sends again what was not confirmed; a part of a transaction that is in the spool is discarded.
        """
        confirmed = self._confirmed()
        self._forget(random)
        for transaction in [item for item in self._source.wal if item.lsn > confirmed]:
            self.capture(transaction, random)

    def _forget(self, random: Random) -> None:
        for key in self.spool:
            if random.random() < 0.3:
                self.accepted[key] = self._noted(key, random)
        self._buffers.clear()
        self._open, self._tail = None, []
        self._captured = self.durable

    def _noted(self, key: LaneKey, random: Random) -> int:
        """How many blocks the spool holds for accepted: it may lack the last one, if nothing was said of it yet."""
        return max(self._spoken[key], self.accepted[key] - 1)

    def _confirmed(self) -> int:
        return self.durable

    def raise_era(self) -> None:
        """The spool is lost. What Kinesis has not accepted is lost with it, so every table is read anew."""
        self._begin()
        for table in TABLES:
            self.request_snapshot(table)

    # ---- progress

    def say_progress(self) -> None:
        """Everything up to `through` was accepted, as far as the spool has noted it."""
        self._spoken = self.accepted.copy()
        lanes = self._lanes_spoken_of()
        waiting = [row.position.lsn - 1 for key in lanes for row in self._waiting(key)]
        self._stream.control.append(
            Progress(
                era=self.era,
                through=min([self.durable, *waiting]),
                committed_at=_NO_TIME,
                vector=tuple(LaneEnd(*key, last) for key in lanes if (last := self._spoken_end(key)) is not None),
                snapshots=tuple(Announcement(s.number, s.table, s.low, s.abandoned) for s in self.snapshots),
            )
        )

    def _lanes_spoken_of(self) -> list[LaneKey]:
        """Every lane that was ever used in this era."""
        return sorted(key for key in self.spool if not key.lane.startswith("s"))

    def _waiting(self, key: LaneKey) -> list[Row]:
        """Spooled rows that Kinesis has not accepted. What is in memory lies above the durable end anyway."""
        return [row for block in self.unsent(key) for row in block.rows]

    def _spoken_end(self, key: LaneKey) -> Position | None:
        """The last position of the lane that was accepted."""
        sent = self.spool[key][: self.accepted[key]]
        return sent[-1].last if sent else None

    # ---- snapshots

    def request_snapshot(self, table: str) -> None:
        """Announces one, before its first consistent point is fixed. An unfinished one of the table is abandoned."""
        for snapshot in self.snapshots:
            if snapshot.table == table and snapshot.todo:
                snapshot.todo, snapshot.abandoned = [], True
        number = self.era * 1_000_000 + len(self.snapshots) + 1
        self.snapshots.append(Snapshot(number, table, self._source.wal_end, self._groups(table)))
        self._announce()

    def _announce(self) -> None:
        self.say_progress()

    def _groups(self, table: str) -> int:
        """Rows without a key are told apart by nothing, so they are read under one point."""
        return 1 if table == KEYLESS else 2

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
        table = self._source.tables[snapshot.table]
        mine = [item for item in table.items() if _group_of(item[0]) * snapshot.groups // KEYS == group]
        rows = [
            Row(Position(self.era, point - 1, n), "r", k if isinstance(k, int) else NO_KEY, value, big)
            for n, (k, (value, big)) in enumerate(mine)
        ]
        for start in range(0, len(rows) // 2 if killed else len(rows), 2):
            self._append(key, rows[start : start + 2])
        if not killed:
            end = SnapshotEnd(snapshot.number, group, snapshot.groups, snapshot.attempts, point, None, None, len(rows))
            self._append(key, [], end)
        return not killed

    def _append(self, key: LaneKey, rows: list[Row], end: SnapshotEnd | None = None) -> None:
        last = rows[-1].position if end is None else Position(self.era, end.consistent_point - 1, end.count)
        version = self._source.versions[key.table]
        self.spool[key].append(Block(key, self._end(key), last, tuple(rows), end, version))


def _group_of(identity: int | Position) -> int:
    return identity if isinstance(identity, int) else identity.idx % KEYS
