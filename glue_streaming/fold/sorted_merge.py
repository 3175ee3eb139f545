"""Merges changes into sorted rows, batch by batch, in the memory of two batches.

Rows and changes are both in the order of their keys. A batch of rows that no change meets passes through untouched; the
others are sorted with the changes that belong among them, which costs a fraction of sorting everything.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from glue_streaming.fold.shape import Shape

_RANK: Final = "$rank"
_UNORDERED: Final = ("FLOAT", "DOUBLE")
"""Types whose order here would not be DuckDB's; lists are the others."""


class Unsorted(Exception):
    """The rows are not in the order of their keys, so that they have to be sorted."""


def mergeable(shape: Shape) -> bool:
    """Whether the key's types sort here as they do in DuckDB."""
    types = {column.name: column.duckdb for column in shape.columns}
    return all(types[name] not in _UNORDERED and not types[name].endswith("[]") for name in shape.key)


def merge(
    rows: Iterable[pa.RecordBatch], changes: Iterable[pa.RecordBatch], key: Sequence[str], *, keep_deletes: bool
) -> Iterator[pa.RecordBatch]:
    """The rows with the changes in their places: a change replaces the row of its key, a delete takes it away.

    Each side has a key once at most, as `newest` leaves it, and both have the same columns and types. keep_deletes:
    deletes stay as rows. Raises Unsorted, perhaps after some batches.
    """
    ahead = _Ahead(changes, key)
    for batch in in_order(rows, key):
        met = ahead.through(_key(batch, key, -1))
        yield from _merged(pa.Table.from_batches([batch]), met, key, keep_deletes) if met.num_rows else [batch]
    yield from _kept(ahead.rest(), keep_deletes)


