"""`make bench-streaming`: the streaming job against what Spark offers for the same work, and against its own goals.

From record payloads to committed Iceberg rows on local files: ours (blocks), and Spark's from_avro of one datum a
record, from_json of flat JSON and of Debezium's envelope. Each contender is a process of its own with local[1], warm
before it is measured; contenders take turns, so that a busy machine is busy for all. CPU is that of the JVM and of
every Python process. What a part has measured is in the results at once, so that one that is ended loses nothing.
`--rows 100000 --runs 1` is the short form.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import corpus as corpora
from bench import live
from bench.contender import Contender, Run
from bench.corpus import Corpus
from bench.harness import Row, show, write
from bench.job import Job

_PEERS: Final = {
    "avro": ("Spark, one Avro datum a record, from_avro", 2.5),
    "flat": ("Spark, flat JSON, from_json", 5.5),
    "debezium": ("Spark, JSON in Debezium's envelope, from_json", 10.0),
}
_ENVELOPES: Final = {
    "debezium": "envelope as compared",
    "debezium-numbers": "envelope, its times as numbers (of columns without time zone)",
    "debezium-before": "envelope with the row before an update (REPLICA IDENTITY FULL)",
    "debezium-schema": "envelope with its schema part (the converter's default)",
}
_ENVELOPE_SHARE: Final = 5
"""The schema part makes a message of 3.7 KB: a fifth of the rows is enough of it."""
_SHARDS: Final = (1, 2, 4, 8, 16, 32)
_JSON_SHARE: Final = 5.0
_SPARK_SECONDS: Final = 0.4
_EMPTY_SECONDS: Final = 0.3

console = Console(stderr=True)


@dataclass
class Plan:
    """What one start of the benchmark measures. The changes are made once, in every form."""

    rows: int
    runs: int
    folder: Path
    _made: dict[str, Corpus] = field(default_factory=dict)

    def corpus(self, size: str) -> Corpus:
        """`whole` is measured, `warm` is what a contender gets before; `part` is a smaller one in every envelope."""
        few = 4 * corpora.BLOCK_ROWS
        share = {"whole": 1, "warm": 10, "part": _ENVELOPE_SHARE}[size]
        if size not in self._made:
            rows = max(few, self.rows // share) if share > 1 else self.rows
            forms = [*_ENVELOPES] if size == "part" else corpora.COMPARED
            self._made[size] = corpora.make(rows, self.folder / size, forms)
        return self._made[size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="changes a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=_PARTS, action="append", help="a part of it; the others keep their results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        plan = Plan(given.rows, given.runs, Path(name))
        for part in given.only or _PARTS:
            load = round(os.getloadavg()[0], 1)
            console.print(f"{part}: load of the machine {load}")
            busy = Row(f"load of the machine before {part}", "processes", (load,))
            for rows in _PARTS[part](plan):
                write("streaming", [replace(row, part=part) for row in (*rows, busy)])
    show("streaming")


# ---- against Spark's own ways


def _compare(plan: Plan) -> Iterator[list[Row]]:
    for taken in _turns(plan, "whole", [*_PEERS], plan.runs, beside=True):
        yield _compared(taken)


def _envelopes(plan: Plan) -> Iterator[list[Row]]:
    """What Debezium's setup makes of it, at fewer rows: ours pays its batch more often."""
    for taken in _turns(plan, "part", [*_ENVELOPES], min(3, plan.runs)):
        ours = tuple(run.rows_per_cpu_second for run in taken["ours"])
        yield [
            Row(
                f"job, {plan.corpus('part').rows} rows a run",
                "rows / CPU second",
                ours,
                tuple(run.rows_per_cpu_second for run in taken[form]),
                name,
            )
            for form, name in _ENVELOPES.items()
        ]


def _turns(
    plan: Plan, size: str, forms: Sequence[str], turns: int, *, beside: bool = False
) -> Iterator[dict[str, list[Run]]]:
    """The runs so far of ours and of the peers of these forms, after each turn. beside: ours in other settings too."""
    whole, warm = plan.corpus(size), plan.corpus("part" if size == "part" else "warm")
    folder = plan.folder / f"{size}-runs"
    folder.mkdir()
    peers: dict[str, Contender] = {}
    with ExitStack() as opened:

        def job(name: str, runner: str, feed: str) -> Callable[[Corpus], Run]:
            return opened.enter_context(Job(folder / name, runner=runner, feed=feed)).run

        def peer(form: str) -> Callable[[Corpus], Run]:
            words = [form, str(plan.folder), str(folder / "warehouse")]
            peers[form] = opened.enter_context(Contender("bench.peers", words, folder / f"{form}.log"))
            return lambda corpus: peers[form].run(size if corpus is whole else "warm")

        runs = {"ours": job("spark", "spark", "file")}
        if beside:
            runs |= {"inline": job("inline", "inline", "file"), "stream": job("stream", "spark", "stream")}
        runs |= {form: peer(form) for form in forms}
        for name, run in [*runs.items(), *runs.items()]:
            console.print(f"warm: {name} {run(warm)}")
        taken: dict[str, list[Run]] = {name: [] for name in runs}
        for turn in range(turns):
            for name, run in runs.items():
                taken[name].append(run(whole))
                console.print(f"run {turn + 1} of {turns}, {name}: {taken[name][-1]}")
            yield taken
        for contender in peers.values():
            contender.tell("check")


