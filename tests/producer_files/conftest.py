"""A folder of files, its ledger, and a capture that is started anew as after a crash."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
import pytest

from producer.change import Change, Commit, Event, Rejected
from producer.files.capture import FilesCapture
from producer.files.folder import Folder, Rest
from producer.files.ledger import Ledger
from producer.settings import FilesSettings, FileTable

CSV = FileTable("orders", "orders/*.csv", "csv")


@dataclass
class Feed:
    """The folder as its owner sees it, and what a capture makes of it. A second look sees files at rest."""

    path: Path
    tables: tuple[FileTable, ...] = (CSV,)
    archive: Path | None = None
    written: int = 0
    rest: Rest = field(default_factory=lambda: Rest(0))

    @property
    def settings(self) -> FilesSettings:
        return FilesSettings(self.path / "feed", self.tables, self.archive, 0)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.path / "ledger")

    def drop(self, name: str, content: str | bytes) -> Path:
        """Writes a file, each one a second younger than the one before."""
        path = self.settings.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.written += 1
        at = 1_700_000_000 + self.written
        os.utime(path, (at, at))
        return path

    def capture(self, after_lsn: int = 7) -> FilesCapture:
        tables = {table.name: table for table in self.tables}
        return FilesCapture("feeds", Folder(self.settings), self.ledger, tables, self.rest, era=1, after_lsn=after_lsn)


def taken(capture: FilesCapture) -> list[Event]:
    """All there is: polls until only keepalives come."""
    events: list[Event] = []
    capture._looked = -10.0  # as if the last look were long ago
    while new := [event for event in capture.poll(0) if type(event).__name__ != "Keepalive"]:
        events += new
    return events


def rows(events: list[Event]) -> list[dict[str, Any]]:
    """The changes, decoded, in order."""
    return [
        fastavro.schemaless_reader(io.BytesIO(event.datum), event.schema.to_avro(), None)
        for event in events
        if isinstance(event, Change)
    ]


def rejects(events: list[Event]) -> list[Rejected]:
    return [event for event in events if isinstance(event, Rejected)]


def commits(events: list[Event]) -> list[int]:
    return [event.lsn for event in events if isinstance(event, Commit)]


@pytest.fixture
def feed(tmp_path: Path) -> Callable[..., Feed]:
    def make(*tables: FileTable, archive: Path | None = None) -> Feed:
        found = Feed(tmp_path, tables or (CSV,), archive)
        found.settings.folder.mkdir(exist_ok=True)
        return found

    return make
