"""Trino's functions mean here what they mean in Trino, where DuckDB's of the same name mean something else."""

from typing import Any

import pytest

from localaws.athena_errors import QueryError

ONE_COLUMN: list[tuple[str, str | None]] = [
    # Numbers
    ("7 / 2", "3"),
    ("-7 / 2", "-3"),
    ("-7 % 3", "-1"),
    ("7 / 2e0", "3.5"),
    ("count(*) / 2", "0"),
    ("sum(7) / 2", "3"),
    ("avg(7)", "7.0"),
    ("avg(1.25)", "1.25"),
    ("avg(1.25) FILTER (WHERE false)", None),
    ("CAST(7.5 AS bigint)", "8"),
    ("TRY_CAST('x' AS bigint)", None),
    ("TRY(CAST('x' AS bigint))", None),
    ("CAST('-1.5' AS decimal(10,2))", "-1.50"),
    ("DECIMAL '1.50'", "1.50"),
    # Text
    ("CAST(12345 AS varchar)", "12345"),
    ("CAST(12345 AS varchar(2))", "12"),
    ("CAST(true AS varchar)", "true"),
    ("CAST(1.50 AS varchar)", "1.50"),
    ("CAST(1.5e0 AS varchar)", "1.5E0"),
    ("CAST(-123.456e0 AS varchar)", "-1.23456E2"),
    ("CAST(1e20 AS varchar)", "1.0E20"),
    ("CAST(0.00123e0 AS varchar)", "1.23E-3"),
    ("CAST(0e0 AS varchar)", "0.0E0"),
    ("CAST(nan() AS varchar)", "NaN"),
    ("CAST(-infinity() AS varchar)", "-Infinity"),
    ("CAST(sum(1e0) AS varchar)", "1.0E0"),
    ("CAST(CAST('2026-01-01 00:00:00.5' AS timestamp(6)) AS varchar)", "2026-01-01 00:00:00.500000"),
    ("CAST(CAST('2026-01-01 00:00:00' AS timestamp(6)) AS varchar)", "2026-01-01 00:00:00.000000"),
    ("CAST(DATE '2026-01-01' AS varchar)", "2026-01-01"),
    ("concat('a', NULL)", None),
    ("concat('a', 'b', 'c')", "abc"),
    ("'a' || 'b'", "ab"),
    ("regexp_extract('ab', 'x')", None),
    ("regexp_extract('ab12', '([a-z]+)(\\d+)', 2)", "12"),
    ("regexp_replace('aXbX', 'X', 'y')", "ayby"),
    ("split_part('a,b', ',', 3)", None),
    ("split_part('a,b', ',', 2)", "b"),
    ("lpad('7', 3, '0')", "007"),
    ("codepoint('A')", "65"),
    ("to_hex(to_utf8('aé'))", "61C3A9"),
    # Time
    ("date_diff('day', TIMESTAMP '2026-01-01 23:00:00', TIMESTAMP '2026-01-02 01:00:00')", "0"),
    ("date_diff('month', DATE '2026-01-31', DATE '2026-03-30')", "1"),
    ("date_diff('second', TIMESTAMP '2026-01-01 00:00:00', TIMESTAMP '2026-01-01 00:01:00')", "60"),
    ("date_add('day', 1, DATE '2026-01-31')", "2026-02-01"),
    ("date_trunc('month', DATE '2026-01-31')", "2026-01-01"),
    ("DATE '2026-01-31' + INTERVAL '1' DAY", "2026-02-01"),
    ("DATE '2026-03-31' - INTERVAL '1' MONTH", "2026-02-28"),
    ("from_unixtime(0)", "1970-01-01 00:00:00.000 UTC"),
    ("to_unixtime(from_unixtime(5))", "5.0"),
    ("date_format(TIMESTAMP '2026-01-02 03:04:05', '%Y/%m/%d %H:%i:%s')", "2026/01/02 03:04:05"),
    # Arrays, maps, rows
    ("contains(ARRAY['a', 'b'], 'b')", "true"),
    ("contains(CAST(NULL AS array(varchar)), 'b')", None),
    ("cardinality(ARRAY[1, 2])", "2"),
    ("cardinality(CAST(ARRAY[] AS array(varchar)))", "0"),
    ("element_at(ARRAY[1, 2], 3)", None),
    ("element_at(ARRAY[1, 2], -1)", "2"),
    ("ARRAY[1, 2][1]", "1"),
    ("element_at(MAP(ARRAY['a'], ARRAY[1]), 'a')", "1"),
    ("element_at(MAP(ARRAY['a'], ARRAY[1]), 'b')", None),
    ("ARRAY['a'] || ARRAY['b']", "[a, b]"),
    ("slice(ARRAY[1, 2, 3, 4], 2, 2)", "[2, 3]"),
    ("array_position(ARRAY[1, 2], 3)", "0"),
    ("transform(ARRAY[1, 2], x -> x * 10)", "[10, 20]"),
    ("filter(ARRAY[1, 2], x -> x > 1)", "[2]"),
    ("reduce(ARRAY[1, 2], 0, (s, x) -> s + x, s -> s * 10)", "30"),
    ("sequence(1, 3)", "[1, 2, 3]"),
    ("ROW(1, 'a') = ROW(1, 'a')", "true"),
    ("ROW(1, 2) < ROW(1, 3)", "true"),
    ("(1, 2) = (1, 3)", "false"),
    ("CAST(ROW(1, 'a') AS ROW(x bigint, y varchar)).y", "a"),
    # JSON
    ("json_format(json_parse('{\"a\": [1]}'))", '{"a":[1]}'),
    ("json_extract_scalar('{\"a\": \"x\"}', '$.a')", "x"),
    ("json_format(CAST(ARRAY[1, 2] AS json))", "[1,2]"),
    # Conditions
    ("coalesce(NULL, 2)", "2"),
    ("nullif(1, 1)", None),
    ("greatest(1, NULL)", None),
    ("if(1 > 2, 'a', 'b')", "b"),
    ("1 IS DISTINCT FROM NULL", "true"),
]


