"""One part of a fold: the keys of one range, merged from the files that may hold them into new files.

Parts know nothing of each other. A small fold is one part in the job's own process; a large one is many, in as many
Spark tasks. What a part wrote belongs to the table only when the driver commits it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.schema import Schema

from glue_streaming import data_files, failpoints
from glue_streaming.data_files import WrittenFile
from glue_streaming.erasures import Erasures, erasing
from glue_streaming.fold import file_rows, merge, multiset, output, sorted_merge
from glue_streaming.fold.ranges import WHOLE, KeyRange
from glue_streaming.fold.scratch import BATCH_ROWS, POSITIONS, Scratch
from glue_streaming.fold.shape import Shape
from glue_streaming.state import SnapshotState
from schemas.position import Line, Position

PartKind = Literal["minor", "major", "keyless", "activate", "rest"]


@dataclass(frozen=True)
class Ground:
    """What all parts of a fold share; small and picklable, like a part.

    completed: the inserts of key changes, whose old values may lie in another part's range. cancelled: positions of
    deletes of whole rows and of the rows that they take away, which may be another part's. read_at: when the rows of
    the snapshot were read, in microseconds. erasures: what goes into no file any more.
    """

    shape: Shape
    schema: Schema
    location: str
    line: Line
    truncate: Position | None = None
    snapshot: SnapshotState | None = None
    read_at: int | None = None
    completed: pa.Table = field(default_factory=lambda: pa.table({}))
    cancelled: pa.Table = field(default_factory=POSITIONS.empty_table)
    erasures: Erasures | None = None
    memory_bytes: int = 128 << 20
    batch_rows: int = BATCH_ROWS


@dataclass(frozen=True)
class Part:
    """files: paths by tier, each file whole; only rows of the range are looked at. rows_per_file: by tier written.

    number, of: which of the fold's parts it is. kind rest: what is left of log and staged files that go on.
    """

    kind: PartKind
    ground: Ground
    files: Mapping[str, tuple[str, ...]]
    rows_per_file: Mapping[str, int]
    keys: KeyRange = WHOLE
    number: int = 0
    of: int = 1


@dataclass(frozen=True)
class Done:
    """What a part wrote. staged: rows read of a snapshot by consistent point. unknown: rows whose values nobody has."""

    files: tuple[WrittenFile, ...]
    staged: Mapping[int, int] = field(default_factory=dict)
    unknown: tuple[Any, ...] = ()


class LocalFiles:
    """Local copies of a table's files, each fetched once."""

    def __init__(self, io: FileIO, folder: Path) -> None:
        self.io, self.folder = io, folder
        self._known: dict[str, Path] = {}

    def of(self, paths: Iterable[str]) -> list[Path]:
        """In the order of the paths."""
        return [self._known[path] if path in self._known else self._fetch(path) for path in paths]

    def drop(self, paths: Iterable[str]) -> None:
        for path in paths:
            if path in self._known:
                self._known.pop(path).unlink()

    def _fetch(self, path: str) -> Path:
        local = self.folder / path.rsplit("/", 1)[-1]
        with self.io.new_input(path).open(seekable=False) as remote, local.open("wb") as copy:
            shutil.copyfileobj(remote, copy, 1 << 20)
        self._known[path] = local
        return local


def run(part: Part, files: LocalFiles) -> Done:
    """Writes the part's files. Whatever of them exists is garbage unless the answer comes and is committed."""
    failpoints.reach("fold.part")
    # Arrow's own pool gives memory back by the clock, so a busy machine holds more of it: 594 to 712 MiB for a fold
    # that takes 528 through the system's allocator, for the same CPU.
    pa.set_memory_pool(pa.system_memory_pool())
    ground = part.ground
    with tempfile.TemporaryDirectory(prefix="headrace-part-", dir=files.folder) as folder:
        scratch = Scratch(
            ground.shape,
            Path(folder),
            memory_bytes=ground.memory_bytes,
            keys=part.keys,
            truncates=part.number == 0 or not ground.shape.key,  # without a key each part has files of its own
            batch_rows=ground.batch_rows,
        )
        try:
            local = {tier: files.of(paths) for tier, paths in part.files.items()}
            for tier, paths in local.items():
                scratch.load(tier, paths)
            scratch.complete(ground.completed)
            scratch.cancel(ground.cancelled)
            scratch.take(ground.line)
            return _RUNS[part.kind](_Writer(part, local, files.io), scratch)
        finally:
            scratch.close()


