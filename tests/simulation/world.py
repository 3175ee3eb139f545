"""One history: everything takes steps at random, and after each the promises are checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

from glue_streaming import watermark
from glue_streaming.errors import StaleWriter
from glue_streaming.fold import line as lines
from glue_streaming.holes import Hole
from glue_streaming.requests import Request
from glue_streaming.state import StreamState
from glue_streaming.task import LaneKey as RequestKey
from schemas.position import Line
from tests.simulation import fold as folds
from tests.simulation.agent import Agent
from tests.simulation.fold import Fold
from tests.simulation.job import Draft, Job
from tests.simulation.source import KEYS, NO_KEY, TABLES, Row, Source, Transaction
from tests.simulation.stream import NO_FAULTS, Block, Faults, Stream
from tests.simulation.views import HORIZON, CutQuery, Lake, alike, current

LIVE_STEPS = 110
SETTLING_STEPS = 300
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
    replays: bool = False
    accepts: bool = False
    resnapshots: bool = False
    extra_snapshots: float = 0.02
    snapshot_pace: float = 1.0
    excluding: float = 0.0
    crashes: float = 0.05
    takeovers: float = 0.02
    eras: float = 0.0


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("clean"),
        Scenario("crashes", crashes=0.3),
        Scenario("two drivers", takeovers=0.25, extra_snapshots=0.06),
        Scenario("loss+resend", Faults(lost=0.03, garbled=0.03), resends=True),
        Scenario("loss+replay", Faults(lost=0.01, garbled=0.06), resends=True, replays=True),
        Scenario("loss+accept", Faults(lost=0.02, garbled=0.02), resends=True, replays=True, accepts=True),
        Scenario("loss+resnapshot", Faults(lost=0.02, garbled=0.02), resnapshots=True, extra_snapshots=0.0),
        Scenario("loss+both", Faults(lost=0.03, garbled=0.03), resends=True, resnapshots=True),
        Scenario("exclude+pause", excluding=0.03),
        Scenario("snapshots", extra_snapshots=0.15),
        Scenario("slow snapshots", extra_snapshots=0.05, snapshot_pace=0.15),
        Scenario("eras", eras=0.03),
        Scenario("eras+exclude", excluding=0.05, eras=0.03),
        Scenario("eras+loss", Faults(lost=0.02, garbled=0.02), resends=True, resnapshots=True, eras=0.02),
    )
}


@dataclass
class Driver:
    """A running job, and the batch that it has read and not committed."""

    job: Job
    batch: dict[str, Draft] | None = None


class World:
    """Plays one seed of one scenario; the same seed plays the same history."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.random = Random(f"{scenario.name}/{seed}")
        self.scenario = scenario
        self.now = 0
        self.source, self.stream, self.lake = Source(), Stream(), Lake()
        self.agent = Agent(self.source, self.stream)
        self.drivers: list[Driver] = []
        self._faults = scenario.faults
        self._paused: frozenset[str] = frozenset()
        self._folds: dict[str, Fold] = {}
        self._queries: list[CutQuery] = []
        self._asked_at: dict[str, int] = {}
        self._checked: dict[str, tuple[StreamState, Line]] = {}
        self._captured: dict[str, list[Row]] = {name: [] for name in TABLES}
        self._agreed: list[tuple[str, Hole]] = []

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
        if random.random() < 0.05:
            self.agent.change_lanes(random.choice(TABLES), random.randint(1, 3))
        self.agent.spool_blocks(random, 0.5)
        self.agent.send(random, self._faults, 0.6, self.scenario.snapshot_pace)
        if random.random() < 0.5:
            self.agent.say_progress()
        self.agent.read_snapshots(random, killed=0.3)
        if random.random() < self.scenario.crashes:
            self.agent.crash(random)
        if random.random() < self.scenario.eras:
            self._raise_era()
        if random.random() < self.scenario.extra_snapshots:
            self._request_snapshot(random.choice(TABLES))
        self._exclude()
        self._drive(4, self.scenario.crashes)
        if random.random() < self.scenario.takeovers and len(self.drivers) == 1:
            self.drivers.append(Driver(Job(self.stream, self.lake, random)))
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
        self._drive(100, 0.0)
        self._fold_step()
        self._mend(0.5)
        self._query_step()
        self._check()

    def _transaction(self) -> None:
        transaction = self.source.commit(self.random)
        self.agent.capture(transaction, self.random)
        self._remember(transaction)

    def _remember(self, transaction: Transaction) -> None:
        for table, row in transaction.changes:
            self._captured[table].append(row)

    def _raise_era(self) -> None:
        """The agent's disk is lost, transactions commit unseen, and it begins anew, maybe with another system."""
        arrived = {row for blocks in self.stream.lanes.values() for block in blocks for row in block.rows}
        for name in TABLES:
            self._captured[name] = [row for row in self._captured[name] if row in arrived]
        for _ in range(self.random.randint(0, 3)):
            self.source.commit(self.random)
        self.source.raise_era(self.random)
        self.agent.raise_era()
        self._asked_at = dict.fromkeys(TABLES, self.now)

    def _request_snapshot(self, table: str) -> None:
        self._asked_at[table] = self.now
        self.agent.request_snapshot(table)

    # ---- drivers

    def _drive(self, most: int, killed: float) -> None:
        """Batches begin and finish at different steps, so that folds, and another driver's, commit in between."""
        if not self.drivers:
            self.drivers.append(Driver(Job(self.stream, self.lake, self.random)))
        for driver in list(self.drivers):
            try:
                alive = self._batch_step(driver, most, killed)
            except StaleWriter:
                alive = False
            if not alive:
                self.drivers.remove(driver)

    def _batch_step(self, driver: Driver, most: int, killed: float) -> bool:
        """False where the driver was killed on the way."""
        random = self.random
        if driver.batch is None:
            if random.random() < 0.9:
                driver.batch = driver.job.begin(random, most, self._paused)
                self._check_holes(driver.batch)
            return True
        if len(self.drivers) > 1 and random.random() < 0.5:
            return True  # stopped for a while, with its batch in hand
        batch, driver.batch = driver.batch, None
        if random.random() < killed:
            driver.job.finish(batch, [name for name in batch if random.random() < 0.5])
            return False
        driver.job.finish(batch, batch)
        if random.random() < killed:
            return False
        entry = self.lake.entry
        driver.job.publish(self.now)
        if self.lake.entry is not entry and driver.job.epoch < self.lake.epoch:
            raise Broken(f"driver {driver.job.epoch} published behind driver {self.lake.epoch}")
        if random.random() < killed:
            return False
        driver.job.save_positions()
        return True

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
            for hole in table.stream.data_holes:
                self._mend_hole(name, hole)
            late = self.now - self._asked_at[name] > SNAPSHOT_PATIENCE
            newest = max(table.stream.snapshots, default=0)
            begun = table.stream.snapshots.get(newest)
            never_ended = begun is not None and not begun.complete and newest > table.fold.activated_through
            wanted = newest in table.unusable or (
                self.scenario.resnapshots and lines.unrepaired(table.stream, table.fold.activated_through)
            )
            if (wanted and not self.agent.reading(name)) or (late and never_ended):
                self._request_snapshot(name)

    def _mend_hole(self, name: str, hole: Hole) -> None:
        random, scenario = self.random, self.scenario
        if scenario.resends and hole.last.era == self.source.era:
            self.agent.resend(name, hole, random, self._faults)
        if scenario.replays and random.random() < 0.1:
            self._ask("replay", name, hole)
        if scenario.accepts and random.random() < 0.3:
            self._agreed.append((name, hole))
            self._ask("accept", name, hole)

    def _ask(self, kind: str, table: str, hole: Hole) -> None:
        key = RequestKey("source", table, hole.lane)
        wanted = Request(kind, kind, key, hole.after, hole.last, "somebody")
        if wanted not in self.lake.requests:
            self.lake.requests.append(wanted)

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
            wrong = query.read(self.lake, self.source, self.now, self.random, self._untrusted)
            if wrong:
                raise Broken("a cut query is wrong: " + "; ".join(wrong))
        self._queries = [query for query in self._queries if not query.finished]

    # ---- promises

    def _untrusted(self, name: str) -> set[int]:
        """The keys of which somebody accepted that changes are missing, until a snapshot has read them again."""
        table = self.lake.tables[name]
        accepted = [item.hole for item in table.stream.accepted if not item.hole.ends_below(table.repaired_below)]
        keys: set[int] = set()
        if accepted:
            before: Row | None = None
            for row in self._captured[name]:
                if self._in_holes(row, accepted):
                    keys |= set(range(KEYS)) if row.op == "t" else {row.key}
                if row.moved and before is not None and before.key in keys:
                    keys.add(row.key)
                before = row
        return keys

    def _check(self) -> None:
        for name, table in self.lake.tables.items():
            line = table.fold.line
            stream, folded_to = self._checked.get(name, (None, None))
            if stream is table.stream and folded_to == line:
                continue
            self._checked[name] = (table.stream, line)
            if stream is not None and table.stream.epoch < stream.epoch:
                raise Broken(f"{name}: driver {table.stream.epoch} wrote behind driver {stream.epoch}")
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
        """Blocks that never went out; one whose answer is unclear, and that goes again, is none of them."""
        there = {(block.key, block.last) for blocks in self.stream.lanes.values() for block in blocks}
        return [
            block
            for key in self.agent.spool
            if key.table == table
            for block in self.agent.unsent(key)
            if (block.key, block.last) not in there
        ]

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
        end = Line(self.source.era, self.source.wal_end - 1)
        if aged is None or aged < end:
            waits.append(f"the aged watermark is {aged}, the source is at {end}")
        if entry.closure is not None:
            waits.append(f"the cut stays closed: {entry.closure}")
        return "; ".join(waits)

    def _check_end(self) -> None:
        for name, table in self.lake.tables.items():
            if not alike(name, current(table), self.source.tables[name], self._untrusted(name)):
                raise Broken(f"{name}: the fresh view shows {current(table)}, not {self.source.tables[name]}")
            changes = sorted(row.position for row in [*table.history, *table.log] if row.op != "r")
            if len(set(changes)) < len(changes):
                raise Broken(f"{name}: a change is in the history twice")
            there = set(changes)
            accepted = [item.hole for item in table.stream.accepted]
            for row in self._captured[name]:
                if row.position not in there and not self._in_holes(row, [*table.closed_holes, *accepted]):
                    raise Broken(f"{name}: {row} is neither in the history nor in a hole that was closed")
            if not there <= {row.position for row in self._captured[name]}:
                raise Broken(f"{name}: the history holds changes that the source never made")
            seen = {(table_, hole.lane, hole.after, hole.last) for table_, hole in self._agreed}
            if any((name, hole.lane, hole.after, hole.last) not in seen for hole in accepted):
                raise Broken(f"{name}: more was given up than the operator had seen")

    def _in_holes(self, row: Row, holes: Iterable[Hole]) -> bool:
        """Whether a hole holds the row's position, in any of the lanes that the row may have been in."""
        lanes = {"0"} if row.op == "t" else {str(_number(row) % lanes) for lanes in (1, 2, 3)}
        return any(
            hole.lane in lanes
            and hole.last.era == row.position.era
            and (hole.after is None or hole.after < row.position)
            and row.position <= hole.last
            for hole in holes
        )


def _number(row: Row) -> int:
    return row.position.idx if row.key == NO_KEY else row.key
