"""The wire format: what is written is what is read, and its bytes never change by accident."""

import io
import zlib
from datetime import UTC, datetime
from pathlib import Path

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import block as blocks
from schemas.block import Block, Codec, Kind
from schemas.errors import ChecksumMismatch, MalformedBlock
from schemas.position import Position

GOLDEN = Path(__file__).parent / "golden"
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

positions = st.builds(Position, st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1))


@st.composite
def any_block(draw: st.DrawFn) -> Block:
    prev, first, last = sorted(draw(st.lists(positions, min_size=3, max_size=3, unique=True)))
    return blocks.build(
        draw(st.sampled_from([Kind.DATA, Kind.SNAPSHOT, Kind.REJECT])),
        draw(st.text(max_size=20)),
        draw(st.text(max_size=20)),
        draw(st.text(max_size=20)),
        schema=draw(st.binary(min_size=8, max_size=8)),
        prev=draw(st.sampled_from([None, prev])),
        first=first,
        last=last,
        count=draw(st.integers(0, 2**31 - 1)),
        created_at=draw(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1))).replace(tzinfo=UTC),
        datums=draw(st.binary(max_size=500)),
        codec=draw(st.sampled_from(list(Codec))),
    )


def sample(codec: Codec = Codec.NULL) -> Block:
    return blocks.build(
        Kind.DATA,
        "shop",
        "orders",
        "0",
        schema=bytes(range(8)),
        prev=Position(1, 2, 3),
        first=Position(1, 9, 0),
        last=Position(1, 9, 1),
        count=2,
        created_at=AT,
        datums=b"two datums",
        codec=codec,
    )


@given(any_block())
def test_a_block_reads_back_as_it_was_written(block: Block) -> None:
    """encode and decode are inverse, for any content of every field."""
    assert blocks.decode(blocks.encode(block)) == block


@given(st.binary(max_size=2000), st.sampled_from(list(Codec)))
def test_a_payload_unpacks_to_the_datums(data: bytes, codec: Codec) -> None:
    """Compression is lossless under every codec."""
    assert blocks.decompress(codec, blocks.compress(codec, data)) == data


def test_the_bytes_of_a_block_are_pinned() -> None:
    """A golden file holds the exact bytes, so that no release reads or writes another format unawares."""
    assert blocks.encode(sample()).hex() == (GOLDEN / "block_data_null.hex").read_text().strip()


def test_the_header_is_the_one_the_document_names() -> None:
    """WIRE_FORMAT.md and the code agree on the fingerprint of the block schema."""
    document = Path(blocks.__file__).with_name("WIRE_FORMAT.md").read_text()
    assert blocks.HEADER[2:].hex(" ").upper() in document


@pytest.mark.parametrize("codec", list(Codec))
def test_any_avro_reader_takes_a_payload_with_a_container_header_in_front(codec: Codec) -> None:
    """The payload is exactly the block of an Avro container file."""
    schema = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "long"}]}
    rows = [{"a": value} for value in range(50)]
    out = io.BytesIO()
    for row in rows:
        fastavro.schemaless_writer(out, schema, row)
    payload = blocks.compress(codec, out.getvalue())
    container = io.BytesIO()
    fastavro.writer(container, schema, [], codec=codec.value)
    sync = container.getvalue()[-16:]
    for number in (len(rows), len(payload)):
        fastavro.schemaless_writer(container, "long", number)
    container.write(payload + sync)
    container.seek(0)
    assert list(fastavro.reader(container)) == rows


@pytest.mark.parametrize("cut", [0, 1, 9, 10, 11, 40, -1])
def test_a_cut_block_is_malformed(cut: int) -> None:
    """A truncated record never reads as a block."""
    with pytest.raises(MalformedBlock):
        blocks.decode(blocks.encode(sample())[:cut])


def test_bytes_behind_a_block_are_malformed() -> None:
    """A record holds exactly one block."""
    with pytest.raises(MalformedBlock, match="1 bytes follow"):
        blocks.decode(blocks.encode(sample()) + b"\0")


@given(st.integers(0, len(blocks.encode(sample())) * 8 - 1))
def test_a_flipped_bit_never_passes_unseen(bit: int) -> None:
    """A damaged block is refused, or its header differs visibly while its payload still holds to its checksum."""
    data = bytearray(blocks.encode(sample(Codec.ZSTANDARD)))
    bit %= len(data) * 8
    data[bit // 8] ^= 1 << bit % 8
    try:
        block = blocks.decode(bytes(data))
        raw = blocks.datums(block)
    except (MalformedBlock, ChecksumMismatch):
        return
    assert block != sample(Codec.ZSTANDARD)
    assert zlib.crc32(raw) == zlib.crc32(b"two datums") or block.checksum != sample().checksum


def test_a_changed_payload_is_told_by_its_checksum() -> None:
    """One byte of the payload changed is a ChecksumMismatch."""
    data = blocks.encode(sample()).replace(b"two datums", b"two dandums"[:10])
    with pytest.raises(ChecksumMismatch):
        blocks.datums(blocks.decode(data))


@pytest.mark.parametrize("codec", [Codec.DEFLATE, Codec.ZSTANDARD])
def test_a_payload_that_unpacks_without_end_is_refused(codec: Codec) -> None:
    """Decompression is bounded: a zip bomb costs no more than the bound."""
    bomb = blocks.compress(codec, bytes(4_000_000))
    with pytest.raises(MalformedBlock, match="more than 1000000"):
        blocks.decompress(codec, bomb, max_bytes=1_000_000)


@pytest.mark.parametrize("codec", [Codec.DEFLATE, Codec.ZSTANDARD])
def test_a_payload_cut_short_is_refused(codec: Codec) -> None:
    """A compressed payload without its end is malformed, not shorter."""
    with pytest.raises(MalformedBlock):
        blocks.decompress(codec, blocks.compress(codec, bytes(range(256)) * 10)[:-3])


def test_a_block_that_starts_before_its_predecessor_ends_is_malformed() -> None:
    """prev < first holds for every block in a chain."""
    wrong = blocks.build(
        Kind.DATA, "s", "t", "0", schema=bytes(8), prev=Position(1, 9, 0), first=Position(1, 9, 0),
        last=Position(1, 9, 1), count=1, created_at=AT, datums=b"x",
    )  # fmt: skip
    with pytest.raises(MalformedBlock, match="is not before first"):
        blocks.decode(blocks.encode(wrong))
