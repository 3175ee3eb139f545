"""`make bench-fold`: the fold engine against Iceberg's own ways in Spark, what its views cost, and how it grows.

Contenders are processes of their own on one core each (one DuckDB thread; local[1]), take turns, and are warm before
they are measured. Ours merges local files without a catalog; the peers commit to a Hadoop catalog on the same disk.
`--rows 20000 --runs 1` is the short form; each part writes its figures as soon as it has them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from bench.contender import Contender, Run
from bench.fold_ours import Lake
from bench.harness import Row, report
from glue_streaming.fold.cut import Cut
from glue_streaming.fold.plan import FoldSettings, groups, work
from glue_streaming.state import FoldState, FoldTotals, StreamState, Totals
from glue_streaming.watermark import Published
from schemas.position import Line

COW: Final = "Iceberg MERGE INTO, copy-on-write, Spark"
MOR: Final = "Iceberg MERGE INTO, merge-on-read, Spark"
SMALL_FILES: Final = 200
TASK_MIB: Final = 600
console = Console(stderr=True)


class Plan:
    """What one start of the benchmark measures; contenders start once, when the first part needs them."""

    def __init__(self, rows: int, runs: int, folder: Path, open_now: ExitStack) -> None:
        self.rows, self.changes, self.runs, self.folder = rows, rows // 10, runs, folder
        self._open, self._known = open_now, dict[str, Contender]()

    def ours(self, small_files: int = 0) -> Contender:
        """The table of the merges; or one whose base is in small files, with a change or two."""
        name = f"ours-{small_files}"
        folder = self.folder / name
        words = [str(folder), str(self.rows), str(2 if small_files else self.changes), str(small_files)]
        return self._start(name, "bench.fold_ours", words)

    def peers(self) -> Contender:
        paths = self.facts("ours-0")["paths"]
        base, log = ([path for path in paths if f"/{tier}/" in path] for tier in ("base", "log"))
        return self._start("peers", "bench.fold_peers", [str(self.folder / "peers"), ",".join(base), ",".join(log)])

    def facts(self, name: str) -> dict[str, Any]:
        """What a contender says of its table now."""
        ours = name != "peers"
        (self.ours(int(name.split("-")[1])) if ours else self.peers()).tell("facts")
        found: dict[str, Any] = json.loads((self.folder / name / f"{'facts' if ours else name}.json").read_text())
        return found

    def _start(self, name: str, module: str, words: list[str]) -> Contender:
        if name not in self._known:
            (self.folder / name).mkdir(exist_ok=True)
            log = self.folder / f"{name}.log"
            self._known[name] = self._open.enter_context(Contender(module, words, log))
        return self._known[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000, help="of the base; a tenth of it changes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=_PARTS, action="append", help="a part of it; the others keep their results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name, ExitStack() as open_now:
        plan = Plan(given.rows, given.runs, Path(name), open_now)
        for part in given.only or _PARTS:
            load = round(os.getloadavg()[0], 1)
            console.print(f"{part}: load of the machine {load}")
            rows = [*_PARTS[part](plan), Row(f"load of the machine before {part}", "processes", (load,))]
            report("fold", [replace(row, part=part) for row in rows])


def _turns(
    plan: Plan, verbs: Mapping[str, tuple[Contender, str]], warm: int = 1, reset: bool = True
) -> dict[str, list[Run]]:
    """Every verb `runs` times, in turns, from the same state each time."""
    taken: dict[str, list[Run]] = {name: [] for name in verbs}
    for turn in range(-warm, plan.runs):
        for name, (contender, words) in verbs.items():
            if reset:
                contender.tell("reset")
            run = contender.run(words)
            console.print(f"run {turn + 1} of {plan.runs}, {name}: {run}")
            if turn >= 0:
                taken[name].append(run)
    return taken


def _against(
    measure: str, ours: list[Run], peers: list[Run], peer: str, cpu: float, seconds: float | None = None
) -> list[Row]:
    def pick(field: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(getattr(run, field) for run in ours), tuple(getattr(run, field) for run in peers)

    def met(field: str, goal: float | None) -> bool | None:
        mine, theirs = (statistics.median(values) for values in pick(field))
        return None if goal is None else mine <= goal * theirs

    peak = tuple(run.peak_mib for run in ours)
    third = None if seconds is None else f"<= {seconds:.3g}"
    return [
        Row(measure, "CPU s", *pick("cpu"), peer, f"<= {cpu:.3g}", met("cpu", cpu)),
        Row(measure, "s", *pick("seconds"), peer, third, met("seconds", seconds)),
        Row(
            f"{measure}, peak memory", "MiB", peak, pick("peak_mib")[1], peer, f"< {TASK_MIB} MiB",
            max(peak) < TASK_MIB,
        ),
    ]  # fmt: skip


def _bytes(plan: Plan, measure: str, verb: str, name: str, peer: str) -> list[Row]:
    """Bytes read and written by one more fold and one more merge."""
    ours, peers = plan.ours(), plan.peers()
    for contender, words in ((ours, verb), (peers, name)):
        contender.tell("reset")
        contender.tell(words)
    mine, theirs = plan.facts("ours-0"), plan.facts("peers")[name]
    return [
        Row(f"{measure}, written", "bytes", (mine["written"],), (theirs["added-files-size"],), peer),
        Row(f"{measure}, read", "bytes", (mine["read"],)),
    ]


def _merge(plan: Plan) -> list[Row]:
    ours, peers = plan.ours(), plan.peers()
    taken = _turns(plan, {"ours": (ours, "major"), "peer": (peers, "cow")})
    rows = _against("major fold", taken["ours"], taken["peer"], COW, 1 / 5, 1 / 3)
    return [*rows, *_bytes(plan, "major fold", "major", "cow", COW)]


def _minor(plan: Plan) -> list[Row]:
    ours, peers = plan.ours(), plan.peers()
    taken = _turns(plan, {"ours": (ours, "minor"), "peer": (peers, "mor")})
    rows = _against("minor fold", taken["ours"], taken["peer"], MOR, 1 / 5)
    return [*rows, *_bytes(plan, "minor fold", "minor", "mor", MOR)]


def _binpack(plan: Plan) -> list[Row]:
    """The same rows in small files: as history, which is packed, and as base, into which a change or two are merged."""
    ours, peers = plan.ours(SMALL_FILES), plan.peers()
    peers.tell("scatter " + str(SMALL_FILES))
    taken = _turns(plan, {"history": (ours, "pack"), "base": (ours, "major"), "peer": (peers, "binpack")})
    peer, name = taken["peer"], f"bin-pack {SMALL_FILES} files"
    return [
        *_against(f"{name} of history", taken["history"], peer, "rewrite_data_files", 1 / 4),
        *_against(f"{name} of base", taken["base"], peer, "rewrite_data_files", 1 / 4),
    ]


@dataclass(frozen=True)
class Asked:
    """A query's runs, and the bytes that one more of it read."""

    runs: list[Run]
    read: int

    @property
    def cpu(self) -> tuple[float, ...]:
        return tuple(run.cpu for run in self.runs)


