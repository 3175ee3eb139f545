"""Chain, holes, lines and watermark in random histories, against a model that remembers every position by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from glue_streaming import chain, watermark
from glue_streaming.chain import Duplicate, Fill, Gap, Lane, Load
from glue_streaming.state import StreamState, stream_state
from schemas.control import LaneEnd, Progress
from schemas.position import Line, Position

_AT = "2024-01-01T00:00:00+00:00"
_LANES = ("0", "1")
_TABLES = ("accounts", "orders")

Key = tuple[str, str]
"""(table, lane)"""


@dataclass(frozen=True)
class _Block:
    """Positions of a lane; the block holds those in (prev, last]."""

    prev: Position | None
    positions: tuple[Position, ...]

    @property
    def last(self) -> Position:
        return self.positions[-1]


class Pipeline(RuleBasedStateMachine):
    """Blocks of two tables with two lanes each arrive, get lost, come again, or do not read, in any order that the
    stream allows; the model is a plain dictionary of what became of every position: `loaded`, `missing` or nothing."""

    @initialize()
    def begin(self) -> None:
        keys = [(table, lane) for table in _TABLES for lane in _LANES]
        self.era, self.lsn = 1, 0
        self.sent: dict[Key, list[_Block]] = {key: [] for key in keys}
        self.read: dict[Key, int] = dict.fromkeys(keys, 0)
        self.state = {table: StreamState() for table in _TABLES}
        self.fate: dict[Key, dict[Position, str]] = {key: {} for key in keys}
        self.progresses: list[Progress] = []
        self.published = Line(0, 0)

    # ---- what happens

    @rule(table=st.sampled_from(_TABLES), lane=st.sampled_from(_LANES), rows=st.integers(1, 4), wide=st.booleans())
    def send(self, table: str, lane: str, rows: int, wide: bool) -> None:
        """The agent sends a block: one transaction, or several."""
        blocks = self.sent[table, lane]
        positions = []
        for idx in range(rows):
            self.lsn += 1 if wide or idx == 0 else 0
            positions.append(Position(self.era, self.lsn, 0 if wide else idx))
        before = [block for block in blocks if block.last.era == self.era]
        blocks.append(_Block(before[-1].last if before else None, tuple(positions)))

    @rule()
    def say_progress(self) -> None:
        """All that was sent so far has been accepted."""
        ends = [
            LaneEnd(*key, blocks[-1].last)
            for key, blocks in self.sent.items()
            if blocks and blocks[-1].last.era == self.era
        ]
        at = datetime(2024, 1, 1, tzinfo=UTC)
        self.progresses.append(Progress(self.era, self.lsn, at, tuple(ends), ()))

    @rule(data=st.data(), fate=st.sampled_from(["whole", "whole", "unreadable", "lost"]))
    def arrive(self, data: st.DataObject, fate: str) -> None:
        """The next block of a lane comes, or does not read, or is lost, so that the one behind it shows a gap."""
        waiting = [key for key, blocks in self.sent.items() if self.read[key] < len(blocks)]
        if not waiting:
            return
        key = data.draw(st.sampled_from(waiting))
        self.read[key] += 1
        if fate != "lost":
            self._take(key, self.sent[key][self.read[key] - 1], readable=fate == "whole")

    @rule(data=st.data(), readable=st.booleans())
    def come_again(self, data: st.DataObject, readable: bool) -> None:
        """A block that was read, or lost, comes once more: re-read, resent or replayed."""
        past = [(key, block) for key, blocks in self.sent.items() for block in blocks[: self.read[key]]]
        if past:
            self._take(*data.draw(st.sampled_from(past)), readable=readable, again=True)

    @rule(data=st.data())
    def mend(self, data: st.DataObject) -> None:
        """The first block of a hole comes again, and reads: what of it lies in the hole is loaded."""
        open_holes = [(key, hole) for key in self.sent for hole in self.state[key[0]].lane(key[1]).holes]
        if not open_holes:
            return
        key, hole = data.draw(st.sampled_from(open_holes))
        inside = [
            (block, [p for p in block.positions if _within(hole.after, p, hole.last)]) for block in self.sent[key]
        ]
        block, lacking = next((block, found) for block, found in inside if found)
        self._take(key, block, readable=True, again=True)
        assert all(self.fate[key].get(position) == "loaded" for position in lacking), f"{key}: {hole} was not filled"

    @rule(data=st.data())
    def lose_a_tail(self, data: st.DataObject) -> None:
        """A progress record names a position, the lane was read to its end, and the position did not come."""
        ends = [end for progress in self.progresses[-1:] for end in progress.vector]
        late = [end for end in ends if self.read[end.table, end.lane] == len(self.sent[end.table, end.lane])]
        if late:
            end = data.draw(st.sampled_from(late))
            lane = self.state[end.table].lane(end.lane)
            if lane.mark is None or lane.mark < end.last:
                self._keep((end.table, end.lane), chain.declare(lane, end.last, "lost tail", _AT))

    @precondition(lambda self: self.era < 3)
    @rule()
    def raise_era(self) -> None:
        """The source begins again, below the positions that it had. What was sent before has been read or lost."""
        self.era += 1
        self.lsn = 0
        self.read = {key: len(blocks) for key, blocks in self.sent.items()}

    @rule()
    def publish(self) -> None:
        """The newest line that both tables cover; it never goes back."""
        newest = watermark.newest(self.progresses, self.state)
        self.published = max(self.published, newest.line if newest is not None else self.published)

    # ---- how the job takes it

    def _take(self, key: Key, block: _Block, *, readable: bool, again: bool = False) -> None:
        lane = self.state[key[0]].lane(key[1])
        verdict = chain.judge(lane, block.prev, block.last)
        if isinstance(verdict, Gap):
            if again:
                return  # it waits until the blocks before it were read again
            lane = chain.declare(lane, verdict.upto, "gap", _AT)
            verdict = Load()
        match verdict:
            case Duplicate():
                return
            case Load():
                wanted = block.positions
            case Fill(hole, upto):
                wanted = tuple(p for p in block.positions if (hole.after is None or hole.after < p) and p <= upto)
        if readable:
            for position in wanted:
                assert self.fate[key].get(position) != "loaded", f"{key}: {position} is loaded twice"
                self.fate[key][position] = "loaded"
            lane = chain.advance(lane, verdict, block.last)
        else:
            lane = self._given_up(lane, verdict, block)
        self._keep(key, lane)

    def _given_up(self, lane: Lane, verdict: Load | Fill, block: _Block) -> Lane:
        if isinstance(verdict, Fill):
            return chain.divide(lane, verdict, "unreadable", "where its bytes are")
        return chain.declare(lane, block.last, "unreadable", _AT)

    def _keep(self, key: Key, lane: Lane) -> None:
        self.state[key[0]] = self.state[key[0]].with_lane(lane, "shard", "1")

    # ---- what must hold

    @invariant()
    def every_position_is_loaded_or_in_a_hole_or_to_come(self) -> None:
        """At or below the mark: loaded, or in one hole. Above it, and in a hole: not loaded."""
        for key, blocks in self.sent.items():
            lane = self.state[key[0]].lane(key[1])
            for position in [position for block in blocks for position in block.positions]:
                holes = [h for h in lane.holes if _within(h.after, position, h.last)]
                loaded = self.fate[key].get(position) == "loaded"
                assert len(holes) <= 1, f"{key}: {position} is in two holes"
                assert not (loaded and holes), f"{key}: {position} is loaded, and in {holes}"
                if self._passed(lane, position):
                    assert loaded or holes, f"{key}: {position} is neither loaded nor in a hole, at {lane}"
                elif loaded and (lane.mark is None or lane.mark < position):
                    raise AssertionError(f"{key}: {position} is loaded, and above the mark {lane.mark}")

    @invariant()
    def a_line_covers_loaded_positions_only(self) -> None:
        """Everything of a table at or below its L, and of all tables at or below W, is loaded."""
        for table, state in self.state.items():
            line = watermark.table_line(self.progresses, table, state)
            for position in self._of(table):
                if line is not None and position.era == line.era and line.covers(position):
                    assert self._loaded(table, position), f"{table}: L is {line}, and {position} is not loaded"
        for table in _TABLES:
            for position in self._of(table):
                if position.era == self.published.era and self.published.covers(position):
                    assert self._loaded(table, position), f"{table}: W is {self.published}, and {position} is missing"

    @invariant()
    def what_is_complete_is_covered(self) -> None:
        """A progress record whose positions are all loaded is covered: lines do not wait for nothing."""
        for progress in self.progresses:
            for table, state in self.state.items():
                spoken = [p for p in self._of(table) if progress.line.covers(p) and p.era <= progress.era]
                if all(self._loaded(table, p) for p in spoken) and not state.holes:
                    assert watermark.covers(progress, table, state), (progress, table, state)

    @invariant()
    def the_tables_properties_hold_it_all(self) -> None:
        for state in self.state.values():
            assert stream_state(state.to_properties()) == state

    def _of(self, table: str) -> list[Position]:
        return [p for key, blocks in self.sent.items() if key[0] == table for block in blocks for p in block.positions]

    def _loaded(self, table: str, position: Position) -> bool:
        return any(self.fate[table, lane].get(position) == "loaded" for lane in _LANES)

    def _passed(self, lane: Lane, position: Position) -> bool:
        """Whether the lane's mark is behind the position, in its era: between eras positions may be lost unseen."""
        return lane.mark is not None and lane.mark.era == position.era and position <= lane.mark


def _within(after: Position | None, position: Position, last: Position) -> bool:
    return position.era == last.era and (after is None or after < position) and position <= last


TestModel = Pipeline.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
