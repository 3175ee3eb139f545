"""There and back: values of every type through PostgreSQL, the capture, blocks and DataFusion, and into PostgreSQL."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from glue_streaming import decode
from producer.blocks import Lane, Packer
from producer.change import Begin, Commit, Event
from producer.postgres.snapshot import open_snapshot
from schemas import block as wire
from schemas.block import Kind
from tests.producer_postgres.values import ASKED, MAKE, MAKE_ODD, NEVER, NO_BINARY_FORM, TYPES

Make = Callable[..., Any]

BINARY = {**TYPES, **NO_BINARY_FORM, **ASKED}
ALL = {**BINARY, **NEVER}
WAYS = {"text": ALL, "binary": BINARY, "many at once": BINARY, "snapshot": ALL}
READY = settings(
    max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def typed(prepared: Make, server_version: int) -> Iterator[Callable[[Iterable[str]], tuple[Any, dict[str, str]]]]:
    """Two tables with a column of every type that is named and that the server has, and the columns' names."""
    if server_version < 160_000:
        pytest.skip("pg_input_is_valid came with 16")

    def make(types: Iterable[str]) -> tuple[Any, dict[str, str]]:
        up = prepared()
        for statement in (*MAKE, *MAKE_ODD):
            with suppress(
                psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile, psycopg.errors.UndefinedObject
            ):
                up.run(statement)
        known = {name: up.query(f"SELECT to_regtype($t${name}$t$) IS NOT NULL") == [(True,)] for name in types}
        there = sorted(name for name, is_there in known.items() if is_there and name != "xml")
        assert len(there) > 70
        columns = {f"c{number}": sql_type for number, sql_type in enumerate(there)}
        body = ", ".join(f"{name} {sql_type}" for name, sql_type in columns.items())
        up.run(f"CREATE TABLE there (n int PRIMARY KEY, {body})", f"CREATE TABLE back (n int PRIMARY KEY, {body})")
        return prepared(), columns

    yield make


def rows_of(columns: dict[str, str]) -> st.SearchStrategy[list[dict[str, str | None]]]:
    row = st.fixed_dictionaries({name: st.none() | ALL[sql_type] for name, sql_type in columns.items()})
    return st.lists(row, min_size=3, max_size=6)


def insert(session: psycopg.Connection[Any], columns: dict[str, str], rows: list[dict[str, str | None]]) -> None:
    """Values that are none of their type, such as a range whose bounds are the wrong way round, become null."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    cells = sql.SQL(", ").join(
        sql.SQL("CASE WHEN pg_input_is_valid({0}, {1}) THEN {0}::{2} END").format(
            sql.Placeholder(name), sql.Literal(sql_type), sql.SQL(sql_type)
        )
        for name, sql_type in columns.items()
    )
    statement = sql.SQL("INSERT INTO there (n, {}) VALUES ({}, {})").format(names, sql.Placeholder("n"), cells)
    with session.transaction():
        for number, row in enumerate(rows):
            session.execute(statement, {"n": number, **row})


def through_the_lake(items: list[Any]) -> list[dict[str, Any]]:
    """The items as blocks, and these as DataFusion reads them."""
    blocks = Packer("shop", Lane("there", "0"), Kind.DATA, 2000, None).pack(items, datetime.now(UTC))
    records: list[dict[str, Any]] = []
    for packed in blocks:
        block = wire.decode(packed.data)
        assert block.kind is Kind.DATA, block
        table = decode.to_arrow(items[0].schema.to_avro(), [(block.count, wire.datums(block))])
        records += table.to_pylist()
    return records


def literal(value: Any, delimiter: str = ",") -> str | None:
    """A value of the lake as PostgreSQL reads it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, float) and math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    if isinstance(value, list):
        return "{" + delimiter.join("NULL" if item is None else _quoted(literal(item) or "") for item in value) + "}"
    return value.isoformat() if isinstance(value, date) else str(value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def put_back(session: psycopg.Connection[Any], columns: dict[str, str], records: list[dict[str, Any]]) -> None:
    for record in records:
        raw = dict(record["_raw"] or ())
        assert not any(record[name] is not None for name in raw)
        values = {
            name: raw.get(name, literal(record[name], ";" if sql_type == "box[]" else ","))
            for name, sql_type in columns.items()
        }
        cells = sql.SQL(", ").join(
            sql.SQL("{}::text::{}").format(sql.Placeholder(name), sql.SQL(sql_type))
            for name, sql_type in columns.items()
        )
        session.execute(sql.SQL("INSERT INTO back VALUES ({}, {})").format(record["n"], cells), values)


def differences(session: psycopg.Connection[Any], columns: dict[str, str]) -> list[tuple[Any, ...]]:
    """Columns whose text PostgreSQL prints otherwise for what came back."""
    each = " UNION ALL ".join(
        f"SELECT n, '{sql_type.replace(chr(39), chr(39) * 2)}', format('%s', t.{name}), format('%s', b.{name}) "
        f"FROM there t FULL JOIN back b USING (n) "
        f"WHERE format('%s', t.{name}) <> format('%s', b.{name}) OR (t.{name} IS NULL) <> (b.{name} IS NULL)"
        for name, sql_type in columns.items()
    )
    return session.execute(each.encode()).fetchall()


def changes(events: list[Event]) -> list[Any]:
    """What the stream gives of the table, whatever it is packed in."""
    return [event for event in events if not isinstance(event, Begin | Commit)]


@pytest.mark.parametrize("way", WAYS)
def test_every_value_of_every_type_comes_back(typed: Any, way: str) -> None:
    """Printed by PostgreSQL before and after, each is the same, and null where it was null."""
    binary = way in ("binary", "many at once")
    up, columns = typed(WAYS[way])
    with (
        up.capturing(binary=binary, least=1 if way == "many at once" else sys.maxsize) as drain,
        psycopg.connect(up.source.dsn, autocommit=True) as session,
    ):
        session.execute("SET timezone = 'UTC'")
        session.execute("SET extra_float_digits = 1")

        @READY
        @given(rows_of(columns))
        def check(rows: list[dict[str, str | None]]) -> None:
            session.execute("DELETE FROM there; DELETE FROM back")
            drain()
            insert(session, columns, rows)
            if way == "snapshot":
                with open_snapshot(up.source, "public", "there", era=1) as snapshot:
                    items: list[Any] = list(snapshot.rows)
            else:
                items = changes(drain())
            put_back(session, columns, through_the_lake(items))
            assert session.execute("SELECT count(*) FROM back").fetchall() == [(len(rows),)]
            assert differences(session, columns) == []

        check()


@pytest.mark.parametrize("least", [1, sys.maxsize], ids=["many at once", "one by one"])
def test_as_many_digits_and_columns_as_there_can_be(prepared: Make, least: int) -> None:
    """130,000 digits, and 1,600 columns."""
    columns = ", ".join(f"c{number} int" for number in range(1598))
    up = prepared(f"CREATE TABLE there (n int PRIMARY KEY, digits numeric, {columns})")
    with up.capturing(least=least) as drain:
        up.run("INSERT INTO there (n, digits, c1597) VALUES (1, repeat('9', 130000)::numeric, 7), (2, 'NaN', 8)")
        items = changes(drain())
    first, second = through_the_lake(items)
    assert (first["digits"], first["c1597"], first["c0"]) == ("9" * 130_000, 7, None)
    assert (second["digits"], second["c1597"]) == ("NaN", 8)
