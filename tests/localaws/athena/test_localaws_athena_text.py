"""The text forms of values, the result file, and the pages of a result."""

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localaws import athena_results as results
from localaws.athena_engine import Answer
from localaws.athena_text import column_texts, double_text, real_text
from localaws.athena_types import TrinoType

VARCHAR = TrinoType("varchar")
BIGINT = TrinoType("bigint")
TIMESTAMP = TrinoType("timestamp", (6,))


def texts(values: list[Any], arrow: pa.DataType, kind: TrinoType) -> list[str | None]:
    return column_texts(pa.chunked_array([pa.array(values, arrow)]), kind)


@pytest.mark.parametrize(
    ("value", "arrow", "kind", "expected"),
    [
        (True, pa.bool_(), TrinoType("boolean"), "true"),
        (-5, pa.int64(), BIGINT, "-5"),
        (Decimal("0.00000001"), pa.decimal128(20, 8), TrinoType("decimal", (20, 8)), "0.00000001"),
        (Decimal("-1.50"), pa.decimal128(10, 2), TrinoType("decimal", (10, 2)), "-1.50"),
        (datetime(2026, 1, 1), pa.timestamp("us"), TIMESTAMP, "2026-01-01 00:00:00.000000"),
        (datetime(1, 1, 1, microsecond=1), pa.timestamp("us"), TIMESTAMP, "0001-01-01 00:00:00.000001"),
        (datetime(2026, 1, 1), pa.timestamp("ms"), TrinoType("timestamp", (3,)), "2026-01-01 00:00:00.000"),
        (
            datetime(2026, 1, 1, tzinfo=UTC), pa.timestamp("us", "UTC"), TrinoType("timestamp with time zone", (6,)),
            "2026-01-01 00:00:00.000 UTC",
        ),
        (
            datetime(2026, 1, 1, microsecond=7, tzinfo=UTC), pa.timestamp("us", "UTC"),
            TrinoType("timestamp with time zone", (6,)), "2026-01-01 00:00:00.000007 UTC",
        ),
        (datetime(2026, 1, 1).date(), pa.date32(), TrinoType("date"), "2026-01-01"),
        (b"\x01\xff", pa.binary(), TrinoType("varbinary"), "01 ff"),
        (b"", pa.binary(), TrinoType("varbinary"), ""),
        (["a", None, ""], pa.list_(pa.string()), TrinoType("array", children=(VARCHAR,)), "[a, null, ]"),
        (
            [[datetime(2026, 1, 1)], None, []], pa.list_(pa.list_(pa.timestamp("us"))),
            TrinoType("array", children=(TrinoType("array", children=(TIMESTAMP,)),)),
            "[[2026-01-01 00:00:00.000000], null, []]",
        ),
        (
            [("k", 1), ("l", None)], pa.map_(pa.string(), pa.int64()), TrinoType("map", children=(VARCHAR, BIGINT)),
            "{k=1, l=null}",
        ),
        (
            {"a": 1, "b": None}, pa.struct([("a", pa.int64()), ("b", pa.string())]),
            TrinoType("row", children=(BIGINT, VARCHAR), fields=("a", "b")), "{a=1, b=null}",
        ),
    ],
)  # fmt: skip
def test_value_texts(value: Any, arrow: pa.DataType, kind: TrinoType, expected: str) -> None:
    """Each type has Athena's text form, and NULL none."""
    assert texts([None, value, None, value], arrow, kind) == [None, expected, None, expected]


def test_texts_of_a_slice_are_those_of_its_rows() -> None:
    """Arrow hands out columns in slices of larger buffers."""
    for arrow, kind, rows in (
        (pa.list_(pa.int64()), TrinoType("array", children=(BIGINT,)), [[1], [2, 3], None, [4]]),
        (pa.map_(pa.int64(), pa.int64()), TrinoType("map", children=(BIGINT, BIGINT)), [[(1, 1)], [(2, 2)], None, []]),
        (
            pa.struct([("a", pa.int64())]),
            TrinoType("row", children=(BIGINT,), fields=("a",)),
            [{"a": 1}, {"a": 2}, None, {"a": None}],
        ),
    ):
        array = pa.array(rows, arrow)
        assert column_texts(array.slice(1, 3), kind) == column_texts(array, kind)[1:]


