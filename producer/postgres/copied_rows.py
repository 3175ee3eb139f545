"""Rows of a snapshot from COPY's binary format, many at a time, as the stream's rows are written."""

from __future__ import annotations

import select
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn

from producer.change import Array, Change, Rejected, Run
from producer.errors import SourceProtocolBroken
from producer.postgres import avro
from producer.postgres.chunk import Chunk, inserted, kept, varints
from producer.postgres.columns import COPY_PREFIX, Columns, Malformed
from producer.postgres.decoder import encode_change
from producer.postgres.forms import form_of
from producer.postgres.messages import Binary, Row
from producer.postgres.rows import RowEncoder, Stamp
from schemas.change_record import OPS
from schemas.position import Position

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_END: Final = b"\xff\xff"
_COUNT_BYTES: Final = 2
_ROOM: Final = bytes(34)
"""Put in front of each row, whose metadata it holds together with the row's count of columns."""
_MOST_ROWS: Final = 4000
_MOST_BYTES: Final = 4 * 1024 * 1024
_LEAST_ROWS: Final = 24
_i16 = struct.Struct(">h").unpack_from
_i32 = struct.Struct(">i").unpack_from


@dataclass(frozen=True)
class CopiedRows:
    """The rows of one COPY at (era, lsn, ordinal from 0), in the order in which they come. A column whose binary form
    is not read here comes as text."""

    encoder: RowEncoder
    era: int
    lsn: int
    committed_at: int
    least: int = _LEAST_ROWS

    def read(self, connection: PGconn, copy: bytes) -> Iterator[Change | Run | Rejected]:
        """Runs the COPY statement. Raises psycopg.OperationalError or SourceProtocolBroken."""
        ordinal = 0
        for payloads in _portions(connection, copy):
            yield from self.items(payloads, ordinal)
            ordinal += len(payloads)

    def items(self, payloads: Sequence[bytes | memoryview], ordinal: int) -> list[Change | Run | Rejected]:
        """Rows as COPY has them, from their count of columns on; the first one's ordinal."""
        if len(payloads) < self.least:
            return [self._single(bytes(payload), ordinal + place) for place, payload in enumerate(payloads)]
        try:
            return self._many(payloads, ordinal)
        except Malformed:
            return [self._single(bytes(payload), ordinal + place) for place, payload in enumerate(payloads)]

    def _single(self, payload: bytes, ordinal: int) -> Change | Rejected:
        position = Position(self.era, self.lsn, ordinal)
        stamp = Stamp.of(self.era, self.lsn, self.committed_at)
        return encode_change(self.encoder, "r", self._values(payload), position, self.committed_at, stamp, payload)

    def _values(self, payload: bytes) -> Row:
        """Raises SourceProtocolBroken."""
        try:
            return self._split(payload)
        except (struct.error, ValueError) as error:
            raise SourceProtocolBroken(f"a row of COPY makes no sense: {payload[:64]!r}") from error

    def _split(self, payload: bytes) -> Row:
        values: Row = []
        at = _COUNT_BYTES
        for mapping in self.encoder.mapped:
            (size,) = _i32(payload, at)
            at += 4
            value = payload[at : at + size]
            values.append(None if size < 0 else value if mapping.encode_binary is None else Binary(value))
            at += max(size, 0)
        if _i16(payload, 0)[0] != len(values) or at != len(payload):
            raise ValueError("another count of columns, or of bytes")
        return values

    def _many(self, payloads: Sequence[bytes | memoryview], ordinal: int) -> list[Change | Run | Rejected]:
        count = len(payloads)
        sizes = np.fromiter(map(len, payloads), np.int64, count) + len(_ROOM)
        ends = np.cumsum(sizes)
        chunk = Chunk(_ROOM.join([b"", *payloads]))
        rows = ends - sizes + len(_ROOM)
        if (chunk.i2[rows] != len(self.encoder.mapped)).any():
            raise Malformed
        columns = Columns(chunk, COPY_PREFIX, rows + _COUNT_BYTES, ends)
        columns.write([[form_of(mapping) for mapping in self.encoder.mapped]], None, frozenset())
        lengths = self._write_metadata(chunk, ends - sizes, ordinal)
        data = chunk.output()
        begins = np.cumsum(lengths + columns.kept) - columns.kept
        data = inserted(data, [(begins[numbers] + at, pieces) for numbers, at, pieces in columns.inserts])
        run = self._run(data, lengths + columns.sizes, ordinal)
        items: list[Change | Run | Rejected] = []
        at = 0
        for place in [*np.flatnonzero(columns.odd).tolist(), count]:
            if at < place:
                items.append(run.part(at, place))
            if place < count:
                items.append(self._single(bytes(payloads[place]), ordinal + place))
            at = place + 1
        return items

    def _write_metadata(self, chunk: Chunk, at: Array, ordinal: int) -> Array:
        """Writes _op to _raw in the room before each row; returns how long it is."""
        stamp = Stamp.of(self.era, self.lsn, self.committed_at)
        before = np.frombuffer(avro.long(OPS.index("r")) + stamp.era_lsn, np.uint8)
        after = np.frombuffer(stamp.committed_at + 3 * avro.NULL, np.uint8)
        idxs, sizes = varints(np.arange(ordinal, ordinal + len(at)))
        matrix = np.empty((len(at), len(before) + idxs.shape[1] + len(after)), np.uint8)
        keep = np.ones_like(matrix)
        middle = slice(len(before), len(before) + idxs.shape[1])
        matrix[:, : len(before)] = before
        matrix[:, middle] = idxs
        matrix[:, middle.stop :] = after
        keep[:, middle] = kept(sizes, idxs.shape[1])
        if matrix.shape[1] > len(_ROOM) + _COUNT_BYTES:
            raise AssertionError("metadata longer than its room")
        chunk.put_kept(at, matrix, keep)
        return sizes + len(before) + len(after)

    def _run(self, data: bytes, sizes: Array, ordinal: int) -> Run:
        count, schema = len(sizes), self.encoder.schema
        ends = np.cumsum(sizes)
        if ends[-1] != len(data):
            raise AssertionError(f"{len(data)} bytes were kept, {ends[-1]} were counted")
        return Run(
            table=schema.table,
            schema=schema,
            era=self.era,
            lsns=np.full(count, self.lsn, np.int64),
            idxs=np.arange(ordinal, ordinal + count),
            times=np.full(count, self.committed_at, np.int64),
            ends=ends,
            datums=data,
            hashes=None,
        )


