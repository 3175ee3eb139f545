"""PostgreSQL behind the agent's seam."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock

from producer.continuity import Found, Known
from producer.errors import ConfigurationRefused, SourceRefused
from producer.groups import Group, Plan
from producer.postgres import load
from producer.postgres.capture import Capture, Transfer
from producer.postgres.catalog import Partition, Partitions, partition_news
from producer.postgres.connection import reaching
from producer.postgres.identity import (
    CapturedTable,
    Looked,
    beat,
    check,
    drop_slot,
    follow,
    identify,
    prepare,
    reserve,
)
from producer.postgres.overlap import last_resent
from producer.postgres.shaping import Shaping
from producer.postgres.snapshot import open_snapshot, plan
from producer.postgres.source import PostgresSource, TableChoice
from producer.postgres.table_names import BoundNames
from producer.reserves import SlotReserve
from producer.settings import Settings, TableSettings
from producer.snapshots import OpenSnapshot
from producer.source import Capturing, Remarks

log = logging.getLogger(__name__)

SLOT_PATIENCE_SECONDS = 10.0
_HASH_KEY_BYTES = 32


_reached = reaching("the source does not answer")


class PostgresTables:
    """A PostgreSQL database as a Source: tables by their lake names."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = names_of(settings)
        self._source = source_of(settings, self._names)
        self._tables: dict[str, CapturedTable] = {}
        self._lanes: dict[str, int] = {}
        self._priorities: dict[str, int] = {}
        self._transfer = Transfer()
        self._left_out: tuple[str, ...] = ()
        self._partitions: Partitions = {}
        self._partitions_path = _beside(settings.spool.path, ".partitions.json")
        self._noted_partitions = ""
        self._system_id = ""
        self._surplus: dict[str, str] = {}
        """Tables with rows in the lake that the source has no more."""
        self._following = Lock()
        """Tables are looked for under one configuration at a time, since the names that are bound lie in one file."""

    @_reached
    def check(self, *, beside_agent: bool = False) -> None:
        """After a crash the server may take a moment to see that the slot's last reader is gone."""
        deadline = time.monotonic() + SLOT_PATIENCE_SECONDS
        while not beside_agent and self._slot_is_read() and time.monotonic() < deadline:
            time.sleep(0.1)
        system_id = identify(self._source).system_id
        self._names.enter(system_id)
        self._remember_partitions(system_id)
        self._know(check(replace(self._source, slot_is_ours=beside_agent)))

    @_reached
    def find(self) -> Found:
        identity = identify(self._source)
        slot = identity.slot
        lost = None if slot is None else slot.lost
        return Found(
            system_id=identity.system_id,
            timeline=identity.timeline,
            slot=self._source.slot,
            slot_flushed=None if slot is None or lost else slot.confirmed_lsn,
            slot_lost=lost,
            current_lsn=identity.current_lsn,
            ancestors=identity.ancestors,
        )

    def last_resent(self, through: int) -> Known | None:
        return last_resent(self._source, through)

    @_reached
    def reserve(self) -> SlotReserve | None:
        return reserve(self._source)

    def remarks(self) -> Remarks:
        return Remarks(self._transfer.logical_messages, (*self._left_out, *self._surplus.values()))

    @_reached
    def beat(self) -> None:
        beat(self._source)

    @_reached
    def drop_slot(self) -> bool:
        return drop_slot(self._source)

    @_reached
    def prepare(self) -> None:
        self._know(prepare(self._source))

    def reconfigure(self, settings: Settings) -> None:
        with self._following:
            anew = PostgresTables(settings)
            anew.check()
            anew.prepare()
            self._settings, self._names, self._source = anew._settings, anew._names, anew._source
            self._tables, self._lanes, self._priorities = anew._tables, anew._lanes, anew._priorities
            self._left_out = anew._left_out

    @_reached
    def follow(self) -> Sequence[str]:
        with self._following:
            return self._follow()

    def _follow(self) -> Sequence[str]:
        self._note_partitions()
        followed = follow(self._source)
        self._know(followed)
        names = {table.oid: table.lake_table for table in followed.tables}
        incomplete = set()
        for news in partition_news(self._partitions, followed.partitions):
            table = names[news.root]
            if news.missing:
                incomplete.add(table)
                said = f"{table}: {news.said}: a new snapshot is taken"
            else:
                said = f"{table}: {news.said} until `headrace holes resnapshot {table}`"
                self._surplus[table] = said
            log.warning("a change that is not in the stream", extra={"cause": said})
        self._partitions = followed.partitions
        return sorted(incomplete)

    def _note_partitions(self) -> None:
        """Remembers those of the look before: by now it is known what they asked for."""
        text = json.dumps([self._system_id, {root: dict(found) for root, found in self._partitions.items()}])
        if self._partitions and text != self._noted_partitions:
            self._partitions_path.write_text(text)
            self._noted_partitions = text

    def _remember_partitions(self, system_id: str) -> None:
        """Those that an agent before this one has seen: what was done to them meanwhile is news."""
        self._system_id = system_id
        if self._partitions or not self._partitions_path.exists():
            return
        known_id, known = json.loads(self._partitions_path.read_text())
        if known_id == system_id:
            self._partitions = {
                int(root): {int(oid): Partition(*values) for oid, values in found.items()}
                for root, found in known.items()
            }

    def tables(self) -> Sequence[str]:
        return tuple(self._tables)

    def lanes(self, table: str) -> int:
        return self._lanes.get(table, 1)

    def priority(self, table: str) -> int:
        return self._priorities.get(table, 0)

    @_reached
    def current_lsn(self) -> int:
        return identify(self._source).current_lsn

    def capture(self, era: int, after_lsn: int) -> Capturing:
        after_lsn = max(0, after_lsn)
        return Capture(self._source, era=era, after_lsn=after_lsn, transfer=self._transfer, lanes_of=self.lanes)

    def plan(self, table: str, group_bytes: int) -> Plan:
        self._surplus.pop(table, None)
        known = self._captured(table)
        return plan(self._source, known.schema, known.name, group_bytes)

    @contextmanager
    def open(self, table: str, group: Group, era: int) -> Iterator[OpenSnapshot]:
        known = self._captured(table)
        with open_snapshot(self._source, known.schema, known.name, era=era, group=group) as snapshot:
            yield OpenSnapshot(snapshot.consistent_point, snapshot.schema, snapshot.rows)

    @_reached
    def busy(self) -> str | None:
        bounds = self._settings.snapshot
        if bounds.max_active_sessions is None and bounds.max_replica_lag_seconds is None:
            return None
        return load.busy(load.measure(self._source), bounds.max_active_sessions, bounds.max_replica_lag_seconds)

    def _captured(self, table: str) -> CapturedTable:
        known = self._tables.get(table)
        if known is None:
            raise SourceRefused(f"no snapshot of {table}", ["it is not captured; name it in the configuration"])
        return known

    def _slot_is_read(self) -> bool:
        slot = identify(self._source).slot
        return slot is not None and slot.active

    def _know(self, looked: Looked) -> None:
        if looked.left_out != self._left_out:
            self._left_out = looked.left_out
            for cause in looked.left_out:
                log.warning("a table is left out", extra={"cause": cause})
        self._tables = {table.lake_table: table for table in looked.tables}
        for table in looked.tables:
            entry = entry_of(table, self._source, self._settings.tables)
            self._lanes[table.lake_table] = entry.lanes
            self._priorities[table.lake_table] = entry.priority