@dataclass(frozen=True)
class _Writer:
    """local: what the part reads, by tier."""

    part: Part
    local: Mapping[str, Sequence[Path]]
    io: FileIO

    def __call__(self, tier: str, batches: Iterable[pa.RecordBatch]) -> list[WrittenFile]:
        ground = self.part.ground
        return output.write(
            erasing(ground.erasures, tier, batches),
            schema=ground.schema,
            location=ground.location,
            tier=tier,
            io=self.io,
            rows_per_file=self.part.rows_per_file[tier],
            bloom=ground.shape.searched if tier == "history" else (),
        )


def _minor(write: _Writer, scratch: Scratch) -> Done:
    """History, and delta with the newest change of each key merged in."""
    scratch.change(write.part.ground.truncate, with_delta=False)
    scratch.resolve(with_base=False)
    return Done((*_history(write, scratch), *_merged(write, scratch, "delta")))


def _major(write: _Writer, scratch: Scratch) -> Done:
    """History, and base with delta and the newest change of each key merged in. A truncate has emptied the old base."""
    truncate = write.part.ground.truncate
    scratch.change(truncate, with_delta=True)
    scratch.resolve(with_base=truncate is None)
    return Done((*_history(write, scratch), *_merged(write, scratch, "base")))


def _keyless(write: _Writer, scratch: Scratch) -> Done:
    """History, base and delta of a table without a key; the files read become one with the new rows."""
    shape, truncate = write.part.ground.shape, write.part.ground.truncate
    history = write("history", scratch.batches(merge.history(shape)))
    tiers = [write(tier, scratch.batches(multiset.merged(shape, tier, truncate))) for tier in ("base", "delta")]
    return Done((*history, *chain.from_iterable(tiers)))


def _activate(write: _Writer, scratch: Scratch) -> Done:
    """The snapshot's rows with the later changes laid over them become base."""
    part, ground = write.part, write.part.ground
    shape, state = ground.shape, ground.snapshot
    assert state is not None
    scratch.overlay(state, ground.truncate)
    staged = dict(scratch.rows("SELECT _lsn + 1, count(*) FROM staged_rows GROUP BY ALL"))
    unknown: Sequence[Any] = ()
    if shape.key:
        scratch.resolve(with_base=False, stored=True)
        unknown = scratch.rows(merge.unknown_values(shape)) if shape.torn else []
        merged = {"base": merge.live(shape)}
    else:
        merged = {tier: multiset.activated(shape, tier) for tier in ("base", "delta")}
    if unknown:
        return Done((), staged, tuple(unknown))
    behind = sum(group.count for group in state.ended.values())
    closing = merge.Closing(behind + part.number, part.of, ground.read_at)
    history = merge.snapshot_history(shape, state.era, state.lowest, ground.truncate, closing)
    tiers = [write(tier, scratch.batches(sql)) for tier, sql in ({"history": history} | merged).items()]
    return Done(tuple(chain.from_iterable(tiers)), staged)


def _rest(write: _Writer, scratch: Scratch) -> Done:
    """Rows of log files above the line, and staged rows of later snapshots, stay what they are."""
    ground = write.part.ground
    rest = write("log", scratch.batches(merge.remainder(ground.line)))
    if ground.snapshot is not None:
        later = merge.staged_remainder(ground.snapshot.era, ground.snapshot.highest)
        rest += write("staged", scratch.batches(later))
    return Done(tuple(rest))


_RUNS = {"minor": _minor, "major": _major, "keyless": _keyless, "activate": _activate, "rest": _rest}


def _history(write: _Writer, scratch: Scratch) -> list[WrittenFile]:
    """The rows taken, in the order of their positions; a log that lies in this order needs no sorting."""
    ground = write.part.ground
    if write.part.keys == WHOLE and not ground.completed.num_rows:
        try:
            lying = _lying(write, scratch, "log", _schema(write, "log"))
            log = sorted_merge.in_order(lying, POSITIONS.names)
            return write("history", _taken(log, ground.line, "history"))
        except sorted_merge.Unsorted:
            pass  # what was written of it belongs to no table
    return write("history", scratch.batches(merge.history(ground.shape)))