@pytest.mark.parametrize(("expression", "expected"), ONE_COLUMN)
def test_expressions(lake: Any, expression: str, expected: str | None) -> None:
    """Each expression gives Trino's value, in Athena's text form."""
    assert lake.rows(f"SELECT {expression}") == [[expected]]


def values(rows: str) -> str:
    return f"FROM (VALUES {rows}) AS t (x, y)"


@pytest.mark.parametrize(
    ("select", "rows", "expected"),
    [
        # Trino keeps the NULL that belongs to the greatest key, and passes over rows without a key.
        ("max_by(x, y), min_by(x, y)", "(NULL, 3), (1, 1), (9, NULL)", [[None, "1"]]),
        ("max_by(x, y, 2)", "(5, 3), (1, 1), (4, 2)", [["[5, 4]"]]),
        ("max_by(x, y) FILTER (WHERE y < 3)", "(5, 3), (1, 1), (4, 2)", [["4"]]),
        ("count(*) FILTER (WHERE x > 1), count(x)", "(1, 1), (2, 1), (NULL, 1)", [["1", "2"]]),
        ("count_if(x > 1), bool_and(x > 0), bool_or(x > 2)", "(1, 1), (2, 1)", [["1", "true", "false"]]),
        ("array_agg(x ORDER BY y DESC)", "(1, 1), (2, 2), (NULL, 3)", [["[null, 2, 1]"]]),
        ("map_agg(x, y)", "('a', 1), ('b', 2)", [["{a=1, b=2}"]]),
        ("avg(x) OVER (ORDER BY y)", "(1.00, 1), (2.00, 2)", [["1.00"], ["1.50"]]),
        ("lag(x) OVER (ORDER BY y), lead(x, 1, 0) OVER (ORDER BY y)", "(1, 1), (2, 2)", [[None, "2"], ["1", "0"]]),
        ("last_value(x) IGNORE NULLS OVER (ORDER BY y)", "(1, 1), (NULL, 2)", [["1"], ["1"]]),
        ("row_number() OVER (PARTITION BY x ORDER BY y DESC), y", "(1, 1), (1, 2)", [["1", "2"], ["2", "1"]]),
    ],
)
def test_aggregates_and_windows(lake: Any, select: str, rows: str, expected: list[list[str | None]]) -> None:
    assert sorted(lake.rows(f"SELECT {select} {values(rows)}"), key=str) == sorted(expected, key=str)


