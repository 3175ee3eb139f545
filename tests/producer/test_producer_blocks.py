"""Lanes, and cutting changes into blocks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from producer import lanes
from producer.blocks import RECORD_LIMIT_BYTES, Gatherer, Lane, Packer
from producer.change import Change, Rejected
from producer.postgres.identity import CapturedTable
from producer.postgres.source import PostgresSource
from producer.postgres_source import choice_of, entry_of
from producer.settings import TableSettings
from schemas.block import NO_SCHEMA, Kind, datums, decode
from schemas.change_record import Column, TableSchema
from schemas.control import decode_reject
from schemas.position import Position

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LANE = Lane("t", "0")


def _change(op: str, key: bytes) -> Change:
    schema = TableSchema("shop", "t", (Column("id", "long", "id", "bigint"),), ("id",))
    return Change("t", schema, op, key, Position(1, 1, 0), 0, b"")


@given(st.binary(), st.integers(1, 256))
def test_one_key_has_one_lane(key, count):
    """The lane depends on the key only, and is one of the table's."""
    assert lanes.lane(_change("c", key), count) == lanes.lane(_change("d", key), count)
    assert 0 <= int(lanes.lane(_change("u", key), count)) < count


def test_a_truncate_and_a_row_without_a_key_go_on_lane_0():
    assert {lanes.lane(_change("t", b"7"), 16), lanes.lane(_change("c", b""), 16)} == {"0"}


def test_keys_spread_over_all_lanes():
    assert len({lanes.lane(_change("c", b"%d" % n), 8) for n in range(200)}) == 8


def test_the_first_matching_entry_says_what_holds_for_a_table():
    """Names without a schema are in `public`, those that are excluded as well."""
    entries = (
        TableSettings("hot*", lanes=8, exclude=("hot_old",)),
        TableSettings("public.*", lanes=2),
    )
    source = PostgresSource("shop", "", "slot", "publication", tuple(map(choice_of, entries)))

    def lanes_of(schema: str, name: str) -> int:
        return entry_of(CapturedTable(1, schema, name, False, name, True), source, entries).lanes

    assert lanes_of("public", "hot") == 8
    assert lanes_of("public", "hot_old") == lanes_of("public", "cold") == 2
    assert lanes_of("other", "cold") == 1


def test_blocks_chain_and_hold_every_change_once(make_change):
    """Each block's prev is the last of the one before it; the first one's is where the lane ended."""
    packer = Packer("shop", LANE, Kind.DATA, 1000, Position(1, 5, 5))
    changes = [make_change(10 + n // 10, n % 10) for n in range(400)]
    packed = packer.pack(changes, NOW)
    assert len(packed) > 2
    assert [p.prev for p in packed] == [Position(1, 5, 5), *(p.last for p in packed[:-1])]
    blocks = [decode(p.data) for p in packed]
    assert b"".join(datums(block) for block in blocks) == b"".join(change.datum for change in changes)
    assert sum(block.count for block in blocks) == 400
    assert [(block.prev, block.first, block.last) for block in blocks] == [(p.prev, p.first, p.last) for p in packed]


def test_a_block_ends_with_the_change_that_fills_it(make_change):
    packed = Packer("shop", LANE, Kind.DATA, 1000, None).pack([make_change(n, size=5000) for n in (1, 2, 3)], NOW)
    assert [p.count for p in packed] == [1, 1, 1]


def test_a_block_has_one_writer_schema(make_change):
    """An ALTER TABLE in mid-stream begins a new block."""
    old = make_change(1).schema
    new = replace(old, columns=(*old.columns, Column("b", "string", "b", "text")))
    changes = [make_change(1), make_change(2, schema=new), make_change(3, schema=new), make_change(4)]
    packed = Packer("shop", LANE, Kind.DATA, 1000, None).pack(changes, NOW)
    assert [(p.fingerprint, p.count) for p in packed] == [
        (old.fingerprint(), 1),
        (new.fingerprint(), 2),
        (old.fingerprint(), 1),
    ]


def test_a_rejected_change_keeps_its_place_in_a_block_of_its_own(make_change):
    reject = Rejected("t", make_change(1).schema, "u", b"k", "id=7", Position(1, 2, 0), 20, "too wide", b"\x01raw")
    packed = Packer("shop", LANE, Kind.DATA, 1000, None).pack([make_change(1), reject, make_change(3)], NOW)
    assert [p.kind for p in packed] == [Kind.DATA, Kind.REJECT, Kind.DATA]
    assert (packed[1].fingerprint, packed[1].prev, packed[2].prev) == (NO_SCHEMA, packed[0].last, packed[1].last)
    told = decode_reject(datums(decode(packed[1].data)))
    assert (told.op, told.key, told.reason, told.raw) == ("u", "id=7", "too wide", b"\x01raw")


def test_no_block_of_several_changes_exceeds_the_record_limit(make_change):
    """Where the guess of how well a lane compresses was wrong, the block is cut again; one huge change stays whole."""
    changes = [make_change(n, size=400_000) for n in range(1, 9)] + [make_change(9, size=2_000_000)]
    packed = Packer("shop", LANE, Kind.DATA, 900_000, None).pack(changes, NOW)
    assert all(len(p.data) <= RECORD_LIMIT_BYTES or p.count == 1 for p in packed)
    assert sum(p.count for p in packed) == 9
    assert len(packed[-1].data) > RECORD_LIMIT_BYTES


def test_a_cut_within_a_transaction_keeps_earlier_ones_apart(make_change):
    """`whole` gives what has committed, `tail` the rest: they never share a block."""
    gatherer = Gatherer("shop", 1000, {})
    gatherer.add(LANE, make_change(1))
    gatherer.commit()
    gatherer.add(LANE, make_change(2, 0))
    gatherer.add(LANE, make_change(2, 1))
    assert [(p.first.lsn, p.last.lsn) for p in gatherer.whole(NOW)] == [(1, 1)]
    assert gatherer.whole(NOW) == []
    assert [(p.first.lsn, p.count, p.prev.lsn) for p in gatherer.tail(NOW)] == [(2, 2, 1)]


def test_a_lane_continues_where_the_spool_says_it_ended(make_change):
    gatherer = Gatherer("shop", 1000, {LANE: Position(1, 1, 4)})
    gatherer.add(LANE, make_change(2))
    gatherer.commit()
    assert gatherer.whole(NOW)[0].prev == Position(1, 1, 4)


def test_a_full_lane_is_noticed(make_change):
    gatherer = Gatherer("shop", 1000, {})
    gatherer.add(LANE, make_change(1, size=5000))
    assert gatherer.full
    gatherer.commit()
    gatherer.whole(NOW)
    assert not gatherer.full
