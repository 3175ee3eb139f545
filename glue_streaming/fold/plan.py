"""Which tables are due for which fold, and why. Pure: table parameters and the cut in, work out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final, Literal

from glue_streaming.fold.cut import Cut
from glue_streaming.fold.keep import Keep
from glue_streaming.fold.line import Activation, activation, fold_line, joins_cut
from glue_streaming.state import FoldState, StreamState, fold_state, stream_state
from schemas.position import ORIGIN, Line

Kind = Literal["minor", "major", "activate", "views"]
KINDS: Final = ("auto", "minor", "major")


@dataclass(frozen=True)
class FoldSettings:
    """When a fold pays. A table's log is taken up when it is long, large, in many files or old enough, or when it and
    delta are `read_fraction` of base, so that queries read that much more; any of these. But not before it is
    `tail_fraction` of delta, which is written anew with it (or `read_fraction` of base): that bounds how often a byte
    is written. Ten times the files, or a day, go before this.

    delta_fraction: delta becomes base when it is this part of base; or when the base files that its keys lie in, which
    are then written anew, are this part of what came since the last time.
    horizon_seconds: a fold never passes a watermark that a query still being planned may have read.
    longest_query_seconds: for so long the state that a fold replaced stays reachable.
    time_travel_days: for so many days the last state of each does.
    history_days: changes older than so many days leave the history; without a policy none does.
    group_bytes, group_tables: how much one run of the fold job takes on.
    part_bytes: beyond it a fold is cut by key ranges into parts of about this size of files. spark_bytes: from this
    size on the parts run as Spark tasks. memory_bytes: DuckDB's limit in each part; beyond it goes to the disk.
    """

    tail_rows: int = 1_000_000
    tail_bytes: int = 32 << 20
    tail_files: int = 100
    max_age_seconds: float = 900.0
    tail_fraction: float = 2.0
    read_fraction: float = 0.25
    delta_fraction: float = 0.25
    horizon_seconds: float = 300.0
    longest_query_seconds: float = 7_200.0
    time_travel_days: int = 0
    history_days: float = inf
    target_file_bytes: int = 128 << 20
    part_bytes: int = 2 << 30
    spark_bytes: int = 16 << 30
    memory_bytes: int = 128 << 20
    group_bytes: int = 2 << 30
    group_tables: int = 20

    @property
    def keep(self) -> Keep:
        """Which states of a table stay readable."""
        return Keep(self.longest_query_seconds, self.time_travel_days)


@dataclass(frozen=True)
class Work:
    """A fold of one table up to a line. `snapshot` is set for an activation.

    cost_bytes: what it is expected to read; write_bytes: to write. gain_bytes, gain_files: what a query of the current
    state need not read any more. kind views: nothing is to be folded, but the cut view, which had to wait behind the
    activation, may now appear.
    """

    kind: Kind
    line: Line
    reason: str
    cost_bytes: int
    snapshot: int | None = None
    write_bytes: int = 0
    gain_bytes: int = 0
    gain_files: int = 0


@dataclass(frozen=True)
class LeftAlone:
    """Why a table is not folded now."""

    why: str


@dataclass(frozen=True)
class Tail:
    """What was appended and not yet taken by a fold: a difference of two totals, each with one writer."""

    rows: int
    bytes: int
    files: int = 0


@dataclass(frozen=True)
class Amplification:
    """write: bytes written, by the streaming job and by folds, for each byte that came; None before the first fold.

    read: bytes that a full query of the current state reads, for each byte of a base that held it alone.
    """

    write: float | None
    read: float | None


def tail(stream: StreamState, fold: FoldState) -> Tail:
    came, taken = stream.totals, fold.totals
    return Tail(
        came.rows - taken.log_rows_taken, came.bytes - taken.log_bytes_taken, came.files - taken.log_files_taken
    )


def amplification(stream: StreamState, fold: FoldState) -> Amplification:
    totals, taken = fold.totals, fold.totals.log_bytes_taken
    apart = totals.delta_bytes + max(0, tail(stream, fold).bytes)
    return Amplification(
        write=round((taken + totals.written_bytes) / taken, 3) if taken > 0 else None,
        read=round(1 + apart / totals.base_bytes, 3) if totals.base_bytes > 0 else None,
    )


def work(
    table: str, properties: Mapping[str, str], cut: Cut, kind: str, settings: FoldSettings, now: datetime
) -> Work | None:
    """What is to be done for a table now. kind: auto (what pays), minor or major (whatever can be taken up)."""
    found = judge(table, properties, cut, kind, settings, now)
    return found if isinstance(found, Work) else None


def judge(
    table: str, properties: Mapping[str, str], cut: Cut, kind: str, settings: FoldSettings, now: datetime
) -> Work | LeftAlone:
    """As `work`, with the reason where there is nothing to do."""
    stream, fold = stream_state(properties), fold_state(properties)
    aged, line = cut.aged(settings.horizon_seconds), cut.lines.get(table)
    waiting = tail(stream, fold)
    first = fold.activated_through == 0
    reachable = cut.repair_lines.get(table, line)
    closed = _closed(table, cut, settings.horizon_seconds)
    active = activation(stream.snapshots, fold.activated_through, aged, reachable, first=first, closed=closed)
    if active is not None:
        return _activate(fold, waiting, active)
    if first:
        return LeftAlone("its first snapshot is not complete, or the table has not reached it")
    reached = fold_line(fold.line, (aged, line), stream.snapshots, fold.activated_through)
    if kind == "major" and (fold.totals.delta_rows > 0 or (reached is not None and waiting.rows > 0)):
        return _major(fold, waiting if reached else Tail(0, 0), reached or fold.line, "asked for")
    if waiting.rows <= 0:
        return LeftAlone("nothing waits")
    if reached is None:
        return LeftAlone(_held(stream, fold, aged, line, settings))
    if kind == "minor":
        return _minor(fold, waiting, reached, "asked for")
    reason = _pays(waiting, fold, settings, now)
    if reason is None:
        return LeftAlone(_young(waiting, fold, settings, now))
    delta = fold.totals.delta_bytes - _stuck(fold) + _kept(fold, waiting.bytes)
    becomes_base = _becomes_base(delta, fold, settings) if kind == "auto" else None
    if becomes_base is not None:
        return _major(fold, waiting, reached, f"{reason}; {becomes_base}")
    return _minor(fold, waiting, reached, reason)


def cut_view(table: str, properties: Mapping[str, str], cut: Cut, settings: FoldSettings) -> bool:
    """Whether the table's cut view may stand in the catalog: the table is in the cut, and the aged watermark at F."""
    return table not in cut.excluded and joins_cut(cut.aged(settings.horizon_seconds), fold_state(properties))


