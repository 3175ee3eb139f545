"""Every type of docs/types.md: a value at the source is the same value in the lake."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from producer.change import Change
from producer.postgres.snapshot import open_snapshot

Make = Callable[..., Any]
Datum = Callable[..., dict[str, Any]]

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
DIGITS = st.integers(-(10**12) + 1, 10**12 - 1)
DATES = st.dates().map(str) | st.sampled_from(
    ["infinity", "-infinity", "0044-03-15 BC", "0001-01-01", "9999-12-31", "10000-01-01", "5874897-12-31"]
)
TIMESTAMPS = (
    st.datetimes().map(str)
    | st.sampled_from(
        ["infinity", "-infinity", "0044-03-15 12:00 BC", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"]
    )
    | st.sampled_from(
        ["10000-01-01 00:00:00.5", "294276-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999", "2000-01-01 24:00:00"]
    )
)
ZONES = st.sampled_from(["", "+00", "-12:30", "+14", " America/New_York"])
FLOATS = st.floats(width=64).map(repr) | st.sampled_from(["NaN", "Infinity", "-Infinity", "-0"])
FLOATS4 = st.floats(width=32).map(repr) | st.sampled_from(["NaN", "Infinity", "-Infinity", "16777217", "1e-45"])


@dataclass(frozen=True)
class Case:
    """A column. exact: SQL over `c` for the Avro value without logical types, null where the type cannot hold it."""

    name: str
    sql_type: str
    values: st.SearchStrategy[str]
    avro: Any = "string"
    exact: str | None = None


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


DATE = {"type": "int", "logicalType": "date"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-micros"}
ZONED = {"type": "long", "logicalType": "timestamp-micros"}
DAYS = "CASE WHEN c BETWEEN '0001-01-01' AND '9999-12-31' THEN c - date '1970-01-01' END"
MICROS = "CASE WHEN c >= '0001-01-01' AND c < '10000-01-01' THEN (extract(epoch FROM c) * 1000000)::int8 END"

CASES = (
    Case("bool", "boolean", st.sampled_from(["true", "false"]), "boolean", "c"),
    Case("i2", "smallint", st.integers(-(2**15), 2**15 - 1).map(str), "int", "c"),
    Case("i4", "integer", st.integers(-(2**31), 2**31 - 1).map(str), "int", "c"),
    Case("i8", "bigint", st.integers(-(2**63), 2**63 - 1).map(str), "long", "c"),
    Case("o", "oid", st.integers(0, 2**32 - 1).map(str), "long", "c::int8"),
    Case("f4", "real", FLOATS4, "float", "c::float8"),
    Case("f8", "double precision", FLOATS, "double", "c"),
    Case(
        "num",
        "numeric(12,3)",
        DIGITS.map(lambda n: str(Decimal(n).scaleb(-4))) | st.just("NaN"),
        decimal(12, 3),
        "nullif(c, 'NaN')",
    ),
    Case("num38", "numeric(38,0)", st.integers(-(10**38) + 1, 10**38 - 1).map(str), decimal(38, 0), "c"),
    Case("num39", "numeric(39,1)", st.integers(-(10**38) + 1, 10**38 - 1).map(str)),
    Case("num_any", "numeric", st.decimals(allow_nan=False, allow_infinity=False).map(str) | st.just("Infinity")),
    Case("num_neg", "numeric(5,-2)", st.integers(-(10**6), 10**6).map(str)),
    Case("num_small", "numeric(3,5)", st.integers(-999, 999).map(lambda n: str(Decimal(n).scaleb(-5)))),
    Case("money", "money", st.integers(-(10**9), 10**9).map(str)),
    Case("txt", "text", TEXT),
    Case("vc", "varchar(30)", TEXT),
    Case("ch", "char(30)", TEXT),
    Case("nm", "name", st.text("abcé ", max_size=10)),
    Case("letter", '"char"', st.sampled_from(["", "a", "\\"])),
    Case("bytes", "bytea", st.binary(max_size=30).map(lambda b: "\\x" + b.hex()), "bytes", "c"),
    Case("d", "date", DATES, DATE, DAYS),
    Case("ts", "timestamp", TIMESTAMPS, LOCAL, MICROS),
    Case("ts3", "timestamp(3)", st.datetimes().map(str), LOCAL, MICROS),
    Case(
        "tz",
        "timestamptz",
        st.builds(lambda t, z: t if t.endswith(("y", "BC")) or t.startswith("294276") else t + z, TIMESTAMPS, ZONES),
        ZONED,
        MICROS.replace("'0001-01-01'", "'0001-01-01 00:00+00'").replace("'10000-01-01'", "'10000-01-01 00:00+00'"),
    ),
    Case("t", "time", st.times().map(str) | st.just("24:00:00")),
    Case("ttz", "timetz", st.times().map(lambda t: f"{t}+05:30")),
    Case("iv", "interval", st.builds("{} mons {} days {} us".format, *[st.integers(-(10**6), 10**6)] * 3)),
    Case("uuid", "uuid", st.uuids().map(str)),
    Case("js", "json", st.recursive(st.none() | TEXT, st.lists, max_leaves=4).map(lambda v: json.dumps(v, indent=1))),
    Case("jsb", "jsonb", st.dictionaries(st.text("ab", max_size=3), st.integers()).map(json.dumps)),
    Case("mood", "mood", st.sampled_from(["sad", 'it\'s, "ok"'])),
    Case("pair", "pair", st.integers(-9, 9).map(lambda n: f'({n},"a,b ""c""")')),
    Case("positive", "positive", st.integers(1, 99999).map(lambda n: str(Decimal(n).scaleb(-2))), decimal(7, 2), "c"),
    Case("inet", "inet", st.sampled_from(["10.0.0.1", "10.0.0.1/8", "::1"])),
    Case("cidr", "cidr", st.sampled_from(["10.0.0.0/8", "2001:db8::/32"])),
    Case("mac", "macaddr", st.just("08:00:2b:01:02:03")),
    Case("bits", "bit(5)", st.text("01", min_size=5, max_size=5)),
    Case("vbits", "varbit", st.text("01", max_size=9)),
    Case("pt", "point", st.builds("({},{})".format, st.integers(), st.floats(-1e9, 1e9))),
    Case("bx", "box", st.just("(1,2),(3,4)")),
    Case("tsv", "tsvector", st.sampled_from(["'a':1 'b':2A", ""])),
    Case("lsn", "pg_lsn", st.just("16/B374D848")),
    Case("r4", "int4range", st.sampled_from(["empty", "[1,5)", "(,9]", "[3,)"])),
    Case("rts", "tstzrange", st.just("[2020-01-01 00:00+02,infinity)")),
    Case("mr", "int4multirange", st.sampled_from(["{}", "{[1,3),[7,9)}"])),
    Case("vec", "int2vector", st.just("1 2 3")),
)
ARRAYS = (
    Case("i4s", "integer[]", st.none(), {"type": "array", "items": ["null", "int"]}),
    Case("bools", "boolean[]", st.none(), {"type": "array", "items": ["null", "boolean"]}),
    Case("texts", "text[]", st.none(), {"type": "array", "items": ["null", "string"]}),
    Case("nums", "numeric(12,3)[]", st.none(), {"type": "array", "items": ["null", decimal(12, 3)]}),
    Case("byteas", "bytea[]", st.none(), {"type": "array", "items": ["null", "bytes"]}),
    Case("moods", "mood[]", st.none(), {"type": "array", "items": ["null", "string"]}),
    Case("boxes", "box[]", st.none(), {"type": "array", "items": ["null", "string"]}),
    Case("dates", "date[]", st.none(), {"type": "array", "items": ["null", DATE]}),
)
COLUMNS = ", ".join(f"{case.name} {case.sql_type}" for case in (*CASES, *ARRAYS))
MAKE = (
    "CREATE TYPE mood AS ENUM ('sad', 'it''s, \"ok\"')",
    "CREATE TYPE pair AS (x int, y text)",
    "CREATE DOMAIN cents AS numeric(7,2)",
    "CREATE DOMAIN positive AS cents CHECK (VALUE > 0)",
    f"CREATE TABLE v (n int PRIMARY KEY, {COLUMNS})",
)
ITEMS: dict[str, st.SearchStrategy[Any]] = {
    "i4s": st.integers(-(2**31), 2**31 - 1),
    "bools": st.booleans(),
    "texts": TEXT | st.sampled_from(["NULL", "null", "", "{}", "a,b", '"', "\\", " x "]),
    "nums": DIGITS.map(lambda n: Decimal(n).scaleb(-3)),
    "byteas": st.binary(max_size=9),
    "moods": st.sampled_from(["sad", 'it\'s, "ok"']),
    "boxes": st.just("(3,4),(1,2)"),
    "dates": st.dates(),
}
# No shrinking: a failure names the column and its value already, and each try takes a round trip.
SLOW = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)