def test_a_timestamp_beyond_pythons_years_has_its_text() -> None:
    far = pa.array([253402300800_000000 + 5], pa.int64()).cast(pa.timestamp("us"))
    assert column_texts(far, TIMESTAMP) == ["10000-01-01 00:00:00.000005"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, "1.0"), (-0.0, "-0.0"), (0.001, "0.001"), (0.0009, "9.0E-4"), (1234567.0, "1234567.0"),
        (1e7, "1.0E7"), (12345678.9, "1.23456789E7"), (1.5e-300, "1.5E-300"), (math.nan, "NaN"),
        (math.inf, "Infinity"), (-math.inf, "-Infinity"), (100.25, "100.25"),
    ],
)  # fmt: skip
def test_double_texts_are_javas(value: float, expected: str) -> None:
    assert double_text(value) == expected


@given(st.floats(allow_nan=False))
def test_double_texts_read_back_as_the_same_double(value: float) -> None:
    assert float(double_text(value).replace("Infinity", "inf")) == value


@given(st.floats(allow_nan=False, width=32))
def test_real_texts_read_back_as_the_same_real(value: float) -> None:
    import numpy as np

    assert np.float32(real_text(value).replace("Infinity", "inf")) == np.float32(value)


@given(
    st.lists(
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda moment: moment.replace(tzinfo=None)),
        max_size=5,
    )
)
def test_timestamp_texts_read_back_as_the_same_moment(moments: list[datetime]) -> None:
    for moment, text in zip(moments, texts(moments, pa.timestamp("us"), TIMESTAMP), strict=True):
        assert text is not None
        assert datetime.fromisoformat(text) - moment == timedelta(0)


ANYTHING = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6))


def answer(columns: list[list[str | None]]) -> Answer:
    names = tuple(f"c{position}" for position in range(len(columns)))
    return Answer(names, tuple(VARCHAR for _ in columns), tuple(columns))


def test_the_result_file_quotes_every_value_and_leaves_null_empty() -> None:
    written = results.csv_object(answer([["1", None, ""], ['say "x"', "a,b", "two\nlines"]]))
    assert written == b'"c0","c1"\n"1","say ""x"""\n,"a,b"\n"","two\nlines"\n'


@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[ANYTHING] * width), max_size=6)))
def test_the_result_file_reads_back_as_it_was_written(rows: list[tuple[str | None, ...]]) -> None:
    """NULL, the empty string, quotes and line ends survive, so that an old result can be paged after a restart."""
    width = len(rows[0]) if rows else 2
    columns = [[row[position] for row in rows] for position in range(width)]
    assert results.parse_csv(results.csv_object(answer(columns)), width) == [list(row) for row in rows]


@given(st.integers(0, 30), st.integers(1, 12), st.booleans())
def test_pages_together_are_the_header_and_every_row_once(count: int, size: int, has_header: bool) -> None:
    rows: list[results.Row] = [[str(number)] for number in range(count)]
    header: results.Row | None = ["name"] if has_header else None
    seen: list[results.Row] = []
    token = None
    while True:
        shown = results.page(rows, header, token, size)
        assert len(shown.rows) <= size
        seen.extend(shown.rows)
        token = shown.token
        if token is None:
            break
    assert seen == ([header, *rows] if header else rows)


def test_column_info_has_the_bare_type_and_a_decimals_digits() -> None:
    """As GetQueryResults of Athena: decimal with precision and scale, array without its element type."""
    decimal = results.column_info("d", TrinoType("decimal", (12, 3)))
    assert (decimal["Type"], decimal["Precision"], decimal["Scale"]) == ("decimal", 12, 3)
    assert results.column_info("l", TrinoType("array", children=(VARCHAR,)))["Type"] == "array"
    assert results.column_info("r", TrinoType("real"))["Type"] == "float"
    assert results.column_info("t", TIMESTAMP)["Type"] == "timestamp"
