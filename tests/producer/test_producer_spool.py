"""The spool: what it has returned from is on disk, and a restart finds it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest

from producer import watermark
from producer.blocks import Lane, PackedBlock, Packer
from producer.damage import Lost
from producer.durable_end import DurableEnd
from producer.era import Holding, check_spool_is_whole
from producer.errors import AnotherAgent, ContinuityBroken, SpoolBroken, SpoolDamaged
from producer.groups import EVERYTHING, Plan
from producer.snapshot_book import Piece, Snapshot
from producer.spool import Resent, Spool
from schemas.block import Kind, datums, decode
from schemas.control import LaneEnd, decode_reject
from schemas.position import Line, Position

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


def test_nobody_else_may_read_the_spool(make_spool, packed, tmp_path):
    """It holds rows: its files are the agent's user's alone, whatever the umask."""
    before = os.umask(0o022)
    try:
        make_spool().append(packed(10), durable=_end(10))
    finally:
        os.umask(before)
    files = sorted(path.name for path in tmp_path.glob("spool.db*") if path.suffix != ".lock")
    assert files == ["spool.db", "spool.db-shm", "spool.db-wal"]
    assert {(tmp_path / name).stat().st_mode & 0o077 for name in files} == {0}


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
    assert [spool.resend(LANE, None, Position(1, lsn, 0)).blocks > 0 for lsn in (10, 17)] == [False, True]
    assert spool.head(LANE) is not None


def test_what_becomes_of_a_block_is_written_without_its_bytes(make_spool, packed, tmp_path):
    """Its commit, its acceptance, a resend: a page or a few each, of a block of 100 kB."""
    spool = make_spool()
    (block,) = packed(10, size=100_000)
    assert len(block.data) > 90_000
    log = tmp_path / "spool.db-wal"
    written = []
    for step in (
        lambda: spool.append([block], durable=None),
        lambda: spool.append([], durable=_end(10)),
        _accept,
        lambda: spool.resend(LANE, None, Position(1, 10, 0)),
        _accept,
    ):
        before = log.stat().st_size
        step() if step is not _accept else step(spool)
        written.append(log.stat().st_size - before)
    assert written[0] > 90_000
    assert max(written[1:]) < 50_000


def test_a_resend_queues_the_blocks_of_a_range_once_more(make_spool, packed):
    """Blocks that hold a position of (after, last] go again, ahead of newer ones, and progress does not fall back."""
    spool = make_spool()
    blocks = packed(10, 20, 30, 40)
    spool.append(blocks, durable=_end(40))
    for _ in range(3):
        _accept(spool)
    before = watermark.progress(spool.view())
    assert spool.resend(LANE, Position(1, 10, 0), Position(1, 30, 0)) == Resent(2, 0)
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
    spool.book.add(Snapshot(1, 1, "t", 5))
    spool.book.cut(1, Plan())
    (piece,) = spool.book.pieces(1)
    assert (spool.book.begin_attempt(piece), spool.book.begin_attempt(piece)) == (1, 2)
    spool.book.add(Snapshot(2, 1, "t", 9))
    assert [(s.snapshot, s.state) for s in spool.book.all()] == [(1, "abandoned"), (2, "announced")]


# ---- damage


def _damage(tmp_path, lsn: int) -> None:
    """One bit of a block's bytes, where SQLite looks at nothing."""
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db, db:
        ((data,),) = db.execute("SELECT data FROM blocks WHERE last_lsn = ?", (lsn,)).fetchall()
        changed = bytes([data[0] ^ 1]) + data[1:]
        assert db.execute("UPDATE blocks SET data = ? WHERE last_lsn = ?", (changed, lsn)).rowcount == 1


def _alter(tmp_path, assignment: str, lsn: int) -> None:
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db, db:
        assert db.execute(f"UPDATE blocks SET {assignment} WHERE last_lsn = ?", (lsn,)).rowcount == 1


