"""Which tables are due for which fold, and why. Pure: table parameters and the cut in, work out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from glue_streaming.fold.cut import Cut
from glue_streaming.fold.line import activation, fold_line, joins_cut
from glue_streaming.state import FoldState, StreamState, fold_state, stream_state
from schemas.position import ORIGIN, Line

Kind = Literal["minor", "major", "activate", "views"]
KINDS: Final = ("auto", "minor", "major")


@dataclass(frozen=True)
class FoldSettings:
    """When a fold pays. A table's log is taken up when it is long, large or old enough; any of the three.

    delta_fraction: delta becomes base when it, with the tail, is this part of base.
    horizon_seconds: a fold never passes a watermark that a query still being planned may have read.
    longest_query_seconds: for so long the state that a fold replaced stays reachable.
    group_bytes, group_tables: how much one run of the fold job takes on.
    """

    tail_rows: int = 100_000
    tail_bytes: int = 32 << 20
    max_age_seconds: float = 60.0
    delta_fraction: float = 0.25
    horizon_seconds: float = 300.0
    longest_query_seconds: float = 7_200.0
    target_file_bytes: int = 128 << 20
    group_bytes: int = 2 << 30
    group_tables: int = 20


@dataclass(frozen=True)
class Work:
    """A fold of one table up to a line. `snapshot` is set for an activation; `cost_bytes` is what it has to read.

    kind views: nothing is to be folded, but the cut view, which had to wait behind the activation, may now appear.
    """

    kind: Kind
    line: Line
    reason: str
    cost_bytes: int
    snapshot: int | None = None


@dataclass(frozen=True)
class Tail:
    """What was appended and not yet taken by a fold: a difference of two totals, each with one writer."""

    rows: int
    bytes: int


def tail(stream: StreamState, fold: FoldState) -> Tail:
    return Tail(stream.totals.rows - fold.totals.log_rows_taken, stream.totals.bytes - fold.totals.log_bytes_taken)


def work(
    table: str, properties: Mapping[str, str], cut: Cut, kind: str, settings: FoldSettings, now: datetime
) -> Work | None:
    """What is to be done for a table now. kind: auto (what pays), minor or major (whatever can be taken up)."""
    stream, fold = stream_state(properties), fold_state(properties)
    aged, line = cut.aged(settings.horizon_seconds), cut.lines.get(table)
    waiting = tail(stream, fold)
    first = fold.activated_through == 0
    reachable = cut.repair_lines.get(table, line)
    closed = _closed(table, cut, settings.horizon_seconds)
    active = activation(stream.snapshots, fold.activated_through, aged, reachable, first=first, closed=closed)
    if active is not None:
        cost = waiting.bytes + fold.totals.delta_bytes + fold.totals.base_bytes
        return Work("activate", active.line, f"snapshot {active.snapshot} is complete", cost, active.snapshot)
    if first:
        return None
    reached = fold_line(fold.line, (aged, line), stream.snapshots, fold.activated_through)
    if kind == "major" and (fold.totals.delta_rows > 0 or (reached is not None and waiting.rows > 0)):
        return _major(fold, waiting, reached or fold.line, "asked for")
    if reached is None or waiting.rows <= 0:
        return None
    reason = "asked for" if kind == "minor" else _pays(waiting, fold, settings, now)
    if reason is None:
        return None
    delta = fold.totals.delta_bytes + waiting.bytes
    if kind == "auto" and delta >= settings.delta_fraction * fold.totals.base_bytes:
        return _major(fold, waiting, reached, f"{reason}; delta of {delta} bytes on a base of {fold.totals.base_bytes}")
    return Work("minor", reached, reason, delta)


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


def _major(fold: FoldState, waiting: Tail, line: Line, reason: str) -> Work:
    return Work("major", line, reason, fold.totals.delta_bytes + fold.totals.base_bytes + max(0, waiting.bytes))


def _pays(waiting: Tail, fold: FoldState, settings: FoldSettings, now: datetime) -> str | None:
    if waiting.rows >= settings.tail_rows:
        return f"{waiting.rows} rows wait"
    if waiting.bytes >= settings.tail_bytes:
        return f"{waiting.bytes} bytes wait"
    if fold.folded_at is None or fold.line == ORIGIN:
        return f"{waiting.rows} rows wait, and nothing was folded yet"
    age = (now - datetime.fromisoformat(fold.folded_at)).total_seconds()
    return f"{waiting.rows} rows wait since {age:.0f} s" if age >= settings.max_age_seconds else None