@pytest.fixture
def typed(prepared: Make, server_version: int) -> Any:
    if server_version < 150_000:
        pytest.skip("numeric with a scale that is negative or above its precision came with 15")
    return prepared(*MAKE)


def test_every_type_has_the_avro_type_of_the_table(typed: Any) -> None:
    """The schema that the catalog gives is the one that docs/types.md states, and every SQL type is in that page."""
    with open_snapshot(typed.source, "public", "v", era=1) as snapshot:
        found = {column.name: column.avro for column in snapshot.schema.columns}
    assert found == {"n": "int", **{case.name: case.avro for case in (*CASES, *ARRAYS)}}
    page = (Path(__file__).parents[2] / "docs" / "types.md").read_text()
    ours = ("mood", "pair", "positive")
    missing = [case.sql_type for case in CASES if f"`{case.sql_type.partition('(')[0]}" not in page]
    assert [name for name in missing if name not in ours] == []


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_any_value_of_any_type_arrives(typed: Any, datum: Datum, binary: bool) -> None:
    """Through the stream: natively where the lake's type holds it, else null with the source's text in _raw."""
    row = st.tuples(*(st.none() | case.values for case in CASES))

    with typed.capturing(binary=binary) as drain, psycopg.connect(typed.source.dsn, autocommit=True) as session:
        session.execute("SET timezone = 'UTC'")

        @SLOW
        @given(st.lists(row, min_size=1, max_size=5))
        def check(rows: list[tuple[str | None, ...]]) -> None:
            session.execute("TRUNCATE v")
            marks = ", ".join(["%s"] * (len(CASES) + 1))
            names = ", ".join(case.name for case in CASES)
            with session.transaction():
                for number, values in enumerate(rows):
                    session.execute(f"INSERT INTO v (n, {names}) VALUES ({marks})".encode(), (number, *values))
            inserts = [event for event in drain() if isinstance(event, Change) and event.op == "c"]
            assert len(inserts) == len(rows)
            expected = session.execute(EXPECTED.encode()).fetchall()
            for change, wanted in zip(inserts, expected, strict=True):
                compare(datum(change, logical=False), wanted)

        check()


