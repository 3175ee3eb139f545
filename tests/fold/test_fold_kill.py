"""The fold job as a process, killed at each of its steps and run twice at once, while another writer appends.

Whatever happens: no row is lost or doubled, none is on the wrong side of the fold line, and the next run does the rest.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from glue_streaming import views
from glue_streaming.fold import run
from glue_streaming.fold.plan import FoldSettings, tail
from glue_streaming.plan_lambda import read_cut
from glue_streaming.state import fold_state, stream_state
from schemas.position import Line, Position

KEYS = 12
PLACES = ["files.before:1", "files.written:2", "fold.part:1", "commit.before:1", "commit.staged:1", "commit.after:1"]

pytestmark = pytest.mark.slow


class World:
    """A lake table that a streaming job goes on appending to, and what it should hold."""

    def __init__(self, lake: Any, complete_snapshot: Any) -> None:
        self.lake = lake
        self.rng = random.Random(7)
        self.rows = {n: f"n{n}" for n in range(KEYS)}
        self.changes = {(9, n) for n in range(KEYS)}
        self.lsn, self.clock = 10, 100.0
        staged = [lake.row("r", 9, n, "staged", id=n, name=name, amount=Decimal(n)) for n, name in self.rows.items()]
        lake.append(staged, {1: complete_snapshot(8, (10, KEYS))})
        self.publish()
        self.fold_here("auto")
        views.update(lake.aws.client("glue"), lake.aws.catalog, lake.source, lake.table)

    def append(self) -> None:
        """One commit of one transaction: updates, a delete or an insert."""
        self.lsn += 10
        rows = []
        for idx in range(4):
            key, name = self.rng.randrange(KEYS + 4), f"v{self.lsn}.{idx}"
            gone = key in self.rows and self.rng.random() < 0.3
            op = "d" if gone else "u" if key in self.rows else "c"
            rows.append(self.lake.row(op, self.lsn, idx, id=key, name=None if gone else name))
            self.changes.add((self.lsn, idx))
            if gone:
                del self.rows[key]
            else:
                self.rows[key] = name
        self.lake.append(rows)

    def publish(self) -> None:
        """The watermark at all that is there, aged by another a horizon later."""
        for _ in range(2):
            self.lsn += 1
            self.clock += 6
            self.lake.publish(self.lsn, self.clock)

    def fold_here(self, kind: str, now: datetime | None = None) -> run.Folded | None:
        cut = read_cut(self.lake.aws.client("glue"), self.lake.source)
        settings = FoldSettings(max_age_seconds=0, horizon_seconds=5)
        at = now or datetime.now(UTC)
        return run.fold_table(self.lake.aws.catalog, self.lake.source, self.lake.table, cut, kind, settings, at)

    def fold_job(self, kind: str, failpoint: str = "") -> subprocess.Popen[bytes]:
        words = ["--tables", f"{self.lake.source}.accounts", "--kind", kind, "--fold_horizon_seconds", "5"]
        return subprocess.Popen(
            [sys.executable, "-m", "glue_streaming.fold_job", *words],
            env={**os.environ, "HEADRACE_FAILPOINT": failpoint},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Appends all the time, at least twice, from a thread as the streaming job would; it never waits for a fold."""
        done, failed = threading.Event(), []

        def work() -> None:
            try:
                for number in itertools.count():
                    if done.is_set() and number >= 2:
                        return
                    self.append()
                    done.wait(1.0)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        assert not failed, failed

    def check(self, athena: Callable[[str], list[list[str | None]]]) -> None:
        """Current rows through Athena, history and log by position, the line, and the totals that plans are made of."""
        found = athena(f'SELECT id, name FROM "{self.lake.source}".accounts')
        assert sorted(found, key=repr) == sorted([[str(n), name] for n, name in self.rows.items()], key=repr)
        state = fold_state(self.lake.load().properties)
        log, history = self.lake.rows("log"), self.lake.rows("history")
        positions = [(row["_lsn"], row["_idx"]) for row in (*log, *history)]
        assert sorted(positions) == sorted(self.changes), "a change is lost or there twice"
        assert not [row for row in log if state.line.covers(at(row))]
        folded = [row for tier in ("history", "delta", "base") for row in self.lake.rows(tier)]
        assert not [row for row in folded if not state.line.covers(at(row))]
        assert tail(stream_state(self.lake.load().properties), state).rows == len(log)


def at(row: dict[str, Any]) -> Position:
    return Position(row["_era"], row["_lsn"], row["_idx"])


@pytest.mark.parametrize(("place", "kind"), list(zip(PLACES, ["minor", "major"] * 3, strict=True)))
def test_a_killed_fold_is_done_by_the_next(
    make_table: Any, complete_snapshot: Any, athena: Any, place: str, kind: str
) -> None:
    """Killed with SIGKILL at each step, appends going on: at once everything is right, and then the work is done."""
    world = World(make_table(), complete_snapshot)
    world.append()
    world.publish()
    line = fold_state(world.lake.load().properties).line
    with world.appending():
        assert world.fold_job(kind, place).wait(300) == -signal.SIGKILL
    committed = place.startswith("commit.after")
    assert (fold_state(world.lake.load().properties).line > line) == committed
    world.check(athena)
    world.publish()
    due = Line(1, world.lsn - 1)
    with world.appending():
        job = world.fold_job(kind)
        words, _ = job.communicate(timeout=300)
    assert job.returncode == 0, words.decode()
    assert fold_state(world.lake.load().properties).line == due
    world.check(athena)


def test_two_schedulers_fold_once(make_table: Any, complete_snapshot: Any, athena: Any) -> None:
    """Two jobs over the same table at the same time: one takes it, the other says so or finds nothing left to do."""
    world = World(make_table(), complete_snapshot)
    for kind in ("minor", "major"):
        world.append()
        world.publish()
        with world.appending():
            jobs = [world.fold_job(kind) for _ in range(2)]
            outcomes = [(job.communicate(timeout=300)[0].decode(), job.returncode) for job in jobs]
        assert [status for _, status in outcomes] == [0, 0], outcomes
        folded = [words.count('"event": "folded"') for words, _ in outcomes]
        assert 1 <= sum(folded) <= 2, outcomes
        world.check(athena)


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)])
def test_a_clock_that_jumps_takes_no_file_that_a_snapshot_needs(
    make_table: Any, complete_snapshot: Any, athena: Any, jump: timedelta
) -> None:
    """The fold's clock, and the one that the watermark was published by: rows stay right, and a query that was planned
    before the jump still reads its files."""
    world = World(make_table(), complete_snapshot)
    world.append()
    planned = world.lake.load().scan()
    expected = planned.to_arrow().num_rows
    world.publish()
    assert world.fold_here("minor", datetime.now(UTC) + jump) is not None
    world.append()
    world.clock += jump.total_seconds()
    world.publish()
    world.fold_here("major")
    world.clock -= jump.total_seconds()
    world.append()
    world.publish()
    world.fold_here("major", datetime.now(UTC) + jump)
    world.check(athena)
    assert planned.to_arrow().num_rows == expected
    started = time.monotonic()
    world.publish()
    while tail(stream_state(world.lake.load().properties), fold_state(world.lake.load().properties)).rows:
        assert time.monotonic() - started < 300, "the fold line stands still after the jump"
        world.publish()
        world.fold_here("minor")
    world.check(athena)
