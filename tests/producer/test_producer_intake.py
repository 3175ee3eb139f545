"""The intake: nothing is confirmed that is not spooled, and what is confirmed is whole transactions."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.blocks import Gatherer, Lane
from producer.change import Begin, Commit, Keepalive, Run
from producer.durable_end import DurableEnd
from producer.errors import SpoolBroken
from producer.health import HealthPage, Status
from producer.intake import UNHEARD_SECONDS, Intake
from producer.intake_thread import IntakeThread
from producer.snapshots import SnapshotProgress
from producer.spool import Spool
from schemas.block import decode

LANE = Lane("t", "0")
START = DurableEnd(1, 5, 5, 0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def make_intake(make_spool):
    def make(block_bytes: int = 1000, lanes: int = 1) -> tuple[Intake, list[int], Clock]:
        spool, told, clock = make_spool(), [], Clock()
        spool.discard_tail()
        end = spool.durable_end() or START
        gatherer = Gatherer("shop", block_bytes, spool.ends(1))

        def confirm(lsn: int) -> None:
            assert spool.durable_end().flushed >= lsn
            told.append(lsn)

        intake = Intake(spool, gatherer, end, lambda _: lanes, confirm, linger_seconds=0.05, clock=clock)
        return intake, told, clock

    return make


def _transaction(make_change, lsn: int, count: int, size: int = 20) -> list:
    changes = [make_change(lsn, idx, size=size) for idx in range(count)]
    return [Begin(lsn, lsn * 10, 7), *changes, Commit(lsn, lsn + 8, lsn * 10, count)]


def _spooled(spool) -> list[tuple[int, int]]:
    """(lsn, idx) of the last change of every block that may go, oldest first."""
    found = []
    for lane in sorted(spool.lanes_with_blocks(), key=str):
        while (block := spool.head(lane)) is not None:
            found.append((decode(block.data).last.lsn, decode(block.data).last.idx))
            spool.accepted([block])
    return found


def test_a_change_waits_at_most_the_linger_and_for_nothing_after_a_quiet_moment(make_intake, make_change):
    intake, told, clock = make_intake()
    intake.take(_transaction(make_change, 10, 2))
    assert intake.due_in() == 0
    intake.flush_if_due()
    assert (told, intake.due_in()) == ([18], UNHEARD_SECONDS)
    clock.now += 0.02
    intake.take(_transaction(make_change, 20, 2))
    intake.flush_if_due()
    assert (told, intake.due_in()) == ([18], pytest.approx(0.03))
    clock.now += 0.04
    intake.flush_if_due()
    assert told == [18, 28]
    assert _spooled(intake.spool) == [(10, 1), (20, 1)]


def test_an_open_transaction_is_not_looked_at_without_end(make_intake, make_change):
    """It is not whole: after each look the next is a linger away."""
    intake, told, clock = make_intake()
    clock.now += 1
    intake.take(_transaction(make_change, 10, 2)[:-1])
    intake.flush_if_due()
    assert (told, intake.due_in()) == ([], pytest.approx(0.05))


def test_the_spool_remembers_the_last_transaction_that_changed_something(make_intake, make_change):
    """By it a source is known again; empty transactions come or not, as the server likes, and keepalives are none."""
    intake, _, _ = make_intake()
    intake.take([*_transaction(make_change, 10, 2), *_transaction(make_change, 20, 0), Keepalive(99)])
    intake.flush()
    assert intake.spool.durable_end() == replace(intake.end, lsn=98)
    assert intake.spool.durable_end().last == (10, 100)


def test_an_open_transaction_is_neither_spooled_nor_confirmed(make_intake, make_change):
    intake, told, _ = make_intake()
    intake.take([*_transaction(make_change, 10, 1), *_transaction(make_change, 20, 3)[:-1]])
    intake.flush()
    assert told == [18]
    assert _spooled(intake.spool) == [(10, 0)]


def test_a_large_transaction_is_spooled_as_it_comes_and_confirmed_at_its_commit(make_intake, make_change):
    intake, told, _ = make_intake()
    large = _transaction(make_change, 20, 40, size=500)
    intake.take([*_transaction(make_change, 10, 1), *large[:-1]])
    assert told == [18]
    assert intake.spool.totals().spooled_changes > 20
    assert _spooled(intake.spool) == [(10, 0)]
    intake.take(large[-1:])
    assert told == [18, 28]
    assert _spooled(intake.spool)[-1] == (20, 39)


def test_a_block_that_earlier_transactions_fill_takes_nothing_of_the_open_one(make_intake, make_change):
    """It waits for company, or for its commit."""
    intake, told, _ = make_intake()
    intake.take([*_transaction(make_change, 10, 3, size=600), *_transaction(make_change, 20, 1, size=600)[:-1]])
    assert (told, intake.gatherer.changes, intake.spool.totals().spooled_changes) == ([18], 1, 3)


def test_changes_of_several_transactions_are_not_spooled_before_their_last_commit(make_intake, make_change):
    """They come in one run, ahead of the commit: a block that is full waits for it, and not longer."""
    intake, told, _ = make_intake()
    spooled_before = []
    append = intake.spool.append

    def watched(blocks, *, durable, schemas):
        spooled_before.extend((block.first.lsn, block.last.lsn) for block in blocks if durable is None)
        append(blocks, durable=durable, schemas=schemas)

    intake.spool.append = watched
    run = Run.of([make_change(lsn, idx, size=500) for lsn in (10, 20) for idx in range(10)])
    intake.take([run, Commit(20, 28, 200, 10)])
    assert told == [28]
    intake.take([Run.of([make_change(30, idx, size=500) for idx in range(10)])])
    assert {*spooled_before} == {(30, 30)}


def test_the_rest_of_a_large_transaction_is_waited_for(make_intake, make_change):
    """What was gathered behind a spooled tail is not due before the commit: with nothing to wait for, the stream would
    be polled without end and, where only waiting reads the socket, never read again."""
    intake, _, clock = make_intake()
    large = _transaction(make_change, 20, 40, size=500)
    intake.take(large[:-1])
    assert intake.gatherer.changes
    clock.now += 1
    intake.flush_if_due()
    assert intake.due_in() == pytest.approx(0.05)
    intake.take(large[-1:])
    assert _spooled(intake.spool)[-1] == (20, 39)


def test_a_keepalive_is_complete_below_its_position_only(make_intake, make_change):
    """A transaction may still commit exactly there: through stays one below, the confirmation is the position."""
    intake, told, clock = make_intake()
    intake.take([Keepalive(50)])
    intake.flush_if_due()
    assert told == []
    clock.now += 1
    intake.flush_if_due()
    assert (told, intake.spool.durable_end().lsn) == ([50], 49)


def test_a_keepalive_inside_a_transaction_settles_nothing(make_intake, make_change):
    """Whatever the source says meanwhile, a tail becomes sendable by its own Commit only."""
    intake, told, clock = make_intake()
    large = _transaction(make_change, 20, 40, size=500)
    intake.take([*large[:-1], Keepalive(15)])
    clock.now += 2
    intake.flush_if_due()
    assert (told, _spooled(intake.spool)) == ([], [])
    intake.take(large[-1:])
    assert told == [28]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 12), st.sampled_from([10, 300, 3000])), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 200), max_size=4),
    lanes=st.integers(1, 3),
)
def test_a_restart_anywhere_leaves_every_change_once(tmp_path_factory, make_change, sizes, cuts, lanes):
    """Stopped dead between any two events, the agent takes up behind its durable end; each lane's chain is whole."""
    history = [
        event for n, (count, size) in enumerate(sizes) for event in _transaction(make_change, 10 * n + 10, count, size)
    ]
    path = tmp_path_factory.mktemp("spool") / "spool.db"
    for cut in [*cuts, None]:
        spool = Spool(path, 1 << 30)
        spool.discard_tail()
        end = spool.durable_end() or START
        intake = Intake(spool, Gatherer("shop", 1000, spool.ends(1)), end, lambda _: lanes, lambda _: None, 0.05)
        todo = [e for e in history if (e.lsn if isinstance(e, Begin | Commit) else e.position.lsn) > end.lsn]
        for number, event in enumerate(todo[:cut]):
            intake.take([event])
            if number % 5 == 4:
                intake.flush()
        if cut is None:
            intake.flush()
        else:
            spool.close()
    expected = sum(count for count, _ in sizes)
    found = 0
    for lane in spool.lanes_with_blocks():
        mark = None
        while (queued := spool.head(lane)) is not None:
            block = decode(queued.data)
            assert block.prev == mark
            mark, found = block.last, found + block.count
            spool.accepted([queued])
    spool.close()
    assert found == expected


