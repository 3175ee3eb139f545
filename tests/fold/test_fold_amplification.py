"""A day of a batch a minute under the policy's defaults: what is written and read too much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench import fold_corpus
from glue_streaming import data_files
from glue_streaming.fold.cut import Cut
from glue_streaming.fold.lake_files import written_file
from glue_streaming.fold.plan import FoldSettings, Work, amplification, work
from glue_streaming.state import FoldState, FoldTotals, StreamState
from glue_streaming.watermark import Published
from schemas.position import Line
from tests.fold.local_lake import IO, ONE_PART, LocalLake

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTES = 1_440


@dataclass(frozen=True)
class Load:
    """Changes a minute of hot keys among a base's rows; bytes of a row in each tier, as files of the corpus have them.

    fold_minutes: how often the workflow looks. spread: hot keys lie all over base, not together.
    """

    base_rows: int
    changes: int
    hot: float = 0.01
    row_bytes: int = 36
    change_bytes: int = 37
    file_bytes: int = 9_000
    fold_minutes: int = 5
    spread: bool = True

    @property
    def hot_keys(self) -> float:
        return self.base_rows * self.hot

    def distinct(self, changes: int) -> float:
        """Keys among so many changes, each of any hot key: expected."""
        return self.hot_keys * -math.expm1(changes * math.log1p(-1 / self.hot_keys))

    def batch(self) -> int:
        return self.changes * self.change_bytes + self.file_bytes


@dataclass(frozen=True)
class Minute:
    write: float
    read: float
    work: Work | None


def day(load: Load, settings: FoldSettings) -> Iterator[Minute]:
    """Every minute of the day: what the planner decides, and what came of it by the byte model."""
    base = load.base_rows * load.row_bytes
    fold = FoldState(Line(1, 0), 1, FoldTotals(base_rows=load.base_rows, base_bytes=base), START.isoformat())
    stream, since_major = StreamState(), 0
    for minute in range(1, MINUTES + 1):
        totals = stream.totals.plus(load.changes, load.batch(), 1)
        stream = replace(stream, totals=totals)
        now = START + timedelta(minutes=minute)
        ring = tuple(Published(Line(1, m), m * 60.0) for m in range(max(0, minute - 12), minute + 1))
        cut = Cut(ring, {"t": Line(1, minute)})
        due = None
        if minute % load.fold_minutes == 0:
            due = work("t", stream.to_properties() | fold.to_properties(), cut, "auto", settings, now)
        read = amplification(stream, fold).read or 1.0
        if due is not None:
            taken = due.line.lsn - fold.line.lsn
            since_major += taken * load.changes
            fold = folded(load, fold, due, taken, since_major, now)
            since_major = 0 if due.kind == "major" else since_major
        yield Minute(amplification(stream, fold).write or 1.0, read, due)


def folded(load: Load, fold: FoldState, due: Work, batches: int, since_major: int, now: datetime) -> FoldState:
    t = fold.totals
    came, history = batches * load.batch(), batches * load.changes * load.change_bytes
    delta_rows = int(load.distinct(since_major))
    overlap = t.base_bytes if load.spread else int(t.base_bytes * load.hot) + (128 << 20)
    if due.kind == "minor":
        delta = delta_rows * load.change_bytes
        new = replace(t, delta_rows=delta_rows, delta_bytes=delta, overlap_bytes=min(overlap, t.base_bytes))
        new = replace(new, merged_rows=since_major, written_bytes=t.written_bytes + history + delta)
    else:
        new = replace(t, delta_rows=0, delta_bytes=0, overlap_bytes=0, merged_rows=0)
        new = replace(new, written_bytes=t.written_bytes + history + min(overlap, t.base_bytes))
    taken = replace(
        new,
        log_rows_taken=t.log_rows_taken + batches * load.changes,
        log_bytes_taken=t.log_bytes_taken + came,
        log_files_taken=t.log_files_taken + batches,
    )
    return replace(fold, line=due.line, totals=taken, folded_at=now.isoformat())


@pytest.mark.parametrize(
    "load",
    [
        Load(3_000_000, 10_000),
        Load(3_000_000, 10_000, fold_minutes=1),
        Load(10_000_000, 100_000),
        Load(1_000_000, 2_000),
        Load(100_000_000, 50_000),
        Load(100_000_000, 50_000, spread=False),
    ],
    ids=lambda load: f"{load.base_rows} rows, {load.changes} a minute, every {load.fold_minutes}, {load.spread}",
)
def test_a_day_of_hot_keys_writes_at_most_three_times_and_reads_at_most_one_and_a_half(load: Load) -> None:
    """With the defaults: write amplification at the day's end, read amplification at every minute of it."""
    minutes = list(day(load, FoldSettings()))
    assert max(minute.read for minute in minutes) <= 1.5
    assert minutes[-1].write <= 3
    assert sum(minute.work is not None for minute in minutes) >= 4


def test_the_byte_model_is_what_real_files_are(tmp_path: Path) -> None:
    """Bytes of a row in log, history, delta and base, as real folds leave them, within a quarter of the model's."""
    schema, shape = fold_corpus.schema_and_shape()
    lake = LocalLake(schema, shape, tmp_path, ONE_PART)
    arrow = data_files.arrow_schema(schema)

    def add(tier: str, batches: Any) -> None:
        rows = [part for batch in batches for part in fold_corpus.conformed(batch, arrow)]
        written = data_files.write(iter(rows), schema=schema, location=f"file://{tmp_path}", tier=tier, io=IO)
        assert written is not None
        lake.files.append(written_file(written, schema))

    add("base", fold_corpus.base(100_000))
    add("log", fold_corpus.changes(20_000, 100_000, lsn=200_000, new_part=0))
    sizes = {"log": _per_row(lake, "log")}
    lake.fold(Line(1, 1 << 40), major=False)
    sizes |= {tier: _per_row(lake, tier) for tier in ("history", "delta")}
    add("log", fold_corpus.changes(100, 100_000, lsn=300_000, new_part=0, seed=2))
    lake.fold(Line(1, 1 << 50), major=True)
    sizes["base"] = _per_row(lake, "base")
    model = Load(1, 1)
    expected = dict.fromkeys(("log", "history", "delta"), model.change_bytes) | {"base": model.row_bytes}
    assert sizes == {tier: pytest.approx(size, rel=0.25) for tier, size in expected.items()}


def _per_row(lake: LocalLake, tier: str) -> float:
    files = [file for file in lake.files if file.tier == tier]
    return sum(file.size for file in files) / sum(file.rows for file in files)
