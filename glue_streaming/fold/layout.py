"""The parts of a fold: which files it reads, which it leaves alone, and where the work is cut."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from glue_streaming.fold import merge, multiset
from glue_streaming.fold.lake_files import (
    LakeFile,
    bound,
    in_groups,
    may_hold,
    of_tier,
    paths_of,
    size_of,
    slot,
)
from glue_streaming.fold.part import Ground, LocalFiles, Part, PartKind
from glue_streaming.fold.ranges import WHOLE, KeyRange, Slot, in_range, runs, split
from glue_streaming.fold.scratch import BATCH_ROWS, Scratch
from schemas.position import Line, Position

TIERS: Final = ("log", "delta", "base", "staged")
_BATCH_BYTES: Final = 16 << 20
_COLUMN_BYTES: Final = 256
_MANY: Final = 8
_SHOWN: Final = 5
_COMPRESSION: Final = 6
"""Arrow's bytes to Parquet's, roughly: it only decides how many rows are held at a time."""


@dataclass(frozen=True)
class Bounds:
    """What a fold may use. Beyond `part_bytes` of files it is cut into parts of about that size."""

    target_file_bytes: int
    part_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class Layout:
    """parts: what is to be done. removed: the files that go when all parts are done.

    overlap_bytes: of the base files that the keys of the new delta lie in; 0 where there is none.
    unmatched_rows: deletes of whole rows that found no row, and the first few of them; None where none was looked for.
    """

    parts: list[Part]
    removed: list[LakeFile]
    truncated: bool = False
    overlap_bytes: int = 0
    unmatched_rows: int | None = None
    unmatched: tuple[Position, ...] = ()

    @property
    def read_bytes(self) -> int:
        return sum(file.size for file in self.removed)


def lay_out(kind: PartKind, ground: Ground, files: Sequence[LakeFile], local: LocalFiles, bounds: Bounds) -> Layout:
    """How a fold of `kind` (minor, major or activate) is done on a table's files.

    Looks into the log for a truncate, for key changes that left values out, and, where whole files can be left alone,
    for the keys that changed.
    """
    return _Survey(ground, files, local, bounds).layout(kind)


class _Survey:
    def __init__(self, ground: Ground, files: Sequence[LakeFile], local: LocalFiles, bounds: Bounds) -> None:
        self._schema, self._shape, self._bounds, self._local = ground.schema, ground.shape, bounds, local
        self._log = [file for file in of_tier(files, "log") if file.may_reach(ground.line)]
        self._log.sort(key=lambda file: file.lowest or Line(0, 0))
        self._staged = _staged(ground, files)
        self._delta, self._base = (self._sorted(of_tier(files, tier)) for tier in ("delta", "base"))
        self._ground = replace(ground, memory_bytes=bounds.memory_bytes, batch_rows=_batch_rows(files))

    def layout(self, kind: PartKind) -> Layout:
        scratch = Scratch(self._shape, self._local.folder, memory_bytes=self._bounds.memory_bytes)
        try:
            scratch.load("log", self._local.of(paths_of(self._log)))
            scratch.take(self._ground.line)
            truncate = self._truncate(scratch)
            self._ground = replace(self._ground, truncate=truncate, read_at=self._read_at())
            if not self._shape.key:
                return self._keyless(scratch, kind)
            self._complete(scratch, kind)
            if kind == "activate" or truncate is not None:
                return self._whole(kind)
            return self._rewritten(scratch, kind)
        finally:
            scratch.close()

    def _truncate(self, scratch: Scratch) -> Position | None:
        field = self._schema.find_field("_op")
        may = any((bound(file.data_file.upper_bounds, field) or "t") >= "t" for file in self._log)
        found = scratch.rows(merge.last_truncate()) if may else []
        return Position.of(found[0]) if found else None

    def _read_at(self) -> int | None:
        field = self._schema.find_field("_committed_at")
        found = [bound(file.data_file.upper_bounds, field) for file in self._staged]
        empty = int(time.time() * 1_000_000) if not self._shape.key and (self._base or self._delta) else None
        return max((at for at in found if at is not None), default=empty)

    def _complete(self, scratch: Scratch, kind: PartKind) -> None:
        """Completes the inserts of key changes, reading the files of base (or of the snapshot) that hold old keys."""
        if not self._shape.torn or not any(may_hold(file, self._schema, "_old_key") for file in self._log):
            return
        state, truncate = self._ground.snapshot, self._ground.truncate
        scratch.change(truncate, with_delta=False)
        scratch.keys(merge.moved_keys(self._shape, "fresh"))

        def load(tier: str, files: Sequence[LakeFile]) -> None:
            scratch.load(tier, self._local.of(paths_of(f for f in files if scratch.holds(self._slot(f).range()))))

        if truncate is None:
            load("delta", self._delta)
        if kind == "activate" and state is not None:
            load("staged", self._staged)
            scratch.overlay(state, truncate)
        else:
            load("base", self._base if truncate is None else [])
            scratch.change(truncate, with_delta=True)
        self._ground = replace(self._ground, completed=scratch.completed())

    def _keyless(self, scratch: Scratch, kind: PartKind) -> Layout:
        """What comes goes behind what is there; a major fold takes away what was deleted. Small files become one."""
        truncated = self._ground.truncate is not None
        replaced = kind == "activate" or truncated
        unmatched = self._cancel(scratch, kind) if self._shape.whole_rows and kind != "minor" else None
        if replaced:
            read, gone = [], [*self._base, *self._delta]
        else:
            small = [file for file in self._base if file.size < self._small_bytes]
            alike = small if kind == "major" and len(small) > 1 else _alike(small)
            hit = [file for file in self._base if file in alike or self._loses(scratch, file)]
            read = gone = [*hit, *(self._delta if kind == "major" else _alike(self._delta))]
        parts = [
            self._part("activate" if kind == "activate" else "keyless", group, WHOLE)
            for group in in_groups([*self._log, *self._staged, *read], self._bounds.part_bytes)
        ]
        laid_out = self._laid_out(parts, [*self._log, *self._staged, *gone], truncated)
        if unmatched is not None:
            return replace(laid_out, unmatched_rows=unmatched[0], unmatched=unmatched[1])
        return laid_out if replaced else replace(laid_out, overlap_bytes=size_of(self._base))

    def _cancel(self, scratch: Scratch, kind: PartKind) -> tuple[int, tuple[Position, ...]]:
        """Finds the rows that deletes take away, anywhere in base; how many deletes found none, and the first of them.

        Base is looked through in portions, so that the disk holds no more of it.
        """
        state, truncate = self._ground.snapshot, self._ground.truncate
        if kind == "activate" and state is not None:
            scratch.load("staged", self._local.of(paths_of(self._staged)))
            scratch.overlay(state, truncate)
        else:
            scratch.load("delta", self._local.of(paths_of(self._delta)))
            scratch.change(truncate, with_delta=True)
        if not scratch.delete():
            return 0, ()
        scratch.find("changes")
        for group in in_groups([] if kind == "activate" or truncate else self._base, self._bounds.part_bytes):
            paths = paths_of(group)
            scratch.load("base", self._local.of(paths))
            scratch.find("base")
            self._local.drop(paths)
        self._ground = replace(self._ground, cancelled=scratch.cancelled())
        ((count,),) = scratch.rows(f"SELECT count(*) FROM ({multiset.unmatched()})")
        first = scratch.rows(f"{multiset.unmatched()} LIMIT {_SHOWN}")
        return int(count), tuple(Position.of(found) for found in first)

    def _loses(self, scratch: Scratch, file: LakeFile) -> bool:
        """Whether a row of the file may be among those that go."""
        if not self._ground.cancelled.num_rows:
            return False
        low, high = file.lowest, file.highest
        if low is None or high is None:
            return True
        before = f"{merge.covered(Line(low.era, low.lsn - 1))}"
        return bool(scratch.rows(f"SELECT 1 FROM cancelled WHERE {merge.covered(high)} AND NOT {before} LIMIT 1"))

    def _whole(self, kind: PartKind) -> Layout:
        """Old base and delta go as they are: a snapshot or a truncate takes their place."""
        old = [*self._delta, *self._base]
        read = [*self._log, *self._staged, *(old if self._ground.truncate is None else [])]
        slots = [self._slot(file) for file in (*self._staged, *old)]
        ranges = split(WHOLE, slots, size_of(read), self._bounds.part_bytes)
        parts = [self._part("activate" if kind == "activate" else "major", read, keys) for keys in ranges]
        return self._laid_out(parts, [*self._log, *self._staged, *old], self._ground.truncate is not None)

    def _rewritten(self, scratch: Scratch, kind: PartKind) -> Layout:
        """Only the files of the sorted tier that a changed key may lie in, and small ones beside them."""
        target, changes = (self._base, self._delta) if kind == "major" else (self._delta, [])
        scratch.load("delta", self._local.of(paths_of(changes)))
        scratch.change(None, with_delta=kind == "major")
        if target:
            scratch.keys("SELECT * FROM fresh")
        slots = [self._slot(file) for file in target]
        parts: list[Part] = []
        removed = [*self._log, *changes]
        found = runs(slots, scratch.holds, self._small_bytes)
        incoming = [*self._log, *changes]
        share = size_of(incoming) // max(1, len(found))
        for run in found:
            files = [target[index] for index in run.files]
            removed += files
            run_slots = [slots[index] for index in run.files] or [self._slot(file) for file in (*changes, *self._base)]
            for keys in split(run.range, run_slots, size_of(files) + share, self._bounds.part_bytes):
                parts.append(self._part(kind, [*incoming, *files], keys))
        laid_out = self._laid_out(parts, removed)
        return laid_out if kind == "major" else replace(laid_out, overlap_bytes=self._overlap(scratch))

    def _overlap(self, scratch: Scratch) -> int:
        scratch.load("delta", self._local.of(paths_of(self._delta)))
        scratch.change(None, with_delta=True)
        scratch.keys("SELECT * FROM changes")
        return size_of(file for file in self._base if scratch.holds(self._slot(file).range()))

    def _part(self, kind: PartKind, files: Sequence[LakeFile], keys: KeyRange) -> Part:
        reached = [file for file in files if in_range(self._slot(file), keys)]
        return Part(kind, self._ground, _by_tier(reached), {}, keys)

    def _laid_out(self, parts: list[Part], removed: list[LakeFile], truncated: bool = False) -> Layout:
        """The parts numbered, with the sizes of what they write, and the rest of the files that go on."""
        sized = [replace(part, number=number, of=len(parts)) for number, part in enumerate(parts)]
        sized = [replace(part, rows_per_file=self._rows_per_file(removed, len(parts))) for part in sized]
        rest = [file for file in self._log if file.exceeds(self._ground.line)]
        state = self._ground.snapshot
        if state is not None:
            rest += [file for file in self._staged if file.exceeds(Line(state.era, state.highest - 1))]
        if rest:
            every = self._rows_per_file(rest, 1)
            sized.append(Part("rest", self._ground, _by_tier(rest), every))
        return Layout(sized, removed, truncated)

    def _rows_per_file(self, files: Sequence[LakeFile], parts: int) -> dict[str, int]:
        """Files of about the target size, with no small one at a part's end."""
        sizes = {}
        for tier, sources in _SOURCES.items():
            known = [file for file in files if file.tier in sources and file.rows]
            rows, size = sum(f.rows for f in known), max(1, size_of(known))
            count = max(1, round(size / parts / self._bounds.target_file_bytes))
            sizes[tier] = 1 + int(max(rows / parts / count, rows * self._bounds.target_file_bytes / size))
        return sizes

    @property
    def _small_bytes(self) -> int:
        return self._bounds.target_file_bytes // 4

    def _slot(self, file: LakeFile) -> Slot:
        return slot(file, self._schema, self._shape.key)

    def _sorted(self, files: list[LakeFile]) -> list[LakeFile]:
        """In the order of their keys; those that nothing is known of come last, as nulls do."""
        slots = {id(file): self._slot(file) for file in files}
        return sorted(files, key=lambda file: (not slots[id(file)].bounds, slots[id(file)].order))


