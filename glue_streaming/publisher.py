"""Publishes how far each source is complete: the watermark, the tables' lines, and whether the cut is closed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from glue_streaming import watermark, watermark_view
from glue_streaming.fold import line as lines
from glue_streaming.state import FoldState, StreamState
from glue_streaming.watermark_view import Entry
from schemas.control import Progress
from schemas.position import ORIGIN, Line

_REPUBLISH_SECONDS: Final = 10.0


@dataclass
class Publisher:
    """One source's progress records, and its watermark in the catalog.

    horizon_seconds: how old a watermark must be before a fold may use it. check: raises where a newer job took over;
    called before anything is written.
    """

    glue: Any
    source: str
    horizon_seconds: float
    check: Callable[[], None]
    progresses: tuple[Progress, ...] = field(default=())

    def take(self, progresses: Iterable[Progress]) -> None:
        new = [progress for progress in progresses if progress not in self.progresses]
        self.progresses = (*self.progresses, *new)

    @property
    def newest(self) -> Progress | None:
        return max(self.progresses, key=lambda progress: progress.line, default=None)

    def publish(
        self, tables: Mapping[str, tuple[StreamState, FoldState]], paused: Collection[str], now: float
    ) -> Line | None:
        """Rewrites the entry where it says something new; returns the watermark that it wrote. Never backwards.

        tables: the state of every table of the source, read after the last commit. now: epoch seconds.
        """
        if not self.progresses:
            return None
        entry = watermark_view.read(self.glue, self.source)
        wanted = self._entry(entry, self._with_named(tables), paused, now)
        if wanted is None or wanted.line is None or not self._is_news(entry, wanted, now):
            return None
        self.check()
        return wanted.line if watermark_view.write(self.glue, self.source, wanted) else None

    def _entry(
        self,
        entry: Entry,
        tables: Mapping[str, tuple[StreamState, FoldState]],
        paused: Collection[str],
        now: float,
    ) -> Entry | None:
        """The entry as it is to be; None while nothing can be said yet."""
        cut = {table: states for table, states in tables.items() if table not in entry.excluded}
        newest = watermark.newest(self.progresses, {table: stream for table, (stream, _) in cut.items()})
        ahead = newest is not None and (entry.line is None or newest.line >= entry.line)
        line = newest.line if ahead and newest is not None else entry.line
        committed_at = newest.committed_at if ahead and newest is not None else entry.committed_at
        repair_lines = {
            table: watermark.repair_line(self.progresses, table, stream, fold.activated_through)
            for table, (stream, fold) in tables.items()
        }
        table_lines = {
            table: watermark.table_line(self.progresses, table, stream) or entry.lines.get(table, ORIGIN)
            for table, (stream, _) in tables.items()
        }
        self.progresses = watermark.kept(self.progresses, line)
        if line is None:
            return None
        wanted = {
            table: close
            for table, (stream, fold) in cut.items()
            if (close := lines.repair(stream, fold, repair_lines[table])) is not None
        }
        return Entry(
            line=line,
            committed_at=committed_at or datetime.fromtimestamp(now, UTC),
            ring=watermark.ring_with(entry.ring, line, now, self.horizon_seconds),
            lines=table_lines,
            repair_lines={table: item for table, item in repair_lines.items() if item is not None},
            excluded=entry.excluded,
            frozen_by=_frozen_by(cut, paused),
            closure=lines.closure(entry.closure, wanted, {table: fold for table, (_, fold) in cut.items()}, line, now),
            version=entry.version,
        )

    def _is_news(self, entry: Entry, wanted: Entry, now: float) -> bool:
        """Whether anything but the ring differs, or the ring needs an entry: a fold ages by the newest one's clock."""
        same = (
            (entry.line, entry.lines, entry.repair_lines, entry.closure, entry.frozen_by)
            == (wanted.line, wanted.lines, wanted.repair_lines, wanted.closure, wanted.frozen_by)
        )  # fmt: skip
        spacing = min(_REPUBLISH_SECONDS, self.horizon_seconds / 2)
        return not same or not entry.ring or now - entry.ring[-1].at >= spacing

    def _with_named(
        self, tables: Mapping[str, tuple[StreamState, FoldState]]
    ) -> dict[str, tuple[StreamState, FoldState]]:
        """With the tables that progress records name and the lake has not yet got: they hold nothing."""
        named = {end.table for progress in self.progresses for end in progress.vector}
        return {table: (StreamState(), FoldState()) for table in named} | dict(tables)


def _frozen_by(cut: Mapping[str, tuple[StreamState, FoldState]], paused: Collection[str]) -> dict[str, str]:
    """Table to reason, for what holds the watermark back until somebody does something."""
    holes = {table: stream.data_holes[0].reason for table, (stream, _) in cut.items() if stream.data_holes}
    return {table: "paused" for table in paused if table in cut} | holes
