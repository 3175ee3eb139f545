"""The shard task: fetch, check the chain, decode, write Parquet. What it returns is small; the driver commits it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pyiceberg.io import FileIO

from glue_streaming import chain, claims
from glue_streaming.chain import Duplicate, Fill, Gap, Lane, Load
from glue_streaming.pending_rows import PendingRows
from glue_streaming.raw import keep, stored
from glue_streaming.shards import Record, fetch
from glue_streaming.task import MAX_HOLES, GivenUp, LaneKey, Obstacle, Outcome, TableTask, Task, Unreadable
from schemas import block as blocks
from schemas import control
from schemas.block import Block, Kind
from schemas.change_record import RESERVED_TABLES
from schemas.errors import MalformedBlock, SchemasError

_LAKE_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,199}")
_SNAPSHOT_KINDS: Final = (Kind.SNAPSHOT, Kind.SNAPSHOT_END)


def load_shard(task: Task, kinesis: Any, s3: Any, io: FileIO) -> Outcome:
    """Reads one shard as far as its bounds allow and writes what it holds. Bad bytes never raise: they become holes."""
    work = _Work(task, s3, io)
    if task.replay is not None:
        return _replayed(work, stored(s3, task.replay.range), task.max_bytes)
    fetched = fetch(
        kinesis, task.stream, task.shard, task.start, max_bytes=task.max_bytes, max_seconds=task.max_seconds
    )
    for record in fetched.records:
        work.take(record)
    outcome = work.finish()
    if fetched.records:
        outcome.first_sequence, outcome.last_sequence = fetched.records[0].sequence, fetched.records[-1].sequence
    outcome.at_tip, outcome.closed, outcome.refused = fetched.at_tip, fetched.closed, fetched.refused
    outcome.behind_seconds = fetched.behind_seconds
    return outcome


def _replayed(work: _Work, records: Iterator[Record], max_bytes: int) -> Outcome:
    """Reads stored records up to the bound; at the tip where there are no more of them."""
    size, last = 0, None
    for record in records:
        if size >= max_bytes:
            break
        work.take(record)
        size, last = size + len(record.data), record.sequence
    else:
        last = None
    outcome = work.finish()
    outcome.last_sequence, outcome.at_tip = last, last is None
    return outcome


class _Work:
    """The records of one shard on their way into files."""

    def __init__(self, task: Task, s3: Any, io: FileIO) -> None:
        self._task, self._s3 = task, s3
        self._outcome = Outcome(task.shard)
        self._pending = PendingRows(task, io, self._outcome, self._keep_raw)

    def take(self, record: Record) -> None:
        self._outcome.blocks += 1
        self._outcome.bytes += len(record.data)
        try:
            block = blocks.decode(record.data)
            _check_names(block, record)
        except SchemasError as error:
            self._unreadable("unknown", record, str(error))
            return
        self._outcome.source_bytes[block.source] += len(record.data)
        if block.source not in self._task.sources:
            return
        if block.kind is Kind.PROGRESS:
            self._progress(block, record)
        else:
            self._in_lane(LaneKey(block.source, block.table, block.lane), block, record)

    def finish(self) -> Outcome:
        self._pending.write()
        whole = [end for end in self._outcome.ends if not self._outcome.lanes[end[0]][0].holes]
        for key, _, _ in self._outcome.ends:
            lacking = self._outcome.lanes[key][0].holes
            if lacking:
                self._outcome.voids[key] = f"lane {key.lane} ended with a hole: {lacking[0].reason}"
        self._outcome.ends = whole
        return self._outcome

    def _progress(self, block: Block, record: Record) -> None:
        try:
            self._outcome.progresses.append((block.source, control.decode_progress(blocks.datums(block))))
        except SchemasError as error:
            self._unreadable(block.source, record, str(error))

    def _unreadable(self, source: str, record: Record, error: str) -> None:
        """Its bytes are kept and it is passed: the lane that lacks it shows a gap, which then names it."""
        self._outcome.malformed += 1
        where = self._keep_raw(source, record, error)
        found = Unreadable(record.partition_key, self._task.shard, record.sequence, where, error)
        self._outcome.unreadable.append(found)

    def _in_lane(self, key: LaneKey, block: Block, record: Record) -> None:
        if key in self._outcome.obstacles:
            return
        if not _LAKE_NAME.fullmatch(key.table) or key.table in RESERVED_TABLES:
            self._unreadable(key.source, record, f"no lake table can be called {key.table!r}")
            return
        table = self._task.tables.get((key.source, key.table))
        if key in self._task.parked and not self._fills_now(key, table, block):
            self._outcome.skipped.setdefault(key, record.sequence)
            return
        if (key.source, key.table) in self._task.paused:
            self._outcome.obstacles[key] = Obstacle("paused", record.sequence)
            return
        if table is None:
            self._outcome.obstacles[key] = Obstacle("schema", record.sequence, block.schema)
            return
        snapshot = control.parse_snapshot_lane(key.lane)
        if snapshot is not None and snapshot[0] <= table.activated_through:
            self._outcome.duplicates += 1
            return
        lane = self._lane(key, table)
        try:
            verdict = chain.judge(lane, block.prev, block.last)
        except chain.BrokenChain as error:
            self._unreadable(key.source, record, str(error))
            return
        if isinstance(verdict, Duplicate) or not self._wanted(key, verdict):
            self._outcome.duplicates += 1
            return
        if isinstance(verdict, Gap):
            given_up = self._given_up(key, Obstacle("gap", record.sequence, upto=verdict.upto))
            if given_up is None:
                return
            if self._full(key, lane):
                self._outcome.obstacles[key] = Obstacle("full", record.sequence)
                return
            lane = chain.declare(lane, verdict.upto, given_up.why, self._task.at, given_up.where)
            verdict = Load()
        if block.kind in (Kind.DATA, Kind.SNAPSHOT) and block.schema not in table.writers:
            why = self._task.hopeless.get((key.source, key.table), {}).get(block.schema)
            if why is None:
                self._outcome.obstacles[key] = Obstacle("schema", record.sequence, block.schema)
            else:
                self._hole(key, lane, verdict, block, record, why)
            return
        self._carry_out(key, lane, verdict, block, record)

    def _fills_now(self, key: LaneKey, table: TableTask | None, block: Block) -> bool:
        """A lane that waits takes what fills its holes all the same: that leaves its mark where it is."""
        if table is None or (key.source, key.table) in self._task.paused or block.schema not in table.writers:
            return False
        return chain.fills(self._lane(key, table), block.prev, block.last)

    def _wanted(self, key: LaneKey, verdict: chain.Verdict) -> bool:
        """A replay fills its lane's holes and does nothing else: what follows the mark comes in the shard's order."""
        replay = self._task.replay
        if replay is None:
            return True
        return key == replay.key and isinstance(verdict, Fill)

    def _carry_out(self, key: LaneKey, lane: Lane, verdict: chain.Verdict, block: Block, record: Record) -> None:
        try:
            raw = blocks.datums(block, claims.payload(self._s3, block), claims.MAX_PAYLOAD_BYTES)
            if block.kind is Kind.SNAPSHOT_END:
                self._outcome.ends.append((key, block.last.era, control.decode_snapshot_end(raw)))
            elif block.kind is Kind.REJECT:
                reject = control.decode_reject(raw)
                reason = f"rejected: {reject.reason} (key {reject.key})"
                self._hole(key, lane, verdict, block, record, reason)
                return
            else:
                self._pending.add(key, verdict, block, raw, record)
        except SchemasError as error:
            self._hole(key, lane, verdict, block, record, str(error))
            return
        self._outcome.lanes[key] = (chain.advance(lane, verdict, block.last), record.sequence)

    def _given_up(self, key: LaneKey, obstacle: Obstacle) -> GivenUp | None:
        """The obstacle, where it was tried in vain; otherwise the lane stops here."""
        for given_up in self._task.give_up.get(key, ()):
            if given_up.obstacle == obstacle:
                return given_up
        self._outcome.obstacles[key] = obstacle
        return None

    def _hole(
        self, key: LaneKey, lane: Lane, verdict: chain.Verdict, block: Block, record: Record, reason: str
    ) -> None:
        """Gives the block up: its bytes are kept, and the mark moves past it, or the hole it was to fill is divided.

        Where the table has too many holes already the lane stops instead: its property could hold no more of them.
        """
        if self._full(key, lane):
            self._outcome.obstacles[key] = Obstacle("full", record.sequence)
            return
        where = self._keep_raw(key.source, record, reason)
        if isinstance(verdict, Fill):
            lane = chain.divide(lane, verdict, reason, where)
        else:
            lane = chain.declare(lane, block.last, reason, self._task.at, where)
        self._outcome.lanes[key] = (lane, record.sequence)

    def _full(self, key: LaneKey, lane: Lane) -> bool:
        others = self._task.tables[key.source, key.table].lanes.values()
        return len(lane.holes) + sum(len(other.holes) for other in others if other.name != key.lane) >= MAX_HOLES

    def _lane(self, key: LaneKey, table: TableTask) -> Lane:
        moved = self._outcome.lanes.get(key)
        return moved[0] if moved else table.lanes.get(key.lane, Lane(key.lane))

    def _keep_raw(self, source: str, record: Record, reason: str) -> str:
        return keep(self._s3, self._task.lake_bucket, source, self._task.shard, record, reason)


def _check_names(block: Block, record: Record) -> None:
    """The header is under no checksum, but the record's key names the same lane. Raises MalformedBlock."""
    wanted = control.partition_key(block.source, block.table, block.lane)
    if record.partition_key and record.partition_key != wanted:
        raise MalformedBlock(f"it says that it is of {wanted!r}, and came as one of {record.partition_key!r}")
    if (control.parse_snapshot_lane(block.lane) is not None) != (block.kind in _SNAPSHOT_KINDS):
        raise MalformedBlock(f"a block of kind {block.kind.value} cannot be in lane {block.lane!r}")
