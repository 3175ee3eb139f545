"""PostgreSQL behind the agent's seam."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from producer import lanes
from producer.era import Found
from producer.errors import SourceRefused
from producer.postgres.capture import Capture
from producer.postgres.identity import CapturedTable, check, identify, prepare
from producer.postgres.snapshot import open_snapshot
from producer.postgres.source import PostgresSource, TableChoice
from producer.settings import Settings
from producer.snapshots import OpenSnapshot
from producer.source import Capturing

SLOT_PATIENCE_SECONDS = 10.0


class PostgresTables:
    """A PostgreSQL database as a Source: tables by their lake names."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source = PostgresSource(
            name=settings.source.name,
            dsn=settings.source.dsn,
            slot=settings.source.slot,
            publication=settings.source.publication,
            tables=tuple(TableChoice(table.name, table.append_only) for table in settings.tables),
        )
        self._tables: dict[str, CapturedTable] = {}
        self._lanes: dict[str, int] = {}

    def check(self) -> None:
        """After a crash the server may take a moment to see that the slot's last reader is gone."""
        deadline = time.monotonic() + SLOT_PATIENCE_SECONDS
        while self._slot_is_read() and time.monotonic() < deadline:
            time.sleep(0.1)
        self._know(check(self._source))

    def find(self) -> Found:
        identity = identify(self._source)
        slot = identity.slot
        confirmed = None if slot is None or slot.invalidated else slot.confirmed_lsn
        return Found(identity.system_id, identity.timeline, self._source.slot, confirmed)

    def prepare(self) -> None:
        self._know(prepare(self._source))

    def tables(self) -> Sequence[str]:
        return tuple(self._tables)

    def lanes(self, table: str) -> int:
        return self._lanes.get(table, 1)

    def current_lsn(self) -> int:
        return identify(self._source).current_lsn

    def capture(self, era: int, after_lsn: int) -> Capturing:
        return Capture(self._source, era=era, after_lsn=max(0, after_lsn))

    @contextmanager
    def open(self, table: str, era: int) -> Iterator[OpenSnapshot]:
        known = self._tables.get(table)
        if known is None:
            raise SourceRefused(f"no snapshot of {table}", ["it is not captured; name it in the configuration"])
        with open_snapshot(self._source, known.schema, known.name, era=era) as snapshot:
            yield OpenSnapshot(snapshot.consistent_point, snapshot.schema, snapshot.rows)

    def _slot_is_read(self) -> bool:
        slot = identify(self._source).slot
        return slot is not None and slot.active

    def _know(self, tables: Sequence[CapturedTable]) -> None:
        self._tables = {table.lake_table: table for table in tables}
        for table in tables:
            entry = lanes.settings_of(f"{table.schema}.{table.name}", self._settings.tables)
            self._lanes[table.lake_table] = 1 if entry is None else entry.lanes
