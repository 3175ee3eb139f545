"""The streaming job as Glue runs it, on a stream that is empty, that trickles, or that carries many tables."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import laptop as laptops
from bench.change_rows import AvroForm, Change, changes, data_block, table_schema
from bench.laptop import Laptop
from glue_streaming.aws import Aws
from glue_streaming.lake_table import identifier
from localaws.process import running
from ops.waiting import until
from schemas import block as blocks
from schemas.position import Position

CHANGES_PER_SECOND: Final = 1_000
_LINGER_SECONDS: Final = 0.05
_EMPTY_BATCHES: Final = 40
_WARM_BATCHES: Final = 10
_SECONDS: Final = 120.0
_ROOT: Final = Path(__file__).parent.parent


@dataclass(frozen=True)
class Empty:
    """Seconds from the end of one batch to the end of the next, and of the batch itself."""

    periods: tuple[float, ...]
    batches: tuple[float, ...]


@dataclass(frozen=True)
class Freshness:
    """Seconds from a change's commit in the source to the commit of its row in the lake."""

    p50: float
    p99: float


def empty_batches(folder: Path) -> Empty:
    """The job with nothing to read, as fast as its clock goes."""
    with _laptop(folder) as laptop:
        laptop.set(trigger_seconds=0.1, freshness_seconds=0.1)
        _send(laptop, [("orders", 0)])
        with _Job(laptop, folder) as job:
            job.wait_for(lambda told: told["rows"] > 0)
            first = len(job.told) + _WARM_BATCHES
            until(lambda: len(job.told) >= first + _EMPTY_BATCHES, "the empty batches", _SECONDS, 0.2)
            told = job.told[first : first + _EMPTY_BATCHES]
    ends = [item["heard_at"] for item in told]
    periods = tuple(round(late - early, 3) for early, late in itertools.pairwise(ends))
    return Empty(periods, tuple(round(sum(item["seconds"].values()), 3) for item in told))


def freshness(folder: Path, trigger_seconds: float, seconds: float) -> Freshness:
    """Changes at a steady rate in blocks of the agent's linger, for so long; the first trigger's are not counted."""
    with _laptop(folder) as laptop:
        laptop.set(trigger_seconds=trigger_seconds, freshness_seconds=trigger_seconds)
        with _Job(laptop, folder) as job:
            sent = _trickle(laptop, seconds)
            until(lambda: sum(item["rows"] for item in job.told) >= sent, "the last change", _SECONDS, 0.2)
        table = _lake_table(laptop, "orders")
        rows = table.scan(selected_fields=("_committed_at", "_batch")).to_arrow()
        at = {
            int(item.summary.additional_properties["headrace.batch"]): item.timestamp_ms * 1000
            for item in table.snapshots()
            if item.summary is not None and "headrace.batch" in item.summary.additional_properties
        }
    committed = np.array([at[batch] for batch in rows["_batch"].to_pylist()])
    changed = rows["_committed_at"].to_numpy().astype("datetime64[us]").astype("int64")
    counted = changed >= changed.min() + 1_000_000 * (trigger_seconds + 5)
    waited = (committed - changed)[counted] / 1e6
    return Freshness(*(round(float(np.percentile(waited, share)), 3) for share in (50, 99)))


def trigger_with(folder: Path, tables: int, runs: int) -> tuple[float, ...]:
    """Seconds of one batch that touches every table, each with a few rows: its tasks, commits, watermark, positions."""
    names = [f"orders_{number:03}" for number in range(tables)]
    with _laptop(folder) as laptop:
        laptop.set(trigger_seconds=0.1, freshness_seconds=0.1)
        with _Job(laptop, folder) as job:
            measured = []
            for turn in range(runs + 1):
                loaded = sum(item["rows"] for item in job.told)
                laptop.set(pause="true")
                time.sleep(6)  # a setting holds within a few seconds
                rows = _send(laptop, [(name, turn) for name in names])
                first = len(job.told)
                laptop.set(pause="false")
                until(
                    lambda due=loaded + rows: sum(item["rows"] for item in job.told) >= due,  # type: ignore[misc]
                    "the tables' rows",
                    _SECONDS,
                    0.2,
                )
                busy = [sum(item["seconds"].values()) for item in job.told[first:] if item["commits"]]
                measured.append(round(sum(busy), 3))
    return tuple(measured[1:])  # the first turn creates the tables


class _Job:
    """The job's script in a process of its own; what it tells of its batches."""

    def __init__(self, laptop: Laptop, folder: Path) -> None:
        arguments = laptop.arguments(checkpoint=str(folder / "checkpoint"))
        self.told: list[dict[str, Any]] = []
        with (folder / "job.log").open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "glue_streaming.stream_job", *arguments],
                cwd=_ROOT,
                env={**os.environ, **laptop.aws.environment()},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> _Job:
        self._reader.start()
        self.wait_for(lambda _: True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def wait_for(self, wanted: Any) -> None:
        until(lambda: any(wanted(item) for item in self.told), "a batch of the job", _SECONDS, 0.1)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{") and (item := json.loads(line))["event"] == "batch":
                self.told.append({**item, "heard_at": time.monotonic()})


@contextmanager
def _laptop(folder: Path) -> Iterator[Laptop]:
    folder.mkdir()
    with running(folder / "aws") as aws:
        before = dict(os.environ)
        os.environ.update(aws.environment())
        try:
            yield laptops.make(aws, "bench")
        finally:
            os.environ.clear()
            os.environ.update(before)


def _send(laptop: Laptop, tables: Sequence[tuple[str, int]], rows: int = 10) -> int:
    """A block of a few rows for each table: the one of that number in its lane. Returns the rows."""
    form, kinesis = AvroForm(table_schema()), laptop.aws.client("kinesis")
    records = []
    for table, turn in tables:
        schema = table_schema(table)
        laptop.register(schema)
        part = list(changes(rows * (turn + 1)))[-rows:]
        prev = Position(1, part[0].lsn - 2_400, rows - 1) if turn else None
        datums = b"".join(form.ours(change, form.columns(change.row)) for change in part)
        records.append((table, "0", blocks.encode(data_block(schema, "0", part, datums, prev))))
    laptop.send(kinesis, records)
    return rows * len(records)


def _trickle(laptop: Laptop, seconds: float) -> int:
    """Sends the blocks of a steady load; each change is committed just when the clock says so. Returns the changes."""
    schema, form, kinesis = table_schema(), AvroForm(table_schema()), laptop.aws.client("kinesis")
    laptop.register(schema)
    rows = int(CHANGES_PER_SECOND * _LINGER_SECONDS)
    began, prev, sent = time.time(), None, 0
    while (due := began + (sent + rows) / CHANGES_PER_SECOND) < began + seconds:
        part = [
            Change(
                change.op,
                1_000 + sent + number,
                0,
                datetime.fromtimestamp(began, UTC) + timedelta(seconds=(sent + number) / CHANGES_PER_SECOND),
                change.row,
            )
            for number, change in enumerate(changes(rows, seed=sent))
        ]
        datums = b"".join(form.ours(change, form.columns(change.row)) for change in part)
        block = data_block(schema, "0", part, datums, prev)
        time.sleep(max(0.0, due - time.time()))
        laptop.send(kinesis, [("orders", "0", blocks.encode(block))])
        prev, sent = block.last, sent + rows
    return sent


def _lake_table(laptop: Laptop, table: str) -> Any:
    return Aws().catalog.load_table(identifier(laptop.source, table))
