"""The micro-batch: plan, one task a shard, one commit a table, the watermark, the positions. In this order.

The driver holds marks and positions in memory; what it loses at a crash is in the tables, or is read again.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from pyiceberg.table import Table

from glue_streaming import cut_requests, snapshot_watch, views, watermark_view
from glue_streaming.aws import Aws
from glue_streaming.controls import ControlReader, Controls
from glue_streaming.departures import CutViews
from glue_streaming.errors import DecoderHangs
from glue_streaming.holes_table import HolesTable
from glue_streaming.lake import Lake, Moves, TableKey
from glue_streaming.mending import Mending
from glue_streaming.obstacles import Obstacles
from glue_streaming.parking import Parking
from glue_streaming.positions import take_epoch
from glue_streaming.publisher import Publisher
from glue_streaming.reading import Reading
from glue_streaming.settings import BatchSettings, JobArguments
from glue_streaming.shards import Start
from glue_streaming.snapshot_watch import SnapshotWatch
from glue_streaming.tails import Tails
from glue_streaming.task import Outcome, Task
from schemas.control import Progress
from schemas.registry import Registry

log = logging.getLogger(__name__)

RunTasks = Callable[[Sequence[Task]], list[Outcome]]
"""Runs the tasks, in Spark or here, and returns their outcomes in any order."""

_FOLD_SECONDS: Final = 5.0
_COMMIT_THREADS: Final = 8


@dataclass
class Report:
    """One batch, for its log line. Seconds by stage; behind_seconds: the oldest record not yet read.

    by_source: the metrics that belong to one source (docs/metrics.md). commit_failures: commits that another writer's
    came before, and requests to the catalog that it throttled.
    """

    batch: int
    blocks: int = 0
    rows: int = 0
    bytes: int = 0
    duplicates: int = 0
    malformed: int = 0
    commits: int = 0
    commit_failures: int = 0
    parked: int = 0
    holes: int = 0
    behind_seconds: float = 0.0
    caught_up: bool = False
    watermarks: dict[str, str] = field(default_factory=dict)
    settings_problems: list[str] = field(default_factory=list)
    holes_table_problems: dict[str, str] = field(default_factory=dict)
    by_source: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Driver:
    """Plans batches and commits what their tasks wrote. One driver a job: a newer epoch stops the older one."""

    def __init__(
        self, aws: Aws, arguments: JobArguments, run_tasks: RunTasks, clock: Callable[[], float] = time.time
    ) -> None:
        self._aws, self._arguments, self._run_tasks, self._clock = aws, arguments, run_tasks, clock
        dynamodb, self._glue = aws.client("dynamodb"), aws.client("glue")
        self._reading = Reading(
            aws.client("kinesis"), arguments.stream_name, dynamodb, arguments.dynamodb_table("shards"), arguments.job
        )
        self.epoch = take_epoch(dynamodb, arguments.dynamodb_table("sources"), arguments.job)
        self._controls = ControlReader(dynamodb, arguments, self.epoch)
        registry = Registry(dynamodb, arguments.dynamodb_table("schemas"))
        self.lake = Lake(aws.catalog, registry, arguments.lake_bucket, self.epoch, self._controls.policy, self._follow)
        self.lake.load(arguments.sources)
        self._parking = Parking()
        self._obstacles = Obstacles(self.lake, self._reading, self._parking)
        self._tails = Tails(self.lake, self._parking, self._obstacles)
        self._snapshots = SnapshotWatch()
        self._mending = Mending(self.lake, self._controls)
        self._cut_views = {source: CutViews(self._glue, self.lake, source) for source in arguments.sources}
        self._publishers = {
            source: Publisher(
                self._glue, source, arguments.fold_horizon_seconds, self._controls.check_epoch, self._cut_views[source]
            )
            for source in arguments.sources
        }
        self._holes_tables = {
            source: HolesTable(aws.catalog, arguments.lake_bucket, source) for source in arguments.sources
        }
        self._folds_read_at = float("-inf")
        self._number = 0
        for source in arguments.sources:
            self._ensure_database(watermark_view.database(source))

    @property
    def settings(self) -> BatchSettings:
        return self._controls.current.settings

    def look_at_settings(self) -> None:
        """Between batches: what operators set is read again where it is a few seconds old."""
        self._controls.read(self._clock())

    def run_batch(self) -> Report:
        """One batch. Any exception leaves the lake right: start again from the tables' marks."""
        self._number += 1
        report = Report(self._number)
        failures = self._commit_failures()
        timer = _Timer(report.seconds)
        now = self._clock()
        controls = self._controls.read(now)
        report.settings_problems = controls.problems
        self._mending.take(controls.requests, now)
        earlier = {source: publisher.newest for source, publisher in self._publishers.items()}
        outcomes, replaying = self._load(controls, now)
        timer.stage("load")
        self._look_for_folds(now)
        moves = self._moves(outcomes)
        if not replaying:
            self._void(outcomes, now)
            spoken = [(source, p) for source, publisher in self._publishers.items() for p in publisher.progresses]
            self._tails.look_behind(spoken, moves, now)
            if _at_tip(outcomes) and not any(outcome.obstacles for outcome in outcomes):
                self._tails.look(earlier, moves, self.settings.tip_seconds, now)
        report.commits = self._commit(moves)
        timer.stage("commit")
        self._mending.answer(outcomes if replaying else [], now)
        if not replaying:
            self._obstacles.meet(outcomes, now)
            self._obstacles.deal(self.settings, controls.paused, now)
        report.watermarks = self._publish(controls.paused, now)
        report.holes_table_problems = self._project_holes()
        timer.stage("publish")
        rewound = self._reading.rewound
        self._reading.advance([] if replaying else outcomes, self._parking.shards())
        timer.stage("positions")
        self._fill(report, outcomes, more=rewound or replaying or self._tails.waiting)
        report.commit_failures = self._commit_failures() - failures
        if any(outcome.stuck for outcome in outcomes):
            raise DecoderHangs("the Avro reader hangs on a block, which is a hole now: start the job again")
        return report

    # ---- plan and load

    def _load(self, controls: Controls, now: float) -> tuple[list[Outcome], bool]:
        """Runs the batch's tasks; True with what a replay brought, which is a batch of its own: a lane that its shard's
        task moved at the same time would be moved twice."""
        tables = {key: table.task(controls.erasures.get(key)) for key, table in self.lake.tables.items()}
        replay = self._mending.replay
        if replay is not None:
            task = replace(self._task(replay.range.shard, Start(), controls), tables=tables, replay=replay)
            return self._run_tasks([task]), True
        if controls.settings.pause:
            return [], False
        tasks = [
            replace(
                self._task(shard, start, controls),
                tables=tables,
                parked=frozenset(self._parking.lanes),
                give_up=dict(self._parking.give_up),
                hopeless=self._obstacles.hopeless,
            )
            for shard, start in self._reading.readable(now).items()
        ]
        outcomes = self._run_tasks(tasks)
        waiting = self._parking.lanes or any(outcome.obstacles for outcome in outcomes)
        for source, publisher in self._publishers.items():
            publisher.take(_progresses(outcomes, source), _at_tip(outcomes) and not waiting)
        return outcomes, False

    def _task(self, shard: str, start: Start, controls: Controls) -> Task:
        return Task(
            batch=(self.epoch << 32) + self._number,
            stream=self._arguments.stream_name,
            shard=shard,
            start=start,
            max_bytes=controls.settings.bytes_per_shard,
            max_seconds=controls.settings.seconds_per_shard,
            lake_bucket=self._arguments.lake_bucket,
            sources=frozenset(self._arguments.sources),
            tables={},
            paused=controls.paused,
            at=_text(self._clock()),
        )

    # ---- commit

    def _follow(self, source: str, tables: Mapping[str, Table]) -> None:
        """Views follow a new structure before rows need it. Where that fails the rows go on, and a fold mends it."""
        try:
            updated = views.follow(self._glue, source, tables)
        except Exception as error:
            log.warning("views do not follow", extra={"source": source, "tables": sorted(tables), "error": repr(error)})
            return
        if updated.written or updated.refused:
            log.info("views follow", extra={"written": updated.written, "refused": updated.refused})

    def _look_for_folds(self, now: float) -> None:
        """Reads again what the fold may have changed: only tables with a snapshot or a hole wait for a fold."""
        if now - self._folds_read_at >= min(_FOLD_SECONDS, self._arguments.fold_horizon_seconds / 2):
            self._folds_read_at = now
            self.lake.look_for_folds()

    def _moves(self, outcomes: Sequence[Outcome]) -> dict[TableKey, Moves]:
        moves: dict[TableKey, Moves] = defaultdict(Moves)
        for outcome in outcomes:
            for table, file in outcome.files:
                moves[table].files.append(file)
            for key, (lane, sequence) in outcome.lanes.items():
                moves[key.source, key.table].lanes[key.lane] = (lane, outcome.shard, sequence)
                self._parking.moved(key)
            for key, era, end in outcome.ends:
                moves[key.source, key.table].ends.append((key.lane, era, end))
        return moves

    def _void(self, outcomes: Sequence[Outcome], now: float) -> None:
        """Gives up snapshots that will never be complete, and asks for others where they can be expected to arrive."""
        heard = {source: list(_progresses(outcomes, source)) for source in self._arguments.sources}
        patience = self.settings.snapshot_stall_seconds
        waiting = self._parking.lanes.keys()
        stalled = self._snapshots.look(self.lake.tables, outcomes, heard, waiting, patience, now)
        for void in [*snapshot_watch.ended_with_holes(outcomes), *stalled]:
            table = self.lake.tables[void.table]
            known = table.state.snapshots.get(void.snapshot)
            if known is None or not known.abandoned:
                if void.lost:
                    self._controls.requests.ask_for_snapshot(*void.table, void.snapshot, void.why)
                table.state = table.state.voided(void.snapshot, void.era, void.why)

    def _commit(self, moves: Mapping[TableKey, Moves]) -> int:
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

    # ---- publish

    def _publish(self, paused: Collection[TableKey], now: float) -> dict[str, str]:
        """Rewrites each source's watermark; a newer driver's epoch stops this one before it writes."""
        published = {}
        self._carry_out_cut_requests(now)
        for source, publisher in self._publishers.items():
            tables = {key[1]: (table.state, table.fold_state) for key, table in self.lake.of(source).items()}
            waiting = {table for paused_source, table in paused if paused_source == source}
            line = publisher.publish(tables, waiting, self.settings.hole_deadline_seconds, now)
            if line is not None:
                published[source] = str(line)
        return published

    def _carry_out_cut_requests(self, now: float) -> None:
        waiting = self._controls.current.cut_requests
        if waiting:
            self._controls.check_epoch()
        for source, cut_views in self._cut_views.items():
            asked = [request for request in waiting if request.source == source]
            for request, status, detail in cut_requests.carry_out(self._glue, cut_views, asked, now):
                self._controls.answer(request, status, detail, now)

    def _project_holes(self) -> dict[str, str]:
        """Brings the Iceberg tables `holes` up to date. They can be made again, so that a failure is only told."""
        failed = {}
        for source, holes_table in self._holes_tables.items():
            states = {key[1]: table.state for key, table in self.lake.of(source).items()}
            try:
                holes_table.update(states)
            except Exception as error:
                failed[source] = f"{type(error).__name__}: {error}"
        return failed

    # ---- report

    def _fill(self, report: Report, outcomes: Sequence[Outcome], more: bool) -> None:
        for outcome in outcomes:
            report.blocks += outcome.blocks
            report.rows += outcome.rows
            report.bytes += outcome.bytes
            report.duplicates += outcome.duplicates
            report.malformed += outcome.malformed
            report.behind_seconds = max(report.behind_seconds, outcome.behind_seconds)
        report.parked = len(self._parking.lanes)
        report.holes = sum(len(table.state.holes) for table in self.lake.tables.values())
        report.by_source = {source: self._figures(source, outcomes) for source in self._arguments.sources}
        waiting = any(parked.obstacle.reason not in ("paused", "full") for parked in self._parking.lanes.values())
        report.caught_up = _at_tip(outcomes) and not more and not waiting

    def _figures(self, source: str, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """The metrics of one source. A record that is no block is nobody's."""
        complete_until = self._publishers[source].complete_until
        figures = {
            "RowsLoaded": sum(file.rows for outcome in outcomes for key, file in outcome.files if key[0] == source),
            "BytesRead": sum(outcome.source_bytes.get(source, 0) for outcome in outcomes),
            "OpenHoles": sum(len(table.state.holes) for table in self.lake.of(source).values()),
            "UnmatchedDeletes": sum(table.unmatched_deletes for table in self.lake.of(source).values()),
            "ParkedLanes": sum(key.source == source for key in self._parking.lanes),
        }
        fresh = {} if complete_until is None else {"FreshnessSeconds": self._clock() - complete_until.timestamp()}
        return {**figures, **fresh}

    def _commit_failures(self) -> int:
        return self._aws.throttled["glue"] + sum(table.conflicts for table in self.lake.tables.values())

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


def _text(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")


def _at_tip(outcomes: Sequence[Outcome]) -> bool:
    """Whether all that was readable is read: no shard has ended just now, whose children would be next."""
    return bool(outcomes) and all(outcome.at_tip and not outcome.closed for outcome in outcomes)


def _progresses(outcomes: Sequence[Outcome], source: str) -> Iterator[Progress]:
    return (item for outcome in outcomes for named, item in outcome.progresses if named == source)
