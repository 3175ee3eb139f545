"""The demo's own measures: counting at the source, comparing with the lake, and the verdict."""

import struct
from collections import Counter

import pytest

from ops.demo.measures import count, lost, unexpected
from ops.demo.observers import percentile
from ops.demo.summary import Figure, Summary, problems_of

GOOD = {
    "changes_committed": 100,
    "lost": 0,
    "duplicated": 0,
    "unexpected": 0,
    "invariant_failures": 0,
    "invariant_checks": 10,
    "folds": 2,
    "tables": 6,
    "tables_equal": 6,
}


def begin(lsn: int) -> bytes:
    return b"B" + struct.pack(">QqI", lsn, 0, 1)


def relation(oid: int, table: str) -> bytes:
    return b"R" + struct.pack(">I", oid) + b"public\0" + table.encode() + b"\0d\0\0"


def change(kind: bytes, oid: int, tuple_kind: bytes) -> bytes:
    return kind + struct.pack(">I", oid) + tuple_kind


def test_changes_are_counted_by_table_and_transaction() -> None:
    found = count(
        [
            begin(10),
            relation(1, "a"),
            change(b"I", 1, b"N"),
            change(b"U", 1, b"N"),
            begin(20),
            relation(2, "b"),
            change(b"D", 2, b"K"),
            change(b"I", 1, b"N"),
        ]
    )
    assert found == Counter({("a", 10): 2, ("b", 20): 1, ("a", 20): 1})


def test_key_change_counts_as_a_delete_and_an_insert() -> None:
    """As it is emitted; an update with the whole old row is one change."""
    messages = [begin(10), relation(1, "a")]
    assert count([*messages, change(b"U", 1, b"K")])["a", 10] == 2
    assert count([*messages, change(b"U", 1, b"O")])["a", 10] == 1


def test_truncate_counts_once_for_each_table() -> None:
    truncate = b"T" + struct.pack(">IBII", 2, 0, 1, 2)
    assert count([begin(10), relation(1, "a"), relation(2, "b"), truncate]) == Counter({("a", 10): 1, ("b", 10): 1})


def test_loss_in_one_place_is_not_made_up_elsewhere() -> None:
    """The sums are equal, and yet one change is missing and one is there that nobody committed."""
    expected, found = Counter({("a", 10): 2, ("a", 20): 1}), Counter({("a", 10): 1, ("a", 20): 2})
    assert lost(expected, found) == 1
    assert unexpected(expected, found) == 1


@pytest.mark.parametrize(("share", "value"), [(0.5, 2.0), (0.99, 4.0), (0.25, 1.0)])
def test_percentile_is_a_value_that_was_seen(share: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == value


def test_percentile_of_nothing_is_nothing() -> None:
    assert percentile([], 0.5) is None


def figures(**changed: int) -> dict[str, Figure]:
    return {name: Figure(value, "here") for name, value in (GOOD | changed).items()}


def test_good_figures_are_verified() -> None:
    assert Summary(figures(), problems_of(figures())).verified


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("changes_committed", 0),
        ("lost", 1),
        ("duplicated", 1),
        ("unexpected", 1),
        ("invariant_failures", 1),
        ("invariant_checks", 9),
        ("folds", 1),
        ("tables_equal", 5),
    ],
)
def test_every_bad_figure_alone_refuses_the_verdict(name: str, value: int) -> None:
    assert len(problems_of(figures(**{name: value}))) == 1


def test_summary_says_where_each_figure_comes_from() -> None:
    written = Summary(figures(), ()).to_json()
    assert written["verified"] is True
    assert set(written["measured_from"]) == set(GOOD)
