"""The rules that the promises rest on, and how each is switched off, to see what it is for.

`python -m tests.simulation.rules` plays histories without each rule in turn and prints the first seed of its scenario
whose history breaks a promise, and how. The tests play only the seeds that are written here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from glue_streaming import chain, requests, watermark
from glue_streaming.chain import Duplicate, Gap, Lane, Load, Verdict
from glue_streaming.commit import _StreamFence
from glue_streaming.fold import line
from glue_streaming.holes import Hole
from glue_streaming.requests import Request
from glue_streaming.state import EPOCH, Mark, StreamState, newest_complete
from schemas.position import Position
from tests.simulation import fold, job, views
from tests.simulation.agent import Agent
from tests.simulation.job import Job
from tests.simulation.source import Row
from tests.simulation.world import SCENARIOS, World


@dataclass(frozen=True)
class Rule:
    """A rule, a scenario that needs it, the first seed whose history shows its absence, and what breaks in it."""

    name: str
    scenario: str
    switch_off: Callable[[pytest.MonkeyPatch], None]
    seed: int
    breaks: str


def _accepted_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Agent, "_waiting", lambda *_: [])
    patch.setattr(Agent, "_spoken_end", Agent._end)


def _hole_test(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chain, "_fillable", lambda *_: None)


def _mark_test(patch: pytest.MonkeyPatch) -> None:
    def judge(real: Verdict) -> Verdict:
        return Load() if isinstance(real, Duplicate) else real

    _judging(patch, judge)


def _gap_test(patch: pytest.MonkeyPatch) -> None:
    def judge(real: Verdict) -> Verdict:
        return Load() if isinstance(real, Gap) else real

    _judging(patch, judge)


def _judging(patch: pytest.MonkeyPatch, change: Callable[[Verdict], Verdict]) -> None:
    real = chain.judge

    def judge(lane: Lane, prev: Position | None, last: Position) -> Verdict:
        return change(real(lane, prev, last))

    patch.setattr(chain, "judge", judge)


def _freezing(patch: pytest.MonkeyPatch) -> None:
    real = line.fold_line
    patch.setattr(line, "fold_line", lambda current, bounds, snapshots, through: real(current, bounds, {}, through))


def _activation_bound(patch: pytest.MonkeyPatch) -> None:
    """An activation ignores the snapshots announced behind it."""
    real = line.activation

    def activation(snapshots: Any, through: int, *args: Any, **named: Any) -> Any:
        newest = newest_complete(snapshots, through)
        return real({n: s for n, s in snapshots.items() if newest is None or n <= newest}, through, *args, **named)

    patch.setattr(line, "activation", activation)


def _ageing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(watermark, "aged", lambda ring, horizon: ring[-1].line if ring else None)


def _view_ageing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(line, "joins_cut", lambda aged, fold: fold.activated_through > 0)


def _table_line(patch: pytest.MonkeyPatch) -> None:
    """A repair waits for the watermark, which waits for the repair."""
    patch.setattr(line, "repair", lambda *_: None)


def _closing_horizon(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(line.Closure, "clears", lambda closed, table, *_: table in closed.waits_for)


def _opening(patch: pytest.MonkeyPatch) -> None:
    """The cut opens as soon as the repairs are activated, wherever the watermark is."""
    real = line.closure

    def closure(current: Any, wanted: Any, folds: Any, watermark_: Any, now: float) -> Any:
        closed = real(current, wanted, folds, watermark_, now)
        return closed if closed is not None and closed.waits_for else None

    patch.setattr(line, "closure", closure)


def _sealing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StreamState, "sealed", None)


def _superseding(patch: pytest.MonkeyPatch) -> None:
    """Another snapshot is asked for only where there is none at all."""
    real = line.unrepaired
    patch.setattr(line, "unrepaired", lambda state, through: () if state.snapshots else real(state, through))


def _closing_holes(patch: pytest.MonkeyPatch) -> None:
    real = StreamState.without_snapshots_through
    patch.setattr(
        StreamState,
        "without_snapshots_through",
        lambda state, through: replace(real(state, through), holes=state.holes),
    )


def _hole_below_line(patch: pytest.MonkeyPatch) -> None:
    """A table's line looks at its marks alone."""
    patch.setattr(watermark, "_begins_within", lambda *_: False)