def groups(due: Mapping[str, Work], settings: FoldSettings) -> list[list[str]]:
    """The tables due, packed for runs of the fold job; the costly ones first."""
    packed: list[list[str]] = []
    sizes: list[int] = []
    for table in sorted(due, key=lambda name: (-due[name].cost_bytes, name)):
        cost = due[table].cost_bytes
        for index, group in enumerate(packed):
            if sizes[index] + cost <= settings.group_bytes and len(group) < settings.group_tables:
                group.append(table)
                sizes[index] += cost
                break
        else:
            packed.append([table])
            sizes.append(cost)
    return packed


def settings_from(items: Mapping[str, str], horizon_seconds: float | None) -> FoldSettings:
    """Settings named `fold_<field>` (or `longest_query_seconds`) over the defaults; a bad number is refused by name."""
    values: dict[str, float | int] = {}
    problems: list[str] = []
    for name, default in vars(FoldSettings()).items():
        for given in (f"fold_{name}", name):
            if given in items:
                try:
                    values[name] = type(default)(float(items[given]))
                except ValueError:
                    problems.append(f"{given} = {items[given]!r} is not a number")
    if problems:
        raise ValueError("; ".join(problems))
    if horizon_seconds is not None:
        values["horizon_seconds"] = horizon_seconds
    return FoldSettings(**values)  # type: ignore[arg-type]


def tables_of(names: Sequence[str], source: str) -> list[str]:
    """The tables of one source among `source.table` names."""
    return [name.removeprefix(f"{source}.") for name in names if name.startswith(f"{source}.")]


def _closed(table: str, cut: Cut, horizon_seconds: float) -> bool:
    """Whether the cut was closed for this table, for so long that its repair may go beyond the watermark."""
    return cut.closure is not None and bool(cut.ring) and cut.closure.clears(table, cut.ring[-1].at, horizon_seconds)


def _activate(fold: FoldState, waiting: Tail, active: Activation) -> Work:
    old = fold.totals.delta_bytes + fold.totals.base_bytes
    reason = f"snapshot {active.snapshot} is complete"
    read = waiting.bytes + old
    return Work("activate", active.line, reason, read, active.snapshot, write_bytes=read, gain_files=waiting.files)


def _major(fold: FoldState, waiting: Tail, line: Line, reason: str) -> Work:
    """base is read as far as delta is known to lie in it; how far the tail does is not known before it is read."""
    totals, came = fold.totals, max(0, waiting.bytes)
    rewritten = min(totals.base_bytes, totals.overlap_bytes if totals.delta_bytes else totals.base_bytes)
    changed = totals.delta_bytes + came
    return Work(
        "major",
        line,
        reason,
        changed + rewritten,
        write_bytes=came + rewritten + totals.delta_bytes + _kept(fold, came),
        gain_bytes=changed,
        gain_files=max(0, waiting.files),
    )