def test_a_lost_block_is_declared_in_its_place(make_spool, packed, tmp_path):
    """The source has forgotten what it held: a reject over the same positions takes its place in the chain, is sent and
    accepted as any other, and the loss stays told."""
    spool = make_spool()
    spool.append(packed(10, 20, 30), durable=_end(30))
    _damage(tmp_path, 20)
    spool = make_spool()
    assert spool.give_back_damaged(confirmed=31) == 0
    _accept(spool)
    with pytest.raises(SpoolDamaged, match="t/0 that ends at"):
        spool.head(LANE)
    assert spool.declare_damaged("shop") == Lost(blocks=1, changes=1)
    queued = spool.head(LANE)
    told = decode(queued.data)
    assert (queued.kind, told.kind, told.table, told.lane) == (Kind.REJECT, Kind.REJECT, "t", "0")
    assert (told.prev, told.first, told.last) == (Position(1, 10, 0), Position(1, 20, 0), Position(1, 20, 0))
    assert "1 changes were damaged" in decode_reject(datums(told)).reason
    _accept(spool)
    assert spool.view().ends == (LaneEnd("t", "0", Position(1, 20, 0)),)
    assert spool.head(LANE).last.lsn == 30
    assert spool.declare_damaged("shop") == Lost()
    assert spool.totals().lost_blocks == 1


@pytest.mark.parametrize("column", ["prev_lsn", "last_lsn", "last_idx"])
def test_a_loss_that_has_no_place_stops_the_agent(make_spool, packed, tmp_path, column):
    """A torn page took what the file says of the block as well; only a new era goes on, without it."""
    spool = make_spool()
    spool.append(packed(10, 20, 30), durable=_end(30))
    _damage(tmp_path, 20)
    _alter(tmp_path, f"{column} = 7", 20)
    spool = make_spool()
    with pytest.raises(SpoolBroken, match="--new-era"):
        spool.declare_damaged("shop")
    assert spool.declare_damaged("shop", leave_out=True) == Lost()
    assert [spool.head(LANE).last.lsn, spool.totals().pending_blocks] == [10, 2]


def test_a_damaged_block_is_not_sent_again(make_spool, packed, tmp_path):
    """Neither one that was damaged when it was asked for, nor one that was later; what is whole is."""
    spool = make_spool()
    spool.append(packed(10, 20, 30), durable=_end(30))
    for _ in range(3):
        _accept(spool)
    _damage(tmp_path, 20)
    spool = make_spool()
    assert spool.resend(LANE, None, Position(1, 30, 0)) == Resent(blocks=2, damaged=1)
    _damage(tmp_path, 10)
    spool = make_spool()
    with pytest.raises(SpoolDamaged):
        spool.head(LANE)
    assert spool.declare_damaged("shop") == Lost()
    assert (spool.head(LANE).last.lsn, spool.totals().pending_blocks) == (30, 1)


def test_a_damaged_snapshot_is_void(make_spool, packed, tmp_path):
    """Also where it has ended: nothing more of that group goes, and its table is named for another one."""
    spool = make_spool()
    spool.open_era(1, _end(5))
    lane = Lane("t", "s1000001.0.1")
    spool.book.add(Snapshot(1_000_001, 1, "t", 5))
    spool.book.cut(1_000_001, Plan((EVERYTHING,), None))
    (piece,) = spool.book.pieces(1_000_001)
    spool.append_snapshot(packed(10, 20, 30, lane=lane), ends=(piece, 3))
    _damage(tmp_path, 20)
    spool = make_spool()
    _accept(spool, lane)
    assert spool.declare_damaged("shop") == Lost(tables=frozenset({"t"}))
    assert spool.lanes_with_blocks() == []
    assert [snapshot.state for snapshot in spool.book.all()] == ["abandoned"]


def test_a_damaged_block_that_the_source_still_has_is_captured_again(make_spool, packed, tmp_path):
    """It goes with all behind it, over all lanes, and capture begins where it began."""
    spool = make_spool()
    other = Lane("t", "1")
    spool.append([*packed(10, 20), *packed(15, 25, lane=other)], durable=_end(25))
    _damage(tmp_path, 20)
    spool = make_spool()
    assert spool.give_back_damaged(confirmed=18) == 2
    assert (spool.durable_end().lsn, spool.durable_end().flushed) == (19, 18)
    assert spool.ends(1) == {LANE: Position(1, 10, 0), other: Position(1, 15, 0)}
    spool.append(packed(20, after=Position(1, 10, 0)), durable=_end(20))
    _accept(spool)
    assert spool.head(LANE).last.lsn == 20
    assert spool.give_back_damaged(confirmed=18) == 0


