"""The agent: opens the era, starts the stages, keeps them going, stops them in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from producer import failpoints
from producer.blocks import Gatherer
from producer.control_lane import ControlLane
from producer.era import Continuity, Lease, check_continues
from producer.errors import ProducerError, SourceUnreachable
from producer.health import HealthPage, Status
from producer.intake import Intake
from producer.kinesis import KinesisStream, StreamIdentity, Unanswered, check_same, client
from producer.requests import Requests
from producer.sender import S3Claims, Sender
from producer.settings import Settings
from producer.snapshots import OpenSnapshot, Snapshotter
from producer.source import Source
from producer.spool import DurableEnd, Spool
from schemas.registry import Registry

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 15.0
_RECONNECT_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_LEASE_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 2.0
_STREAM_SECONDS: Final = 180.0


@dataclass(frozen=True)
class Clouds:
    """The agent's AWS clients. `kinesis` does not retry by itself: the sender does, in order."""

    kinesis: Any
    kinesis_admin: Any
    dynamodb: Any
    s3: Any

    @classmethod
    def of(cls, settings: Settings) -> Clouds:
        aws = settings.aws
        return cls(
            kinesis=client("kinesis", aws, retries=False),
            kinesis_admin=client("kinesis", aws),
            dynamodb=client("dynamodb", aws),
            s3=client("s3", aws),
        )