def _merged(write: _Writer, scratch: Scratch, tier: str) -> list[WrittenFile]:
    """The files of a sorted tier that are read, with the newest change of each key merged in."""
    shape = write.part.ground.shape
    if sorted_merge.mergeable(shape):
        try:
            return write(tier, _streams(write, scratch, tier))
        except sorted_merge.Unsorted:
            pass
    return write(tier, scratch.batches(merge.merged(shape, tier)))


def _streams(write: _Writer, scratch: Scratch, tier: str) -> Iterator[pa.RecordBatch]:
    shape = write.part.ground.shape
    schema = _schema(write, tier)
    changes = _held(write, scratch, tier, schema)
    if changes is None:
        changes = sorted_merge.newest(scratch.batches(merge.incoming(shape, tier)), shape.key)
    conformed = data_files.conformed(changes, schema)
    return sorted_merge.merge(_lying(write, scratch, tier, schema), conformed, shape.key, keep_deletes=tier == "delta")


def _held(write: _Writer, scratch: Scratch, tier: str, schema: pa.Schema) -> Iterator[pa.RecordBatch] | None:
    """The newest change of each key, by key, where memory holds them all and the log lies in the order of positions.

    Sorting the keys and taking the rows costs half of what DuckDB's sort of whole rows does. What delta has of a key is
    older than what the log has.
    """
    ground = write.part.ground
    if write.part.keys != WHOLE or ground.completed.num_rows or ground.truncate is not None or scratch.torn:
        return None
    log = sorted_merge.in_order(_lying(write, scratch, "log", schema), POSITIONS.names)
    delta = _lying(write, scratch, "delta", schema) if tier == "base" else ()
    files = [file for name in ("log", "delta") if name != tier for file in write.local.get(name, ())]
    expected = sum(pq.read_metadata(file).num_rows for file in files)
    held, size, count = [schema.empty_table()], 0, 0
    try:
        for batch in _taken(chain(delta, log), ground.line, tier):
            held.append(pa.Table.from_batches([batch]))
            size, count = size + batch.nbytes, count + batch.num_rows
            if size * expected > ground.memory_bytes * count:
                return None
    except sorted_merge.Unsorted:
        return None
    rows = pa.concat_tables(held).unify_dictionaries().combine_chunks()
    for name in ("_unchanged", "_old_key"):  # as `merge.as_tier` has it where nothing was left out
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, schema.field(place), pa.nulls(rows.num_rows, schema.field(place).type))
    return sorted_merge.last(rows, ground.shape.key, ground.batch_rows)


def _lying(write: _Writer, scratch: Scratch, tier: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a tier's files as they lie there. Of a sorted tier those of the key range."""
    files = write.local.get(tier, ())
    spans = [(0, None) for _ in files] if tier == "log" else scratch.spans(files)
    for file, (first, end) in zip(files, spans, strict=True):
        yield from file_rows.rows(file, schema, write.part.ground.batch_rows, first, end)


def _schema(write: _Writer, tier: str) -> pa.Schema:
    ground = write.part.ground
    arrow = data_files.arrow_schema(ground.schema)
    return file_rows.schema_of(arrow, write.local.get(tier) or write.local.get("log", ()), plain=ground.shape.key)


def _taken(log: Iterable[pa.RecordBatch], line: Line, tier: str) -> Iterator[pa.RecordBatch]:
    """The rows at or below the line, as a tier's."""
    for batch in log:
        era, lsn = batch.column("_era"), batch.column("_lsn")
        of_era = pc.and_(pc.equal(era, line.era), pc.less_equal(lsn, line.lsn))
        taken = batch.filter(pc.or_(pc.less(era, line.era), of_era))
        place = taken.schema.get_field_index("_tier")
        field = taken.schema.field(place)
        yield taken.set_column(place, field, pa.repeat(tier, taken.num_rows).cast(field.type))
