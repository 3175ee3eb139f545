"""The simulated streaming job: reads lanes by the real chain, commits a table at a time, publishes the watermark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random

from glue_streaming import chain, lake, requests, watermark
from glue_streaming.chain import Duplicate, Fill, Gap
from glue_streaming.commit import _StreamFence
from glue_streaming.errors import StaleWriter
from glue_streaming.fold import line as lines
from glue_streaming.state import Accepted, FoldState, StreamState, fold_state, stream_state
from schemas.control import LaneEnd, Progress, SnapshotEnd, parse_snapshot_lane
from schemas.position import ORIGIN, Line, Position
from tests.simulation.source import Row
from tests.simulation.stream import Block, LaneKey, Stream
from tests.simulation.views import HORIZON, Lake

KEPT_PROGRESSES = 8
_AT = "2024-01-01T00:00:00+00:00"


@dataclass
class Draft:
    """What a batch is about to commit to one table, and what it has opened on the way."""

    state: StreamState
    lanes: dict[str, tuple[chain.Lane, str, str]] = field(default_factory=dict)
    ends: list[tuple[str, int, SnapshotEnd]] = field(default_factory=list)
    log: list[Row] = field(default_factory=list)
    staged: list[Row] = field(default_factory=list)
    opened: list[tuple[str, Position]] = field(default_factory=list)

    def lane(self, name: str) -> chain.Lane:
        return self.lanes[name][0] if name in self.lanes else self.state.lane(name)

    def declare(self, lane: chain.Lane, upto: Position, reason: str) -> chain.Lane:
        self.opened.append((lane.name, upto))
        return chain.declare(lane, upto, reason, _AT)


class Job:
    """One driver, with an epoch of its own. What it knows of the tables it holds in memory, as it was when it began.

    `pointers` are the positions: an optimisation. Of the saved ones some may be lost.
    """

    def __init__(self, stream: Stream, lake_: Lake, random: Random) -> None:
        self._stream, self._lake = stream, lake_
        lake_.epoch += 1
        self.epoch = lake_.epoch
        self._committed = {name: table.stream for name, table in lake_.tables.items()}
        self.known = {name: replace(state, epoch=self.epoch) for name, state in self._committed.items()}
        self._folds: dict[str, FoldState] = {name: table.fold for name, table in lake_.tables.items()}
        self.pointers: dict[LaneKey, int] = defaultdict(int)
        for key, pointer in lake_.positions.items():
            self.pointers[key] = random.choice((0, pointer // 2, pointer))
        self._control_read = lake_.control_position
        self._progresses: tuple[Progress, ...] = ()
        self._ahead: tuple[Progress, ...] = ()
        self._era = max(1, lake_.entry.line.era)
        self._reread: set[tuple[LaneKey, Position]] = set()
        self._unknown: dict[str, int] = {}

    # ---- the batch

    def begin(self, random: Random, most: int, paused: frozenset[str] = frozenset()) -> dict[str, Draft]:
        """Reads; nothing counts before `finish`. A paused table's lanes are left alone."""
        self._look(random)
        self._accept()
        replay = self._replay()
        if replay is not None:
            return replay
        ahead = self._ahead
        self._read_control(random.randint(0, most))
        drafts = {name: Draft(state) for name, state in self.known.items() if name not in paused}
        for key in list(self._stream.lanes):
            if key.table in drafts:
                self._read_lane(drafts[key.table], key, random.randint(0, most))
        if self._at_tip():
            self._enter(ahead)
        self._declare_lost_tails(drafts)
        return drafts

    def finish(self, drafts: dict[str, Draft], tables: Iterable[str]) -> None:
        """Commits the drafts of these tables: each with its marks, in one. Raises StaleWriter at the first refusal."""
        announced = [] if not self._progresses else self._newest().snapshots
        for name in tables:
            draft, table, activated = drafts[name], self._lake.tables[name], self._folds[name].activated_through
            moves = lake.Moves(lanes=draft.lanes, ends=draft.ends)
            unseen = [
                (self._newest().era, item) for item in announced if item.table == name and item.snapshot > activated
            ]
            moved = lake.moved(self.known[name], moves, unseen, activated)
            if not (draft.log or draft.staged) and replace(moved, epoch=0) == replace(self._committed[name], epoch=0):
                continue
            _StreamFence(self._committed[name], self.epoch)(table.stream.to_properties())
            table.stream = self.known[name] = self._committed[name] = _carried(moved)
            table.log += draft.log
            table.staged += draft.staged
            self._folds[name] = table.fold
        self._answer()

    def save_positions(self) -> None:
        """Once every block before them is committed."""
        self._lake.positions = dict(self.pointers)
        self._lake.control_position = self._control_read

    def publish(self, now: int) -> None:
        """The watermark, the tables' lines, and whether the cut is closed; never backwards. Raises StaleWriter."""
        if not self._progresses:
            return
        self._check_epoch()
        entry = self._lake.entry
        cut = {name: state for name, state in self.known.items() if name not in entry.excluded}
        newest = watermark.newest(self._spoken_of(cut), cut)
        line = entry.line if newest is None else max(entry.line, newest.line)
        self._progresses = watermark.kept(self._progresses, line, KEPT_PROGRESSES)
        repair_lines = {name: self._repair_line(name) for name in self.known}
        wanted = {
            name: close
            for name, state in cut.items()
            if (close := lines.repair(state, self._folds[name], repair_lines[name])) is not None
        }
        folds = {name: self._folds[name] for name in cut}
        era = self._newest().era
        behind = {name for name, state in cut.items() if not lines.continues(state, folds[name], era)}
        self._lake.entry = replace(
            entry,
            line=line,
            ring=watermark.ring_with(entry.ring, line, now, HORIZON),
            lines={name: self._line(name) or entry.lines.get(name, ORIGIN) for name in self.known},
            repair_lines=repair_lines,
            closure=lines.closure(entry.closure, lines.together(wanted, behind), folds, line, now),
        )

    def _check_epoch(self) -> None:
        if self._lake.epoch > self.epoch:
            raise StaleWriter(f"the epoch is {self._lake.epoch}, ours is {self.epoch}")

    # ---- what it knows

    def _look(self, random: Random) -> None:
        """Now and then it sees what the fold did, and makes tables follow structures that were in the way."""
        for name, table in self._lake.tables.items():
            if random.random() < 0.5:
                self._folds[name] = table.fold
        for name, version in self._unknown.items():
            self._lake.tables[name].versions.add(version)
        self._unknown.clear()

    def _newest(self) -> Progress:
        return max(self._progresses, key=lambda progress: progress.line)

    def _spoken_of(self, names: Iterable[str]) -> list[Progress]:
        """The progress records of eras that all these tables have entered."""
        states = [(self.known[name], self._folds[name]) for name in names]
        return [item for item in self._progresses if all(lines.continues(*state, item.era) for state in states)]

    def _line(self, name: str) -> Line | None:
        return watermark.table_line(self._spoken_of([name]), name, self.known[name])

    def _repair_line(self, name: str) -> Line | None:
        return watermark.repair_line(self._progresses, name, self.known[name], self._folds[name].activated_through)

    # ---- requests

    def _accept(self) -> None:
        """Closes holes for good that an operator has seen as they are now; counts once the table is committed."""
        for request in [item for item in self._lake.requests if item.kind == "accept"]:
            state = self.known[request.key.table]
            hole = requests.find(state.holes, request)
            if hole is None:
                self._lake.requests.remove(request)
            elif requests.unacceptable(state, hole) is None:
                accepted = Accepted(hole, request.by, request.item, _AT)
                self.known[request.key.table] = state.accept(accepted)

    def _answer(self) -> None:
        self._lake.requests = [
            item for item in self._lake.requests if not requests.was_accepted(self._committed[item.key.table], item)
        ]

    def _replay(self) -> dict[str, Draft] | None:
        """A batch of its own: the raw bytes of a hole, which now read, fill it and do nothing else."""
        for request in [item for item in self._lake.requests if item.kind == "replay"]:
            self._lake.requests.remove(request)
            key = LaneKey(request.key.table, request.key.lane)
            drafts = {name: Draft(state) for name, state in self.known.items()}
            draft = drafts[key.table]
            for block in self._lake.raw.get(key, ()):
                lane = draft.lane(key.lane)
                verdict = chain.judge(lane, block.prev, block.last)
                if isinstance(verdict, Fill) and verdict.hole.last <= request.last:
                    draft.lanes[key.lane] = (self._load(draft, lane, verdict, block), "shard", "0")
            return drafts
        return None

    # ---- reading

    def _read_control(self, most: int) -> None:
        records = self._stream.control[self._control_read : self._control_read + most]
        self._control_read += len(records)
        self._progresses = (*self._progresses, *(record for record in records if record.era <= self._era))
        self._ahead = (*self._ahead, *(record for record in records if record.era > self._era))

    def _enter(self, ahead: tuple[Progress, ...]) -> None:
        """What an era's progress says counts once every lane was read to its end behind it: else blocks of the era
        before could still come, below the line at which a snapshot of the new one has replaced their rows."""
        self._era = max((record.era for record in ahead), default=self._era)
        self._progresses = (*self._progresses, *(record for record in self._ahead if record.era <= self._era))
        self._ahead = tuple(record for record in self._ahead if record.era > self._era)

    def _at_tip(self) -> bool:
        return all(self.pointers[key] >= len(blocks) for key, blocks in self._stream.lanes.items())

    def _read_lane(self, draft: Draft, key: LaneKey, most: int) -> None:
        blocks = self._stream.lanes[key]
        for _ in range(most):
            if self.pointers[key] >= len(blocks) or not self._take(draft, blocks[self.pointers[key]]):
                return
            self.pointers[key] += 1

    def _take(self, draft: Draft, block: Block) -> bool:
        """Deals with a block; False: the lane stops before it."""
        snapshot = parse_snapshot_lane(block.key.lane)
        if snapshot is not None and snapshot[0] <= self._folds[block.key.table].activated_through:
            return True
        lane = draft.lane(block.key.lane)
        verdict = chain.judge(lane, block.prev, block.last)
        if isinstance(verdict, Duplicate):
            return True
        if isinstance(verdict, Gap):
            if (block.key, block.last) not in self._reread:
                self._read_again(draft, block.key, block.last)
                return False
            lane = draft.declare(lane, verdict.upto, "gap")
            verdict = chain.Load()
        if not self._follows(block):
            self._unknown[block.key.table] = block.version
            if draft.opened and draft.opened[-1] == (lane.name, block.prev):
                draft.opened.pop()
            return False
        if block.readable:
            lane = self._load(draft, lane, verdict, block)
        else:
            self._lake.raw.setdefault(block.key, []).append(replace(block, readable=True))
            if isinstance(verdict, Fill):
                lane = chain.divide(lane, verdict, "unreadable", "where its bytes are")
            else:
                lane = draft.declare(lane, block.last, "unreadable")
        draft.lanes[lane.name] = (lane, "shard", str(self.pointers[block.key]))
        return True

    def _follows(self, block: Block) -> bool:
        """Whether the table has the block's structure; where not, the lane waits for the table to follow."""
        return block.end is not None or block.version in self._lake.tables[block.key.table].versions

    def _load(self, draft: Draft, lane: chain.Lane, verdict: chain.Verdict, block: Block) -> chain.Lane:
        if block.end is not None:
            if not lane.holes:
                draft.ends.append((lane.name, block.last.era, block.end))
        else:
            rows = draft.log if parse_snapshot_lane(lane.name) is None else draft.staged
            known = block.version in self._lake.tables[block.key.table].versions
            rows.extend(
                row if known else row._replace(value="a column is missing")
                for row in block.rows
                if _wanted(row, verdict)
            )
        return chain.advance(lane, verdict, block.last)

    def _read_again(self, draft: Draft, key: LaneKey, cause: Position) -> None:
        mark = draft.state.marks.get(key.lane)
        self.pointers[key] = 0 if mark is None else int(mark.sequence) + 1
        self._reread.add((key, cause))

    def _declare_lost_tails(self, drafts: dict[str, Draft]) -> None:
        """A position that the newest progress speaks of, with its lane at the tip, and read again: it will not come.

        Nor will what an earlier era's progress speaks of, in a lane that has gone on without it.
        """
        for end in self._newest().vector if self._progresses else ():
            key = LaneKey(end.table, end.lane)
            if end.table in drafts and self.pointers[key] >= len(self._stream.lanes[key]):
                self._declare_lost_tail(drafts[end.table], key, end)
        for end in [end for progress in self._progresses for end in progress.vector if end.table in drafts]:
            draft = drafts[end.table]
            lost = chain.declare_behind(draft.lane(end.lane), end.last, "lost tail of an era", _AT)
            if lost is not None and self._folds[end.table].line.era <= end.last.era:
                draft.lanes[end.lane] = (lost, *(draft.lanes[end.lane][1:] if end.lane in draft.lanes else ("", "0")))

    def _declare_lost_tail(self, draft: Draft, key: LaneKey, end: LaneEnd) -> None:
        lane = draft.lane(end.lane)
        if lane.mark is not None and lane.mark >= end.last:
            return
        if (key, end.last) not in self._reread:
            self._read_again(draft, key, end.last)
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
