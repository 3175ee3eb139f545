"""Publishes how far each source is complete: the watermark, the tables' lines, and whether the cut is closed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from glue_streaming import departures, failpoints, watermark, watermark_view
from glue_streaming.fold import line as lines
from glue_streaming.state import FoldState, StreamState
from glue_streaming.watermark_view import Entry
from schemas.control import Progress
from schemas.position import ORIGIN, Line

_REPUBLISH_SECONDS: Final = 10.0

States = tuple[StreamState, FoldState]


class CutViews(Protocol):
    def take_away(self, table: str, why: str) -> bool: ...

    def bring_back(self, table: str) -> bool: ...


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
    views: CutViews
    progresses: tuple[Progress, ...] = field(default=())
    complete_until: datetime | None = None
    """The source's time up to which its watermark in the catalog reaches, as far as it is known here."""
    ahead: tuple[Progress, ...] = ()
    """Records of an era that is not entered yet."""
    era: int = 1

    def take(self, progresses: Iterable[Progress], at_tip: bool = False) -> None:
        """at_tip: the batch that brought them read every lane to its end.

        What a new era's progress says counts once that was so in a batch behind its first record: else blocks of the
        era before could still come, below the line at which a snapshot of the new one has replaced their rows.
        """
        entered = max((progress.era for progress in self.ahead), default=0) if at_tip else 0
        self.ahead = (*self.ahead, *progresses)
        self._enter(entered)

    def _enter(self, era: int) -> None:
        self.era = max(self.era, era)
        new = [item for item in self.ahead if item.era <= self.era and item not in self.progresses]
        self.progresses = (*self.progresses, *new)
        self.ahead = watermark.kept([item for item in self.ahead if item.era > self.era], None)

    @property
    def newest(self) -> Progress | None:
        return max(self.progresses, key=lambda progress: progress.line, default=None)

    def publish(
        self, tables: Mapping[str, States], paused: Collection[str], deadline_seconds: float, now: float
    ) -> Line | None:
        """Rewrites the entry where it says something new; returns the watermark that it wrote. Never backwards.

        tables: the state of every table of the source, read after the last commit. deadline_seconds: how long a hole
        may be open before its table leaves the cut. now: epoch seconds.
        """
        if not self.progresses and not self.ahead:
            return None
        entry = watermark_view.read(self.glue, self.source)
        self._enter(0 if entry.line is None else entry.line.era)
        if not self.progresses:
            return None
        wanted = self._entry(entry, self._with_named(tables), paused, deadline_seconds, now)
        self.complete_until = wanted.committed_at if wanted is not None else None
        if wanted is None or wanted.line is None or not self._is_news(entry, wanted, now):
            return None
        failpoints.reach("watermark.before")
        self.check()
        for table in wanted.left:
            if table in tables:
                self.views.take_away(table, wanted.missing[table])
        if not watermark_view.write(self.glue, self.source, wanted):
            return None
        failpoints.reach("watermark.after")
        for table in entry.left.keys() - wanted.left.keys():
            self.views.bring_back(table)
        return wanted.line

    def _entry(
        self,
        entry: Entry,
        tables: Mapping[str, States],
        paused: Collection[str],
        deadline_seconds: float,
        now: float,
    ) -> Entry | None:
        """The entry as it is to be; None while nothing can be said yet."""
        left = self._leaving(entry, tables, deadline_seconds, now)
        gone = departures.gone(left, now, self.horizon_seconds)
        held_by = {table: states for table, states in tables.items() if table not in gone}
        newest = watermark.newest(
            self._spoken_of(held_by.values()),
            {table: stream for table, (stream, _) in held_by.items()},
        )
        line, committed_at = entry.line, entry.committed_at
        if newest is not None and (line is None or newest.line >= line):
            line, committed_at = newest.line, newest.committed_at
        table_lines = self._lines(entry, tables)
        repair_lines = {
            table: watermark.repair_line(self.progresses, table, stream, fold.activated_through)
            for table, (stream, fold) in tables.items()
        }
        self.progresses = watermark.kept(self.progresses, line)
        if line is None:
            return None
        ring = watermark.ring_with(entry.ring, line, now, self.horizon_seconds)
        aged = watermark.aged(ring, self.horizon_seconds)
        left = {
            table: at
            for table, at in left.items()
            if table in tables
            and (table in entry.by_operator or not departures.mended(*tables[table], table_lines[table], line, aged))
        }
        cut = {table: states for table, states in tables.items() if table not in left}
        era = 0 if self.newest is None else self.newest.era
        behind = {table for table, states in cut.items() if not lines.continues(*states, era)}
        return Entry(
            line=line,
            committed_at=committed_at or datetime.fromtimestamp(now, UTC),
            ring=ring,
            lines=table_lines,
            repair_lines={table: item for table, item in repair_lines.items() if item is not None},
            left=left,
            by_operator=entry.by_operator,
            frozen_by=_frozen_by(cut, paused, behind, era),
            missing={table: entry.by_operator.get(table) or _missing(tables[table][0]) for table in left},
            closure=_closure(entry.closure, cut, repair_lines, behind, line, now),
            version=entry.version,
        )

    def _leaving(
        self, entry: Entry, tables: Mapping[str, States], deadline_seconds: float, now: float
    ) -> dict[str, float]:
        """The tables that have left, and those that do now: never one that the cut is closed for."""
        waited_for = entry.closure.waits_for if entry.closure is not None else {}
        leaving = {
            table: now
            for table, (stream, _) in tables.items()
            if table not in entry.left
            and table not in waited_for
            and departures.overdue(stream.data_holes, now, deadline_seconds) is not None
        }
        return {**leaving, **entry.left}

    def _lines(self, entry: Entry, tables: Mapping[str, States]) -> dict[str, Line]:
        return {
            table: watermark.table_line(self._spoken_of([states]), table, states[0]) or entry.lines.get(table, ORIGIN)
            for table, states in tables.items()
        }

    def _spoken_of(self, tables: Collection[States]) -> list[Progress]:
        """The progress records of eras that all these tables have entered."""
        return [item for item in self.progresses if all(lines.continues(*states, item.era) for states in tables)]

    def _is_news(self, entry: Entry, wanted: Entry, now: float) -> bool:
        """Whether anything but the ring differs, or the ring needs an entry: a fold ages by the newest one's clock."""
        same = (
            (entry.line, entry.lines, entry.repair_lines, entry.closure, entry.frozen_by, entry.left)
            == (wanted.line, wanted.lines, wanted.repair_lines, wanted.closure, wanted.frozen_by, wanted.left)
        )  # fmt: skip
        spacing = min(_REPUBLISH_SECONDS, self.horizon_seconds / 2)
        return not same or not entry.ring or now - entry.ring[-1].at >= spacing

    def _with_named(self, tables: Mapping[str, States]) -> dict[str, States]:
        """With the tables that progress records name and the lake has not yet got: they hold nothing."""
        named = {end.table for progress in self.progresses for end in progress.vector}
        return {table: (StreamState(), FoldState()) for table in named} | dict(tables)


