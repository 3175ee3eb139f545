"""The simulated streaming job: reads lanes by the real chain, commits a table at a time, publishes the watermark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random

from glue_streaming import chain, lake, watermark
from glue_streaming.chain import Duplicate, Fill, Gap
from glue_streaming.fold import line as lines
from glue_streaming.load import _divided
from glue_streaming.state import StreamState, fold_state, stream_state
from schemas.control import LaneEnd, Progress, SnapshotEnd, parse_snapshot_lane
from schemas.position import Line, Position
from tests.simulation.source import ERA, Row
from tests.simulation.stream import Block, LaneKey, Stream
from tests.simulation.views import HORIZON, Lake, LakeTable

KEPT_PROGRESSES = 8
_AT = "2024-01-01T00:00:00+00:00"


@dataclass
class Draft:
    """What a batch is about to commit to one table, and what it has opened on the way."""

    table: LakeTable
    lanes: dict[str, tuple[chain.Lane, str, str]] = field(default_factory=dict)
    ends: list[tuple[str, int, SnapshotEnd]] = field(default_factory=list)
    log: list[Row] = field(default_factory=list)
    staged: list[Row] = field(default_factory=list)
    opened: list[tuple[str, Position]] = field(default_factory=list)

    def lane(self, name: str) -> chain.Lane:
        return self.lanes[name][0] if name in self.lanes else self.table.stream.lane(name)

    def declare(self, lane: chain.Lane, upto: Position, reason: str) -> chain.Lane:
        self.opened.append((lane.name, upto))
        return chain.declare(lane, upto, reason, _AT)


class Job:
    """`pointers` are the positions: an optimisation. Whatever else it remembers may be lost with them."""

    def __init__(self, stream: Stream, lake_: Lake) -> None:
        self._stream, self._lake = stream, lake_
        self.pointers: dict[LaneKey, int] = defaultdict(int)
        self._saved: dict[LaneKey, int] = {}
        self._control_read = 0
        self._progresses: tuple[Progress, ...] = ()
        self._reread: set[tuple[LaneKey, Position]] = set()

    def restart(self, random: Random) -> None:
        """The driver is lost, with what it held in memory; of the saved positions some are lost too."""
        self._progresses, self._reread = (), set()
        self.pointers.clear()
        for key, pointer in self._saved.items():
            self.pointers[key] = random.choice((0, pointer // 2, pointer))

    # ---- the batch

    def begin(self, random: Random, most: int, paused: frozenset[str] = frozenset()) -> dict[str, Draft]:
        """Reads; nothing counts before `finish`. A paused table's lanes are left alone."""
        self._read_control(random.randint(0, most))
        drafts = {name: Draft(table) for name, table in self._lake.tables.items() if name not in paused}
        for key in list(self._stream.lanes):
            if key.table in drafts:
                self._read_lane(drafts[key.table], key, random.randint(0, most))
        self._declare_lost_tails(drafts)
        return drafts

    def finish(self, drafts: dict[str, Draft], tables: Iterable[str]) -> None:
        """Commits the drafts of these tables: each with its marks, in one."""
        announced = [] if not self._progresses else self._newest().snapshots
        for name in tables:
            draft, table = drafts[name], self._lake.tables[name]
            moves = lake.Moves(lanes=draft.lanes, ends=draft.ends)
            mine = [(ERA, item) for item in announced if item.table == name]
            activated = table.fold.activated_through
            unseen = [(era, item) for era, item in mine if item.snapshot > activated]
            moved = lake.moved(table.stream, moves, unseen, activated)
            table.stream = moved if moved == table.stream else _carried(moved)
            table.log += draft.log
            table.staged += draft.staged

    def save_positions(self) -> None:
        """Once every block before them is committed."""
        self._saved = dict(self.pointers)

    def publish(self, now: int) -> None:
        """The watermark, the tables' lines, and whether the cut is closed; never backwards."""
        entry = self._lake.entry
        cut = {name: table for name, table in self._lake.tables.items() if name not in entry.excluded}
        newest = watermark.newest(self._progresses, {name: table.stream for name, table in cut.items()})
        line = entry.line if newest is None else max(entry.line, newest.line)
        self._progresses = watermark.kept(self._progresses, line, KEPT_PROGRESSES)
        repair_lines = {name: self._repair_line(name) for name in self._lake.tables}
        wanted = {
            name: close
            for name, table in cut.items()
            if (close := lines.repair(table.stream, table.fold, repair_lines[name])) is not None
        }
        folds = {name: table.fold for name, table in cut.items()}
        self._lake.entry = replace(
            entry,
            line=line,
            ring=watermark.ring_with(entry.ring, line, now, HORIZON),
            lines={name: self._line(name) for name in self._lake.tables},
            repair_lines=repair_lines,
            closure=lines.closure(entry.closure, wanted, folds, line, now),
        )

    # ---- reading

    def _newest(self) -> Progress:
        return self._progresses[-1]

    def _line(self, name: str) -> Line | None:
        return watermark.table_line(self._progresses, name, self._lake.tables[name].stream)

    def _repair_line(self, name: str) -> Line | None:
        table = self._lake.tables[name]
        return watermark.repair_line(self._progresses, name, table.stream, table.fold.activated_through)

    def _read_control(self, most: int) -> None:
        records = self._stream.control[self._control_read : self._control_read + most]
        self._control_read += len(records)
        self._progresses = (*self._progresses, *records)

    def _read_lane(self, draft: Draft, key: LaneKey, most: int) -> None:
        blocks = self._stream.lanes[key]
        for _ in range(most):
            if self.pointers[key] >= len(blocks) or not self._take(draft, blocks[self.pointers[key]]):
                return
            self.pointers[key] += 1

    def _take(self, draft: Draft, block: Block) -> bool:
        """Deals with a block; False: the lane is to be read again from its mark."""
        snapshot = parse_snapshot_lane(block.key.lane)
        if snapshot is not None and snapshot[0] <= draft.table.fold.activated_through:
            return True
        lane = draft.lane(block.key.lane)
        verdict = chain.judge(lane, block.prev, block.last)
        if isinstance(verdict, Duplicate):
            return True
        if isinstance(verdict, Gap):
            if (block.key, block.last) not in self._reread:
                self._read_again(draft.table.stream, block.key, block.last)
                return False
            lane = draft.declare(lane, verdict.upto, "gap")
            verdict = chain.Load()
        if block.readable:
            lane = self._load(draft, lane, verdict, block)
        elif isinstance(verdict, Fill):
            lane = _divided(lane, verdict, "unreadable", "where its bytes are")
        else:
            lane = draft.declare(lane, block.last, "unreadable")
        draft.lanes[lane.name] = (lane, "shard", str(self.pointers[block.key]))
        return True

    def _load(self, draft: Draft, lane: chain.Lane, verdict: chain.Verdict, block: Block) -> chain.Lane:
        if block.end is not None:
            if not lane.holes:
                draft.ends.append((lane.name, ERA, block.end))
        else:
            rows = draft.log if parse_snapshot_lane(lane.name) is None else draft.staged
            rows.extend(row for row in block.rows if _wanted(row, verdict))
        return chain.advance(lane, verdict, block.last)

    def _read_again(self, state: StreamState, key: LaneKey, cause: Position) -> None:
        mark = state.marks.get(key.lane)
        self.pointers[key] = 0 if mark is None else int(mark.sequence) + 1
        self._reread.add((key, cause))

    def _declare_lost_tails(self, drafts: dict[str, Draft]) -> None:
        """A position that the newest progress speaks of, with its lane at the tip, and read again: it will not come."""
        for end in self._newest().vector if self._progresses else ():
            key = LaneKey(end.table, end.lane)
            if end.table in drafts and self.pointers[key] >= len(self._stream.lanes[key]):
                self._declare_lost_tail(drafts[end.table], key, end)

    def _declare_lost_tail(self, draft: Draft, key: LaneKey, end: LaneEnd) -> None:
        lane = draft.lane(end.lane)
        if lane.mark is not None and lane.mark >= end.last:
            return
        if (key, end.last) not in self._reread:
            self._read_again(draft.table.stream, key, end.last)
            return
        draft.lanes[end.lane] = (draft.declare(lane, end.last, "lost tail"), "shard", str(self.pointers[key] - 1))


def _wanted(row: Row, verdict: chain.Verdict) -> bool:
    if not isinstance(verdict, Fill):
        return True
    return (verdict.hole.after is None or verdict.hole.after < row.position) and row.position <= verdict.upto


def _carried(state: StreamState) -> StreamState:
    """The state as a reader finds it in the table's properties."""
    found = stream_state(state.to_properties())
    assert found == state, (found, state)
    assert fold_state(state.to_properties()).activated_through == 0, "the streaming job wrote a property of the fold's"
    return found
