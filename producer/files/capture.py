"""The live stream of a folder: every file is a transaction, every line of it a change, in the order of the ledger."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from itertools import islice

from producer.change import Begin, Commit, Event, Keepalive
from producer.errors import SourceUnreachable
from producer.files import readers
from producer.files.folder import Folder, Found, Rest, digest
from producer.files.ledger import LSN_STEP, Entry, Kind, Ledger
from producer.files.readers import BadLine, Line
from producer.files.rows import Place, Rows, micros_now
from producer.settings import FileTable

log = logging.getLogger(__name__)

_EVENTS_A_POLL = 2_000
_LOOK_SECONDS = 1.0


class FilesCapture:
    """`poll` and `close` belong to one thread; `confirm` may be called from any.

    A file is in the ledger before its first row is handed on. One that changes while it is read breaks the stream off
    (SourceUnreachable), and is read again, from its first line, when it rests.
    """

    def __init__(
        self,
        source: str,
        folder: Folder,
        ledger: Ledger,
        tables: Mapping[str, FileTable],
        rest: Rest,
        *,
        era: int,
        after_lsn: int,
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._tables = tables
        self._rows = {name: Rows(source, table, ledger) for name, table in tables.items()}
        self._rest = rest
        self._era = era
        self._lsn = after_lsn
        self._open: Iterator[Event] | None = None
        self._looked = -_LOOK_SECONDS
        self._unfinished: set[str] = set()

    def poll(self, wait_seconds: float) -> list[Event]:
        """The next events. Where nothing came: a Keepalive, after wait_seconds."""
        if self._open is None:
            entry = self._ledger.behind(self._lsn)
            if entry is None and not self._take_new():
                time.sleep(wait_seconds)
                return [Keepalive(self._ledger.next_lsn)]
            entry = entry or self._ledger.behind(self._lsn)
            if entry is None:
                return []
            self._open = self._events(entry)
        events = list(islice(self._open, _EVENTS_A_POLL))
        if len(events) < _EVENTS_A_POLL:
            self._open = None
        return events

    def confirm(self, lsn: int) -> None:
        """What lies below may be forgotten; its files go to the archive, where there is one."""
        self._ledger.confirm(lsn)
        for entry in self._ledger.waiting_for_archive(lsn) if self._folder.has_archive else ():
            try:
                self._folder.archive(entry)
            except OSError as error:
                log.warning("a file was not archived", extra={"file": entry.seen.path, "cause": str(error)})
                return
            self._ledger.archived(entry.number)

    def close(self) -> None:
        """Nothing is held open between two files; an open one goes with its reader."""
        self._open = None

    # ---- new files

    def _take_new(self) -> bool:
        """Gives numbers to the files that came to rest; whether there was one."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return False
        self._looked = now
        known = self._ledger.in_folder()
        taken = [self._take(found, known) for found in self._rest.settled(self._folder.look(), known, now)]
        return any(taken)

    def _take(self, found: Found, known: Mapping[str, Entry]) -> bool:
        path, name = self._folder.root / found.seen.path, found.seen.path
        if not readers.whole(path, found.table):
            if name not in self._unfinished:
                log.warning(
                    "a file is left alone: it has no end yet", extra={"file": name, "format": found.table.format}
                )
                self._unfinished.add(name)
            return False
        self._unfinished.discard(name)
        try:
            content = digest(path)
        except OSError:
            return False  # gone or closed to us: the next look tells
        before = known.get(name)
        if before is None:
            self._ledger.add(Kind.FILE, found.table.name, found.seen, content, micros_now())
            return True
        if before.digest == content:
            self._ledger.amend(before.number, found.seen, content)
            return False
        if before.lsn > self._lsn:
            self._ledger.amend(before.number, found.seen, content)
            return False
        self._ledger.add(Kind.CHANGED, found.table.name, found.seen, content, micros_now())
        return True

    # ---- an entry's events

    def _events(self, entry: Entry) -> Iterator[Event]:
        place = Place(entry.seen.path, "c", self._era, entry.lsn, entry.taken_at)
        count = 0
        if entry.kind is not Kind.POINT and entry.table in self._tables:
            yield Begin(entry.lsn, entry.taken_at, entry.number)
            rows = self._rows[entry.table]
            for line in self._lines(entry):
                yield rows.change(line, place, count)
                count += 1
            yield Commit(entry.lsn, entry.lsn + LSN_STEP, entry.taken_at, count)
        self._lsn = entry.lsn

    def _lines(self, entry: Entry) -> Iterator[Line | BadLine]:
        """A file's lines. Raises SourceUnreachable where it is not, or does not stay, what the ledger says it is."""
        if entry.kind is Kind.CHANGED:
            yield BadLine(0, "it was changed after it was taken; its new content was not loaded. Give it another name")
            return
        path, name = self._folder.path(entry), entry.seen.path
        if not path.exists():
            self._folder.look()  # the whole folder may be away for a while
            at = f"{entry.seen.size} bytes, found at {entry.taken_at // 1_000_000} s since 1970"
            yield BadLine(0, f"it was taken away before it was read ({at}). Put it back under another name")
            return
        if not entry.archived and self._folder.state(name) != entry.seen:
            self._settle_again(entry)
        try:
            yield from readers.read(path, self._tables[entry.table])
        except OSError as error:
            raise SourceUnreachable(f"{name} cannot be read: {error}") from error
        if not entry.archived and self._folder.state(name) not in (entry.seen, None):
            raise SourceUnreachable(f"{name} changed while it was read; it is read again when it rests")

    def _settle_again(self, entry: Entry) -> None:
        """Nothing of the file is durable yet: what it is now counts, once it rests."""
        known = self._ledger.in_folder()
        for found in self._rest.settled(self._folder.look(), known, time.monotonic()):
            if found.seen.path == entry.seen.path:
                self._take(found, known)
        raise SourceUnreachable(f"{entry.seen.path} is being written again; it is read when it rests")
