"""Changes merged into sorted rows, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from glue_streaming.fold.sorted_merge import Unsorted, last, merge, newest

SCHEMA = pa.schema([("a", pa.int32()), ("b", pa.string()), ("_op", pa.string()), ("v", pa.int64())])
KEY = ("a", "b")
Row = tuple[Any, Any, str, int]


def batch(*rows: Row) -> pa.RecordBatch:
    names = SCHEMA.names
    return pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=SCHEMA)


def merged(rows: list[pa.RecordBatch], changes: list[pa.RecordBatch], keep_deletes: bool = False) -> list[Row]:
    found: Iterator[pa.RecordBatch] = merge(rows, changes, KEY, keep_deletes=keep_deletes)
    return [tuple(row.values()) for one in found for row in one.to_pylist()]


BASE = [batch((1, "a", "c", 1), (1, "b", "c", 2)), batch((2, "a", "c", 3), (2, None, "c", 4), (None, "x", "c", 5))]


def test_changes_replace_add_and_take_away_in_their_places() -> None:
    """Within a batch, between two, and behind the last; nulls lie behind everything and equal each other."""
    changes = [
        batch((0, "z", "c", 10), (1, "b", "u", 20)),
        batch((1, "c", "c", 21), (2, None, "u", 40), (None, "x", "d", 50), (None, None, "c", 60)),
    ]
    expected = [(0, "z", "c", 10), (1, "a", "c", 1), (1, "b", "u", 20), (1, "c", "c", 21), (2, "a", "c", 3)]
    expected += [(2, None, "u", 40), (None, None, "c", 60)]
    assert merged(BASE, changes) == expected
    with_deletes = [*expected[:-1], (None, "x", "d", 50), expected[-1]]
    assert merged(BASE, changes, keep_deletes=True) == with_deletes


def test_a_batch_that_no_change_meets_passes_as_it_is() -> None:
    """Not a copy of it: most of a large table is never touched."""
    found = list(merge(BASE, [batch((2, "a", "u", 30))], KEY, keep_deletes=False))
    assert found[0] is BASE[0] and found[1] is not BASE[1]


@pytest.mark.parametrize(
    "rows",
    [
        [batch((1, "b", "c", 1), (1, "a", "c", 2))],
        [batch((1, None, "c", 1), (1, "a", "c", 2))],
        [batch((None, "a", "c", 1), (1, "a", "c", 2))],
        [batch((2, "a", "c", 1)), batch((1, "a", "c", 2))],
    ],
)
def test_rows_out_of_order_are_noticed(rows: list[pa.RecordBatch]) -> None:
    """By any column of the key, within a batch and between two."""
    with pytest.raises(Unsorted):
        merged(rows, [])


def test_of_many_changes_of_a_key_the_last_one_stays() -> None:
    """Also where they lie in several batches."""
    changes = [batch((1, "a", "c", 1), (1, "a", "u", 2)), batch((1, "a", "u", 3), (1, None, "c", 4), (1, None, "d", 5))]
    assert [row["v"] for one in newest(changes, KEY) for row in one.to_pylist()] == [3, 5]


def test_rows_held_in_memory_give_the_last_of_each_key_by_key() -> None:
    """Whatever order the keys came in; cut into batches, and none of nothing."""
    rows = pa.Table.from_batches(
        [batch((2, "a", "c", 1), (1, None, "c", 2), (2, "a", "u", 3), (1, "b", "c", 4), (1, None, "d", 5))]
    )
    found = list(last(rows, KEY, 2))
    assert [row["v"] for one in found for row in one.to_pylist()] == [4, 5, 3]
    assert [one.num_rows for one in found] == [2, 1]
    assert list(last(rows.slice(0, 0), KEY, 2)) == []