def test_a_spool_that_captures_again_is_not_taken_for_an_older_one(make_spool, packed, tmp_path):
    """However often, and wherever it is killed; a copy from before is."""
    spool = make_spool()
    spool.append(packed(10, 20), durable=_end(20))
    spool.checkpoint()
    shutil.copy(tmp_path / "spool.db", tmp_path / "copy.db")
    spool.append(packed(30, 40, after=Position(1, 20, 0)), durable=_end(40))
    told = Holding(1, 1, "a", 0.0, "here", spool.line())
    _damage(tmp_path, 30)
    for blocks in (2, 1):
        assert make_spool().give_back_damaged(confirmed=28) == blocks
        check_spool_is_whole(told, "a", make_spool().line())
        make_spool().append(packed(30, after=Position(1, 20, 0)), durable=_end(30))
        check_spool_is_whole(told, "a", make_spool().line())
        _damage(tmp_path, 30)
    with closing(Spool(tmp_path / "copy.db", 1 << 20)) as older, pytest.raises(ContinuityBroken, match="backup"):
        check_spool_is_whole(told, "a", older.line())
    spool = make_spool()
    spool.open_era(2, _end(5, era=2))
    assert spool.line() == Line(2, 5)


def test_a_spool_whose_log_is_damaged_is_taken_for_an_older_one(make_spool, packed, tmp_path):
    """SQLite drops what is behind the damage. Where the log was brought into the file, only the block is damaged."""
    spool = make_spool()
    blocks = packed(10, 20)
    spool.append(blocks[:1], durable=_end(10))
    spool.append(blocks[1:], durable=_end(20))
    told = Holding(1, 1, "a", 0.0, "here", spool.line())
    killed, stopped = tmp_path / "killed.db", tmp_path / "stopped.db"
    _copy(tmp_path / "spool.db", killed)
    _flip(killed.with_name("killed.db-wal"), blocks[1].data)
    spool.checkpoint()
    _copy(tmp_path / "spool.db", stopped)
    assert stopped.with_name("stopped.db-wal").stat().st_size == 0
    _flip(stopped, blocks[1].data)
    with closing(Spool(killed, 1 << 20)) as after, pytest.raises(ContinuityBroken, match="its disk lost writes"):
        check_spool_is_whole(told, "a", after.line())
    with closing(Spool(stopped, 1 << 20)) as after:
        check_spool_is_whole(told, "a", after.line())
        assert after.declare_damaged("shop") == Lost(blocks=1, changes=1)


def _copy(path, to) -> None:
    """What a kill leaves of a spool that is open."""
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), to.with_name(to.name + suffix))


def _flip(path, data: bytes) -> None:
    content = path.read_bytes()
    at = content.index(data)
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def test_nothing_is_captured_again_that_kinesis_has(make_spool, packed, tmp_path):
    """Blocks of other sizes would come at positions that the lake knows."""
    spool = make_spool()
    other = Lane("t", "1")
    spool.append([*packed(20), *packed(25, lane=other)], durable=_end(25))
    _accept(spool, other)
    _damage(tmp_path, 20)
    assert spool.give_back_damaged(confirmed=18) == 0
    with pytest.raises(SpoolDamaged):
        spool.head(LANE)


@pytest.mark.parametrize("content", [b"not a database, and long enough to have been one" * 100, None])
def test_a_file_that_is_no_spool_is_refused(tmp_path, content):
    """With what to do, and without touching it."""
    path = tmp_path / "spool.db"
    if content is None:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("CREATE TABLE blocks (id INTEGER)")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(SpoolBroken, match="--new-era"):
        Spool(path, 1 << 20)
    assert path.read_bytes() == before or content is None


# ---- bounds


def test_an_open_transaction_larger_than_the_spool_does_not_wait_for_itself(make_spool, packed):
    """Its tail can go only after its Commit, so it may go beyond the bound; what can be sent may not."""
    spool = make_spool(max_bytes=5000)
    tail = packed(*range(10, 20), size=1000)
    spool.append(tail[:9], durable=None)
    assert not spool.full()
    spool.append(tail[9:], durable=_end(19))
    assert spool.full()
    while spool.lanes_with_blocks():
        _accept(spool)
    assert not spool.full()


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
    spool.book.add(Snapshot(1, 1, "t", 5))
    spool.book.add(Snapshot(2, 1, "t", 9))
    spool.book.cut(2, Plan())
    spool.append_snapshot([], ends=(Piece(2, 0, EVERYTHING, 1, None), 0))
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
    spool.book.add(Snapshot(1, 1, "t", 5))
    assert cadence.due(second, 0, watermark.progress(spool.view()))