_SOURCES: Final = {
    "history": ("log", "staged"),
    "log": ("log",),
    "staged": ("staged",),
    "delta": ("log", "delta"),
    "base": ("log", "delta", "base", "staged"),
}
"""Where the rows of a tier come from: it holds no more than these."""


def _staged(ground: Ground, files: Sequence[LakeFile]) -> list[LakeFile]:
    state = ground.snapshot
    if state is None:
        return []
    return [file for file in of_tier(files, "staged") if file.may_reach(Line(state.era, state.highest - 1))]


def _by_tier(files: Sequence[LakeFile]) -> dict[str, tuple[str, ...]]:
    return {tier: paths_of(of_tier(files, tier)) for tier in TIERS if of_tier(files, tier)}


def _alike(files: Sequence[LakeFile]) -> list[LakeFile]:
    """The files that are many of about one size: merged only then, a byte is written again a few times at most."""
    sizes: dict[int, list[LakeFile]] = {}
    for file in files:
        sizes.setdefault(int(math.log(max(1, file.size), _MANY)), []).append(file)
    return [file for group in sizes.values() if len(group) >= _MANY for file in group]


def _batch_rows(files: Sequence[LakeFile]) -> int:
    """How many rows are held at a time: few where a row is large."""
    largest = max((_row_bytes(file) for file in files if file.rows), default=1.0)
    return max(64, min(BATCH_ROWS, int(_BATCH_BYTES / (largest * _COMPRESSION))))


def _row_bytes(file: LakeFile) -> float:
    """Of a file of few rows most is said of its columns."""
    said = _COLUMN_BYTES * len(file.data_file.value_counts or ())
    return max(1.0, (file.size - said) / file.rows)