def test_nulls_come_last_in_either_order(lake: Any) -> None:
    """Trino's default for ASC and DESC."""
    rows = "(2, 0), (NULL, 0), (1, 0)"
    assert lake.rows(f"SELECT x {values(rows)} ORDER BY x") == [["1"], ["2"], [None]]
    assert lake.rows(f"SELECT x {values(rows)} ORDER BY x DESC") == [["2"], ["1"], [None]]


def test_unnest_of_one_and_of_several_arrays(lake: Any) -> None:
    """With its ordinality, and with the shorter array filled up with NULL."""
    one = "SELECT u.e, u.n FROM (VALUES (ARRAY['x', 'y'])) AS t (a) CROSS JOIN UNNEST(t.a) WITH ORDINALITY AS u (e, n)"
    assert sorted(lake.rows(one)) == [["x", "1"], ["y", "2"]]
    two = "SELECT u.* FROM (VALUES (ARRAY['x', 'y'], ARRAY[1])) AS t (a, b) CROSS JOIN UNNEST(a, b) AS u (e, n)"
    assert lake.rows(two) == [["x", "1"], ["y", None]]


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("sum(1)", "bigint"),
        ("sum(BIGINT '1')", "bigint"),
        ("sum(CAST(1 AS decimal(10,2)))", "decimal(38, 2)"),
        ("sum(1e0)", "double"),
        ("avg(1)", "double"),
        ("avg(CAST(1 AS decimal(10,2)))", "decimal(10, 2)"),
        ("count(*)", "bigint"),
        ("7 / 2", "integer"),
        ("CAST(NULL AS timestamp)", "timestamp(3)"),
        ("CAST(NULL AS timestamp(6))", "timestamp(6)"),
        ("from_unixtime(0)", "timestamp(6) with time zone"),
        ("CAST(NULL AS map(varchar, array(bigint)))", "map(varchar, array(bigint))"),
        ("CAST(ROW(1, 'a') AS ROW(x bigint, y varchar))", "row(x bigint, y varchar)"),
        ("CAST(NULL AS varbinary)", "varbinary"),
        ("CAST(1 AS real)", "real"),
        ("DATE '2026-01-01'", "date"),
        ("NULL", "unknown"),
        ("json_parse('1')", "json"),
    ],
)
def test_result_types_are_trinos(lake: Any, expression: str, kind: str) -> None:
    assert [each.text for each in lake.ask(f"SELECT {expression}").types] == [kind]


def test_unnamed_columns_are_called_by_their_place(lake: Any) -> None:
    """_col0, _col1, ... as in Athena; named ones and columns keep their names."""
    assert lake.ask("SELECT 1, 2 AS two, count(*)").columns == ("_col0", "two", "_col2")
    assert lake.ask("VALUES (1, 2)").columns == ("_col0", "_col1")
    assert lake.ask("SELECT 1 UNION ALL SELECT 2").columns == ("_col0",)


def test_parameters_stand_for_the_question_marks(lake: Any) -> None:
    answer = lake.engine.run("SELECT x FROM (VALUES 1, 2) AS t (x) WHERE x = ? OR 'a' = ?", "db", ["2", "'b'"])
    assert answer.rows() == [["2"]]
    with pytest.raises(QueryError, match="expected 1 but found 2"):
        lake.engine.run("SELECT ?", "db", ["1", "2"])


def test_what_cannot_be_carried_over_is_refused_and_not_guessed(lake: Any) -> None:
    with pytest.raises(QueryError, match="FUNCTION_NOT_FOUND: line 1:8: Function 'format_datetime' not registered"):
        lake.ask("SELECT format_datetime(current_timestamp, 'yyyy')")
    with pytest.raises(QueryError, match=r"FUNCTION_NOT_FOUND: .*Table function"):
        lake.ask("SELECT * FROM read_csv('/etc/hosts')")
