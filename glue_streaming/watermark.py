"""Lines and the watermark: how far tables, and the cut through all of them, are complete. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from glue_streaming.state import StreamState, newest_complete
from schemas.control import Progress
from schemas.position import ORIGIN, Line, Position


@dataclass(frozen=True)
class Published:
    """One entry of the ring: a watermark, and when (epoch seconds) the catalog first held it."""

    line: Line
    at: float


def covers(progress: Progress, table: str, state: StreamState, above: Line = ORIGIN) -> bool:
    """Whether the table holds everything that the progress speaks of.

    Every lane of its vector is at its mark, and no hole begins at or below `through`. Holes that end wholly below
    `above` do not count: an activation with that lowest consistent point repairs them.
    """
    marks = [(state.marks.get(end.lane), end.last) for end in progress.vector if end.table == table]
    reached = all(mark is not None and mark.reaches(last) for mark, last in marks)
    return reached and not any(
        _begins_within(hole.lowest, progress.line) and not hole.ends_below(above) for hole in state.data_holes
    )


def newest(progresses: Iterable[Progress], tables: Mapping[str, StreamState]) -> Progress | None:
    """The newest progress that every one of the tables covers; with the tables of a cut, its watermark."""
    return max(
        (p for p in progresses if all(covers(p, table, state) for table, state in tables.items())),
        key=lambda progress: progress.line,
        default=None,
    )


def table_line(progresses: Iterable[Progress], table: str, state: StreamState, above: Line = ORIGIN) -> Line | None:
    """L of the table: the newest progress that its marks cover and that lies below its first hole."""
    return max((p.line for p in progresses if covers(p, table, state, above)), default=None)


def repair_line(progresses: Iterable[Progress], table: str, state: StreamState, activated_through: int) -> Line | None:
    """L for activating the table's newest complete snapshot: the holes that the snapshot repairs do not count.

    In the snapshot's era: it does not say what a later one made of its rows.
    """
    number = newest_complete(state.snapshots, activated_through)
    if number is None:
        return None
    snapshot = state.snapshots[number]
    same_era = [progress for progress in progresses if progress.era == snapshot.era]
    return table_line(same_era, table, state, above=Line(snapshot.era, snapshot.lowest))


def kept(progresses: Sequence[Progress], watermark: Line | None, limit: int = 64) -> tuple[Progress, ...]:
    """The progress records worth keeping: the newest at or below the watermark, and those above it.

    Beyond the limit the middle ones go: the oldest lets a lagging table catch up, the newest end where the source is.
    """
    ordered = sorted(progresses, key=lambda progress: progress.line)
    below = [p for p in ordered if watermark is not None and p.line <= watermark][-1:]
    above = [p for p in ordered if watermark is None or p.line > watermark]
    if len(above) > limit:
        half = limit // 2
        step = max(1, (len(above) - half) // half)
        above = above[:-half:step] + above[-half:]
    return (*below, *above)


def ring_with(ring: Sequence[Published], line: Line, at: float, horizon_seconds: float) -> tuple[Published, ...]:
    """The ring after a publication: an entry per 10 s, and always one that is older than the horizon."""
    spacing = min(10.0, horizon_seconds / 2)
    spaced: list[Published] = []
    for entry in ring:
        if not spaced or entry.at - spaced[-1].at >= spacing:
            spaced.append(entry)
    spaced.append(Published(line, at))
    old = [entry for entry in spaced if entry.at <= at - horizon_seconds]
    return tuple(spaced[max(0, len(old) - 1) :])


def aged(ring: Sequence[Published], horizon_seconds: float) -> Line | None:
    """The newest watermark that is older than the horizon, by the clock of the newest entry.

    A query that is being planned has read a watermark at most a horizon old, so folding up to this one never folds
    ahead of a cut.
    """
    if not ring:
        return None
    before = ring[-1].at - horizon_seconds
    return max((entry.line for entry in ring if entry.at <= before), default=None)


def _begins_within(lowest: Position, line: Line) -> bool:
    """Positions just above `lowest` may be missing: (era, lsn) of the next one is at least lowest's own."""
    return (lowest.era, lowest.lsn) <= line
