"""Rows of blocks that the chain let pass, on their way into the task's files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
from pyiceberg.io import FileIO

from glue_streaming import chain, data_files, decode, holes
from glue_streaming.chain import Fill
from glue_streaming.holes import Hole
from glue_streaming.shards import Record
from glue_streaming.task import LaneKey, Outcome, Task
from schemas.block import Block, Kind
from schemas.errors import MalformedBlock, SchemasError
from schemas.position import Line, Position

_PENDING_BYTES: Final = 64 * 1024 * 1024
"""A task writes its files once it holds so much: what a batch unpacks to is bounded, not only what it reads."""
_MAX_ROWS_BYTES: Final = 1024 * 1024 * 1024
_CELL_BYTES: Final = 8


@dataclass(frozen=True)
class _Pending:
    """A block whose rows are to be written: all of them, or those in (after, upto]."""

    key: LaneKey
    block: Block
    raw: bytes
    record: Record
    after: Position | None = None
    upto: Position | None = None
    opened_at: str | None = None


class PendingRows:
    """Gathers rows by table, tier and writer schema, and writes a file for each once it holds enough of them, or at the
    end.

    A block that does not read then becomes a hole of its lane in `outcome`; `keep` stores its bytes and says where.
    """

    def __init__(self, task: Task, io: FileIO, outcome: Outcome, keep: Callable[[str, Record, str], str]) -> None:
        self._task, self._io, self._outcome, self._keep = task, io, outcome, keep
        self._blocks: dict[tuple[tuple[str, str], str, bytes], list[_Pending]] = defaultdict(list)
        self._bytes = 0

    def add(self, key: LaneKey, verdict: chain.Verdict, block: Block, raw: bytes, record: Record) -> None:
        """Raises MalformedBlock where a block cannot hold the rows that it counts, or memory could not."""
        tier = "staged" if block.kind is Kind.SNAPSHOT else "log"
        pending = _Pending(key, block, raw, record)
        if isinstance(verdict, Fill):
            pending = replace(pending, after=verdict.hole.after, upto=verdict.upto, opened_at=verdict.hole.opened_at)
        size = self._rows_bytes(key, block, raw)
        if self._bytes + size > _PENDING_BYTES:
            self.write()
        self._blocks[(key.source, key.table), tier, block.schema].append(pending)
        self._bytes += size

    def _rows_bytes(self, key: LaneKey, block: Block, raw: bytes) -> int:
        """About what the block's rows take in memory: in Arrow a null takes room that it does not take in Avro."""
        if block.count > len(raw):
            raise MalformedBlock(f"{len(raw)} bytes cannot hold the {block.count} records that the block counts")
        columns = len(self._task.tables[key.source, key.table].writers[block.schema]["fields"])
        size = len(raw) + block.count * columns * _CELL_BYTES
        if size > _MAX_ROWS_BYTES:
            raise MalformedBlock(f"its {block.count} rows would take {size} bytes of memory")
        return size

    def write(self) -> None:
        for (table, tier, fingerprint), pending in self._blocks.items():
            self._write(table, tier, fingerprint, pending)
        self._blocks.clear()
        self._bytes = 0

    def _write(self, table: tuple[str, str], tier: str, fingerprint: bytes, pending: list[_Pending]) -> None:
        shape = self._task.tables[table]
        rows = list(self._decoded(table, tier, fingerprint, pending))
        if not rows:
            return
        written = data_files.write(
            pa.concat_tables(rows), schema=shape.schema, location=shape.location, tier=tier, io=self._io
        )
        if written is not None:
            self._outcome.files.append((table, written))
            self._outcome.rows += written.rows

    def _decoded(
        self, table: tuple[str, str], tier: str, fingerprint: bytes, pending: list[_Pending]
    ) -> Iterator[pa.Table]:
        """The rows of all blocks in one go; block by block where one of them does not read, or is needed in part."""
        whole = [item for item in pending if item.upto is None]
        parts = [item for item in pending if item.upto is not None]
        try:
            if whole:
                yield self._rows(table, tier, fingerprint, whole)
        except SchemasError as error:
            self._outcome.stuck |= isinstance(error, decode.DecoderStuck)
            parts = pending
        for item in parts:
            try:
                decode.verify(self._task.tables[table].writers[fingerprint], item.block.count, item.raw)
                yield decode.between(self._rows(table, tier, fingerprint, [item]), item.after, item.upto)
            except SchemasError as error:
                self._undecodable(item, str(error))

    def _rows(self, table: tuple[str, str], tier: str, fingerprint: bytes, pending: Sequence[_Pending]) -> pa.Table:
        shape = self._task.tables[table]
        rows = decode.to_arrow(shape.writers[fingerprint], [(item.block.count, item.raw) for item in pending])
        decode.check_positions(rows, [(item.block.count, item.block.first, item.block.last) for item in pending])
        rows = decode.conform(rows, data_files.arrow_schema(shape.schema), self._task.batch, tier)
        if shape.erasures is None or not shape.erasures.reach(Line(*min(item.block.first for item in pending)[:2])):
            return rows
        return shape.erasures.apply(rows, tier)

    def _undecodable(self, item: _Pending, reason: str) -> None:
        """A block that the chain let pass and that does not read: its lane went on, so its hole is added behind."""
        lane, sequence = self._outcome.lanes[item.key]
        where = self._keep(item.key.source, item.record, reason)
        after, last = (item.block.prev, item.block.last) if item.upto is None else (item.after, item.upto)
        hole = Hole(item.key.lane, after, last, reason, item.opened_at or self._task.at, where)
        self._outcome.lanes[item.key] = (replace(lane, holes=holes.add(lane.holes, hole)), sequence)