EXPECTED = (
    "SELECT "
    + ", ".join(
        f"(SELECT ARRAY[format('%s', c), (c IS NULL)::text] FROM (SELECT v.{case.name} AS c) AS x), "
        f"(SELECT {case.exact or 'NULL'} FROM (SELECT v.{case.name} AS c) AS x)"
        for case in CASES
    )
    + " FROM v ORDER BY n"
)


def compare(record: dict[str, Any], wanted: tuple[Any, ...]) -> None:
    raw = record["_raw"] or {}
    for place, case in enumerate(CASES):
        (text, is_null), native = wanted[2 * place], wanted[2 * place + 1]
        found = record[case.name]
        if is_null == "true":
            assert (found, raw.get(case.name)) == (None, None), case
        elif case.exact is None:
            assert (found, raw.get(case.name)) == (text, None), case
        elif native is None:
            assert (found, raw.get(case.name)) == (None, text), case
        else:
            assert (repr(found), raw.get(case.name)) == (repr(native), None), case


def test_any_array_arrives(typed: Any, datum: Datum) -> None:
    """One-dimensional arrays item by item, nulls and awkward texts included, through a snapshot."""
    row = st.fixed_dictionaries(
        {name: st.none() | st.lists(st.none() | items, max_size=5) for name, items in ITEMS.items()}
    )

    with psycopg.connect(typed.source.dsn, autocommit=True) as session:

        @settings(SLOW, max_examples=15)
        @given(row)
        def check(values: dict[str, Any]) -> None:
            session.execute("DELETE FROM v")
            casts = ", ".join(f"%({case.name})s::{case.sql_type}" for case in ARRAYS)
            names = ", ".join(case.name for case in ARRAYS)
            given_ = {**values, "boxes": box_literal(values["boxes"])}
            session.execute(f"INSERT INTO v (n, {names}) VALUES (1, {casts})".encode(), given_)
            with open_snapshot(typed.source, "public", "v", era=1) as snapshot:
                (change,) = snapshot.rows
            assert isinstance(change, Change)
            record = datum(change)
            assert {name: record[name] for name in values} == values
            assert record["_raw"] is None

        check()