_GOALS: Final = {"scan": 1.5, "range": None, "key": 1.3}
"""What the view may take after a minor fold, in time and in bytes: times the plain scan of base."""


def _query(plan: Plan) -> list[Row]:
    """The current state, as a full scan, a key range and one key: before and after folds."""
    ours, peers = plan.ours(), plan.peers()
    found: dict[str, dict[str, Asked]] = {which: {} for which in _GOALS}

    def ask(forms: Mapping[str, tuple[Contender, str]]) -> None:
        for which, asked in found.items():
            verbs = {name: (contender, f"query {form} {which}") for name, (contender, form) in forms.items()}
            for name, runs in _turns(plan, verbs, reset=False).items():
                contender, form = forms[name]
                asked[name] = Asked(runs, contender.tell(f"bytes {form} {which}"))

    for contender in (ours, peers):
        contender.tell("reset")
    plain = {"plain": (ours, "plain")}
    ask(plain | {"before": (ours, "view"), "naive": (ours, "naive")})
    ours.tell("minor")
    ask(plain | {"after minor": (ours, "view")})
    plan.facts("ours-0")
    peers.tell("mor")
    peers.tell(f"ours {plan.folder / 'ours-0' / 'facts.json'}")
    ask({"view in Spark": (peers, "view"), "plain in Spark": (peers, "plain"), "merge-on-read": (peers, "mor")})
    ours.tell("major")
    ask({"after major": (ours, "view")})
    return [row for which, asked in found.items() for row in _queried(which, asked, _GOALS[which])]


def _queried(which: str, asked: Mapping[str, Asked], goal: float | None) -> list[Row]:
    """The view in each state against a plain scan of base (DuckDB), and against merge-on-read (Spark)."""
    counts = {name: one.runs[0].rows for name, one in asked.items() if not name.startswith("plain")}
    if len(set(counts.values())) != 1:
        raise AssertionError(f"{which}: the contenders do not count the same rows: {counts}")

    def against(name: str, peer: str, said: str, most: float | None, where: str = "") -> list[Row]:
        mine, other = asked[name], asked[peer]
        rows = []
        for unit, ours, theirs in (("CPU s", mine.cpu, other.cpu), ("bytes read", (mine.read,), (other.read,))):
            met = None if most is None else statistics.median(ours) <= most * statistics.median(theirs)
            bound = None if most is None else f"<= {most}"
            rows.append(Row(f"{which}, view {where or name}", unit, ours, theirs, said, bound, met))
        return rows

    spark = "after minor, in Spark"
    return [
        *against("before", "plain", "plain scan of base", None),
        *against("after minor", "plain", "plain scan of base", goal),
        *against("after major", "plain", "plain scan of base", None),
        *against("before", "naive", "window over all changes", None),
        *against("view in Spark", "merge-on-read", "merge-on-read in Spark", 1, spark),
        *against("view in Spark", "plain in Spark", "plain scan of base", None, spark),
    ]