def _confirm_late(patch: pytest.MonkeyPatch) -> None:
    """The source is told of a change as soon as it is in memory."""
    patch.setattr(Agent, "_confirmed", lambda agent: agent._captured)


def _note_late(patch: pytest.MonkeyPatch) -> None:
    """A block leaves the spool before Kinesis has answered: a crash in between loses it."""
    patch.setattr(Agent, "_noted", lambda agent, key, _: min(len(agent.spool[key]), agent.accepted[key] + 1))


def _whole_transactions(patch: pytest.MonkeyPatch) -> None:
    """A part of a transaction goes out before its commit came."""

    def spool_tail(agent: Agent) -> None:
        for block in agent._tail:
            agent.spool[block.key].append(block)
        agent._tail = []

    patch.setattr(Agent, "_spool_tail", spool_tail)


def _every_lane(patch: pytest.MonkeyPatch) -> None:
    """Progress names the lanes of now only."""
    real = Agent._lanes_spoken_of
    patch.setattr(
        Agent, "_lanes_spoken_of", lambda agent: [key for key in real(agent) if int(key.lane) < agent._lanes[key.table]]
    )


def _announce(patch: pytest.MonkeyPatch) -> None:
    """No progress record names a snapshot: what is known of it is what has come."""
    real = Agent.say_progress

    def say_progress(agent: Agent) -> None:
        known, agent.snapshots = agent.snapshots, []
        real(agent)
        agent.snapshots = known

    patch.setattr(Agent, "say_progress", say_progress)


def _one_group(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Agent, "_groups", lambda *_: 2)


def _one_of_them(patch: pytest.MonkeyPatch) -> None:
    """Without a key, a delete takes the row at its own position: none."""
    patch.setattr(views, "named_by", lambda delete, state: delete.identity)


def _structure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Job, "_follows", lambda *_: True)


def _fence_marks(patch: pytest.MonkeyPatch) -> None:
    """A commit looks at the epoch alone."""
    real = _StreamFence.__call__

    def fence(self: _StreamFence, properties: dict[str, str]) -> None:
        real(replace(self, expected=_state(properties)), properties)

    patch.setattr(_StreamFence, "__call__", fence)


def _state(properties: dict[str, str]) -> StreamState:
    return job.stream_state(properties)


def _fence_epoch(patch: pytest.MonkeyPatch) -> None:
    """A commit looks at marks and holes alone."""
    real = _StreamFence.__call__
    patch.setattr(_StreamFence, "__call__", lambda self, properties: real(self, {**properties, EPOCH: "0"}))


def _publisher_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Job, "_check_epoch", lambda *_: None)


def _after_commits(patch: pytest.MonkeyPatch) -> None:
    """The watermark is published from what the batch has read, before it is committed."""
    real = Job.finish

    def finish(self: Job, drafts: Any, tables: Any) -> None:
        before = self.known
        self.known = {
            name: job.lake.moved(state, job.lake.Moves(lanes=drafts[name].lanes), [], 0) if name in drafts else state
            for name, state in before.items()
        }
        self.publish(int(self._lake.entry.ring[-1].at) if self._lake.entry.ring else 0)
        self.known = before
        real(self, drafts, tables)

    patch.setattr(Job, "finish", finish)


def _positions_late(patch: pytest.MonkeyPatch) -> None:
    """Positions are saved when they are read, before what lies below them is committed, and nothing re-reads."""
    real = Job.begin

    def begin(self: Job, *args: Any) -> Any:
        drafts = real(self, *args)
        self.save_positions()
        return drafts

    patch.setattr(Job, "begin", begin)
    patch.setattr(Job, "_read_again", lambda self, draft, key, cause: self._reread.add((key, cause)))


def _hole_as_seen(patch: pytest.MonkeyPatch) -> None:
    """An acceptance closes whatever hole is open in the lane."""

    def find(holes: Any, request: Request) -> Hole | None:
        return next((hole for hole in holes if hole.lane == request.key.lane), None)

    patch.setattr(requests, "find", find)