def test_what_was_given_is_spooled_before_the_intake_ends(make_intake, make_change):
    """close returns when every whole transaction that was given is durable and confirmed."""
    intake, told, _ = make_intake()
    taking = IntakeThread(intake)
    for lsn in range(10, 200, 10):
        taking.give(_transaction(make_change, lsn, 2))
    taking.give(_transaction(make_change, 200, 2)[:-1])
    taking.close()
    assert told[-1] == 198
    assert intake.spool.durable_end().lsn == 190


def test_what_the_intake_fails_with_ends_the_capture(make_intake, make_change):
    """Whoever gives hears of it, at the next lot or at the end, and does not wait for ever."""
    intake, told, _ = make_intake()
    intake.spool.append = lambda *_, **__: (_ for _ in ()).throw(SpoolBroken("no space left"))
    taking = IntakeThread(intake)
    with pytest.raises(SpoolBroken):
        for lsn in range(10, 100_000, 10):
            taking.give(_transaction(make_change, lsn, 1, size=5000))
    with pytest.raises(SpoolBroken):
        taking.close()
    assert told == []


def test_the_health_page_tells_people_and_machines():
    """503 with the reason while something is wrong; the same numbers as JSON and for Prometheus."""
    troubles = [None]

    read = [SnapshotProgress("t", 1_000_001, groups=4, groups_done=1, rows_done=5, rows_expected=20, seconds_left=90.0)]

    def status() -> Status:
        numbers = (9, 8, 7, 6, 5, 4, 3, 2, 1, 100, 200, 0.5)
        return Status("shop", 1, troubles[0] is None, troubles[0], *numbers, read, warnings=("t has no key", "u"))

    page = HealthPage(0, status)
    try:
        address = f"http://127.0.0.1:{page.port}"
        assert json.load(urllib.request.urlopen(f"{address}/status"))["accepted_changes"] == 4
        text = urllib.request.urlopen(f"{address}/metrics").read().decode()
        assert 'headrace_agent_captured_changes{source="shop"} 6' in text
        assert '# TYPE headrace_agent_warnings gauge\nheadrace_agent_warnings{source="shop"} 2\n' in text
        assert 'headrace_agent_snapshot_seconds_left{source="shop",table="t"} 90' in text
        assert urllib.request.urlopen(f"{address}/health").status == 200
        troubles[0] = "the spool is full"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/health")
        assert (refused.value.code, refused.value.read()) == (503, b"the spool is full")
    finally:
        page.close()