class Agent:
    """One agent for one source. `run` returns when stopped, and raises what made it stop otherwise."""

    def __init__(self, settings: Settings, source: Source, clouds: Clouds, *, new_era: bool = False) -> None:
        self._settings = settings
        self._source = source
        self._new_era = new_era
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._spool = Spool(settings.spool.path, settings.spool.max_bytes)
        self._stream = KinesisStream(clouds.kinesis, settings.aws.stream)
        self._admin = KinesisStream(clouds.kinesis_admin, settings.aws.stream)
        name, prefix = settings.source.name, settings.aws.dynamodb_prefix
        sources = f"{prefix}-sources"
        self._lease = Lease(clouds.dynamodb, sources, name, self._spool.meta("spool") or "")
        self._control = ControlLane(name, self._spool)
        registry = Registry(clouds.dynamodb, f"{prefix}-schemas")
        claims = S3Claims(clouds.s3, settings.aws.claims)
        self._sender = Sender(name, self._spool, self._stream, registry, claims, self._control)
        self._requests: Callable[[Snapshotter], Requests] = lambda snapshots: Requests(
            clouds.dynamodb, sources, name, self._spool, snapshots
        )
        self._intake: Intake | None = None
        self._snapshotter: Snapshotter | None = None
        self._era = 0
        self._trouble: str | None = None
        self._moved_at = time.time()

    def stop(self) -> None:
        """Ask for an orderly end: what was captured is spooled, what was not sent stays in the spool."""
        self._stop.set()

    def run(self) -> None:
        health = self._serve_health()
        try:
            self._patiently(self._open_era)
            threads = self._start_stages()
            self._capture_until_stopped()
            self._stop.set()
            deadline = time.monotonic() + STOP_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        finally:
            self._stop.set()
            with suppress(Exception):  # it runs out by itself
                self._lease.release()
            if health is not None:
                health.close()
        if self._failure is not None:
            raise self._failure
        log.info("stopped", extra={"pending_blocks": self._spool.totals().pending_blocks})

    # ---- opening

    def _patiently(self, work: Callable[[], None]) -> None:
        """Do it, and while the source or AWS cannot be reached, try again."""
        for wait in _waits():
            try:
                work()
                return
            except ProducerError as error:
                if not isinstance(error, SourceUnreachable):
                    raise
                self._trouble = str(error)
            except Exception as error:
                if not _unreachable(error):
                    raise
                self._trouble = f"AWS cannot be reached: {error}"
            log.warning("waiting", extra={"cause": self._trouble})
            if self._stop.wait(wait):
                return

    def _open_era(self) -> None:
        """Settle which era this is, and see that spool, source and stream continue it."""
        stream = self._admin.identity()
        known_era = int(self._spool.meta("era") or 0)
        held = self._lease.claim(known_era, self._new_era)
        self._new_era = False
        self._source.check()
        if held.era > known_era:
            self._spool.open_era(held.era, None, stream=str(stream))
            log.info("era opened", extra={"era": held.era})
        if self._spool.durable_end() is None:
            self._begin_era(held.era, stream)
        else:
            self._continue_era(stream)
        self._era = held.era
        self._trouble = None

    def _begin_era(self, era: int, stream: StreamIdentity) -> None:
        """Start from wherever the slot stands: the snapshots of this era hold everything before it."""
        self._source.prepare()
        failpoints.reach("slot.created")
        found = self._source.find()
        flushed = found.slot_flushed or 0
        at = time.time_ns() // 1000
        self._spool.open_era(
            era,
            DurableEnd(era, flushed - 1, flushed, at),
            stream=str(stream),
            system_id=found.system_id,
            timeline=str(found.timeline),
        )

    def _continue_era(self, stream: StreamIdentity) -> None:
        check_same(self._spool.meta("stream"), stream)
        self._check_source(self._spool.durable_end())
        self._source.prepare()

    def _check_source(self, end: DurableEnd | None) -> None:
        known = Continuity(
            system_id=self._spool.meta("system_id") or "",
            timeline=int(self._spool.meta("timeline") or 0),
            flushed=end.flushed if end is not None else 0,
        )
        check_continues(known, self._source.find())

    # ---- the stages

    def _start_stages(self) -> list[threading.Thread]:
        if self._stop.is_set():
            return []
        snapshotter = Snapshotter(
            self._settings.source.name,
            self._era,
            self._spool,
            self._control,
            _EraSource(self._source, self._era),
            self._settings.spool.block_bytes,
        )
        self._snapshotter = snapshotter
        requests = self._requests(snapshotter)
        return [
            self._stage("sender", self._sender.run),
            self._stage("snapshots", snapshotter.run),
            self._stage("lease", self._regularly(_LEASE_SECONDS, self._lease.renew)),
            self._stage("requests", self._regularly(_REQUEST_SECONDS, requests.answer_all)),
            self._stage("stream", self._regularly(_STREAM_SECONDS, self._check_stream)),
        ]

    def _stage(self, name: str, run: Callable[[threading.Event], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                run(self._stop)
            except BaseException as error:
                log.error("a stage failed", extra={"stage": name, "cause": str(error)})
                self._failure = self._failure or error
                self._stop.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _regularly(self, seconds: float, work: Callable[[], object]) -> Callable[[threading.Event], None]:
        """A stage that works every so often; an outage of AWS only makes it try again."""

        def run(stop: threading.Event) -> None:
            while not stop.wait(seconds):
                try:
                    work()
                except Exception as error:
                    if not _unreachable(error):
                        raise
                    log.warning("AWS cannot be reached", extra={"cause": str(error)})

        return run

    def _check_stream(self) -> None:
        check_same(self._spool.meta("stream"), self._admin.identity())

    # ---- capture

    def _capture_until_stopped(self) -> None:
        waits = _waits()
        while not self._stop.is_set():
            try:
                self._capture()
                waits = _waits()
            except SourceUnreachable as error:
                self._trouble = str(error)
                log.warning("the source cannot be reached", extra={"cause": str(error)})
                self._stop.wait(next(waits))

    def _capture(self) -> None:
        """One connection's worth. What was gathered of whole transactions is spooled however it ends."""
        discarded = self._spool.discard_tail()
        if discarded:
            log.info("tail discarded", extra={"blocks": discarded})
        end = self._spool.durable_end()
        if end is None:
            raise AssertionError("capture started before the era was open")
        self._check_source(end)
        capture = self._source.capture(self._era, end.lsn)
        captured = self._intake.captured if self._intake is not None else 0
        gatherer = Gatherer(self._settings.source.name, self._settings.spool.block_bytes, self._spool.ends(self._era))
        intake = self._intake = Intake(
            spool=self._spool,
            gatherer=gatherer,
            end=end,
            lanes_of=self._source.lanes,
            confirm=capture.confirm,
            linger_seconds=self._settings.spool.linger_ms / 1000,
            captured=captured,
        )
        self._trouble = None
        log.info("capturing", extra={"era": self._era, "after_lsn": end.lsn})
        try:
            while not self._stop.is_set():
                self._wait_for_room()
                intake.take(capture.poll(intake.due_in()))
                intake.flush_if_due()
        finally:
            try:
                intake.flush()
            finally:
                capture.close()

    def _wait_for_room(self) -> None:
        """Capture pauses while the spool is full; the source keeps what follows."""
        while self._spool.full() and not self._stop.is_set():
            self._trouble = "the spool is full: capture waits until Kinesis has accepted some of it"
            self._stop.wait(0.05)
            if not self._spool.full():
                self._trouble = None

    # ---- status

    def _serve_health(self) -> HealthPage | None:
        port = self._settings.health.port
        if port is None:
            return None
        page = HealthPage(port, self.status)
        log.info("health page", extra={"port": page.port})
        return page

    def status(self) -> Status:
        """What the agent is doing, at this moment."""
        totals = self._spool.totals()
        intake, last = self._intake, self._control.last
        durable = self._spool.durable_end()
        trouble = self._trouble or self._sender.trouble
        accepted_at = last.committed_at if last is not None else None
        return Status(
            source=self._settings.source.name,
            era=self._era,
            healthy=trouble is None,
            trouble=trouble,
            committed_lsn=intake.end.lsn if intake is not None else 0,
            durable_lsn=durable.lsn if durable is not None else 0,
            accepted_lsn=last.through if last is not None else 0,
            captured_changes=intake.captured if intake is not None else 0,
            spooled_changes=totals.spooled_changes,
            accepted_changes=totals.accepted_changes,
            spooled_blocks=totals.spooled_blocks,
            accepted_blocks=totals.accepted_blocks,
            pending_blocks=totals.pending_blocks,
            pending_bytes=totals.pending_bytes,
            spool_bytes=totals.spool_bytes,
            lag_seconds=max(0.0, (datetime.now(UTC) - accepted_at).total_seconds()) if accepted_at else 0.0,
            snapshot=self._snapshotter.running if self._snapshotter is not None else None,
        )


@dataclass(frozen=True)
class _EraSource:
    """The source, as the snapshots of one era see it."""

    source: Source
    era: int

    def tables(self) -> Sequence[str]:
        return self.source.tables()

    def current_lsn(self) -> int:
        return self.source.current_lsn()

    def open(self, table: str) -> AbstractContextManager[OpenSnapshot]:
        return self.source.open(table, self.era)


def _waits() -> Any:
    """Growing waits, the last one for ever."""
    yield from _RECONNECT_SECONDS
    while True:
        yield _RECONNECT_SECONDS[-1]


def _unreachable(error: Exception) -> bool:
    """Whether AWS did not answer, or not now; a refusal for good is not that."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, Unanswered | BotoCoreError | OSError):
        return True
    return isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
