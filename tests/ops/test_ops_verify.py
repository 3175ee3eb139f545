"""The comparison finds what is injected, and nothing else."""

from ops.verify import TableResult, Verification, differences

COLUMNS = ["id", "name"]
ROWS = [(1, "one"), (2, "two"), (3, None)]


def test_equal_tables_have_no_difference() -> None:
    assert differences("t", ["id"], COLUMNS, ROWS, list(reversed(ROWS))) == []


def test_changed_value_is_named_with_its_key_and_column() -> None:
    (found,) = differences("t", ["id"], COLUMNS, ROWS, [(1, "one"), (2, "TWO"), (3, None)])
    assert found.key == "id=2"
    assert "name: 'two' in the source, 'TWO' in the lake" in found.problem


def test_null_is_not_an_empty_text() -> None:
    assert len(differences("t", ["id"], COLUMNS, ROWS, [(1, "one"), (2, "two"), (3, "")])) == 1


def test_missing_and_surplus_rows_are_found() -> None:
    found = differences("t", ["id"], COLUMNS, ROWS, [(1, "one"), (2, "two"), (4, "four")])
    assert [(one.key, one.problem) for one in found] == [
        ("id=3", "1 in the source, 0 in the lake"),
        ("id=4", "0 in the source, 1 in the lake"),
    ]


def test_row_that_is_there_twice_is_found() -> None:
    assert len(differences("t", ["id"], COLUMNS, ROWS, [*ROWS, (1, "one")])) == 1


def test_table_without_a_key_is_compared_as_a_multiset() -> None:
    twice = [(1, "a"), (1, "a")]
    assert differences("t", [], COLUMNS, twice, twice) == []
    (found,) = differences("t", [], COLUMNS, twice, twice[:1])
    assert found.problem == "2 in the source, 1 in the lake"


def test_duplicates_holes_and_missing_tables_are_no_equality() -> None:
    good = TableResult("t", 1, 1, 1, 0, 0)
    assert Verification("0/1", (good,)).equal
    assert not Verification("0/1", (good,), ("other",)).equal
    assert not Verification("0/1", ()).equal
    assert not TableResult("t", 1, 1, 1, 1, 0).equal
    assert not TableResult("t", 1, 1, 1, 0, 1).equal
