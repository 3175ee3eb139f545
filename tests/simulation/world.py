"""One history: everything takes steps at random, and after each the promises are checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from glue_streaming import watermark
from glue_streaming.fold import line as lines
from glue_streaming.holes import Hole
from glue_streaming.state import StreamState
from schemas.position import Line
from tests.simulation import fold as folds
from tests.simulation.agent import Agent
from tests.simulation.fold import Fold
from tests.simulation.job import Draft, Job
from tests.simulation.source import TABLES, Row, Source, lane_of
from tests.simulation.stream import NO_FAULTS, Block, Faults, Stream
from tests.simulation.views import HORIZON, CutQuery, Lake, current

LIVE_STEPS = 110
SETTLING_STEPS = 250
SNAPSHOT_PATIENCE = 25
"""Steps after which an operator requests a snapshot anew that has not ended: its own blocks can be lost, too."""


class Broken(Exception):
    """A promise was broken."""


@dataclass(frozen=True)
class Scenario:
    """What goes wrong in a history, and how it is mended. Chances are per step, or per block for the faults."""

    name: str
    faults: Faults = NO_FAULTS
    resends: bool = False
    resnapshots: bool = False
    extra_snapshots: float = 0.02
    excluding: float = 0.0


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("clean"),
        Scenario("loss+resend", Faults(lost=0.03, garbled=0.03), resends=True),
        Scenario("loss+resnapshot", Faults(lost=0.02, garbled=0.02), resnapshots=True, extra_snapshots=0.0),
        Scenario("loss+both", Faults(lost=0.03, garbled=0.03), resends=True, resnapshots=True),
        Scenario("exclude+pause", excluding=0.03),
        Scenario("snapshots", extra_snapshots=0.15),
    )
}


class World:
    """Plays one seed of one scenario; the same seed plays the same history."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.random = Random(f"{scenario.name}/{seed}")
        self.scenario = scenario
        self.now = 0
        self.source, self.stream, self.lake = Source(), Stream(), Lake()
        self.agent = Agent(self.source, self.stream)
        self.job = Job(self.stream, self.lake)
        self._faults = scenario.faults
        self._paused: frozenset[str] = frozenset()
        self._batch: dict[str, Draft] | None = None
        self._folds: dict[str, Fold] = {}
        self._queries: list[CutQuery] = []
        self._asked_at: dict[str, int] = {}
        self._checked: dict[str, tuple[StreamState, Line]] = {}
        self._captured: dict[str, list[Row]] = {name: [] for name in TABLES}

    def play(self) -> None:
        """Raises Broken, or whatever the decisions raise."""
        for name in TABLES:
            self._request_snapshot(name)
        for _ in range(LIVE_STEPS):
            self._step()
        self._faults, self._paused = NO_FAULTS, frozenset()
        for _ in range(SETTLING_STEPS):
            self._settling_step()
            if not self._unfinished():
                break
        else:
            raise Broken(self._unfinished())
        self._check_end()

    # ---- steps

    def _step(self) -> None:
        random, self.now = self.random, self.now + 1
        if random.random() < 0.6:
            self._transaction()
        self.agent.spool_blocks(random, 0.5)
        self.agent.send(random, self._faults, 0.6)
        if random.random() < 0.5:
            self.agent.say_progress()
        self.agent.read_snapshots(random, killed=0.3)
        if random.random() < self.scenario.extra_snapshots:
            self._request_snapshot(random.choice(TABLES))
        self._exclude()
        self._batch_step(4)
        self._fold_step()
        self._mend(0.2)
        self._query_step()
        self._check()

    def _settling_step(self) -> None:
        """No more changes and no more faults; everything that is under way gets to its end."""
        self.now += 1
        self.agent.spool_blocks(self.random, 1.0)
        self.agent.send(self.random, self._faults, 0.95)
        self.agent.say_progress()
        self.agent.read_snapshots(self.random, killed=0.0)
        self._include()
        self._batch_step(100, killed=0.0)
        self._fold_step()
        self._mend(0.5)
        self._query_step()
        self._check()

    def _transaction(self) -> None:
        changes = self.source.commit(self.random)
        self.agent.capture(changes)
        for table, row in changes:
            self._captured[table].append(row)

    def _request_snapshot(self, table: str) -> None:
        self._asked_at[table] = self.now
        self.agent.request_snapshot(table)

    def _batch_step(self, most: int, killed: float = 0.05) -> None:
        """Batches begin and finish at different steps, so that folds commit in between."""
        random = self.random
        if self._batch is None:
            if random.random() < 0.9:
                self._batch = self.job.begin(random, most, self._paused)
                self._check_holes(self._batch)
            return
        if random.random() < killed:
            names = [name for name in self._batch if random.random() < 0.5]
            self.job.finish(self._batch, names)
            self.job.restart(random)
        else:
            self.job.finish(self._batch, self._batch)
            self.job.publish(self.now)
            self.job.save_positions()
        self._batch = None

    def _fold_step(self) -> None:
        for name in TABLES:
            if name in self._folds:
                if self.random.random() < 0.4:
                    folds.commit(self.lake, self._folds.pop(name))
            elif self.random.random() < 0.3:
                folds.show(self.lake, name)
                fold = folds.begin(self.lake, name, self.random)
                if fold is not None:
                    self._folds[name] = fold

    # ---- what operators do

    def _mend(self, chance: float) -> None:
        for name in TABLES:
            table = self.lake.tables[name]
            if self.random.random() >= chance:
                continue
            if self.scenario.resends:
                for hole in table.stream.data_holes:
                    self.agent.resend(name, hole, self.random, self._faults)
            late = self.now - self._asked_at[name] > SNAPSHOT_PATIENCE
            newest = max(table.stream.snapshots, default=0)
            begun = table.stream.snapshots.get(newest)
            never_ended = begun is not None and not begun.complete and newest > table.fold.activated_through
            wanted = self.scenario.resnapshots and lines.unrepaired(table.stream, table.fold.activated_through)
            if (wanted and not self.agent.reading(name)) or (late and never_ended):
                self._request_snapshot(name)

    def _exclude(self) -> None:
        """`headrace cut exclude`, with the table paused; later it goes on, and is to be included again."""
        if not self.lake.entry.excluded and self.random.random() < self.scenario.excluding:
            name = self.random.choice(TABLES)
            self._paused = frozenset({name})
            entry = self.lake.entry
            self.lake.entry = replace(entry, excluded=self._paused, shown=entry.shown - self._paused)
        elif self._paused and self.random.random() < 0.1:
            self._paused = frozenset()
        elif self.random.random() < 0.2:
            self._include()

    def _include(self) -> None:
        """Takes effect when L >= W >= F."""
        entry = self.lake.entry
        back = {
            name
            for name in entry.excluded - self._paused
            if (line := entry.lines.get(name)) is not None and line >= entry.line
        }
        self.lake.entry = replace(entry, excluded=entry.excluded - back)

    def _query_step(self) -> None:
        if self.lake.entry.closure is None and self.random.random() < 0.5:
            self._queries.append(CutQuery(self.lake.entry, self.now))
        for query in self._queries:
            wrong = query.read(self.lake, self.source, self.now, self.random)
            if wrong:
                raise Broken("a cut query is wrong: " + "; ".join(wrong))
        self._queries = [query for query in self._queries if not query.finished]

    # ---- promises

    def _check(self) -> None:
        for name, table in self.lake.tables.items():
            line = table.fold.line
            stream, folded_to = self._checked.get(name, (None, None))
            if stream is table.stream and folded_to == line:
                continue
            self._checked[name] = (table.stream, line)
            if any(line.covers(row.position) for row in table.log):
                raise Broken(f"{name}: a log row lies at or below the fold line {line}")
            folded = [*table.history, *table.delta.values(), *table.base.values()]
            if not all(line.covers(row.position) for row in folded):
                raise Broken(f"{name}: a folded row lies above the fold line {line}")
            if len({row.position for row in table.log}) < len(table.log):
                raise Broken(f"{name}: a row is in the log twice")

    def _check_holes(self, drafts: dict[str, Draft]) -> None:
        """No hole is opened for a block that is still to be sent."""
        for name, draft in drafts.items():
            for lane, upto in draft.opened:
                if any(block.key == (name, lane) and block.last <= upto for block in self._unsent(name)):
                    raise Broken(
                        f"{name}: a hole in lane {lane} up to {upto} is no loss: its block is still to be sent"
                    )

    def _unsent(self, table: str) -> list[Block]:
        return [block for key in self.agent.spool if key.table == table for block in self.agent.unsent(key)]

    def _unfinished(self) -> str:
        """What is still to happen before the end can be checked; empty when nothing is."""
        entry = self.lake.entry
        waits = [f"{name}: a hole stays open" for name, t in self.lake.tables.items() if t.stream.data_holes]
        waits += [
            f"{name}: was never activated" for name, t in self.lake.tables.items() if not t.fold.activated_through
        ]
        waits += [f"{name}: has no cut view" for name in TABLES if name not in entry.shown]
        waits += [f"{name}: a fold is under way" for name in self._folds]
        aged = watermark.aged(entry.ring, HORIZON)
        if aged is None or aged.lsn < self.source.wal_end - 1:
            waits.append(f"the aged watermark is {aged}, the source is at {self.source.wal_end}")
        if entry.closure is not None:
            waits.append(f"the cut stays closed: {entry.closure}")
        return "; ".join(waits)

    def _check_end(self) -> None:
        for name, table in self.lake.tables.items():
            if current(table) != self.source.tables[name]:
                raise Broken(f"{name}: the fresh view shows {current(table)}, not {self.source.tables[name]}")
            changes = sorted(row for row in [*table.history, *table.log] if row.op != "r")
            if len({row.position for row in changes}) < len(changes):
                raise Broken(f"{name}: a change is in the history twice")
            there = set(changes)
            for row in self._captured[name]:
                if row not in there and not any(_holds(hole, row) for hole in table.closed_holes):
                    raise Broken(f"{name}: {row} is neither in the history nor in a hole that a snapshot closed")
            if not there <= set(self._captured[name]):
                raise Broken(f"{name}: the history holds changes that the source never made")


def _holds(hole: Hole, row: Row) -> bool:
    begins = hole.after is None or hole.after < row.position
    return hole.lane == lane_of(row) and begins and row.position <= hole.last