def _growth(plan: Plan) -> list[Row]:
    """CPU of major and minor folds by base and tail; a line fitted through them says what larger ones would take."""
    rows, points = [], []
    third = plan.rows // 3
    shapes = [(third, part) for part in (0.01, 0.05, 0.1, 0.25, 0.5)]
    shapes += [(third * times, 0.05) for times in (2, 4, 8)]
    for base, part in shapes:
        tail = max(100, int(base * part))
        with tempfile.TemporaryDirectory(dir=plan.folder) as name:
            lake = Lake(Path(name))
            lake.make(base, tail, 0)
            for kind in ("minor", "major"):
                lake.files = list(lake.pristine)
                started = time.process_time()
                lake.fold(kind)
                seconds = round(time.process_time() - started, 3)
                rows.append(Row(f"{kind} fold, tail of {part:.0%}", f"CPU s at {base} rows", (seconds,)))
                if kind == "major":
                    points.append((base, tail, seconds))
    found, error = _fitted(points)
    rows.append(Row("fitted: CPU s a million rows of base", "s", (round(found[1] * 1e6, 3),)))
    rows.append(Row("fitted: CPU s a million rows of tail", "s", (round(found[2] * 1e6, 3),)))
    rows.append(Row("fitted: largest error", "part of the figure", (round(error, 3),)))
    for base in (10_000_000, 30_000_000, 100_000_000):
        seconds = found[0] + found[1] * base + found[2] * base * 0.05
        rows.append(Row("major fold, tail of 5%, by the fit", f"CPU s at {base} rows", (round(seconds, 1),)))
    return rows


def _fitted(points: Sequence[tuple[int, int, float]]) -> tuple[list[float], float]:
    """Seconds as a constant and a part of base's and of the tail's rows; and the largest relative error.

    Points are weighed by what they took, so that small ones count as much as large ones.
    """
    measured = np.array([seconds for *_, seconds in points])
    terms = np.array([[1.0, base, tail] for base, tail, _ in points])
    found, *_ = np.linalg.lstsq(terms / measured[:, None], np.ones(len(points)), rcond=None)
    error = float(np.max(np.abs(terms @ found - measured) / measured))
    return [float(value) for value in found], error


def _tables(plan: Plan) -> list[Row]:
    """Planning for 1 to 500 tables, and what a fold of a small table takes at least."""
    rows = []
    for count in (1, 10, 100, 500):
        seconds = tuple(_planned(count) for _ in range(plan.runs))
        rows.append(Row(f"plan of {count} tables", "CPU s", seconds))
    with tempfile.TemporaryDirectory(dir=plan.folder) as name:
        lake = Lake(Path(name))
        lake.make(1_000, 100, 0)
        taken = []
        for _ in range(1 + plan.runs):
            lake.files = list(lake.pristine)
            started = time.process_time()
            lake.fold("minor")
            taken.append(round(time.process_time() - started, 3))
    rows.append(Row("minor fold of a small table, without its commit", "CPU s", tuple(taken[1:])))
    rows.append(Row("the same of 500 tables", "CPU s", (round(500 * statistics.median(taken[1:]), 1),)))
    return rows


def _planned(count: int) -> float:
    settings, now = FoldSettings(), datetime(2026, 1, 1, tzinfo=UTC)
    fold = FoldState(Line(1, 100), 1, FoldTotals(base_rows=1000, base_bytes=1 << 20), now.isoformat())
    properties = StreamState(totals=Totals(10_000_000, 1 << 24, 10)).to_properties() | fold.to_properties()
    tables = {f"t{number}": properties for number in range(count)}
    ring = (Published(Line(1, 150), 0.0), Published(Line(1, 180), 1e6))
    started = time.process_time()
    cut = Cut(ring, {name: Line(1, 200) for name in tables})
    found = {name: work(name, item, cut, "auto", settings, now) for name, item in tables.items()}
    groups({name: item for name, item in found.items() if item is not None}, settings)
    return round(time.process_time() - started, 4)


_PARTS: Final[dict[str, Callable[[Plan], Sequence[Row]]]] = {
    "merge": _merge,
    "minor": _minor,
    "binpack": _binpack,
    "query": _query,
    "growth": _growth,
    "tables": _tables,
}

if __name__ == "__main__":
    main()
