"""Control datums and lane routing."""

from datetime import UTC, datetime

import pytest

from schemas import control
from schemas.control import Announcement, LaneEnd, Progress, Reject, SnapshotEnd
from schemas.errors import MalformedBlock
from schemas.position import Line, Position, format_lsn, parse_lsn

PROGRESS = Progress(
    era=2,
    through=77,
    committed_at=datetime(2026, 1, 2, tzinfo=UTC),
    vector=(LaneEnd("orders", "0", Position(2, 70, 4)), LaneEnd("orders", "1", Position(2, 66, 0))),
    snapshots=(Announcement(2_000_001, "orders", 60, abandoned=False),),
)


def test_control_datums_read_back_as_written() -> None:
    """Each control datum survives its encoding."""
    end = SnapshotEnd(1, 0, 2, 3, 99, None, ("5", "b"), 10)
    reject = Reject("u", "id=1", "numeric out of range", b"\x00\xff")
    assert control.decode_progress(control.encode_progress(PROGRESS)) == PROGRESS
    assert control.decode_snapshot_end(control.encode_snapshot_end(end)) == end
    assert control.decode_reject(control.encode_reject(reject)) == reject


def test_a_control_datum_with_bytes_behind_it_is_malformed() -> None:
    """A control block holds exactly one datum."""
    with pytest.raises(MalformedBlock, match="follow the Progress datum"):
        control.decode_progress(control.encode_progress(PROGRESS) + b"\0")


def test_a_control_datum_cut_short_is_malformed() -> None:
    """No half of a progress record is read as one."""
    with pytest.raises(MalformedBlock):
        control.decode_progress(control.encode_progress(PROGRESS)[:-1])


def test_the_lane_of_a_snapshot_names_its_group_and_attempt() -> None:
    """Lane names of snapshots parse back; data lanes are none of them."""
    assert control.parse_snapshot_lane(control.snapshot_lane(1_000_001, 2, 3)) == (1_000_001, 2, 3)
    assert control.parse_snapshot_lane("0") is None
    assert control.parse_snapshot_lane("control") is None


def test_a_lane_keeps_its_hash_key_for_ever() -> None:
    """The route of a lane is part of the wire format: another value would break its order across a release."""
    assert control.lane_hash_key("shop", "orders", "0") == 0xC28E1F30D40D57CD51ACC0C1DF6CC3B4
    assert 0 <= control.lane_hash_key("a", "b", "c") < 2**128
    assert control.lane_hash_key("a", "bc", "0") != control.lane_hash_key("ab", "c", "0")


def test_a_line_covers_whole_transactions() -> None:
    """Every position of the transaction at the line lies within it, whatever its idx."""
    assert Line(1, 50).covers(Position(1, 50, 10**6))
    assert not Line(1, 50).covers(Position(1, 51, 0))
    assert Line(2, 0).covers(Position(1, 99, 0))


def test_lsns_are_printed_and_read_as_postgresql_does() -> None:
    """format_lsn and parse_lsn are inverse."""
    assert format_lsn(0x1_016B3748) == "1/16B3748"
    assert parse_lsn(format_lsn(2**63 - 1)) == 2**63 - 1
