"""Progress records: how far the source is complete, as far as Kinesis has accepted it. Pure but for the cadence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from producer.durable_end import DurableEnd
from producer.snapshot_book import Snapshot
from producer.spool import View
from schemas import block as wire
from schemas.block import NO_SCHEMA, Kind
from schemas.control import CONTROL_LANE, Announcement, Progress, encode_progress
from schemas.position import Position

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def progress(view: View) -> Progress | None:
    """What may be said of this view of the spool; None while nothing may.

    `through` stops before the first change that was not accepted; with none, it is the durable end, which may be a
    keepalive's. While blocks of an earlier era wait, the new era is not spoken of: its lines lie beyond all theirs.
    """
    end = view.durable
    if end is None or (view.pending is not None and view.pending[0] < end.era):
        return None
    through, at = _through(end, view.pending)
    return Progress(
        era=end.era,
        through=through,
        committed_at=_EPOCH + timedelta(microseconds=at),
        vector=view.ends,
        snapshots=announcements(view.snapshots, end.era),
    )


def _through(end: DurableEnd, pending: tuple[int, int, int] | None) -> tuple[int, int]:
    if pending is None:
        return end.lsn, end.at
    _, lsn, at = pending
    return min(end.lsn, lsn - 1), min(end.at, at)


def announcements(snapshots: tuple[Snapshot, ...], era: int) -> tuple[Announcement, ...]:
    """The newest snapshot of every table, and those that it replaced.

    One that has ended is announced on: a reader may meet this record before the snapshot's own blocks, and would fold
    past it. What the lake has activated it ignores.
    """
    newest = {snapshot.table: snapshot.snapshot for snapshot in snapshots if snapshot.state != "abandoned"}
    return tuple(
        Announcement(s.snapshot, s.table, s.low, s.state == "abandoned")
        for s in snapshots
        if s.snapshot == newest.get(s.table) or (s.state == "abandoned" and s.era == era)
    )


def block_of(source: str, record: Progress, now: datetime) -> bytes:
    """The block that carries a progress record; in no chain."""
    position = Position(record.era, record.through, 0)
    return wire.encode(
        wire.build(
            Kind.PROGRESS,
            source,
            "",
            CONTROL_LANE,
            schema=NO_SCHEMA,
            prev=None,
            first=position,
            last=position,
            count=1,
            created_at=now,
            datums=encode_progress(record),
            codec=wire.Codec.NULL,
        )
    )


@dataclass(frozen=True)
class Cadence:
    """When a progress record is due: a second after the last when something moved, ten when nothing did."""

    moved_seconds: float = 1.0
    idle_seconds: float = 10.0

    def due(self, last: Progress | None, seconds_since: float, record: Progress) -> bool:
        if last is None or last.snapshots != record.snapshots:
            return True  # nobody waits longer than needed for an announcement
        moved = (last.era, last.through, last.vector) != (record.era, record.through, record.vector)
        return seconds_since >= (self.moved_seconds if moved else self.idle_seconds)
