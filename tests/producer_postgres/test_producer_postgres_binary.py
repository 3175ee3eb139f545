"""The binary form of every type gives the datum that its text form gives; PostgreSQL itself prints the text."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import pq, sql

from producer.errors import TextNeeded
from producer.postgres.asking import asking
from producer.postgres.binary import Reading, printer
from producer.postgres.catalog import SessionCatalog
from producer.postgres.connection import OrdinaryConnection, connect
from producer.postgres.type_facts import TypeFacts
from producer.postgres.types import Unheld, mapped
from tests.producer_postgres.values import ASKED, MAKE, MAKE_ODD, NEVER, TYPES


@pytest.fixture(scope="module")
def session(server: object) -> Iterator[OrdinaryConnection]:
    """Types of every kind, and a session that prints as the stream does."""
    with server.connect() as admin:  # type: ignore[attr-defined]
        admin.execute(b"CREATE DATABASE test_binary")
    with connect(server.dsn_of("test_binary")) as connection:  # type: ignore[attr-defined]
        for statement in (*MAKE, *MAKE_ODD):
            with suppress(
                psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile, psycopg.errors.UndefinedObject
            ):  # a server may come without an extension
                connection.execute(statement.encode())
        yield connection


def column(session: OrdinaryConnection, sql_type: str) -> tuple[int, int]:
    """Type and modifier as a Relation message says them."""
    try:
        session.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS probe (c {sql_type})".encode())
    except (psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue) as error:
        pytest.skip(f"this server has no such type: {error}")
    row = session.execute(
        "SELECT atttypid::int8, atttypmod FROM pg_attribute WHERE attrelid = 'probe'::regclass AND attname = 'c'"
    ).fetchone()
    session.execute("DROP TABLE probe")
    assert row is not None
    return row[0], row[1]


def both_forms(session: OrdinaryConnection, sql_type: str, texts: list[str]) -> list[tuple[bytes, bytes]]:
    """What the source says of each value that it takes, as text and as bytes."""
    literals = ", ".join("(" + sql.Literal(text).as_string(session) + f"::text::{sql_type})" for text in texts)
    found = [session.pgconn.exec_params(f"VALUES {literals}".encode(), [], result_format=form) for form in (0, 1)]
    if found[0].status != pq.ExecStatus.TUPLES_OK:
        assert len(texts) > 1, found[0].get_error_message()
        alone = (suppressed(both_forms, session, sql_type, [text]) for text in texts)
        return [pair for pairs in alone for pair in pairs]
    printed, sent = ([result.get_value(n, 0) or b"" for n in range(result.ntuples)] for result in found)
    return list(zip(printed, sent, strict=True))


def suppressed(call: Callable[..., list[tuple[bytes, bytes]]], *arguments: object) -> list[tuple[bytes, bytes]]:
    """Some values that a strategy makes are none of the type, such as a range whose bounds are the wrong way round."""
    with suppress(AssertionError):
        return call(*arguments)
    return []


def outcome(encode: Callable[[bytes], bytes] | None, value: bytes) -> bytes | type[Unheld]:
    assert encode is not None
    with suppress(Unheld):
        return encode(value)
    return Unheld


@pytest.mark.parametrize("sql_type", TYPES)
def test_the_binary_form_says_what_the_text_says(session: OrdinaryConnection, sql_type: str) -> None:
    """Printed it is PostgreSQL's text, encoded it is the text's datum; what one cannot hold the other cannot."""
    oid, typmod = column(session, sql_type)
    mapping = mapped(oid, typmod, SessionCatalog(session).types([oid]))

    @settings(
        max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(TYPES[sql_type], min_size=20, max_size=40))
    def check(texts: list[str]) -> None:
        pairs = both_forms(session, sql_type, texts)
        if sql_type == "xml" and not pairs:
            pytest.skip("this server is built without XML")
        assert len(pairs) > len(texts) / 4
        for text, binary in pairs:
            assert mapping.printed is not None
            assert mapping.printed(binary) == text
            found, wanted = outcome(mapping.encode_binary, binary), outcome(mapping.encode, text)
            assert found == wanted, (text, binary)

    check()


@pytest.mark.parametrize(("sql_type", "powers"), [("real", range(-149, 128)), ("double precision", range(-1074, 1024))])
def test_floats_at_the_powers_of_two(session: OrdinaryConnection, sql_type: str, powers: range) -> None:
    """There the floats below are nearer than those above, and the shortest digits are the hardest to find."""
    oid, _ = column(session, sql_type)
    found = printer(oid, SessionCatalog(session).types([oid]))
    assert found is not None
    for text, binary in both_forms(session, sql_type, [repr(2.0**power) for power in powers]):
        assert found(binary) == text


@pytest.mark.parametrize("text", ["9" * 130_000, "-0." + "1" * 16_000, "1e-16383", "1e131071"])
def test_numbers_of_any_length_are_exact(session: OrdinaryConnection, text: str) -> None:
    """As many digits as PostgreSQL has, before the point and behind it."""
    ((printed, binary),) = both_forms(session, "numeric", [text])
    found = printer(1700, SessionCatalog(session).types([1700]))
    assert found is not None
    assert found(binary) == printed


@pytest.mark.parametrize("sql_type", ASKED)
def test_the_source_prints_what_it_has_sent(session: OrdinaryConnection, sql_type: str) -> None:
    """Of a type whose form only the source knows: asked for the bytes' text, it says what it prints of the value."""
    oid, typmod = column(session, sql_type)
    mapping = mapped(oid, typmod, SessionCatalog(session).types([oid]))
    assert (mapping.reading, mapping.encode_binary, mapping.printed) == (Reading.ASKED, None, None)

    @settings(
        max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(ASKED[sql_type], min_size=20, max_size=40))
    def check(texts: list[str]) -> None:
        pairs = both_forms(session, sql_type, texts)
        assert len(pairs) > len(texts) / 4
        assert asking(session, oid)([binary for _, binary in pairs]) == [text for text, _ in pairs]

    check()


