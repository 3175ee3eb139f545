"""A folder of files behind the agent's seam."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from producer.change import Change, Rejected
from producer.continuity import Found
from producer.errors import ConfigurationRefused, SourceRefused, SourceUnreachable
from producer.files import readers
from producer.files.capture import FilesCapture
from producer.files.folder import Folder, Rest
from producer.files.ledger import Kind, Ledger, Seen
from producer.files.rows import Place, Rows, micros_now
from producer.groups import Group, Plan
from producer.settings import FilesSettings, Settings
from producer.snapshots import OpenSnapshot
from producer.source import Capturing, Remarks

log = logging.getLogger(__name__)

_TIMELINE = 1


class FolderTables:
    """Tables of files as a Source: append-only, without a key. The ledger lies beside the spool."""

    def __init__(self, settings: Settings) -> None:
        if settings.files is None:
            raise ConfigurationRefused(settings.source.name, ["there is no [files] section"])
        self._name = settings.source.name
        self._files: FilesSettings = settings.files
        self._tables = {table.name: table for table in self._files.tables}
        self._folder = Folder(self._files)
        self._rest = Rest(self._files.settle_seconds)
        self._ledger_path = Path(f"{settings.spool.path}.files")
        self._opened: Ledger | None = None

    def check(self, *, beside_agent: bool = False) -> None:
        """All problems of the folders together."""
        problems = []
        folder, archive = self._files.folder, self._files.archive
        if not folder.is_dir():
            raise SourceUnreachable(f"folder {folder} is not there: create it, or mount it")
        if not os.access(folder, os.R_OK | os.X_OK):
            problems.append(f"folder {folder} may not be read: chmod u+rx {folder}, as the agent's user")
        if archive is not None:
            if archive.resolve().is_relative_to(folder.resolve()):
                problems.append(f"archive {archive} lies within {folder}: its files would be taken again")
            if not os.access(folder, os.W_OK):
                problems.append(f"folder {folder} may not be written, so nothing can be moved from it to the archive")
        if problems:
            raise SourceRefused(f"source {self._name} is not ready", problems)

    def find(self) -> Found:
        return Found(self._ledger.id, _TIMELINE, str(self._files.folder), self._ledger.confirmed)

    def prepare(self) -> None:
        """Nothing is to be made at the source; the ledger is, where there is none."""
        _ = self._ledger

    def follow(self) -> Sequence[str]:
        """Nothing to do: the configuration names every table, and folders do not change it."""
        return ()

    def last_resent(self, through: int) -> None:
        return None

    def reserve(self) -> None:
        return None

    def remarks(self) -> Remarks:
        return Remarks()

    def beat(self) -> None:
        """A folder needs none."""

    def drop_slot(self) -> bool:
        return False

    def reconfigure(self, settings: Settings) -> None:
        """Other tables, patterns and formats in the same folder."""
        if settings.files is None:
            raise ConfigurationRefused(settings.source.name, ["there is no [files] section"])
        self._files = settings.files
        self._tables = {table.name: table for table in self._files.tables}
        self._folder = Folder(self._files)

    def tables(self) -> Sequence[str]:
        return tuple(self._tables)

    def lanes(self, table: str) -> int:
        return 1

    def priority(self, table: str) -> int:
        return 0

    def current_lsn(self) -> int:
        return self._ledger.next_lsn

    def capture(self, era: int, after_lsn: int) -> Capturing:
        return FilesCapture(
            self._name, self._folder, self._ledger, self._tables, self._rest, era=era, after_lsn=after_lsn
        )

    def plan(self, table: str, group_bytes: int) -> Plan:
        """One group: without keys nothing can be laid over rows read at several points."""
        return Plan()

    def busy(self) -> None:
        return None

    @contextmanager
    def open(self, table: str, group: Group, era: int) -> Iterator[OpenSnapshot]:
        """Every row of the table's files up to a point that takes a number of its own. What is no row was rejected
        when its file was read first, and would make the snapshot void here."""
        if table not in self._tables:
            raise SourceRefused(f"no snapshot of {table}", ["it is not configured; name it in [[files.tables]]"])
        point = self._ledger.add(Kind.POINT, table, Seen("", 0, 0), "", micros_now())
        entries = self._ledger.files(table, point.lsn)
        missing = [entry.seen.path for entry in entries if not self._folder.path(entry).exists()]
        if missing:
            raise SourceUnreachable(f"a snapshot of {table} reads all its files; put back {', '.join(missing)}")
        rows = Rows(self._name, self._tables[table], self._ledger)

        def changes() -> Iterator[Change | Rejected]:
            count = bad = 0
            for entry in entries:
                place = Place(entry.seen.path, "r", era, point.lsn - 1, point.taken_at)
                for line in readers.read(self._folder.path(entry), self._tables[table]):
                    change = rows.change(line, place, count)
                    if isinstance(change, Change):
                        yield change
                        count += 1
                    else:
                        bad += 1
            if bad:
                log.warning("lines left out of a snapshot: they are no rows", extra={"table": table, "lines": bad})

        yield OpenSnapshot(point.lsn, rows.shape.schema, changes())

    @property
    def _ledger(self) -> Ledger:
        if self._opened is None:
            self._opened = Ledger(self._ledger_path)
        return self._opened
