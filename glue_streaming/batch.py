"""The micro-batch: plan, one task a shard, one commit a table, the watermark, the positions. In this order.

The driver holds marks and positions in memory; what it loses at a crash is in the tables, or is read again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from glue_streaming import chain, shards, watermark_view
from glue_streaming.aws import Aws
from glue_streaming.errors import DecoderHangs, StaleWriter, TableRefused
from glue_streaming.lake import Lake, Moves, TableKey
from glue_streaming.load import LaneKey, Outcome, Task
from glue_streaming.parking import Parking, earliest
from glue_streaming.positions import Positions, read_epoch, take_epoch
from glue_streaming.publisher import Publisher
from glue_streaming.settings import BatchSettings, JobArguments, batch_settings
from glue_streaming.shards import Shard, Start
from schemas.control import Progress, lane_hash_key
from schemas.errors import UnknownFingerprint
from schemas.position import Position
from schemas.registry import Registry

RunTasks = Callable[[Sequence[Task]], list[Outcome]]
"""Runs the tasks, in Spark or here, and returns their outcomes in any order."""

_SHARD_LIST_SECONDS: Final = 30.0
_FOLD_SECONDS: Final = 5.0
_COMMIT_THREADS: Final = 8


@dataclass
class Report:
    """One batch, for its log line. Seconds by stage; behind_seconds: the oldest record not yet read."""

    batch: int
    blocks: int = 0
    rows: int = 0
    bytes: int = 0
    duplicates: int = 0
    malformed: int = 0
    commits: int = 0
    parked: int = 0
    holes: int = 0
    behind_seconds: float = 0.0
    caught_up: bool = False
    watermarks: dict[str, str] = field(default_factory=dict)
    settings_problems: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Driver:
    """Plans batches and commits what their tasks wrote. One driver a job: a newer epoch stops the older one."""

    def __init__(
        self, aws: Aws, arguments: JobArguments, run_tasks: RunTasks, clock: Callable[[], float] = time.time
    ) -> None:
        self._aws, self._arguments, self._run_tasks, self._clock = aws, arguments, run_tasks, clock
        self._dynamodb = aws.client("dynamodb")
        self._kinesis = aws.client("kinesis")
        self._glue = aws.client("glue")
        self._positions = Positions(self._dynamodb, arguments.dynamodb_table("shards"), arguments.job)
        self._starts, self._drained = self._positions.load()
        self._saved: dict[str, tuple[str | None, bool]] = {}
        self._sources_table = arguments.dynamodb_table("sources")
        self.epoch = take_epoch(self._dynamodb, self._sources_table, arguments.job)
        registry = Registry(self._dynamodb, arguments.dynamodb_table("schemas"))
        self.lake = Lake(aws.catalog, registry, arguments.lake_bucket, self.epoch)
        self.lake.load(arguments.sources)
        self.settings = BatchSettings()
        self._parking = Parking()
        self._rewinds: list[tuple[str, Start]] = []
        self._shards: dict[str, Shard] = {}
        self._shards_listed_at = float("-inf")
        self._publishers = {
            source: Publisher(self._glue, source, arguments.fold_horizon_seconds, self._check_epoch)
            for source in arguments.sources
        }
        self._missing_since: dict[tuple[LaneKey, Position], float] = {}
        self._paused: frozenset[TableKey] = frozenset()
        self._folds_read_at = float("-inf")
        self._number = 0
        for source in arguments.sources:
            self._ensure_database(watermark_view.database(source))

    def run_batch(self) -> Report:
        """One batch. Any exception leaves the lake right: start again from the tables' marks."""
        self._number += 1
        self._rewinds = []
        report = Report(self._number)
        timer = _Timer(report.seconds)
        report.settings_problems = self._read_settings()
        self._paused = self._read_paused()
        outcomes = [] if self.settings.pause else self._run_tasks(self._plan())
        timer.stage("load")
        earlier = {source: publisher.newest for source, publisher in self._publishers.items()}
        for source, publisher in self._publishers.items():
            publisher.take(item for outcome in outcomes for named, item in outcome.progresses if named == source)
        self._look_for_folds()
        moves = self._moves(outcomes, earlier)
        report.commits = self._commit(moves)
        timer.stage("commit")
        self._deal_with_obstacles(outcomes)
        report.watermarks = self._publish()
        timer.stage("publish")
        self._advance(outcomes)
        timer.stage("positions")
        self._fill(report, outcomes)
        if any(outcome.stuck for outcome in outcomes):
            raise DecoderHangs("the Avro reader hangs on a block, which is a hole now: start the job again")
        return report

    # ---- plan

    def _plan(self) -> list[Task]:
        now = self._clock()
        if now - self._shards_listed_at >= _SHARD_LIST_SECONDS:
            self._shards = shards.list_shards(self._kinesis, self._arguments.stream_name)
            self._shards_listed_at = now
        tables = {key: table.task() for key, table in self.lake.tables.items()}
        return [
            Task(
                batch=(self.epoch << 32) + self._number,
                stream=self._arguments.stream_name,
                shard=shard,
                start=self._starts.get(shard, Start()),
                max_bytes=self.settings.bytes_per_shard,
                max_seconds=self.settings.seconds_per_shard,
                lake_bucket=self._arguments.lake_bucket,
                sources=frozenset(self._arguments.sources),
                tables=tables,
                parked=frozenset(self._parking.lanes),
                paused=self._paused,
                give_up=dict(self._parking.give_up),
            )
            for shard in shards.readable(self._shards, self._drained)
        ]

    def _read_settings(self) -> list[str]:
        answer = self._dynamodb.query(
            TableName=self._arguments.dynamodb_table("settings"),
            KeyConditionExpression="job = :job",
            ExpressionAttributeValues={":job": {"S": self._arguments.job}},
        )
        items = {item["name"]["S"]: item["value"]["S"] for item in answer["Items"]}
        self.settings, problems = batch_settings(items, self.settings)
        return problems

    def _read_paused(self) -> frozenset[TableKey]:
        """Tables that the DynamoDB table `tables` pauses: their lanes wait, all others flow."""
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._arguments.dynamodb_table("tables"),
            FilterExpression="paused = :yes",
            ProjectionExpression="#table",
            ExpressionAttributeNames={"#table": "table"},
            ExpressionAttributeValues={":yes": {"BOOL": True}},
        )
        names = [item["table"]["S"] for page in pages for item in page["Items"]]
        return frozenset((source, table) for source, _, table in (name.partition(".") for name in names))

    # ---- commit

    def _look_for_folds(self) -> None:
        """Reads again what the fold may have changed: only tables with a snapshot or a hole wait for a fold."""
        now = self._clock()
        if now - self._folds_read_at >= min(_FOLD_SECONDS, self._arguments.fold_horizon_seconds / 2):
            self._folds_read_at = now
            self.lake.look_for_folds()

    def _moves(self, outcomes: Sequence[Outcome], earlier: dict[str, Progress | None]) -> dict[TableKey, Moves]:
        moves: dict[TableKey, Moves] = defaultdict(Moves)
        for outcome in outcomes:
            for table, file in outcome.files:
                moves[table].files.append(file)
            for key, (lane, sequence) in outcome.lanes.items():
                moves[key.source, key.table].lanes[key.lane] = (lane, outcome.shard, sequence)
                self._parking.moved(key)
            for key, era, end in outcome.ends:
                moves[key.source, key.table].ends.append((key.lane, era, end))
        if outcomes and all(outcome.at_tip and not outcome.obstacles for outcome in outcomes):
            self._lost_tails(earlier, moves)
        return moves

    def _commit(self, moves: dict[TableKey, Moves]) -> int:
        """Commits side by side: tables share nothing."""
        number = (self.epoch << 32) + self._number

        def commit(key: TableKey) -> bool:
            return self.lake.tables[key].commit(moves.get(key, Moves()), self._announced(key), number)

        with ThreadPoolExecutor(_COMMIT_THREADS) as pool:
            return sum(pool.map(commit, list(self.lake.tables)))

    def _announced(self, key: TableKey) -> list[tuple[int, Any]]:
        newest = self._publishers[key[0]].newest
        if newest is None:
            return []
        activated = self.lake.tables[key].fold_state.activated_through
        return [(newest.era, item) for item in newest.snapshots if item.table == key[1] and item.snapshot > activated]

    def _lost_tails(self, earlier: dict[str, Progress | None], moves: dict[TableKey, Moves]) -> None:
        """Positions that a progress record of an earlier batch names and that never came, with every shard at its tip.

        The lane is read again from its mark first; what is missing then is a hole.
        """
        now = self._clock()
        missing = {}
        for source, newest in earlier.items():
            for end in newest.vector if newest else ():
                key = LaneKey(source, end.table, end.lane)
                lane = self._lane_after(key, moves)
                if lane is None or (lane.mark is not None and lane.mark >= end.last) or key in self._parking.lanes:
                    continue
                missing[key, end.last] = self._missing_since.get((key, end.last), now)
                if now - missing[key, end.last] < self.settings.tip_seconds:
                    continue
                if key in self._parking.rereading:
                    stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
                    lost = chain.declare(lane, end.last, "lost tail: announced, and never came", stamp)
                    moves[source, end.table].lanes[end.lane] = (lost, "", "0")
                    self._parking.moved(key)
                else:
                    self._parking.rereading.add(key)
                    self._reread(key)
                    missing[key, end.last] = now
        self._missing_since = missing

    def _lane_after(self, key: LaneKey, moves: dict[TableKey, Moves]) -> chain.Lane | None:
        table = self.lake.tables.get((key.source, key.table))
        if table is None:
            return None
        moved = moves[key.source, key.table].lanes.get(key.lane) if (key.source, key.table) in moves else None
        return moved[0] if moved else table.state.lane(key.lane)

    def _reread(self, key: LaneKey) -> None:
        mark = self.lake.tables[key.source, key.table].state.marks.get(key.lane)
        hash_key = lane_hash_key(key.source, key.table, key.lane)
        for name, shard in self._shards.items():
            if shard.lowest_hash <= hash_key <= shard.highest_hash and name not in self._drained:
                here = mark is not None and mark.shard == name
                self._rewinds.append((name, Start(mark.sequence) if here and mark else Start()))

    # ---- obstacles

    def _deal_with_obstacles(self, outcomes: Sequence[Outcome]) -> None:
        now = self._clock()
        for outcome in outcomes:
            for key, obstacle in outcome.obstacles.items():
                self._parking.park(key, outcome.shard, obstacle, now)
        for key in list(self._parking.lanes):
            rewind = self._try_to_resume(key, now)
            if rewind is not None:
                self._rewinds.append(rewind)

    def _try_to_resume(self, key: LaneKey, now: float) -> tuple[str, Start] | None:
        parked = self._parking.lanes[key]
        if parked.obstacle.reason == "gap":
            if parked.reread:
                self._parking.abandon(key, "gap")
                return self._parking.resume(key)
            return self._parking.read_again(key, self.lake.tables[key.source, key.table].state.marks.get(key.lane))
        if parked.obstacle.reason == "paused":
            return None if (key.source, key.table) in self._paused else self._parking.resume(key)
        try:
            self.lake.prepare(key, parked.obstacle.fingerprint)
        except UnknownFingerprint as error:
            waited = now - parked.since
            known = (key.source, key.table) in self.lake.tables
            if waited < self.settings.unknown_fingerprint_seconds or not known:
                return None
            self._parking.abandon(key, str(error))
        except TableRefused as error:
            if (key.source, key.table) not in self.lake.tables:
                return None
            self._parking.abandon(key, str(error))
        return self._parking.resume(key)

    # ---- watermark

    def _publish(self) -> dict[str, str]:
        """Rewrites each source's watermark; a newer driver's epoch stops this one before it writes."""
        published = {}
        for source, publisher in self._publishers.items():
            tables = {key[1]: (table.state, table.fold_state) for key, table in self.lake.of(source).items()}
            paused = {table for paused_source, table in self._paused if paused_source == source}
            line = publisher.publish(tables, paused, self._clock())
            if line is not None:
                published[source] = str(line)
        return published

    def _check_epoch(self) -> None:
        epoch = read_epoch(self._dynamodb, self._sources_table, self._arguments.job)
        if epoch > self.epoch:
            raise StaleWriter(f"job {self._arguments.job} was taken over: its epoch is {epoch}, ours is {self.epoch}")

    # ---- positions

    def _advance(self, outcomes: Sequence[Outcome]) -> None:
        """Moves on in memory, and saves what is safe: not past a lane that is parked or is to be read again."""
        for outcome in outcomes:
            if outcome.last_sequence is not None:
                self._starts[outcome.shard] = Start(outcome.last_sequence)
        held = self._parking.shards()
        for shard, start in self._rewinds:
            self._starts[shard] = earliest(self._starts, shard, start)
            held.add(shard)
        changed: dict[str, tuple[str | None, bool]] = {}
        for outcome in outcomes:
            if outcome.shard in held:
                continue
            if outcome.closed:
                self._drained.add(outcome.shard)
                self._shards_listed_at = float("-inf")
            start = self._starts.get(outcome.shard, Start())
            value = (start.sequence, outcome.shard in self._drained)
            if value != self._saved.get(outcome.shard) and not start.inclusive:
                changed[outcome.shard] = value
        self._positions.save(changed)
        self._saved |= changed

    # ---- report

    def _fill(self, report: Report, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            report.blocks += outcome.blocks
            report.rows += outcome.rows
            report.bytes += outcome.bytes
            report.duplicates += outcome.duplicates
            report.malformed += outcome.malformed
            report.behind_seconds = max(report.behind_seconds, outcome.behind_seconds)
        report.parked = len(self._parking.lanes)
        report.holes = sum(len(table.state.holes) for table in self.lake.tables.values())
        at_tip = bool(outcomes) and all(outcome.at_tip and not outcome.closed for outcome in outcomes)
        waiting = any(parked.obstacle.reason != "paused" for parked in self._parking.lanes.values())
        report.caught_up = at_tip and not self._rewinds and not waiting

    def _ensure_database(self, name: str) -> None:
        try:
            self._glue.create_database(DatabaseInput={"Name": name})
        except self._glue.exceptions.AlreadyExistsException:
            return


class _Timer:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def stage(self, name: str) -> None:
        now = time.monotonic()
        self._seconds[name], self._last = round(now - self._last, 4), now
