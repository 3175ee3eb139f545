"""pgoutput's bytes: what is understood, and that anything else stops the stream instead of passing as something."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.errors import SourceProtocolBroken
from producer.postgres import messages
from producer.postgres.decoder import Decoder
from producer.postgres.messages import UNCHANGED, Row, Value, parse
from producer.postgres.rows import RowEncoder

VALUES: st.SearchStrategy[Value] = st.none() | st.just(UNCHANGED) | st.binary(max_size=40)
ROWS = st.lists(VALUES, max_size=6)
BEGIN = b"B" + struct.pack(">QqI", 100, 0, 7)


def tuple_bytes(row: Row) -> bytes:
    out = struct.pack(">H", len(row))
    for value in row:
        if isinstance(value, bytes):
            out += b"t" + struct.pack(">I", len(value)) + value
        else:
            out += b"n" if value is None else b"u"
    return out


@given(ROWS, ROWS, st.sampled_from(["K", "O", None]))
def test_an_update_in_all_its_forms(old: Row, new: Row, kind: str | None) -> None:
    """The old row or key where it was sent, and the new row, value by value."""
    before = b"" if kind is None else kind.encode() + tuple_bytes(old)
    found = parse(b"U" + struct.pack(">I", 9) + before + b"N" + tuple_bytes(new))
    assert found == messages.Update(9, kind, None if kind is None else old, new)


@given(ROWS)
def test_a_message_cut_short_never_parses(row: Row) -> None:
    """Every proper prefix of an insert is refused."""
    whole = b"I" + struct.pack(">I", 9) + b"N" + tuple_bytes(row)
    assert parse(whole) == messages.Insert(9, row)
    for end in range(len(whole)):
        with pytest.raises(SourceProtocolBroken):
            parse(whole[:end])


def test_times_are_counted_from_1970() -> None:
    """PostgreSQL counts from 2000."""
    assert parse(BEGIN) == messages.Begin(100, 946_684_800_000_000, 7)


@pytest.mark.parametrize("data", [b"", b"Z", b"S" + bytes(5), b"U" + bytes(4) + b"X" + bytes(2), b"R\0"])
def test_what_is_unknown_stops_the_stream(data: bytes) -> None:
    """Unknown kinds, streamed transactions that were not asked for, nonsense."""
    with pytest.raises(SourceProtocolBroken):
        parse(data)


@pytest.mark.parametrize(
    "stream",
    [
        [b"I" + struct.pack(">I", 9) + b"N" + tuple_bytes([b"1"])],
        [b"C" + struct.pack(">BQQq", 0, 100, 101, 0)],
        [BEGIN, BEGIN],
        [BEGIN, b"C" + struct.pack(">BQQq", 0, 99, 101, 0)],
        [BEGIN, b"I" + struct.pack(">I", 9) + b"N" + tuple_bytes([b"1"])],
        [BEGIN, b"T" + struct.pack(">IBI", 1, 0, 9)],
    ],
    ids=["change outside", "commit outside", "begin inside", "another commit", "unknown relation", "unknown truncate"],
)
def test_a_stream_out_of_order_stops(stream: list[bytes]) -> None:
    """Changes outside transactions, nested ones, commits of another, relations never described."""

    def describe(relation: messages.Relation) -> RowEncoder:
        raise AssertionError(f"{relation.name} was never announced")

    decoder = Decoder(era=1, after_lsn=0, describe=describe)
    for data in stream[:-1]:
        decoder.decode(data)
    with pytest.raises(SourceProtocolBroken):
        decoder.decode(stream[-1])
