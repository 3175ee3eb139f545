"""Avro datums to Arrow, many blocks at a time, by DataFusion's reader.

fastavro to dicts to Arrow takes about fifty times as long. DataFusion's reader never returns from a block whose datums
are longer than its count says, so it works in a thread of its own, under a deadline.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import fastavro
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import SessionConfig, SessionContext

from schemas.errors import MalformedBlock
from schemas.position import Position

_SYNC: Final = bytes(range(16))
_BASE_SECONDS: Final = 30.0
_SECONDS_PER_MIB: Final = 1.0
"""A hundred times what the reader needs."""


class DecoderStuck(MalformedBlock):
    """The reader did not return in time. Its thread cannot be stopped: the process should end before long."""


def to_arrow(schema: dict[str, Any], blocks: Sequence[tuple[int, bytes]]) -> pa.Table:
    """The rows of the blocks, in order. Each block is (count, uncompressed datums), all under one writer schema.

    The schema's `lineage` (see evolution.writer) is carried out: names in `_unchanged` and `_raw` become the lake's.
    Raises MalformedBlock when the datums do not read as exactly as many records as the blocks count.
    """
    expected = sum(count for count, _ in blocks)
    try:
        table = _in_time(list(container(schema, blocks)))
    except DecoderStuck:
        raise
    except Exception as error:  # the reader raises bare exceptions, and hostile bytes can raise nearly any
        raise MalformedBlock(f"the datums do not read under their schema: {error}") from error
    if table.num_rows != expected:
        raise MalformedBlock(f"the datums hold {table.num_rows} records, the block counts {expected}")
    return _renamed(table, schema.get("lineage", {}))


def container(schema: dict[str, Any], blocks: Sequence[tuple[int, bytes]]) -> Iterator[bytes]:
    """An Avro container file around the datums, in pieces: the datums are not copied."""
    yield b"Obj\x01" + _long(2)
    for key, value in ((b"avro.schema", json.dumps(_plain(schema)).encode()), (b"avro.codec", b"null")):
        yield _long(len(key)) + key + _long(len(value)) + value
    yield _long(0) + _SYNC
    for count, datums in blocks:
        yield _long(count) + _long(len(datums))
        yield datums
        yield _SYNC


def check_positions(rows: pa.Table, spans: Sequence[tuple[int, Position, Position]]) -> None:
    """Raises MalformedBlock unless the rows' positions are those that their blocks say: (count, first, last) each.

    A block's checksum covers its rows, not its header: a damaged header would move the mark elsewhere.
    """
    era, lsn, idx = (rows.column(name).to_numpy() for name in ("_era", "_lsn", "_idx"))
    same_era, same_lsn = era[1:] == era[:-1], lsn[1:] == lsn[:-1]
    rises = (era[1:] > era[:-1]) | same_era & ((lsn[1:] > lsn[:-1]) | same_lsn & (idx[1:] > idx[:-1]))
    start = 0
    for count, first, last in spans:
        end = start + count
        if count < 1 or not rises[start : end - 1].all():
            raise MalformedBlock(f"the block's {count} positions do not rise")
        found = tuple(Position(int(era[at]), int(lsn[at]), int(idx[at])) for at in (start, end - 1))
        if found != (first, last):
            raise MalformedBlock(f"the rows are those of [{found[0]}, {found[1]}], the block says [{first}, {last}]")
        start = end


def between(rows: pa.Table, after: Position | None, upto: Position | None) -> pa.Table:
    """The rows at positions in (after, upto]; all of them where upto is None."""
    if upto is None:
        return rows
    keep = _compare(rows, upto, pc.less, or_equal=True)
    if after is not None:
        keep = pc.and_(keep, _compare(rows, after, pc.greater, or_equal=False))
    return rows.filter(keep)


def verify(schema: dict[str, Any], count: int, datums: bytes) -> None:
    """Reads the datums one by one, slowly and safely. Raises MalformedBlock unless they are exactly `count` records."""
    parsed = fastavro.parse_schema(_plain(schema))
    stream = io.BytesIO(datums)
    try:
        for _ in range(count):
            fastavro.schemaless_reader(stream, parsed, None)
    except Exception as error:  # hostile bytes can raise nearly any
        raise MalformedBlock(
            f"the datums do not read as the {count} records that the block counts: {error!r}"
        ) from error
    if stream.tell() != len(datums):
        rest = len(datums) - stream.tell()
        raise MalformedBlock(f"{rest} bytes of datums follow the {count} records that the block counts")


def conform(table: pa.Table, schema: pa.Schema, batch: int, tier: str) -> pa.Table:
    """The rows in the lake table's columns, order and types: missing columns are null, narrower types are widened.

    Raises MalformedBlock where a value does not fit its column.
    """
    constants = {"_batch": pa.scalar(batch, pa.int64()), "_tier": pa.scalar(tier, pa.string())}
    there = dict(zip(table.column_names, table.columns, strict=True))
    columns = []
    for field in schema:
        if field.name in constants:
            column = pa.repeat(constants[field.name], table.num_rows).cast(field.type)
        elif field.name in there:
            column = _cast(there[field.name], field)
        else:
            column = pa.nulls(table.num_rows, field.type)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def _compare(rows: pa.Table, bound: Position, strictly: Any, *, or_equal: bool) -> Any:
    """Lexicographic comparison of (_era, _lsn, _idx) with the bound."""
    columns = [rows.column(name) for name in ("_era", "_lsn", "_idx")]
    result: Any = pa.scalar(or_equal)
    for column, value in zip(reversed(columns), reversed(bound), strict=True):
        equal = pc.equal(column, value)
        result = pc.or_(strictly(column, value), pc.and_(equal, result))
    return result


def _renamed(table: pa.Table, lineage: Mapping[str, Sequence[str]]) -> pa.Table:
    """The rows with the lake's names in `_unchanged` (all that a name has had) and `_raw` (the one it has)."""
    if not lineage:
        return table

    def names(row: list[str] | None) -> list[str] | None:
        return None if row is None else [new for old in row for new in lineage.get(old, (old,))]

    def texts(row: list[tuple[str, str]] | None) -> list[tuple[str, str]] | None:
        return None if row is None else [(lineage.get(old, (old,))[0], text) for old, text in row]

    for name, rename in (("_unchanged", names), ("_raw", texts)):
        place, column = table.column_names.index(name), table.column(name)
        if column.null_count < len(column):
            rows = [rename(row) for row in column.to_pylist()]
            table = table.set_column(place, name, pa.array(rows, column.type))
    return table


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise MalformedBlock(f"column {field.name} does not fit {field.type}: {error}") from error