def _minor(fold: FoldState, waiting: Tail, line: Line, reason: str) -> Work:
    kept = _kept(fold, waiting.bytes)
    return Work(
        "minor",
        line,
        reason,
        fold.totals.delta_bytes + waiting.bytes,
        write_bytes=waiting.bytes + fold.totals.delta_bytes + kept,
        gain_bytes=waiting.bytes - kept,
        gain_files=waiting.files,
    )


def _kept(fold: FoldState, came_bytes: int) -> int:
    """How many of the bytes that came make delta larger: as many as did since the last major fold, on the average."""
    totals = fold.totals
    return came_bytes if totals.merged_rows <= 0 else int(came_bytes * min(1.0, totals.delta_rows / totals.merged_rows))


def _stuck(fold: FoldState) -> int:
    """Of delta's bytes those of deletes that found no row: another major fold finds none either."""
    totals = fold.totals
    return totals.delta_bytes * totals.unmatched_rows // max(1, totals.delta_rows)


def _becomes_base(delta: int, fold: FoldState, settings: FoldSettings) -> str | None:
    """Why delta is to become base; None where it is not. A delta that is not there yet is only guessed: not enough."""
    base, overlap, fraction = fold.totals.base_bytes, fold.totals.overlap_bytes, settings.delta_fraction
    if fold.totals.delta_bytes <= _stuck(fold):
        return None if base > 0 else "there is no base yet"
    if delta >= fraction * base:
        return f"delta of {delta} bytes on a base of {base}"
    came = _merged_bytes(fold)
    if delta >= settings.target_file_bytes // 4 and overlap <= fraction * came:
        return f"delta of {delta} bytes within {overlap} bytes of base, after {came} bytes of changes"
    return None


def _merged_bytes(fold: FoldState) -> int:
    """Of the log since the last major fold, as its rows are on the average."""
    totals = fold.totals
    return totals.merged_rows * totals.log_bytes_taken // max(1, totals.log_rows_taken)


def _too_little(waiting: Tail, fold: FoldState, settings: FoldSettings) -> bool:
    wanted = settings.tail_fraction * fold.totals.delta_bytes
    return waiting.bytes < min(wanted, settings.read_fraction * max(fold.totals.base_bytes, fold.totals.delta_bytes))


def _pays(waiting: Tail, fold: FoldState, settings: FoldSettings, now: datetime) -> str | None:
    if fold.folded_at is None or fold.line == ORIGIN:
        return f"{waiting.rows} rows wait, and nothing was folded yet"
    age = _age(fold, now)
    if waiting.files >= 10 * settings.tail_files or age >= max(_DAY, settings.max_age_seconds):
        return f"{waiting.rows} rows in {waiting.files} files wait since {age:.0f} s"
    if _too_little(waiting, fold, settings):
        return None
    if waiting.rows >= settings.tail_rows:
        return f"{waiting.rows} rows wait"
    if waiting.bytes >= settings.tail_bytes:
        return f"{waiting.bytes} bytes wait"
    if waiting.files >= settings.tail_files:
        return f"{waiting.files} files wait"
    if age >= settings.max_age_seconds:
        return f"{waiting.rows} rows wait since {age:.0f} s"
    apart = waiting.bytes + fold.totals.delta_bytes
    if waiting.bytes >= _NOTICED_BYTES and apart >= settings.read_fraction * fold.totals.base_bytes:
        return f"queries read {apart} bytes beside a base of {fold.totals.base_bytes}"
    return None


_DAY: Final = 86_400.0
_NOTICED_BYTES: Final = 1 << 20
"""Below this, what a query reads too much costs less than its start."""


def _age(fold: FoldState, now: datetime) -> float:
    """A fold that is said to be to come was made by a clock that had jumped: so long ago, for all that is known."""
    return 0.0 if fold.folded_at is None else abs((now - datetime.fromisoformat(fold.folded_at)).total_seconds())


def _young(waiting: Tail, fold: FoldState, settings: FoldSettings, now: datetime) -> str:
    said = f"{waiting.rows} rows, {waiting.bytes} bytes in {waiting.files} files since {_age(fold, now):.0f} s"
    if _too_little(waiting, fold, settings):
        return f"too little yet: {said}, for a delta of {fold.totals.delta_bytes} bytes to be written anew"
    return f"too young: {said}"


def _held(stream: StreamState, fold: FoldState, aged: Line | None, line: Line | None, settings: FoldSettings) -> str:
    """Why the fold line cannot move."""
    reading = [n for n, s in stream.snapshots.items() if n > fold.activated_through and not s.abandoned]
    if stream.data_holes:
        return f"a hole holds its line: {len(stream.data_holes)} open"
    if reading:
        return f"snapshot {max(reading)} is being read, and holds its line"
    if aged is None or aged <= fold.line:
        return f"no watermark above its fold line is {settings.horizon_seconds:.0f} s old"
    return "the table's own line has not moved" if line is not None else "its line is not published yet"
