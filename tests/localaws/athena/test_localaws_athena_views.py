"""Views in the catalog: names, scopes, promised columns, and the order in which the catalog is read."""

from typing import Any

import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType

from localaws.athena_errors import QueryError

NUMBERS = Schema(NestedField(1, "id", LongType()), NestedField(2, "lsn", LongType()))


@pytest.fixture
def numbers(lake: Any) -> Any:
    lake.create("db.t", NUMBERS)
    lake.append("db.t", [{"id": n, "lsn": 10 * n} for n in range(1, 4)])
    return lake


def test_views_over_views_resolve_names_against_their_own_schema(numbers: Any) -> None:
    """An unqualified name in a view is looked up where the view lives, not where the query runs."""
    numbers.create("other.t", NUMBERS)
    numbers.view("db.inner_view", "SELECT id FROM t WHERE id > 1", id="bigint")
    numbers.view("other.outer_view", 'SELECT count(*) AS n FROM "db"."inner_view"', n="bigint")
    assert numbers.rows("SELECT n FROM outer_view", "other") == [["2"]]
    assert numbers.rows("SELECT n FROM awsdatacatalog.other.outer_view", None) == [["2"]]


def test_names_are_found_in_any_case_and_with_odd_characters(lake: Any) -> None:
    """Quoted, odd and upper-case names reach the catalog entry, and the column keeps its name."""
    lake.create("db.order items", Schema(NestedField(1, "a b", LongType()), NestedField(2, "select", StringType())))
    lake.append("db.order items", [{"a b": 1, "select": "x"}])
    answer = lake.ask('SELECT "a b", "select", "Order Items"."a b" FROM DB."Order Items"')
    assert answer.columns[:2] == ("a b", "select")
    assert answer.rows() == [["1", "x", "1"]]


def test_a_column_may_be_qualified_with_its_schema(numbers: Any) -> None:
    assert numbers.rows("SELECT db.t.id FROM db.t WHERE db.t.id = 2") == [["2"]]


def test_a_with_name_hides_a_table_and_its_own_body_still_sees_the_table(numbers: Any) -> None:
    """WITH t AS (SELECT ... FROM t) reads the table inside and the WITH outside."""
    assert numbers.rows("WITH t AS (SELECT id + 100 AS id FROM t) SELECT min(id) FROM t") == [["101"]]


def test_a_with_name_does_not_leak_out_of_its_query(numbers: Any) -> None:
    """A name defined in a subquery is a catalog name again outside it."""
    query = "SELECT a.n, count(t.id) FROM (WITH t AS (SELECT 1 AS n) SELECT n FROM t) AS a CROSS JOIN t GROUP BY a.n"
    assert numbers.rows(query) == [["1", "3"]]


def test_a_with_name_of_the_caller_is_not_seen_by_a_view(numbers: Any) -> None:
    """A view means the same wherever it is used."""
    numbers.view("db.v", "SELECT id FROM t", id="bigint")
    assert numbers.rows("WITH t AS (SELECT 99 AS id) SELECT max(id) FROM v") == [["3"]]


def test_later_with_queries_see_earlier_ones_and_subqueries_see_all(numbers: Any) -> None:
    query = (
        "WITH a AS (SELECT id FROM t), b AS (SELECT id FROM a WHERE id > 1) "
        "SELECT (SELECT max(id) FROM b), count(*) FROM a WHERE id IN (SELECT id FROM b)"
    )
    assert numbers.rows(query) == [["3", "2"]]


def test_recursive_with(lake: Any) -> None:
    query = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 4) SELECT sum(n) FROM r"
    assert lake.rows(query) == [["10"]]


def test_a_views_columns_have_the_names_and_types_it_promises(numbers: Any) -> None:
    """A narrower type is widened to the promised one, as Trino does."""
    numbers.view("db.v", "SELECT CAST(1 AS integer) AS n, DATE '2026-01-02' AS d", n="bigint", d="timestamp(6)")
    answer = numbers.ask("SELECT * FROM v")
    assert [kind.text for kind in answer.types] == ["bigint", "timestamp(6)"]
    assert answer.rows() == [["1", "2026-01-02 00:00:00.000000"]]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"id": "bigint"}, r"stored view column count \(1\) does not match .* analysis \(2\)"),
        ({"id": "integer", "lsn": "bigint"}, r"column \[id\] of type bigint .* at position 0 cannot be coerced to"),
        ({"id": "bigint", "lsn": "varchar"}, r"column \[lsn\] of type bigint .* at position 1 cannot be coerced to"),
        ({"id": "bigint", "line": "bigint"}, r"column \[lsn\] .* different name from column \[line\]"),
    ],
)
@pytest.mark.parametrize("select", ["id, lsn", "CAST(id AS bigint) AS id, CAST(lsn AS bigint) AS lsn"])
def test_a_view_whose_body_no_longer_fits_is_stale(
    numbers: Any, columns: dict[str, str], problem: str, select: str
) -> None:
    """As in Athena, whether or not the view's text casts its columns."""
    numbers.view("db.v", f"SELECT {select} FROM t", **columns)
    with pytest.raises(QueryError, match=problem) as failure:
        numbers.ask("SELECT count(*) FROM v")
    assert str(failure.value).startswith(
        "VIEW_IS_STALE: line 1:22: View 'awsdatacatalog.db.v' is stale or in invalid state: "
    )


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("SELECT idd FROM t", "COLUMN_NOT_FOUND: line 1:8: Column 'idd' cannot be resolved"),
        ("SELECT CAST(idd AS bigint) AS id FROM t", "COLUMN_NOT_FOUND: line 1:13: Column 'idd' cannot be resolved"),
        ("SELECT id FROM gone", "TABLE_NOT_FOUND: line 1:16: Table 'awsdatacatalog.db.gone' does not exist"),
        ("SELECT id FROM", "SYNTAX_ERROR"),
    ],
)
def test_a_mistake_in_a_view_names_the_view(numbers: Any, body: str, problem: str) -> None:
    numbers.view("db.v", body, id="bigint")
    numbers.view("db.w", "SELECT id FROM v", id="bigint")
    with pytest.raises(QueryError) as failure:
        numbers.ask("SELECT * FROM w")
    assert "INVALID_VIEW: line 1:15: Failed analyzing stored view 'awsdatacatalog.db.w': " in str(failure.value)
    assert f"Failed analyzing stored view 'awsdatacatalog.db.v': {problem}" in str(failure.value)