def _portions(connection: PGconn, copy: bytes) -> Iterator[list[bytes | memoryview]]:
    """The rows of a COPY, many at a time, without header and end. Other threads go on while it waits."""
    result = connection.exec_(copy)
    if result.status != pq.ExecStatus.COPY_OUT:
        raise psycopg.OperationalError(result.get_error_message().strip())
    first, more = True, True
    while more:
        payloads: list[bytes | memoryview] = []
        more = _fill(connection, payloads)
        if first and payloads:
            payloads[0] = _without_header(bytes(payloads[0]))
            payloads = payloads if payloads[0] else payloads[1:]
            first = False
        if payloads and payloads[-1] == _END:
            payloads.pop()
        if payloads:
            yield payloads
    while (done := connection.get_result()) is not None:
        if done.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.OperationalError(done.get_error_message().strip())


def _fill(connection: PGconn, payloads: list[bytes | memoryview]) -> bool:
    """Takes what comes until there is much of it; False at the end."""
    get, append, room = connection.get_copy_data, payloads.append, _MOST_BYTES
    while len(payloads) < _MOST_ROWS and room > 0:
        size, data = get(1)
        if size > 0:
            append(data)
            room -= size
        elif size < 0:
            return False
        else:
            select.select([connection.socket], [], [])
            connection.consume_input()
    return True


def _without_header(payload: bytes) -> bytes:
    if not payload.startswith(_SIGNATURE):
        raise SourceProtocolBroken(f"no binary COPY: it starts with {payload[:16]!r}")
    (extension,) = _i32(payload, len(_SIGNATURE) + 4)
    return payload[len(_SIGNATURE) + 8 + extension :]