def _compared(taken: dict[str, list[Run]]) -> list[Row]:
    def of(name: str, pick: Callable[[Run], float]) -> tuple[float, ...]:
        return tuple(pick(run) for run in taken[name])

    rows = []
    for form, (peer, goal) in _PEERS.items():
        ours, theirs = (of(name, lambda run: run.rows_per_cpu_second) for name in ("ours", form))
        met = statistics.median(ours) >= goal * statistics.median(theirs)
        rows.append(Row("job", "rows / CPU second", ours, theirs, peer, f">= {goal} times", met))
    for form, (peer, _) in _PEERS.items():
        ours, theirs = (of(name, lambda run: run.rows_per_second) for name in ("ours", form))
        rows.append(Row("job, one core", "rows / second", ours, theirs, peer))
    for form, (peer, _) in _PEERS.items():
        ours, theirs = (of(name, lambda run: run.peak_mib) for name in ("ours", form))
        rows.append(Row("peak memory, JVM and Python", "MiB", ours, theirs, peer))
    spark = of("ours", lambda run: round(run.jvm_cpu / run.rows * 1e6, 3))
    within = statistics.median(spark) <= _SPARK_SECONDS
    rows.append(Row("Spark's share", "CPU s / million rows", spark, goal=f"<= {_SPARK_SECONDS}", met=within))
    rows.append(Row("job without Spark", "rows / CPU second", of("inline", lambda run: run.rows_per_cpu_second)))
    fetched = of("stream", lambda run: run.rows_per_cpu_second)
    rows.append(Row("job, fetched from Kinesis and written to S3 over HTTP", "rows / CPU second", fetched))
    return rows


def _wire(plan: Plan) -> Iterator[list[Row]]:
    whole = plan.corpus("whole")
    rows = []
    for form, (peer, _) in _PEERS.items():
        goal = {"flat": f"<= 1/{_JSON_SHARE:.0f}"}.get(form)
        met = whole.wire_bytes * _JSON_SHARE <= whole.sizes[form] if goal else None
        ours, theirs = (round(whole.wire_bytes, 1),), (round(whole.sizes[form], 1),)
        rows.append(Row("wire, full blocks", "bytes / change", ours, theirs, peer, goal, met))
    for count in (2_000, 200, 50):
        ours = (round(corpora.bytes_in_blocks_of(count), 1),)
        flat = (round(whole.sizes["flat"], 1),)
        rows.append(Row(f"wire, blocks of {count}", "bytes / change", ours, flat, _PEERS["flat"][0]))
    yield rows


# ---- against itself


def _shards(plan: Plan) -> Iterator[list[Row]]:
    """The same rows in 1 to 32 shards, on one core and on two."""
    whole, warm = plan.corpus("whole"), plan.corpus("warm")
    rows: list[Row] = []
    for cores, shards in [(1, 1), *((2, shards) for shards in _SHARDS)]:
        with Job(
            plan.folder / f"shards-{cores}-{shards}", runner="spark", feed="file", shards=shards, cores=cores
        ) as job:
            for _ in range(2):
                job.run(warm)
            taken = [job.run(whole) for _ in range(min(3, plan.runs))]
        name = f"{shards} shards, local[{cores}]"
        console.print(f"{name}: {taken}")
        rows.append(Row(name, "rows / second", tuple(run.rows_per_second for run in taken)))
        rows.append(Row(name, "rows / CPU second", tuple(run.rows_per_cpu_second for run in taken)))
        yield rows


def _empty(plan: Plan) -> Iterator[list[Row]]:
    found = live.empty_batches(plan.folder / "empty")
    met = statistics.median(found.periods) <= _EMPTY_SECONDS
    yield [
        Row("empty batch, from one to the next", "s", found.periods, goal=f"< {_EMPTY_SECONDS}", met=met),
        Row("empty batch, the batch itself", "s", found.batches),
    ]


def _freshness(plan: Plan) -> Iterator[list[Row]]:
    rows: list[Row] = []
    for trigger, seconds in ((1.0, 30.0), (10.0, 60.0)):
        found = live.freshness(plan.folder / f"fresh-{trigger:.0f}", trigger, seconds)
        name = f"freshness at a trigger of {trigger:.0f} s, {live.CHANGES_PER_SECOND} changes/s"
        rows.append(Row(f"{name}, p50", "s", (found.p50,)))
        rows.append(Row(f"{name}, p99", "s", (found.p99,)))
        yield rows


def _tables(plan: Plan) -> Iterator[list[Row]]:
    rows: list[Row] = []
    for tables in (1, 200):
        seconds = live.trigger_with(plan.folder / f"tables-{tables}", tables, min(3, plan.runs))
        goal, met = ("< 15", statistics.median(seconds) < 15) if tables > 1 else (None, None)
        rows.append(Row(f"trigger with {tables} tables", "s", seconds, goal=goal, met=met))
        yield rows


_PARTS: Final[dict[str, Callable[[Plan], Iterator[list[Row]]]]] = {
    "compare": _compare,
    "envelopes": _envelopes,
    "wire": _wire,
    "shards": _shards,
    "empty": _empty,
    "freshness": _freshness,
    "tables": _tables,
}

if __name__ == "__main__":
    main()