def box_literal(boxes: list[str | None] | None) -> str | None:
    return None if boxes is None else "{" + ";".join(box or "NULL" for box in boxes) + "}"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("i4s", "{{1,2},{3,4}}"),
        ("i4s", "[0:1]={1,2}"),
        ("dates", "{2020-01-01,infinity}"),
        ("nums", "{1.000,NaN}"),
    ],
)
def test_an_array_that_the_lake_cannot_hold_travels_as_text(typed: Any, datum: Datum, column: str, value: str) -> None:
    """More dimensions, other bounds, an item out of its type's range: null, and the whole text in _raw."""
    typed.run(f"INSERT INTO v (n, {column}) VALUES (1, '{value}')")
    with open_snapshot(typed.source, "public", "v", era=1) as snapshot:
        (change,) = snapshot.rows
    assert isinstance(change, Change)
    record = datum(change)
    assert (record[column], record["_raw"]) == (None, {column: value})


def test_the_role_cannot_change_how_values_are_written(prepared: Make, datum: Datum) -> None:
    """Settings of role and database that alter texts do not reach what is captured or read in a snapshot."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY, tz timestamptz, f float8, iv interval, d date, b bytea)")
    for setting, value in {
        "timezone": "Asia/Tokyo",
        "datestyle": "German",
        "intervalstyle": "iso_8601",
        "extra_float_digits": "-5",
        "bytea_output": "escape",
    }.items():
        up.run(f"ALTER DATABASE {up.dbname} SET {setting} = '{value}'")
    values = r"1, '2020-01-01 00:00+00', 0.1::float8 + 0.2, '1 day 2 hours', '2020-02-03', '\x00ff'"
    with up.capturing() as drain:
        up.run(f"INSERT INTO a VALUES ({values})")
        (change,) = [event for event in drain() if isinstance(event, Change)]
    with open_snapshot(up.source, "public", "a", era=1) as snapshot:
        (row,) = snapshot.rows
    assert isinstance(row, Change)
    for record in (datum(change, logical=False), datum(row, logical=False)):
        assert record["tz"] == 1_577_836_800_000_000
        assert (record["f"], record["iv"], record["d"], record["b"]) == (
            0.30000000000000004,
            "1 day 02:00:00",
            18295,
            b"\x00\xff",
        )