def in_order(rows: Iterable[pa.RecordBatch], key: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches that have rows, as they are. Raises Unsorted where a key lies before the one ahead of it."""
    last: tuple[Any, ...] | None = None
    for batch in rows:
        if not batch.num_rows:
            continue
        if (last is not None and _key(batch, key, 0) < last) or not _in_order(batch, key):
            raise Unsorted
        last = _key(batch, key, -1)
        yield batch


def newest(changes: Iterable[pa.RecordBatch], key: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Of sorted changes the last one of each key."""
    held: pa.Table | None = None
    for batch in changes:
        table = pa.Table.from_batches([batch])
        table = table if held is None else pa.concat_tables([held, table])
        last = table.num_rows - 1
        if last > 0:
            other = pc.invert(_same_as_next(table.select(list(key)), key))
            yield from table.slice(0, last).filter(other).to_batches()
        held = table.slice(last) if last >= 0 else None
    if held is not None:
        yield from held.to_batches()


def last(rows: pa.Table, key: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Of rows in one chunk the last one of each key, in the order of the keys."""
    order = pc.sort_indices(rows.select(list(key)), sort_keys=[(name, "ascending") for name in key])  # it is stable
    if len(order):
        other = pc.invert(_same_as_next(rows.select(list(key)).take(order), key))
        order = order.filter(pa.concat_arrays([other, pa.array([True])]))
    for at in range(0, len(order), batch_rows):
        yield from rows.take(order.slice(at, batch_rows)).to_batches()


class _Ahead:
    """The changes that are read and not yet used."""

    def __init__(self, batches: Iterable[pa.RecordBatch], key: Sequence[str]) -> None:
        self._batches, self._names = iter(batches), key
        self._rows: pa.Table | None = None

    def through(self, end: tuple[Any, ...]) -> pa.Table:
        """The next changes, up to and with the key `end`."""
        while True:
            if self._rows is None or not self._rows.num_rows or _key(self._rows, self._names, -1) <= end:
                more = next(self._batches, None)
                if more is not None:
                    table = pa.Table.from_batches([more])
                    self._rows = table if self._rows is None else pa.concat_tables([self._rows, table])
                    continue
            if self._rows is None:
                return pa.table({})
            place = bisect_right(_Keys(self._rows, self._names), end)
            met, self._rows = self._rows.slice(0, place), self._rows.slice(place)
            return met

    def rest(self) -> Iterator[pa.Table]:
        if self._rows is not None:
            yield self._rows
        for batch in self._batches:
            yield pa.Table.from_batches([batch])


class _Keys(Sequence[Any]):
    """The keys of a table's rows, each looked at when it is asked for."""

    def __init__(self, rows: pa.Table, names: Sequence[str]) -> None:
        self._columns = [rows.column(name) for name in names]
        self._count: int = rows.num_rows

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return tuple(_comparable(column[index].as_py()) for column in self._columns)


def _key(rows: pa.RecordBatch | pa.Table, names: Sequence[str], index: int) -> tuple[Any, ...]:
    place = index if index >= 0 else rows.num_rows + index
    return tuple(_comparable(rows.column(name)[place].as_py()) for name in names)


def _comparable(value: Any) -> tuple[int, Any]:
    """A null lies behind every value."""
    return (1, None) if value is None or (isinstance(value, float) and math.isnan(value)) else (0, value)


def _in_order(rows: pa.RecordBatch, names: Sequence[str]) -> bool:
    """Whether each key is at or behind the one before it; a null lies behind everything."""
    count = rows.num_rows - 1
    before, same = pa.repeat(False, count), pa.repeat(True, count)
    for name in names:
        left, right = rows.column(name).slice(0, count), rows.column(name).slice(1)
        less = pc.coalesce(pc.less(left, right), pc.and_(pc.is_valid(left), pc.is_null(right)))
        before = pc.or_(before, pc.and_(same, less))
        same = pc.and_(same, _equal(left, right))
    return bool(pc.all(pc.or_(before, same)).as_py() is not False)


def _equal(left: pa.Array, right: pa.Array) -> pa.Array:
    return pc.coalesce(pc.equal(left, right), pc.and_(pc.is_null(left), pc.is_null(right)))


def _merged(rows: pa.Table, met: pa.Table, key: Sequence[str], keep_deletes: bool) -> Iterator[pa.RecordBatch]:
    """One batch of rows and the changes among them, in order: of a row and a change with one key the change stays."""
    both = pa.concat_tables([rows, met]).combine_chunks()
    rank = pa.array([0] * rows.num_rows + [1] * met.num_rows, pa.int8())
    keys = both.select(list(key)).append_column(_RANK, rank)
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in (*key, _RANK)])
    stays = _stays(keys.take(order), key)
    if not keep_deletes:
        deleted = pc.and_(pc.equal(rank, 1), pc.equal(both.column("_op"), "d").combine_chunks())
        stays = pc.and_(stays, pc.invert(pc.take(deleted, order)))
    yield from both.take(order.filter(stays)).combine_chunks().to_batches()


def _stays(keys: pa.Table, names: Sequence[str]) -> pa.Array:
    """Which of the sorted rows stay: all but those before a change of their own key."""
    before_change = pc.equal(keys.column(_RANK).slice(1), 1).combine_chunks()
    gone = pc.and_(before_change, _same_as_next(keys, names))
    return pa.concat_arrays([pc.invert(gone), pa.array([True])])


def _same_as_next(keys: pa.Table, names: Sequence[str]) -> pa.Array:
    """For each row but the last: whether the next one has its key. A null equals a null."""
    same = pa.repeat(True, keys.num_rows - 1)
    for name in names:
        column = keys.column(name).combine_chunks()
        same = pc.and_(same, _equal(column.slice(0, len(column) - 1), column.slice(1)))
    return same


def _kept(tables: Iterable[pa.Table], keep_deletes: bool) -> Iterator[pa.RecordBatch]:
    for table in tables:
        kept = table if keep_deletes else table.filter(pc.not_equal(table.column("_op"), "d"))
        yield from kept.to_batches()
