"""The agent: opens the era, starts the stages, keeps them going, stops them in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from producer.blocks import Gatherer
from producer.budget import Budget
from producer.clouds import Clouds, unreachable
from producer.control_lane import ControlLane
from producer.durable_end import DurableEnd
from producer.era import Lease
from producer.errors import ProducerError, Refused, SourceUnreachable, SpoolBroken
from producer.health import HealthPage, Status
from producer.intake import UNHEARD_SECONDS, Intake
from producer.intake_thread import IntakeThread
from producer.kinesis import KinesisStream
from producer.opening import Opening
from producer.requests import Requests
from producer.reserves import Reserves
from producer.sender import S3Claims, Sender
from producer.settings import Settings, check_reloadable
from producer.snapshot_pieces import PieceWriter
from producer.snapshots import Snapshotter
from producer.source import EraSource, Source
from producer.spool import Spool
from producer.supervisor import Supervisor
from schemas.registry import Registry

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 15.0
_RECONNECT_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_LEASE_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 5.0
_TABLES_SECONDS: Final = 15.0
_STREAM_SECONDS: Final = 180.0
_RESERVES_SECONDS: Final = 30.0


class Agent:
    """One agent for one source. `run` returns when stopped, and raises what made it stop otherwise."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        clouds: Clouds,
        *,
        new_era: bool = False,
        prove_continuity: bool = False,
        supervisor: Supervisor | None = None,
        configured_anew: Callable[[], Settings] | None = None,
    ) -> None:
        """configured_anew: reads the configuration again, for `reload`."""
        self._settings = settings
        self._configured_anew = configured_anew or (lambda: settings)
        self._reload = threading.Event()
        self._supervisor = supervisor or Supervisor()
        self._source = source
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._spool = Spool(settings.spool.path, settings.spool.max_bytes)
        name, prefix = settings.source.name, settings.aws.dynamodb_prefix
        sources = f"{prefix}-sources"
        self._lease = Lease(clouds.dynamodb, sources, name, self._spool.meta("spool") or "", self._spool.line)
        self._opening = Opening(
            name,
            self._spool,
            source,
            KinesisStream(clouds.kinesis_admin, settings.aws.stream),
            self._lease,
            new_era=new_era,
            prove_continuity=prove_continuity,
        )
        self._control = ControlLane(name, self._spool)
        registry = Registry(clouds.dynamodb, f"{prefix}-schemas")
        claims = S3Claims(clouds.s3, settings.aws.claims)
        self._sender = Sender(
            name,
            self._spool,
            KinesisStream(clouds.kinesis, settings.aws.stream),
            registry,
            claims,
            self._control,
            priority=source.priority,
            max_bytes_per_second=settings.aws.max_bytes_per_second,
            speaks=self._lease.speaks,
        )
        self._requests: Callable[[Snapshotter], Requests] = lambda snapshots: Requests(
            clouds.dynamodb, sources, name, self._spool, snapshots
        )
        self._intake: Intake | None = None
        self._snapshotter: Snapshotter | None = None
        self._reserves = Reserves(settings.spool.max_bytes, settings.spool.min_outage_seconds)
        self._incomplete: set[str] = set()
        self._era = 0
        self._trouble: str | None = None

    def stop(self) -> None:
        """Ask for an orderly end: what was captured is spooled, what was not sent stays in the spool."""
        self._stop.set()

    def reload(self) -> None:
        """Ask that the configuration be read again and hold from the next transaction on."""
        self._reload.set()

    def run(self) -> None:
        health = self._serve_health()
        self._supervisor.ready()
        try:
            self._patiently(self._open_era)
            threads = self._start_stages()
            self._capture_until_stopped()
            self._supervisor.stopping()
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
            with suppress(SpoolBroken):  # nothing is lost by that
                self._spool.checkpoint()
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
                if not unreachable(error):
                    raise
                self._trouble = f"AWS cannot be reached: {error}"
            log.warning("waiting", extra={"cause": self._trouble})
            self._supervisor.alive(self._trouble)
            if self._stop.wait(wait):
                return

    def _open_era(self) -> None:
        self._era = self._opening.open()
        self._trouble = None

    # ---- the stages

    def _start_stages(self) -> list[threading.Thread]:
        if self._stop.is_set():
            return []
        snapshot = self._settings.snapshot
        snapshotter = Snapshotter(
            self._era,
            self._spool,
            self._control,
            EraSource(self._source, self._era),
            snapshot,
            PieceWriter(
                self._settings.source.name,
                self._spool,
                self._settings.spool.block_bytes,
                Budget(snapshot.max_rows_per_second),
            ),
        )
        self._snapshotter = snapshotter
        requests = self._requests(snapshotter)
        return [
            self._stage("sender", self._sender.run),
            self._stage("snapshots", snapshotter.run),
            self._stage("lease", self._regularly(_LEASE_SECONDS, self._lease.renew)),
            self._stage("requests", self._regularly(_REQUEST_SECONDS, requests.answer_all)),
            self._stage("tables", self._regularly(_TABLES_SECONDS, lambda: self._follow(snapshotter))),
            self._stage("stream", self._regularly(_STREAM_SECONDS, self._opening.check_stream)),
            self._stage("reserves", self._regularly(_RESERVES_SECONDS, self._note_reserves)),
            *self._heart(),
        ]

    def _follow(self, snapshotter: Snapshotter) -> None:
        self._incomplete |= set(self._source.follow())
        for table in sorted(self._incomplete):
            snapshotter.request(table)
            self._incomplete.discard(table)

    def _heart(self) -> list[threading.Thread]:
        seconds = self._settings.source.heartbeat_seconds
        return [] if seconds is None else [self._stage("heartbeat", self._regularly(seconds, self._source.beat))]

    def _note_reserves(self) -> None:
        totals = self._spool.totals()
        before = self._reserves.now.warnings
        now = self._reserves.note(time.monotonic(), totals.spooled_bytes, totals.pending_bytes, self._source.reserve())
        for warning in set(now.warnings) - set(before):
            log.warning("little is left", extra={"cause": warning})

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
        """A stage that works every so often; an outage of AWS or of the source only makes it try again."""

        def run(stop: threading.Event) -> None:
            while not stop.wait(seconds):
                try:
                    work()
                except Exception as error:
                    if not isinstance(error, SourceUnreachable) and not unreachable(error):
                        raise
                    log.warning("not now", extra={"cause": str(error)})

        return run

    # ---- capture

    def _capture_until_stopped(self) -> None:
        waits = _waits()
        while not self._stop.is_set():
            try:
                if self._reload.is_set():
                    self._reconfigure()
                self._capture()
                waits = _waits()
            except SourceUnreachable as error:
                self._trouble = str(error)
                log.warning("the source cannot be reached", extra={"cause": str(error)})
                self._supervisor.alive(self._trouble)
                self._stop.wait(next(waits))

    def _reconfigure(self) -> None:
        """Take over what may change while the agent runs; a configuration that is refused changes nothing.

        Between two connections, so between two transactions: one that was under way is sent again from its begin.
        """
        self._supervisor.reloading()
        try:
            anew = self._configured_anew()
            check_reloadable(self._settings, anew)
            self._source.reconfigure(anew)
            self._settings = anew
            log.info("configuration reloaded", extra={"tables": list(self._source.tables())})
        except Refused as error:
            log.error("the new configuration is refused, the one before stays", extra={"cause": str(error)})
        self._reload.clear()
        self._supervisor.ready()

    def _capture(self) -> None:
        """One connection's worth. What was gathered of whole transactions is spooled however it ends."""
        discarded = self._spool.discard_tail()
        if discarded:
            log.info("tail discarded", extra={"blocks": discarded})
        end = self._spool.durable_end()
        if end is None:
            raise AssertionError("capture started before the era was open")
        found = self._opening.check_source(end)
        if self._sender.damaged.is_set():
            end = self._mend(found.slot_flushed or 0) or end
        capture = self._source.capture(self._era, end.lsn)
        captured = self._intake.captured if self._intake is not None else 0
        gatherer = Gatherer(self._settings.source.name, self._settings.spool.block_bytes, self._spool.ends(self._era))
        self._intake = Intake(
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
        taking = IntakeThread(self._intake)
        try:
            while not self._interrupted():
                self._wait_for_room()
                self._supervisor.alive(self._trouble)
                taking.give(capture.poll(UNHEARD_SECONDS))
        finally:
            try:
                taking.close()
            finally:
                capture.close()

    def _interrupted(self) -> bool:
        """Whether this connection has to end, though it is sound."""
        return self._stop.is_set() or self._reload.is_set() or self._sender.damaged.is_set()

    def _mend(self, confirmed: int) -> DurableEnd | None:
        """Damaged blocks are captured again where the source still has them, or declared to the lake as lost.

        The capture is between two connections and the sender waits. Returns the spool's end where it moved back.
        """
        again = self._spool.give_back_damaged(confirmed)
        lost = self._spool.declare_damaged(self._settings.source.name)
        for table in lost.tables:
            if self._snapshotter is not None and table in self._source.tables():
                self._snapshotter.request(table)
        self._sender.mended()
        return self._spool.durable_end() if again else None

    def _wait_for_room(self) -> None:
        """Capture pauses while the spool is full; the source keeps what follows."""
        while self._spool.full() and not self._interrupted():
            self._trouble = "the spool is full: capture waits until Kinesis has accepted some of it"
            self._supervisor.alive(self._trouble)
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
        snapshots, reserve, remarks = self._snapshotter, self._reserves.now, self._source.remarks()
        trouble = self._trouble or self._sender.trouble or (snapshots.trouble if snapshots is not None else None)
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
            refetched_blocks=totals.refetched_blocks,
            lost_blocks=totals.lost_blocks,
            lag_seconds=max(0.0, (datetime.now(UTC) - accepted_at).total_seconds()) if accepted_at else 0.0,
            spool_outage_seconds=reserve.spool_seconds,
            slot_wal_status=reserve.slot.status if reserve.slot is not None else None,
            slot_held_bytes=reserve.slot.held_bytes if reserve.slot is not None else None,
            slot_safe_bytes=reserve.slot.safe_bytes if reserve.slot is not None else None,
            slot_outage_seconds=reserve.slot_seconds,
            warnings=(*reserve.warnings, *remarks.warnings, *_of_losses(totals.lost_blocks)),
            logical_messages=remarks.logical_messages,
            snapshots=self._snapshotter.progress() if self._snapshotter is not None else [],
        )


def _of_losses(blocks: int) -> list[str]:
    if not blocks:
        return []
    return [
        f"{blocks} blocks of the spool were damaged, and the source has forgotten them: the lake has a hole for each"
        " (`headrace holes list`), which a snapshot closes. See to the disk"
    ]


def _waits() -> Any:
    """Growing waits, the last one for ever."""
    yield from _RECONNECT_SECONDS
    while True:
        yield _RECONNECT_SECONDS[-1]
