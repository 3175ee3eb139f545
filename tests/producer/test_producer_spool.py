"""The spool: what it has returned from is on disk, and a restart finds it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from producer import watermark
from producer.blocks import Lane, PackedBlock, Packer
from producer.errors import AnotherAgent
from producer.spool import DurableEnd, Snapshot, Spool
from schemas.block import Kind
from schemas.position import Position

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LANE = Lane("t", "0")


def _end(lsn: int, era: int = 1) -> DurableEnd:
    return DurableEnd(era, lsn, lsn + 8, lsn * 10)


@pytest.fixture
def packed(make_change):
    """Blocks of one change each, of one lane, chained behind `after`."""

    def pack(*lsns: int, after: Position | None = None, size: int = 20, lane: Lane = LANE) -> list[PackedBlock]:
        packer = Packer("shop", lane, Kind.DATA, 1000, after)
        return [block for lsn in lsns for block in packer.pack([make_change(lsn, size=size)], NOW)]

    return pack


def _accept(spool: Spool, lane: Lane = LANE) -> None:
    spool.accepted([spool.head(lane)])


def test_a_block_is_found_after_a_restart(make_spool, packed):
    spool = make_spool()
    blocks = packed(10, 20)
    spool.append(blocks, durable=_end(20))
    spool = make_spool()
    assert spool.durable_end() == _end(20)
    assert spool.ends(1) == {LANE: Position(1, 20, 0)}
    assert spool.lanes_with_blocks() == [LANE]
    assert spool.head(LANE).data == blocks[0].data


def test_a_tail_is_not_sendable_and_a_restart_discards_it(make_spool, packed):
    """What was spooled before its Commit is gone after a restart, and the lane's end is where it was."""
    spool = make_spool()
    spool.append(packed(10), durable=_end(10))
    spool.append(packed(20, after=Position(1, 10, 0)), durable=None)
    _accept(spool)
    assert spool.lanes_with_blocks() == []
    spool = make_spool()
    assert spool.discard_tail() == 1
    assert spool.ends(1) == {LANE: Position(1, 10, 0)}
    assert spool.totals().pending_bytes == 0


def test_the_commit_makes_a_tail_sendable_in_order(make_spool, packed):
    spool = make_spool()
    tail = packed(10, 11)
    spool.append(tail[:1], durable=None)
    spool.append(tail[1:], durable=_end(11))
    assert spool.ends(1) == {LANE: Position(1, 11, 0)}
    for expected in tail:
        assert spool.head(LANE).data == expected.data
        _accept(spool)
    assert spool.head(LANE) is None
    assert spool.lanes_with_blocks() == []


def test_a_commit_without_further_blocks_moves_the_tails_ends(make_spool, packed):
    spool = make_spool()
    spool.append(packed(10, 11), durable=None)
    spool.append([], durable=_end(11))
    assert spool.ends(1) == {LANE: Position(1, 11, 0)}


def test_one_process_at_a_time(make_spool, tmp_path):
    make_spool()
    with pytest.raises(AnotherAgent, match="another agent uses this spool"):
        Spool(tmp_path / "spool.db", 1 << 20)


def test_accepted_blocks_stay_until_room_is_needed(make_spool, packed):
    """The oldest accepted blocks go first, and a block that was not accepted never does."""
    spool = make_spool(max_bytes=5000)
    blocks = packed(*range(10, 20), size=1000)
    spool.append(blocks, durable=_end(19))
    assert spool.full()
    for _ in range(8):
        _accept(spool)
    totals = spool.totals()
    assert not spool.full()
    assert totals.spool_bytes <= 5000
    assert totals.pending_bytes == sum(len(block.data) for block in blocks[8:])
    assert [spool.resend(LANE, None, Position(1, lsn, 0)) > 0 for lsn in (10, 17)] == [False, True]
    assert spool.head(LANE) is not None


def test_a_resend_queues_the_blocks_of_a_range_once_more(make_spool, packed):
    """Blocks that hold a position of (after, last] go again, ahead of newer ones, and progress does not fall back."""
    spool = make_spool()
    blocks = packed(10, 20, 30, 40)
    spool.append(blocks, durable=_end(40))
    for _ in range(3):
        _accept(spool)
    before = watermark.progress(spool.view())
    assert spool.resend(LANE, Position(1, 10, 0), Position(1, 30, 0)) == 2
    assert watermark.progress(spool.view()) == before
    sent = []
    while spool.head(LANE) is not None:
        sent.append(spool.head(LANE).last.lsn)
        _accept(spool)
        assert watermark.progress(spool.view()).vector[0].last >= before.vector[0].last
    assert sent == [20, 30, 40]
    assert spool.totals().accepted_changes == 4