def _closure(
    known: lines.Closure | None,
    cut: Mapping[str, States],
    repair_lines: Mapping[str, Line | None],
    behind: Set[str],
    line: Line,
    now: float,
) -> lines.Closure | None:
    """Whether the cut is closed, and what for. behind: tables that have not entered the newest era."""
    wanted = {
        table: close
        for table, (stream, fold) in cut.items()
        if (close := lines.repair(stream, fold, repair_lines[table])) is not None
    }
    folds = {table: fold for table, (_, fold) in cut.items()}
    return lines.closure(known, lines.together(wanted, behind), folds, line, now)


def _frozen_by(cut: Mapping[str, States], paused: Collection[str], behind: Set[str], era: int) -> dict[str, str]:
    """Table to reason, for what holds the watermark back until somebody does something."""
    eras = dict.fromkeys(behind, f"era {era} waits for a snapshot of it")
    holes = {table: stream.data_holes[0].reason for table, (stream, _) in cut.items() if stream.data_holes}
    return eras | {table: "paused" for table in paused if table in cut} | holes


def _missing(stream: StreamState) -> str:
    """Why a table is out of the cut; also while it is mended and has not caught up yet."""
    return f"changes of it are missing: {stream.data_holes[0].reason}" if stream.data_holes else "it catches up"
