"""What is refused and in which words, the statements that look at the catalog, and queries beside each other."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType

from localaws.athena_engine import Cancellation, statement_kind
from localaws.athena_errors import QueryCancelled, QueryError

PLAIN = Schema(NestedField(1, "id", LongType()), NestedField(2, "v", StringType()))
UNRESOLVED = "cannot be resolved or requester is not authorized to access requested resources"


@pytest.fixture
def table(lake: Any) -> Any:
    lake.create("db.t", PLAIN)
    lake.append("db.t", [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}])
    return lake


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT x FROM t", f"COLUMN_NOT_FOUND: line 1:8: Column 'x' {UNRESOLVED}"),
        ("SELECT id,\n  t.x\nFROM t", f"COLUMN_NOT_FOUND: line 2:5: Column 'x' {UNRESOLVED}"),
        ("SELECT u.id FROM t", f"COLUMN_NOT_FOUND: line 1:8: Column 'u' {UNRESOLVED}"),
        ("SELECT * FROM gone", "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.db.gone' does not exist"),
        ("SELECT 1 FROM\n  db.gone", "TABLE_NOT_FOUND: line 2:3: Table 'awsdatacatalog.db.gone' does not exist"),
        ("SELECT * FROM nowhere.t", "SCHEMA_NOT_FOUND: line 1:15: Schema 'nowhere' does not exist"),
        ("SELECT * FROM mysql.db.t", "CATALOG_NOT_FOUND: line 1:15: Catalog 'mysql' not found"),
        ("SELECT id FROM t, t AS u", "AMBIGUOUS_NAME: line 1:8: Column 'id' is ambiguous"),
        (
            "SELECT v, count(*) FROM t GROUP BY id",
            "EXPRESSION_NOT_AGGREGATE: line 1:8: 'v' must be an aggregate expression or appear in GROUP BY clause",
        ),
        ("SELECT 1 / (id - 1) FROM t", "DIVISION_BY_ZERO: Division by zero"),
        ("SELECT CAST(v AS bigint) FROM t WHERE id = 1", "INVALID_CAST_ARGUMENT: Cannot cast 'a' to BIGINT"),
        ("SELECT (SELECT id FROM t)", "SUBQUERY_MULTIPLE_ROWS: Scalar sub-query has returned multiple rows"),
        ("SELECT no_such(1)", "FUNCTION_NOT_FOUND: line 1:8: Function 'no_such' not registered"),
        ("SELECT 1; SELECT 2", "SYNTAX_ERROR: Only one sql statement is allowed. Got: 2"),
        ("", "SYNTAX_ERROR: Only one sql statement is allowed. Got: 0"),
    ],
)
def test_a_failing_query_says_why_in_athenas_words(table: Any, sql: str, reason: str) -> None:
    with pytest.raises(QueryError) as failure:
        table.ask(sql)
    assert str(failure.value) == reason


@pytest.mark.parametrize(
    ("sql", "beginning"),
    [
        ("SELEC 1", "SYNTAX_ERROR: line 1:7: mismatched input '1'"),
        ("SELECT (1", "SYNTAX_ERROR: line 1:"),
        ("SELECT 'a", "SYNTAX_ERROR: "),
        ("hello", "SYNTAX_ERROR: line 1:1: mismatched input 'hello'. Expecting: 'DESCRIBE'"),
        ("SELECT FROM t", "SYNTAX_ERROR: line 1:1: "),
        ("SELECT sum(v) FROM t", "TYPE_MISMATCH: "),
        ("SELECT BIGINT '9223372036854775807' + 1", "NUMERIC_VALUE_OUT_OF_RANGE: "),
        ("SELECT DATE 'tomorrow'", "INVALID_CAST_ARGUMENT: "),
        ("INSERT INTO t VALUES (1, 'x')", "NOT_SUPPORTED: line 1:1: Athena on the laptop only reads: INSERT"),
        ("UPDATE t SET id = 1", "NOT_SUPPORTED: line 1:1: Athena on the laptop only reads: UPDATE"),
        ("DELETE FROM t", "NOT_SUPPORTED: line 1:1: Athena on the laptop only reads: DELETE"),
        ("DROP TABLE t", "NOT_SUPPORTED: line 1:1: Athena on the laptop only reads: DROP"),
        ("CREATE TABLE x AS SELECT 1 AS a", "NOT_SUPPORTED: line 1:1: Athena on the laptop only reads: CREATE"),
        (
            "OPTIMIZE t REWRITE DATA USING BIN_PACK",
            "NOT_SUPPORTED: line 1:1: Athena on the laptop only reads: OPTIMIZE",
        ),
    ],
)
def test_what_is_wrong_or_not_supported_is_refused(table: Any, sql: str, beginning: str) -> None:
    with pytest.raises(QueryError) as failure:
        table.ask(sql)
    assert str(failure.value).startswith(beginning)


def test_a_table_that_is_not_iceberg_is_refused_by_name(lake: Any) -> None:
    lake.entries["db", "csv"] = {"Name": "csv", "TableType": "VIRTUAL_TABLE", "Parameters": {}}
    lake.iceberg.locations["db", "csv"] = ""
    with pytest.raises(QueryError, match=r"NOT_SUPPORTED: Table 'awsdatacatalog.db.csv' is not an Iceberg table"):
        lake.ask("SELECT * FROM csv")


def test_an_unqualified_name_needs_a_schema(table: Any) -> None:
    with pytest.raises(QueryError, match="MISSING_SCHEMA_NAME: line 1:15: Schema must be specified"):
        table.ask("SELECT * FROM t", None)


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SHOW DATABASES", [["db"], ["other"]]),
        ("show schemas like 'o*'", [["other"]]),
        ("SHOW TABLES", [["t"], ["v"]]),
        ("SHOW TABLES IN other", [["w"]]),
        ("SHOW TABLES IN `db` 't'", [["t"]]),
        ("SHOW TABLES 'x|v';", [["v"]]),
        ("SHOW VIEWS", [["v"]]),
        ("SHOW VIEWS IN other LIKE 'x'", []),
        ("SHOW COLUMNS IN t", [["id"], ["v"]]),
        ("SHOW COLUMNS IN t IN db", [["id"], ["v"]]),
        ("DESCRIBE db.t", [["id", "long", None], ["v", "string", None]]),
        ('DESC "t"', [["id", "long", None], ["v", "string", None]]),
        ("SHOW CREATE VIEW v", [["CREATE VIEW db.v AS"], ["SELECT 1 AS a"]]),
    ],
)
def test_statements_about_the_catalog(table: Any, sql: str, rows: list[list[str | None]]) -> None:
    table.view("db.v", "SELECT 1 AS a", a="integer")
    table.view("other.w", "SELECT 1 AS a", a="integer")
    assert table.rows(sql) == rows


@pytest.mark.parametrize("sql", ["SHOW TABLES IN nowhere", "DESCRIBE gone", "SHOW CREATE VIEW t"])
def test_statements_about_what_is_not_there_fail(table: Any, sql: str) -> None:
    with pytest.raises(QueryError):
        table.ask(sql)


def test_explain_shows_a_plan_and_reads_no_rows(table: Any) -> None:
    answer = table.ask("EXPLAIN SELECT CAST(v AS bigint) FROM t")
    assert answer.columns == ("Query Plan",)
    assert len(answer.rows()) > 1


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1", "DML"), ("  -- why\n (SELECT 1)", "DML"), ("/* x */ WITH a AS (SELECT 1) SELECT 1", "DML"),
        ("VALUES 1", "DML"), ("CREATE TABLE x (a int)", "DDL"), ("SHOW TABLES", "UTILITY"), ("", "UTILITY"),
    ],
)  # fmt: skip
def test_statement_kinds(sql: str, kind: str) -> None:
    assert statement_kind(sql) == kind


ENDLESS = (
    "SELECT count(*) FROM UNNEST(sequence(1, 100000)) AS a (x), UNNEST(sequence(1, 1000000)) AS b (y) WHERE x * y = 5"
)


def test_a_cancelled_query_stops_and_the_engine_goes_on(table: Any) -> None:
    """A cancel interrupts the query where it is; other queries are not touched."""
    cancellation, planned = Cancellation(), threading.Event()
    table.engine.before_catalog_read = lambda database, name: planned.set()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(table.engine.run, ENDLESS.replace("WHERE", "CROSS JOIN t WHERE"), "db", (), cancellation)
        assert planned.wait(120)
        cancellation.cancel()
        with pytest.raises(QueryCancelled):
            running.result(120)
    assert table.rows("SELECT count(*) FROM t") == [["2"]]


def test_a_query_cancelled_while_it_waits_does_not_start(table: Any) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(QueryCancelled):
        table.engine.run("SELECT 1", "db", (), cancellation)


def test_queries_beside_each_other_do_not_meet(table: Any) -> None:
    """Each query has its own connection: equal names of its relations are its own."""
    for number in range(4):
        table.create(f"db.t{number}", PLAIN)
        table.append(f"db.t{number}", [{"id": number, "v": "x"}])
    queries = [(f"SELECT id FROM t{number}", [[str(number)]]) for number in range(4)] * 10
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda query: table.rows(query[0]), queries)
        assert list(answers) == [expected for _, expected in queries]


def test_the_same_text_means_what_the_catalog_says_now(table: Any) -> None:
    """What is remembered of a text never outlives a change of the views and tables it names."""
    table.view("db.v", "SELECT id FROM t", id="bigint")
    query = "SELECT max(id) FROM v"
    assert table.rows(query) == [["2"]]
    table.append("db.t", [{"id": 3, "v": "c"}])
    assert table.rows(query) == [["3"]]
    table.view("db.v", "SELECT id * 10 AS id FROM t", id="bigint")
    assert table.rows(query) == [["30"]]


def test_the_answer_tells_how_many_bytes_were_read(table: Any) -> None:
    """Each data file counts once, however often the query names its table; constants cost nothing."""
    files = table.iceberg.load_table("db.t").scan().plan_files()
    size = sum(file.file.file_size_in_bytes for file in files)
    assert table.ask("SELECT 1 FROM t AS a, t AS b").scanned_bytes == size
    assert table.ask("SELECT 1").scanned_bytes == 0
