"""The same value is equal however its system prints it, and different values are different."""

import pytest

from ops.values import Unheld, from_athena, from_source


@pytest.mark.parametrize(
    ("kind", "source", "athena"),
    [
        ("boolean", "t", "true"),
        ("bigint", "-9223372036854775808", "-9223372036854775808"),
        ("float", "3.4028235e+38", "3.4028235E38"),
        ("double", "0.1", "0.1"),
        ("double", "NaN", "NaN"),
        ("double", "-Infinity", "-Infinity"),
        ("decimal(12,2)", "1.10", "1.10"),
        ("string", "", ""),
        ("binary", "\\x00ff10", "00 ff 10"),
        ("binary", "\\x", ""),
        ("date", "0001-01-01", "0001-01-01"),
        ("timestamp", "1969-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999"),
        ("timestamp", "2026-07-01 00:00:00+00", "2026-07-01 00:00:00.000000"),
        ("array<int>", "{1,NULL,-3}", "[1,null,-3]"),
        ("array<string>", '{"a,b",NULL,"NULL","q\\"uote","{}",""}', '["a,b",null,"NULL","q\\"uote","{}",""]'),
        ("array<boolean>", "{t,f}", "[true,false]"),
        ("array<decimal(5,2)>", "{1.10}", "[1.10]"),
        ("array<timestamp>", '{"2026-01-01 00:00:00+00"}', '["2026-01-01 00:00:00.000000"]'),
        ("string", None, None),
    ],
)
def test_same_value_is_equal(kind: str, source: str | None, athena: str | None) -> None:
    assert from_source(source, kind) == from_athena(athena, kind)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("string", "", None),
        ("string", "x", "x "),
        ("double", "0", "-0.0"),
        ("decimal(12,2)", "1.10", "1.11"),
        ("timestamp", "2026-01-01 00:00:00.000001", "2026-01-01 00:00:00"),
        ("array<string>", '{"a,b"}', '["a","b"]'),
        ("array<string>", "{NULL}", '["NULL"]'),
    ],
)
def test_different_values_are_different(kind: str, one: str | None, other: str | None) -> None:
    assert from_source(one, kind) != from_athena(other, kind)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("decimal(12,2)", "NaN"),
        ("date", "infinity"),
        ("date", "0044-03-15 BC"),
        ("timestamp", "-infinity"),
        ("timestamp", "12026-01-01 00:00:00+00"),
        ("array<int>", "{{1,2},{3,4}}"),
        ("array<int>", "[2:3]={1,2}"),
    ],
)
def test_what_the_lake_cannot_hold_is_said(kind: str, text: str) -> None:
    with pytest.raises(Unheld):
        from_source(text, kind)