def test_a_counter_never_gives_a_number_twice(make_spool):
    assert [make_spool().count_up("n") for _ in range(3)] == [1, 2, 3]


def test_a_newer_snapshot_of_a_table_abandons_an_unfinished_one(make_spool):
    spool = make_spool()
    spool.add_snapshot(Snapshot(1, 1, "t", 5, "announced", 0))
    assert (spool.begin_attempt(1), spool.begin_attempt(1)) == (1, 2)
    spool.add_snapshot(Snapshot(2, 1, "t", 9, "announced", 0))
    assert [(s.snapshot, s.state) for s in spool.snapshots()] == [(1, "abandoned"), (2, "announced")]


# ---- progress


def test_nothing_is_said_before_the_era_is_open(make_spool):
    assert watermark.progress(make_spool().view()) is None


def test_progress_stops_before_the_first_block_that_was_not_accepted(make_spool, packed):
    """Its vector names the last accepted position of each lane, and through lies below what waits."""
    spool = make_spool()
    other = Lane("t", "1")
    spool.append([*packed(10, 30), *packed(20, lane=other)], durable=_end(30))
    assert (watermark.progress(spool.view()).through, watermark.progress(spool.view()).vector) == (9, ())
    _accept(spool)
    assert watermark.progress(spool.view()).through == 19
    _accept(spool, other)
    said = watermark.progress(spool.view())
    assert said.through == 29
    assert {(end.lane, end.last.lsn) for end in said.vector} == {("0", 10), ("1", 20)}
    _accept(spool)
    assert watermark.progress(spool.view()).through == 30


def test_progress_follows_keepalives_when_nothing_waits(make_spool, packed):
    spool = make_spool()
    spool.append(packed(10), durable=_end(10))
    _accept(spool)
    spool.append([], durable=_end(999))
    assert watermark.progress(spool.view()).through == 999


def test_a_tail_is_beyond_progress(make_spool, packed):
    spool = make_spool()
    spool.append(packed(10), durable=_end(10))
    _accept(spool)
    spool.append(packed(20, after=Position(1, 10, 0)), durable=None)
    assert watermark.progress(spool.view()).through == 10


def test_a_new_era_is_not_spoken_of_while_an_earlier_one_waits(make_spool, packed):
    spool = make_spool()
    spool.append(packed(10), durable=_end(10))
    spool.open_era(2, _end(500, era=2))
    assert watermark.progress(spool.view()) is None
    _accept(spool)
    said = watermark.progress(spool.view())
    assert (said.era, said.through, said.vector) == (2, 500, ())


def test_the_newest_snapshot_of_a_table_is_announced_for_good(make_spool):
    """Also after it has ended; one that was replaced is announced as abandoned."""
    spool = make_spool()
    spool.append([], durable=_end(1))
    spool.add_snapshot(Snapshot(1, 1, "t", 5, "announced", 0))
    spool.add_snapshot(Snapshot(2, 1, "t", 9, "announced", 0))
    spool.append_snapshot([], ends=2)
    said = watermark.progress(spool.view()).snapshots
    assert [(a.snapshot, a.low, a.abandoned) for a in said] == [(1, 5, True), (2, 9, False)]


def test_a_record_is_due_a_second_after_a_move_and_ten_when_idle(make_spool, packed):
    spool = make_spool()
    cadence = watermark.Cadence()
    spool.append(packed(10), durable=_end(10))
    first = watermark.progress(spool.view())
    _accept(spool)
    second = watermark.progress(spool.view())
    assert cadence.due(None, 0, first)
    assert [cadence.due(first, seconds, second) for seconds in (0.9, 1.0)] == [False, True]
    assert [cadence.due(second, seconds, second) for seconds in (9.9, 10.0)] == [False, True]
    spool.add_snapshot(Snapshot(1, 1, "t", 5, "announced", 0))
    assert cadence.due(second, 0, watermark.progress(spool.view()))
