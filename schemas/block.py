"""Blocks: the wire format. One block is one Kinesis record (WIRE_FORMAT.md describes every byte)."""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final

import fastavro
from backports import zstd

from schemas.errors import ChecksumMismatch, MalformedBlock
from schemas.fingerprint import parsing_fingerprint
from schemas.position import Position

BLOCK_SCHEMA: Final[dict[str, Any]] = json.loads(files("schemas").joinpath("block.avsc").read_text())
_PARSED: Final = fastavro.parse_schema(BLOCK_SCHEMA)
HEADER: Final = b"\xc3\x01" + parsing_fingerprint(BLOCK_SCHEMA)
NO_SCHEMA: Final = bytes(8)

DEFAULT_MAX_PAYLOAD_BYTES: Final = 256 * 1024 * 1024
"""A payload that unpacks to more is refused: nothing that the agent writes comes near it."""


class Kind(StrEnum):
    DATA = "data"
    SNAPSHOT = "snapshot"
    SNAPSHOT_END = "snapshot_end"
    PROGRESS = "progress"
    REJECT = "reject"


class Codec(StrEnum):
    NULL = "null"
    DEFLATE = "deflate"
    ZSTANDARD = "zstandard"


@dataclass(frozen=True, slots=True)
class Block:
    """Many changes of one lane under one writer schema; immutable once spooled.

    schema: 8 bytes, fingerprint of the writer schema of `records`; zeros where a control datum speaks for itself.
    prev: last position of the lane's block before this one; None opens a lane in its era.
    records: `count` Avro datums, concatenated, compressed by `codec` as in an Avro container file.
    checksum: CRC-32 of the uncompressed datums, as a signed 32-bit int.
    claim: where the payload lies (an S3 URI) when it is too large for a record; `records` is then empty.
    """

    kind: Kind
    source: str
    table: str
    lane: str
    schema: bytes
    prev: Position | None
    first: Position
    last: Position
    count: int
    created_at: datetime
    codec: Codec
    checksum: int
    claim: str | None
    records: bytes


def build(
    kind: Kind,
    source: str,
    table: str,
    lane: str,
    *,
    schema: bytes,
    prev: Position | None,
    first: Position,
    last: Position,
    count: int,
    created_at: datetime,
    datums: bytes,
    codec: Codec = Codec.ZSTANDARD,
) -> Block:
    """A block around uncompressed datums: checksummed, then compressed."""
    return Block(
        kind=kind,
        source=source,
        table=table,
        lane=lane,
        schema=schema,
        prev=prev,
        first=first,
        last=last,
        count=count,
        created_at=created_at,
        codec=codec,
        checksum=checksum(datums),
        claim=None,
        records=compress(codec, datums),
    )


def encode(block: Block) -> bytes:
    """The bytes of the Kinesis record: Avro single-object encoding of the block."""
    out = io.BytesIO()
    out.write(HEADER)
    fastavro.schemaless_writer(out, _PARSED, _to_record(block))
    return out.getvalue()


def decode(data: bytes) -> Block:
    """The block in a Kinesis record.

    Raises MalformedBlock for anything that is not exactly one block. The payload is not looked at: see `datums`.
    """
    if not data.startswith(HEADER):
        raise MalformedBlock(f"no block: the record starts with {data[:10].hex()}, expected {HEADER.hex()}")
    stream = io.BytesIO(data)
    stream.seek(len(HEADER))
    try:
        record = fastavro.schemaless_reader(stream, _PARSED, None)
        block = _from_record(record)  # type: ignore[arg-type]
    except Exception as error:  # a hostile header can make the reader raise nearly anything
        raise MalformedBlock(f"the block's header does not parse: {error!r}") from error
    if stream.tell() != len(data):
        raise MalformedBlock(f"{len(data) - stream.tell()} bytes follow the block")
    _check(block)
    return block


def datums(block: Block, payload: bytes | None = None, max_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES) -> bytes:
    """The uncompressed datums, verified. `payload` is what a claim named, where the block has one.

    Raises MalformedBlock (does not decompress, or to more than max_bytes) or ChecksumMismatch.
    """
    raw = decompress(block.codec, block.records if payload is None else payload, max_bytes)
    if checksum(raw) != block.checksum:
        raise ChecksumMismatch(f"CRC-32 of the payload is {checksum(raw)}, the header says {block.checksum}")
    return raw


def checksum(data: bytes) -> int:
    """CRC-32 as a signed 32-bit int, the way Avro's int holds it."""
    value = zlib.crc32(data)
    return value - (1 << 32) if value >= 1 << 31 else value


def compress(codec: Codec, data: bytes) -> bytes:
    """Compressed as an Avro container-file block: raw deflate, or one zstandard frame."""
    if codec is Codec.NULL:
        return data
    if codec is Codec.DEFLATE:
        packer = zlib.compressobj(wbits=-15)
        return packer.compress(data) + packer.flush()
    return zstd.compress(data, level=1)


def decompress(codec: Codec, data: bytes, max_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES) -> bytes:
    """Bounded: a payload that claims to be small and is not ends in MalformedBlock, not in lost memory."""
    if codec is Codec.NULL:
        raw, finished = data, True
    else:
        unpacker: Any = zlib.decompressobj(wbits=-15) if codec is Codec.DEFLATE else zstd.ZstdDecompressor()
        try:
            raw = unpacker.decompress(data, max_bytes + 1)
        except (zlib.error, zstd.ZstdError) as error:
            raise MalformedBlock(f"the payload does not decompress: {error}") from error
        finished = unpacker.eof
    if len(raw) > max_bytes:
        raise MalformedBlock(f"the payload unpacks to more than {max_bytes} bytes")
    if not finished:
        raise MalformedBlock("the payload is cut short")
    return raw


def _to_record(block: Block) -> dict[str, Any]:
    return {
        "kind": block.kind.value,
        "source": block.source,
        "table": block.table,
        "lane": block.lane,
        "schema": block.schema,
        "prev": block.prev._asdict() if block.prev is not None else None,
        "first": block.first._asdict(),
        "last": block.last._asdict(),
        "count": block.count,
        "created_at": block.created_at,
        "codec": block.codec.value,
        "checksum": block.checksum,
        "claim": block.claim,
        "records": block.records,
    }


def _from_record(record: dict[str, Any]) -> Block:
    prev = record["prev"]
    return Block(
        kind=Kind(record["kind"]),
        source=record["source"],
        table=record["table"],
        lane=record["lane"],
        schema=record["schema"],
        prev=None if prev is None else Position(**prev),
        first=Position(**record["first"]),
        last=Position(**record["last"]),
        count=record["count"],
        created_at=record["created_at"].astimezone(UTC),
        codec=Codec(record["codec"]),
        checksum=record["checksum"],
        claim=record["claim"],
        records=record["records"],
    )


def _check(block: Block) -> None:
    """What no block of ours can be."""
    if block.count < 0 or block.first > block.last:
        raise MalformedBlock(f"impossible header: count {block.count}, first {block.first}, last {block.last}")
    if block.prev is not None and block.kind is not Kind.PROGRESS and block.prev >= block.first:
        raise MalformedBlock(f"impossible header: prev {block.prev} is not before first {block.first}")