def test_a_view_that_contains_itself_is_refused(lake: Any) -> None:
    lake.view("db.v", "SELECT a FROM w", a="bigint")
    lake.view("db.w", "SELECT a FROM v", a="bigint")
    with pytest.raises(QueryError, match="View is recursive"):
        lake.ask("SELECT * FROM v")


def test_an_entry_that_is_no_presto_view_says_so(lake: Any) -> None:
    lake.view("db.v", "SELECT 1 AS a", a="integer")
    lake.entries["db", "v"]["ViewOriginalText"] = "SELECT 1"
    with pytest.raises(QueryError, match=r"INVALID_VIEW: View 'awsdatacatalog.db.v' cannot be read"):
        lake.ask("SELECT * FROM v")


CLOSED = "SELECT * FROM (VALUES (CAST('the cut is closed: repair of db.t' AS bigint))) AS w (lsn)"


@pytest.mark.parametrize(
    "query", ["SELECT count(*) FROM cut", "SELECT id FROM cut WHERE false", "SELECT 1 FROM cut LIMIT 0"]
)
def test_a_closed_cut_raises_its_sentence_in_every_query(numbers: Any, query: str) -> None:
    """A watermark that casts a sentence to a number fails the query, even where no row would have looked at it."""
    numbers.view("db.watermark", CLOSED, lsn="bigint")
    body = (
        "WITH w AS (SELECT lsn FROM watermark) SELECT CAST(id AS bigint) AS id FROM t CROSS JOIN w WHERE t.lsn <= w.lsn"
    )
    numbers.view("db.cut", body, id="bigint")
    with pytest.raises(QueryError) as failure:
        numbers.ask(query)
    assert str(failure.value) == "INVALID_CAST_ARGUMENT: Cannot cast 'the cut is closed: repair of db.t' to BIGINT"


def watermark(lsn: int) -> str:
    return f"SELECT * FROM (VALUES (BIGINT '{lsn}')) AS w (lsn)"


CUT = (
    "WITH w AS (SELECT lsn FROM watermark) "
    "SELECT CAST(sum(id) AS bigint) AS total FROM {table} AS t CROSS JOIN w WHERE t.lsn <= w.lsn"
)


@pytest.fixture
def ledger(lake: Any) -> Any:
    """Two tables that every transaction changes together, and their cut views."""
    for name in ("left_side", "right_side"):
        lake.create(f"db.{name}", NUMBERS)
        lake.view(f"db.{name}_cut", CUT.format(table=name), total="bigint")
    lake.view("db.watermark", watermark(0), lsn="bigint")
    return lake


def commit(lake: Any, lsn: int) -> None:
    """One transaction: a row in each table, and then the watermark that covers both."""
    for name in ("left_side", "right_side"):
        lake.append(f"db.{name}", [{"id": 1, "lsn": lsn}])
    lake.view("db.watermark", watermark(lsn), lsn="bigint")


def test_each_entry_is_read_once_and_the_watermark_before_every_table(ledger: Any) -> None:
    """The order of Trino's analyser: the query's FROM from left to right, a view's WITH before its FROM."""
    commit(ledger, 1)
    read: list[str] = []
    ledger.engine.before_catalog_read = lambda database, name: read.append(name)
    query = (
        "SELECT (SELECT total FROM left_side_cut) FROM right_side_cut AS r "
        "JOIN left_side_cut AS l ON r.total = l.total WHERE EXISTS (SELECT 1 FROM right_side)"
    )
    assert ledger.rows(query) == [["1"]]
    assert read == ["right_side_cut", "watermark", "right_side", "left_side_cut", "left_side"]


def test_a_commit_before_every_catalog_read_tears_no_transaction(ledger: Any) -> None:
    """With the watermark read first, a query over cut views sees whole transactions whatever commits in between."""
    commits = iter(range(1, 1000))
    ledger.engine.before_catalog_read = lambda database, name: commit(ledger, next(commits))
    for _ in range(5):
        ((left, right),) = ledger.rows("SELECT l.total, r.total FROM left_side_cut AS l, right_side_cut AS r")
        assert left == right


def test_without_the_watermark_the_same_commits_do_tear(ledger: Any) -> None:
    """The counter-test: the hook really commits between the reads of two tables."""
    commits = iter(range(1, 1000))
    ledger.engine.before_catalog_read = lambda database, name: commit(ledger, next(commits))
    ((left, right),) = ledger.rows("SELECT (SELECT count(*) FROM left_side), (SELECT count(*) FROM right_side)")
    assert left != right


def test_a_table_named_twice_is_one_snapshot(ledger: Any) -> None:
    """All mentions of a table in a query, in views and outside, are the same snapshot."""
    commits = iter(range(1, 1000))
    ledger.view("db.v", "SELECT count(*) AS n FROM left_side", n="bigint")
    ledger.engine.before_catalog_read = lambda database, name: commit(ledger, next(commits))
    ((direct, in_view),) = ledger.rows("SELECT count(*), (SELECT n FROM v) FROM left_side")
    assert direct == in_view