def test_any_number_of_values_of_any_size_is_asked_for(session: OrdinaryConnection) -> None:
    """More than one question takes them, in their order."""
    oid, _ = column(session, "tsquery")
    large = "'" + "x" * 900 + "' & "
    pairs = both_forms(session, "tsquery", [f"{large * 1500}w{n}" if n % 300 == 0 else f"w{n}" for n in range(1200)])
    assert asking(session, oid)([binary for _, binary in pairs]) == [text for text, _ in pairs]
    assert asking(session, oid)([]) == []


def test_a_value_that_the_source_does_not_take_back_needs_text(session: OrdinaryConnection) -> None:
    """It knows no more what it sent: only the text, printed when it was written, says it."""
    oid, _ = column(session, "search")
    with pytest.raises(TextNeeded, match="wrong number of columns"):
        asking(session, oid)([struct.pack(">i", 3)])


@pytest.mark.parametrize("sql_type", NEVER)
def test_what_neither_bytes_nor_the_source_say_is_not_read(session: OrdinaryConnection, sql_type: str) -> None:
    """A type whose text depends on the catalog of its time, or that the source itself cannot send."""
    oid, typmod = column(session, sql_type)
    mapping = mapped(oid, typmod, SessionCatalog(session).types([oid]))
    assert (mapping.reading, mapping.encode_binary, mapping.printed) == (Reading.NEVER, None, None)


@pytest.mark.parametrize(("locale", "readable"), [("C", True), ("de_DE.UTF-8", False)])
def test_money_is_read_where_its_locale_is_plain(locale: str, readable: bool) -> None:
    """Other locales have signs, separators and digits of their own."""
    types = {790: TypeFacts(790, "money", send=f"{locale}.cash_send")}
    assert (printer(790, types) is not None) == readable


def test_damaged_bytes_are_never_a_value(session: OrdinaryConnection) -> None:
    """A value cut short raises, or is a whole value of its own; it never hangs and never raises anything else."""
    dice = random.Random(7)
    for sql_type, strategy in {
        "integer[]": "{1,NULL,3}",
        "pair": "(1,a)",
        "numrange": "[1,2)",
        "numeric": "12.5",
    }.items():
        oid, typmod = column(session, sql_type)
        mapping = mapped(oid, typmod, SessionCatalog(session).types([oid]))
        ((_, binary),) = both_forms(session, sql_type, [strategy])
        for _ in range(50):
            cut = binary[: dice.randrange(len(binary))]
            with suppress(ValueError, struct.error, Unheld, IndexError):
                assert mapping.encode_binary is not None
                mapping.encode_binary(cut)