def names_of(settings: Settings) -> BoundNames:
    """The lake's names of the source's tables, as this agent has bound them; for `enter` with the source's system."""
    renames = {_qualified(table.name): table.rename for table in settings.tables if table.rename is not None}
    return BoundNames(_beside(settings.spool.path, ".tables.json"), renames)


def source_of(settings: Settings, names: BoundNames) -> PostgresSource:
    """What the configuration says of the database. Raises ConfigurationRefused where the hash key cannot be read."""
    return PostgresSource(
        name=settings.source.name,
        dsn=settings.source.dsn,
        slot=settings.source.slot,
        publication=settings.source.publication,
        tables=tuple(map(choice_of, settings.tables)),
        names=names,
        hash_key=_hash_key(settings.source.hash_key_file),
        streamed=_beside(settings.spool.path, ".streamed") if settings.source.streaming else None,
    )


def entry_of(table: CapturedTable, source: PostgresSource, entries: Sequence[TableSettings]) -> TableSettings:
    """What the configuration says of a table: the entry behind the source's choice, which has one for each."""
    choice = source.choice(table.oid, table.schema, table.name)
    return TableSettings(table.lake_table) if choice is None else entries[source.tables.index(choice)]


def choice_of(table: TableSettings) -> TableChoice:
    shaping = Shaping(
        frozenset(table.exclude_columns), frozenset(table.hash_columns), table.mask_columns, table.where, table.rename
    )
    return TableChoice(table.name, table.append_only, table.exclude, shaping)


def _qualified(name: str) -> str:
    return name if "." in name else f"public.{name}"


def _hash_key(path: str | None) -> bytes:
    if path is None:
        return b""
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigurationRefused("source.hash_key_file", [f"{path} cannot be read: {error.strerror}"]) from error
    if len(key) < _HASH_KEY_BYTES:
        problem = f"{path} holds {len(key)} bytes: at least {_HASH_KEY_BYTES} random ones are needed"
        raise ConfigurationRefused("source.hash_key_file", [problem])
    return key


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