def _in_time(data: Sequence[bytes]) -> pa.Table:
    """The rows, or DecoderStuck."""
    outcome: list[pa.Table | Exception] = []
    memory = _spare.pop() if _spare else _Memory()

    def read() -> None:
        try:
            outcome.append(memory.read(data))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=read, name="avro", daemon=True)
    thread.start()
    seconds = _BASE_SECONDS + _SECONDS_PER_MIB * sum(map(len, data)) / 2**20
    thread.join(seconds)
    if not outcome:
        raise DecoderStuck(f"the Avro reader did not return within {seconds:.0f} s")
    _spare.append(memory)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


class _Memory:
    """A file in memory, since DataFusion reads files only. It is written again and again, in the pages that it has:
    new ones would cost a fifth of what the reader takes. It goes with the process, however that ends."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._file: Any = os.fdopen(os.memfd_create("avro"), "wb", buffering=0)
            self._path = f"/proc/self/fd/{self._file.fileno()}"
        else:  # not on Linux
            self._file = tempfile.NamedTemporaryFile(buffering=0)  # noqa: SIM115
            self._path = self._file.name

    def read(self, data: Sequence[bytes]) -> pa.Table:
        self._file.seek(0)
        for piece in data:
            self._file.write(piece)
        self._file.truncate()
        return _context().read_avro(self._path, file_extension="").to_arrow_table()


_spare: Final[list[_Memory]] = []
"""Those that no reader is at: one that hangs keeps its own."""


@cache
def _context() -> SessionContext:
    return SessionContext(SessionConfig().with_target_partitions(1))


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without our own properties, which other readers need not know."""
    fields = [{"name": field["name"], "type": field["type"]} for field in schema["fields"]]
    return {"type": "record", "name": "Change", "fields": fields}


def _long(value: int) -> bytes:
    """Avro's zig-zag variable-length long."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
