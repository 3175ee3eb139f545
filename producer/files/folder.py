"""The folder: which of its files belong to which table, and which of them are at rest."""

from __future__ import annotations

import hashlib
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from producer.errors import SourceUnreachable
from producer.files.ledger import Entry, Seen
from producer.settings import FilesSettings, FileTable

_UNFINISHED: Final = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".swp", "~")
"""Endings that programs give to a file while they write it."""


@dataclass(frozen=True)
class Found:
    table: FileTable
    seen: Seen


class Folder:
    """The files as they are now. Raises SourceUnreachable while the folder itself cannot be read."""

    def __init__(self, settings: FilesSettings) -> None:
        self._settings = settings

    @property
    def root(self) -> Path:
        return self._settings.folder

    @property
    def has_archive(self) -> bool:
        return self._settings.archive is not None

    def look(self) -> list[Found]:
        """Every file of a table, the one that was written first in front. A file belongs to the first table whose
        pattern it meets; hidden files and those with the ending of an unfinished one to none."""
        if not self._settings.folder.is_dir():
            raise SourceUnreachable(f"folder {self._settings.folder} is not there")
        found: dict[str, Found] = {}
        try:
            for table in self._settings.tables:
                for path in self._settings.folder.glob(table.pattern):
                    name = path.relative_to(self._settings.folder).as_posix()
                    seen = self.state(name)
                    if seen is not None and name not in found and _finished(name):
                        found[name] = Found(table, seen)
        except OSError as error:
            raise SourceUnreachable(f"folder {self._settings.folder} cannot be read: {error}") from error
        return sorted(found.values(), key=lambda file: (file.seen.written_ns, file.seen.path))

    def state(self, path: str) -> Seen | None:
        """A file as it is now; None where there is no such file."""
        try:
            found = (self._settings.folder / path).stat()
        except OSError:
            return None
        return Seen(path, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None

    def path(self, entry: Entry) -> Path:
        if entry.archived and self._settings.archive is not None:
            return self._settings.archive / _archived_name(entry)
        return self._settings.folder / entry.seen.path

    def archive(self, entry: Entry) -> None:
        """Moves a file to the archive; one that is there already, or gone, is left. Raises OSError."""
        if self._settings.archive is None:
            return
        target = self._settings.archive / _archived_name(entry)
        source = self._settings.folder / entry.seen.path
        if self.state(entry.seen.path) == entry.seen:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target)


def digest(path: Path) -> str:
    """Of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


@dataclass
class Rest:
    """Which files have not changed for a while: since when each has been as it is."""

    settle_seconds: float
    _since: dict[Seen, float] = field(default_factory=dict)

    def settled(self, found: Iterable[Found], known: Mapping[str, Entry], now: float) -> list[Found]:
        """The files that are new or changed and at rest. Those that the ledger knows as they are do not count."""
        open_ = [file for file in found if file.seen.path not in known or known[file.seen.path].seen != file.seen]
        self._since = {file.seen: self._since.get(file.seen, now) for file in open_}
        return [file for file in open_ if now - self._since[file.seen] >= self.settle_seconds]


def _finished(name: str) -> bool:
    last = name.rpartition("/")[2]
    return not last.startswith((".", "_")) and not last.lower().endswith(_UNFINISHED)


def _archived_name(entry: Entry) -> str:
    return f"{entry.table}/{entry.number:012}-{entry.seen.path.rpartition('/')[2]}"
