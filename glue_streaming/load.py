"""The shard task: fetch, check the chain, decode, write Parquet. What it returns is small; the driver commits it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlparse

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import FileIO
from pyiceberg.schema import Schema

from glue_streaming import chain, data_files, decode, holes
from glue_streaming.chain import Duplicate, Fill, Gap, Lane, Load
from glue_streaming.data_files import WrittenFile
from glue_streaming.holes import Hole
from glue_streaming.shards import Start, fetch
from schemas import block as blocks
from schemas import control
from schemas.block import Block, Kind
from schemas.control import Progress, SnapshotEnd
from schemas.errors import MalformedBlock, SchemasError
from schemas.position import Position


@dataclass(frozen=True, order=True)
class LaneKey:
    source: str
    table: str
    lane: str


@dataclass(frozen=True)
class TableTask:
    """What a task must know of a table: how its files look, and which writer schemas it takes (by fingerprint)."""

    schema: Schema
    location: str
    writers: Mapping[bytes, dict[str, Any]]
    lanes: Mapping[str, Lane]
    activated_through: int


@dataclass(frozen=True)
class Task:
    """One shard's part of a batch.

    parked: lanes to leave alone. paused: tables whose lanes are to be parked. give_up: lanes whose obstacle becomes a
    hole now, with the obstacle that was tried in vain: any other one on the way is news, and parks the lane.
    """

    batch: int
    stream: str
    shard: str
    start: Start
    max_bytes: int
    max_seconds: float
    lake_bucket: str
    sources: frozenset[str]
    tables: Mapping[tuple[str, str], TableTask]
    parked: frozenset[LaneKey] = frozenset()
    paused: frozenset[tuple[str, str]] = frozenset()
    give_up: Mapping[LaneKey, tuple[GivenUp, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Obstacle:
    """Why a lane stopped, and at which block (its sequence number).

    reason: `schema` (the fingerprint is not one of the table's), `gap` (positions up to `upto` are missing), `paused`.
    """

    reason: str
    sequence: str
    fingerprint: bytes = b""
    upto: Position | None = None


@dataclass(frozen=True)
class GivenUp:
    """An obstacle that did not go away, and why, for the hole that it becomes."""

    obstacle: Obstacle
    why: str


@dataclass
class Outcome:
    """What a task did. Nothing of it counts before the driver has committed it.

    stuck: a thread of the process that ran the task hangs for good; start again once the outcome is committed.
    """

    shard: str
    last_sequence: str | None = None
    at_tip: bool = False
    closed: bool = False
    behind_seconds: float = 0.0
    files: list[tuple[tuple[str, str], WrittenFile]] = field(default_factory=list)
    lanes: dict[LaneKey, tuple[Lane, str]] = field(default_factory=dict)
    ends: list[tuple[LaneKey, int, SnapshotEnd]] = field(default_factory=list)
    progresses: list[tuple[str, Progress]] = field(default_factory=list)
    obstacles: dict[LaneKey, Obstacle] = field(default_factory=dict)
    blocks: int = 0
    bytes: int = 0
    rows: int = 0
    duplicates: int = 0
    malformed: int = 0
    stuck: bool = False


@dataclass(frozen=True)
class _Pending:
    """A block whose rows are to be written: all of them, or those in (after, upto]."""

    key: LaneKey
    block: Block
    raw: bytes
    sequence: str
    after: Position | None = None
    upto: Position | None = None


def load_shard(task: Task, kinesis: Any, s3: Any, io: FileIO) -> Outcome:
    """Reads one shard as far as its bounds allow and writes what it holds. Bad bytes never raise: they become holes."""
    fetched = fetch(
        kinesis, task.stream, task.shard, task.start, max_bytes=task.max_bytes, max_seconds=task.max_seconds
    )
    work = _Work(task, s3, io)
    for sequence, data in fetched.records:
        work.take(sequence, data)
    outcome = work.finish()
    outcome.last_sequence = fetched.records[-1][0] if fetched.records else None
    outcome.at_tip, outcome.closed = fetched.at_tip, fetched.closed
    outcome.behind_seconds = fetched.behind_seconds
    return outcome


class _Work:
    """The records of one shard on their way into files."""

    def __init__(self, task: Task, s3: Any, io: FileIO) -> None:
        self._task, self._s3, self._io = task, s3, io
        self._outcome = Outcome(task.shard)
        self._pending: dict[tuple[tuple[str, str], str, bytes], list[_Pending]] = defaultdict(list)

    def take(self, sequence: str, data: bytes) -> None:
        self._outcome.blocks += 1
        self._outcome.bytes += len(data)
        try:
            block = blocks.decode(data)
        except SchemasError as error:
            self._outcome.malformed += 1
            self._keep_raw("unknown", sequence, data, str(error))
            return
        if block.source not in self._task.sources:
            return
        if block.kind is Kind.PROGRESS:
            self._progress(block, sequence, data)
        else:
            self._in_lane(LaneKey(block.source, block.table, block.lane), block, sequence, data)

    def finish(self) -> Outcome:
        for (table, tier, fingerprint), pending in self._pending.items():
            self._write(table, tier, fingerprint, pending)
        self._outcome.ends = [end for end in self._outcome.ends if not self._outcome.lanes[end[0]][0].holes]
        return self._outcome

    def _progress(self, block: Block, sequence: str, data: bytes) -> None:
        try:
            self._outcome.progresses.append((block.source, control.decode_progress(blocks.datums(block))))
        except SchemasError as error:
            self._outcome.malformed += 1
            self._keep_raw(block.source, sequence, data, str(error))

    def _in_lane(self, key: LaneKey, block: Block, sequence: str, data: bytes) -> None:
        if key in self._task.parked or key in self._outcome.obstacles:
            return
        if (key.source, key.table) in self._task.paused:
            self._outcome.obstacles[key] = Obstacle("paused", sequence)
            return
        table = self._task.tables.get((key.source, key.table))
        if table is None:
            self._outcome.obstacles[key] = Obstacle("schema", sequence, block.schema)
            return
        snapshot = control.parse_snapshot_lane(key.lane)
        if snapshot is not None and snapshot[0] <= table.activated_through:
            self._outcome.duplicates += 1
            return
        lane = self._lane(key, table)
        verdict = chain.judge(lane, block.prev, block.last)
        if isinstance(verdict, Duplicate):
            self._outcome.duplicates += 1
            return
        if isinstance(verdict, Gap):
            given_up = self._given_up(key, Obstacle("gap", sequence, upto=verdict.upto))
            if given_up is None:
                return
            lane = chain.declare(lane, verdict.upto, given_up.why, _now())
            verdict = Load()
        if block.kind in (Kind.DATA, Kind.SNAPSHOT) and block.schema not in table.writers:
            given_up = self._given_up(key, Obstacle("schema", sequence, block.schema))
            if given_up is None:
                return
            self._hole(key, lane, verdict, block, sequence, data, given_up.why)
            return
        self._carry_out(key, lane, verdict, block, sequence, data)

    def _carry_out(
        self, key: LaneKey, lane: Lane, verdict: chain.Verdict, block: Block, sequence: str, data: bytes
    ) -> None:
        try:
            raw = blocks.datums(block, self._claimed(block))
            if block.kind is Kind.SNAPSHOT_END:
                end = control.decode_snapshot_end(raw)
                if not lane.holes:
                    self._outcome.ends.append((key, block.last.era, end))
            elif block.kind is Kind.REJECT:
                reject = control.decode_reject(raw)
                reason = f"rejected: {reject.reason} (key {reject.key})"
                self._hole(key, lane, verdict, block, sequence, data, reason)
                return
            else:
                self._queue(key, verdict, block, raw, sequence)
        except SchemasError as error:
            self._hole(key, lane, verdict, block, sequence, data, str(error))
            return
        self._outcome.lanes[key] = (chain.advance(lane, verdict, block.last), sequence)

    def _queue(self, key: LaneKey, verdict: chain.Verdict, block: Block, raw: bytes, sequence: str) -> None:
        tier = "staged" if block.kind is Kind.SNAPSHOT else "log"
        pending = _Pending(key, block, raw, sequence)
        if isinstance(verdict, Fill):
            pending = replace(pending, after=verdict.hole.after, upto=verdict.upto)
        self._pending[(key.source, key.table), tier, block.schema].append(pending)

    def _given_up(self, key: LaneKey, obstacle: Obstacle) -> GivenUp | None:
        """The obstacle, where it was tried in vain; otherwise the lane stops here."""
        for given_up in self._task.give_up.get(key, ()):
            if given_up.obstacle == obstacle:
                return given_up
        self._outcome.obstacles[key] = obstacle
        return None

    def _hole(
        self, key: LaneKey, lane: Lane, verdict: chain.Verdict, block: Block, sequence: str, data: bytes, reason: str
    ) -> None:
        """Gives the block up: its bytes are kept, and the mark moves past it, or the hole it was to fill is divided."""
        where = self._keep_raw(key.source, sequence, data, reason)
        if isinstance(verdict, Fill):
            lane = _divided(lane, verdict, reason, where)
        else:
            lane = chain.declare(lane, block.last, reason, _now(), where)
        self._outcome.lanes[key] = (lane, sequence)

    def _lane(self, key: LaneKey, table: TableTask) -> Lane:
        moved = self._outcome.lanes.get(key)
        return moved[0] if moved else table.lanes.get(key.lane, Lane(key.lane))

    def _claimed(self, block: Block) -> bytes | None:
        if block.claim is None:
            return None
        place = urlparse(block.claim)
        try:
            return bytes(self._s3.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read())
        except (self._s3.exceptions.NoSuchKey, self._s3.exceptions.NoSuchBucket) as error:
            raise MalformedBlock(f"its payload is not where the block claims it to be, at {block.claim}") from error

    def _keep_raw(self, source: str, sequence: str, data: bytes, reason: str) -> str:
        """The bytes under (shard, sequence number), outside every table's location."""
        key = f"raw/{source}/{self._task.shard}/{sequence}"
        metadata = {"reason": reason.encode("ascii", "replace").decode()[:1000]}
        self._s3.put_object(Bucket=self._task.lake_bucket, Key=key, Body=data, Metadata=metadata)
        return f"s3://{self._task.lake_bucket}/{key}"

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
                yield _between(self._rows(table, tier, fingerprint, [item]), item.after, item.upto)
            except SchemasError as error:
                self._undecodable(item, str(error))

    def _rows(self, table: tuple[str, str], tier: str, fingerprint: bytes, pending: Sequence[_Pending]) -> pa.Table:
        shape = self._task.tables[table]
        rows = decode.to_arrow(shape.writers[fingerprint], [(item.block.count, item.raw) for item in pending])
        return decode.conform(rows, data_files.arrow_schema(shape.schema), self._task.batch, tier)

    def _undecodable(self, item: _Pending, reason: str) -> None:
        """A block that the chain let pass and that does not read: its lane went on, so its hole is added behind."""
        lane, sequence = self._outcome.lanes[item.key]
        where = self._keep_raw(item.key.source, item.sequence, blocks.encode(item.block), reason)
        after, last = (item.block.prev, item.block.last) if item.upto is None else (item.after, item.upto)
        hole = Hole(item.key.lane, after, last, reason, _now(), where)
        self._outcome.lanes[item.key] = (replace(lane, holes=holes.add(lane.holes, hole)), sequence)


def _divided(lane: Lane, fill: Fill, reason: str, where: str) -> Lane:
    """The lane whose hole the block could have filled, and does not: the hole's part up to the block's end stays open
    for a reason of its own, and what lies behind it can still be filled by the blocks that follow."""
    bad = replace(fill.hole, last=fill.upto, reason=reason, where=where)
    rest = () if fill.upto >= fill.hole.last else (replace(fill.hole, after=fill.upto),)
    parts = [part for hole in lane.holes for part in ((bad, *rest) if hole == fill.hole else (hole,))]
    return replace(lane, holes=tuple(parts))


def _between(rows: pa.Table, after: Position | None, upto: Position | None) -> pa.Table:
    """The rows at positions in (after, upto]; all of them where upto is None."""
    if upto is None:
        return rows
    keep = _compare(rows, upto, pc.less, or_equal=True)
    if after is not None:
        keep = pc.and_(keep, _compare(rows, after, pc.greater, or_equal=False))
    return rows.filter(keep)


def _compare(rows: pa.Table, bound: Position, strictly: Any, *, or_equal: bool) -> Any:
    """Lexicographic comparison of (_era, _lsn, _idx) with the bound."""
    columns = [rows.column(name) for name in ("_era", "_lsn", "_idx")]
    result: Any = pa.scalar(or_equal)
    for column, value in zip(reversed(columns), reversed(bound), strict=True):
        equal = pc.equal(column, value)
        result = pc.or_(strictly(column, value), pc.and_(equal, result))
    return result


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
