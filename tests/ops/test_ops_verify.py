"""The comparison finds what is injected, and nothing else."""

from typing import Any

from glue_streaming.state import FoldState, StreamState
from ops.origins import Origin
from ops.tables import LakeTable
from ops.verify import Column, Difference, TableResult, Verification, compare, paired

COLUMNS = ["id", "name"]
ROWS = [(1, "one"), (2, "two"), (3, None)]


def differences(key: list[str], source: list[tuple[Any, ...]], lake: list[tuple[Any, ...]]) -> list[Difference]:
    return compare("t", key, COLUMNS, source, lake).differences


def test_equal_tables_have_no_difference() -> None:
    assert compare("t", ["id"], COLUMNS, iter(ROWS), reversed(ROWS)) == (3, 3, [])


def test_changed_value_is_named_with_its_key_and_column() -> None:
    (found,) = differences(["id"], ROWS, [(1, "one"), (2, "TWO"), (3, None)])
    assert found.key == "id=2"
    assert "name: 'two' in the source, 'TWO' in the lake" in found.problem


def test_null_is_not_an_empty_text() -> None:
    assert len(differences(["id"], ROWS, [(1, "one"), (2, "two"), (3, "")])) == 1


def test_missing_and_surplus_rows_are_found() -> None:
    found = differences(["id"], ROWS, [(1, "one"), (2, "two"), (4, "four")])
    assert [(one.key, one.problem) for one in found] == [
        ("id=3", "1 more in the source than in the lake"),
        ("id=4", "1 more in the lake than in the source"),
    ]


def test_row_that_is_there_twice_is_found() -> None:
    assert len(differences(["id"], ROWS, [*ROWS, (1, "one")])) == 1


def test_table_without_a_key_is_compared_as_a_multiset() -> None:
    """Whichever side has an equal row once more."""
    twice: list[tuple[Any, ...]] = [(1, "a"), (1, "a")]
    assert differences([], twice, twice) == []
    (found,) = differences([], twice, twice[:1])
    assert (found.key, found.problem) == ("id=1, name='a'", "1 more in the source than in the lake")
    (found,) = differences([], twice, [*twice, *twice])
    assert found.problem == "2 more in the lake than in the source"


def test_duplicates_holes_and_what_is_not_compared_are_no_equality() -> None:
    good = TableResult("t", 1, 1, 1, 0, 0)
    assert Verification("0/1", (good,)).equal and good.verdict == "equal"
    assert not Verification("0/1", (good, TableResult("other", uncompared=("no such table",)))).equal
    assert not Verification("0/1", ()).equal
    assert not TableResult("t", 1, 1, 1, 1, 0).equal
    assert not TableResult("t", 1, 1, 1, 0, 1).equal
    assert TableResult("t", uncompared=("why",)).verdict == "not all is compared"


def test_columns_are_paired_by_what_the_lake_says_of_their_origin() -> None:
    """Metadata is nobody's; a column that one side lacks is said; one whose type has changed is compared in all
    that the lake has of it, by the newest."""
    lake = ("_op", "_op__2", "id", "id__2", "gone", "amount", "amount__2")
    origins = {"_op__2": "_op", "id__2": "ID", "amount__2": "amount"}
    columns = tuple((name, "bigint") for name in lake)
    table = LakeTable("t", ("id",), columns, StreamState(), FoldState(), origins)
    found, notes = paired(table, Origin("public.t", "t", ("id", "ID", "_op", "amount", "new"), notes=("x",)))
    assert [(column.source, column.lake) for column in found] == [
        ("id", "id"), ("ID", "id__2"), ("_op", "_op__2"), ("amount", "amount__2"), ("new", None),
    ]  # fmt: skip
    assert found[3].before == (("amount", "bigint"),)
    assert [note.split(":")[0] for note in notes] == [
        "x", "column amount", "column new is not in the lake yet, where it is compared as NULL",
        "gone of the lake is not compared",
    ]  # fmt: skip


def test_disguised_columns_are_texts() -> None:
    """Whatever the type of a lake column that was filled before the configuration hid it."""
    table = LakeTable("t", (), (("card", "bigint"),), StreamState(), FoldState())
    (column,), _ = paired(table, Origin("public.t", "t", ("card",), {"card": bytes.upper}))
    assert column == Column("card", "card", "string", bytes.upper)