def _older_value(patch: pytest.MonkeyPatch) -> None:
    """A value that an update left out is empty."""
    _origin(patch, lambda row, own, deleted: row._replace(big=""))


def _own_key(patch: pytest.MonkeyPatch) -> None:
    """After a key change the value is looked for under the new key."""
    _origin(patch, lambda row, own, deleted: own)


def _origin(patch: pytest.MonkeyPatch, origin: Callable[[Row, Row | None, Row | None], Row | None]) -> None:
    patch.setattr(views, "origin", origin)
    patch.setattr(fold, "origin", origin)


def _resolved_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fold, "_whole", lambda row, *_: row)


def _known_values(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fold, "_knows_all", lambda *_: True)


def _newest_position(patch: pytest.MonkeyPatch) -> None:
    """The newest change of a key is the one that came last."""
    patch.setattr(views, "ordered", list)
    patch.setattr(fold, "ordered", list)


def _era_behind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Job, "_at_tip", lambda *_: True)
    real = Job._read_control

    def read_control(self: Job, most: int) -> None:
        real(self, most)
        self._enter(self._ahead)

    patch.setattr(Job, "_read_control", read_control)


def _continues(patch: pytest.MonkeyPatch) -> None:
    """The watermark enters an era before the tables' snapshots of it."""
    patch.setattr(line, "continues", lambda *_: True)


def _first_of_an_era(patch: pytest.MonkeyPatch) -> None:
    """A table that was never activated holds no watermark back."""
    real = line.continues
    patch.setattr(line, "continues", lambda stream, fold, era: not fold.activated_through or real(stream, fold, era))


def _end_of_an_era(patch: pytest.MonkeyPatch) -> None:
    """A lane that has gone into an era has everything of the one before."""
    patch.setattr(Mark, "reaches", lambda mark, last: mark.position >= last)
    patch.setattr(chain, "declare_behind", lambda *_: None)


RULES = (
    Rule("the source is confirmed behind the spool's fsync", "crashes", _confirm_late, 0, "a cut query is wrong"),
    Rule("a block leaves the spool behind Kinesis' answer", "crashes", _note_late, 0, "a hole stays open"),
    Rule("a block waits for its transaction's commit", "crashes", _whole_transactions, 2, "overlaps the mark"),
    Rule("progress speaks of accepted blocks only", "clean", _accepted_only, 0, "its block is still to be sent"),
    Rule("progress names every lane of the era", "clean", _every_lane, 42, "a cut query is wrong"),
    Rule("holes are tested before the mark", "loss+resend", _hole_test, 0, "a hole stays open"),
    Rule("what is at or below the mark is a duplicate", "clean", _mark_test, 0, "a row is in the log twice"),
    Rule("a gap is not loaded", "loss+resend", _gap_test, 0, "is neither in the history"),
    Rule("a lane waits for its table to follow a structure", "clean", _structure, 0, "a cut query is wrong"),
    Rule("a commit compares marks", "two drivers", _fence_marks, 0, "a row is in the log twice"),
    Rule("a commit compares epochs", "two drivers", _fence_epoch, 4, "wrote behind driver"),
    Rule("a superseded driver publishes nothing", "two drivers", _publisher_epoch, 0, "published behind driver"),
    Rule(
        "the watermark is published behind the commits", "crashes", _after_commits, 4, "lies at or below the fold line"
    ),
    Rule(
        "positions are saved behind the commits, and a gap is read again",
        "crashes",
        _positions_late,
        26,
        "a hole stays open",
    ),
    Rule(
        "an acceptance closes the hole that was seen",
        "loss+accept",
        _hole_as_seen,
        30,
        "more was given up than the operator had seen",
    ),
    Rule("a line stays below the first hole", "loss+resend", _hole_below_line, 0, "a cut query is wrong"),
    Rule("a snapshot is announced", "slow snapshots", _announce, 1, "a cut query is wrong"),
    Rule("an announced snapshot freezes the fold line", "snapshots", _freezing, 36, "a cut query is wrong"),
    Rule("a later snapshot bounds an activation", "snapshots", _activation_bound, 36, "a cut query is wrong"),
    Rule("a table without a key is read under one point", "snapshots", _one_group, 1, "a cut query is wrong"),
    Rule("without a key, a delete takes one row of its content", "clean", _one_of_them, 0, "a cut query is wrong"),
    Rule("a fold takes the watermark aged", "clean", _ageing, 0, "a cut query is wrong"),
    Rule(
        "a cut view appears when the aged watermark is at its fold line",
        "clean",
        _view_ageing,
        0,
        "a cut query is wrong",
    ),
    Rule(
        "a repair closes the cut instead of waiting for the watermark",
        "loss+resnapshot",
        _table_line,
        0,
        "a hole stays open",
    ),
    Rule(
        "a repair waits the horizon behind the closing", "loss+resnapshot", _closing_horizon, 2, "a cut query is wrong"
    ),
    Rule(
        "the cut opens when the watermark is at every fold line", "loss+resnapshot", _opening, 0, "a cut query is wrong"
    ),
    Rule("a complete snapshot seals the holes below it", "loss+both", _sealing, 0, "lies at or below the fold line"),
    Rule("a snapshot below a hole is superseded", "loss+resnapshot", _superseding, 0, "a hole stays open"),
    Rule("an activation closes the holes below it", "loss+resnapshot", _closing_holes, 0, "a hole stays open"),
    Rule(
        "the newest change of a key has the highest position",
        "loss+replay",
        _newest_position,
        0,
        "a cut query is wrong",
    ),
    Rule("a value left out is the newest older one", "clean", _older_value, 0, "a cut query is wrong"),
    Rule("a key change takes it from the old key", "clean", _own_key, 0, "a cut query is wrong"),
    Rule("a minor fold resolves a key change at once", "clean", _resolved_at_once, 0, "the fresh view shows"),
    Rule("a snapshot that lacks a value is not activated", "snapshots", _known_values, 6, "the fresh view shows"),
    Rule(
        "an era is entered behind everything of the one before",
        "eras",
        _era_behind,
        11,
        "lies at or below the fold line",
    ),
    Rule("a lane keeps where it stood at the end of an era", "eras+loss", _end_of_an_era, 75, "a cut query is wrong"),
    Rule("the watermark enters an era with the tables' snapshots", "eras", _continues, 0, "a cut query is wrong"),
    Rule(
        "the watermark enters an era behind the first activations of the one before",
        "eras",
        _first_of_an_era,
        61,
        "a cut query is wrong",
    ),
)


@contextmanager
def without(rule: Rule) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        rule.switch_off(patch)
        yield


def failure(scenario: str, seed: int) -> Exception | None:
    """What a history breaks; a decision that raises has failed as well."""
    try:
        World(SCENARIOS[scenario], seed).play()
    except Exception as error:
        return error
    return None


def first_failure(rule: Rule, histories: int) -> tuple[int, Exception] | None:
    """The first seed whose history breaks a promise without the rule, and how."""
    with without(rule):
        for seed in range(histories):
            error = failure(rule.scenario, seed)
            if error is not None:
                return seed, error
    return None


def document() -> str:
    """The table of docs/reliability.md."""
    rows = [f"| {rule.name} | {rule.scenario} | {rule.seed} | {rule.breaks} |" for rule in RULES]
    return "\n".join(["| switched off | scenario | first failing seed | what breaks |", "|---|---|---|---|", *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description="Plays histories without each rule, and prints where they fail.")
    parser.add_argument("--histories", type=int, default=400)
    parser.add_argument("--only", default="", help="a part of the rule's name")
    arguments = parser.parse_args()
    missing = 0
    for rule in [rule for rule in RULES if arguments.only in rule.name]:
        found = first_failure(rule, arguments.histories)
        missing += found is None
        seed, error = ("none", "nothing") if found is None else (found[0], f"{type(found[1]).__name__}: {found[1]}")
        print(f"| {rule.name} | {rule.scenario} | {seed} | {str(error)[:110]} |", flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
