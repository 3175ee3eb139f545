"""The demo's source: pgbench's four tables, a table that uses every type, and a table of probes."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Final

from ops.errors import OpsError
from ops.postgres_server import PostgresServer

SCHEMA: Final = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy ☀');
CREATE DOMAIN price AS numeric(12,2) CHECK (VALUE >= 0);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE probes (id bigint PRIMARY KEY, written_at timestamptz NOT NULL DEFAULT clock_timestamp());
"""
_ID: Final = "id"


@dataclass(frozen=True)
class TypedColumn:
    """A column of `every_type` and values that are easily got wrong, as text; None is NULL."""

    name: str
    type: str
    samples: tuple[str | None, ...]


_LONG: Final = "".join(f"{number * 2654435761 % 2**32:08x}" for number in range(1200))

EVERY_TYPE: Final = (
    TypedColumn("a_boolean", "boolean", ("true", "false", None)),
    TypedColumn("a_smallint", "smallint", ("-32768", "32767", "0", None)),
    TypedColumn("an_integer", "integer", ("-2147483648", "2147483647", "7")),
    TypedColumn("a_bigint", "bigint", ("-9223372036854775808", "9223372036854775807", None)),
    TypedColumn("a_real", "real", ("3.4028235e38", "1e-45", "-0", "NaN", "Infinity", "0.1")),
    TypedColumn("a_double", "double precision", ("1.7976931348623157e308", "5e-324", "NaN", "-Infinity", "0.1", None)),
    TypedColumn("a_price", "numeric(12,2)", ("0.00", "-9999999999.99", "1.10", "NaN", None)),
    TypedColumn("a_wide_numeric", "numeric(38,10)", ("9999999999999999999999999999.9999999999", "-0.0000000001", "0")),
    TypedColumn("a_free_numeric", "numeric", ("1e-40", "123456789012345678901234567890123456789012", "NaN", "1.10")),
    TypedColumn(
        "a_text", "text", ("", "plain", "two\nlines\tand 'quotes' \"double\" \\back", "日本 ☃ 🎈", "NULL", None)
    ),
    TypedColumn("a_varchar", "varchar(20)", ("", "x", "trailing  ", None)),
    TypedColumn("a_char", "char(8)", ("", "abc", "abcdefgh", None)),
    TypedColumn("a_bytea", "bytea", ("\\x", "\\x00ff10", "\\xdeadbeef", None)),
    TypedColumn("a_date", "date", ("1970-01-01", "0001-01-01", "9999-12-31", "infinity", "0044-03-15 BC", None)),
    TypedColumn("a_time", "time", ("00:00:00", "23:59:59.999999", "24:00:00", None)),
    TypedColumn("a_timetz", "timetz", ("00:00:00+00", "12:30:00.5-03:30", None)),
    TypedColumn("a_timestamp", "timestamp", ("1969-12-31 23:59:59.999999", "2026-02-28 12:00:00", "-infinity", None)),
    TypedColumn(
        "a_timestamptz", "timestamptz", ("2026-07-01 00:00:00.000001+14", "1900-01-01 00:00:00+00", "infinity")
    ),
    TypedColumn("an_interval", "interval", ("1 year -2 mons 3 days 04:05:06.789", "-00:00:01", None)),
    TypedColumn("a_uuid", "uuid", ("00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
    TypedColumn("a_json", "json", ('{"b": 1, "a": [1,  2]}', "null", '"text"', None)),
    TypedColumn("a_jsonb", "jsonb", ('{"b": 1, "a": [1,  2]}', "1.50", "[]", None)),
    TypedColumn("an_inet", "inet", ("127.0.0.1", "10.0.0.0/8", "::1", None)),
    TypedColumn("a_cidr", "cidr", ("10.0.0.0/8", "2001:db8::/32", None)),
    TypedColumn("a_macaddr", "macaddr", ("08:00:2b:01:02:03", None)),
    TypedColumn("a_bit", "bit(5)", ("10101", "00000")),
    TypedColumn("a_varbit", "varbit", ("", "1", "1010101010101", None)),
    TypedColumn("a_money", "money", ("-12.34", "92233720368547758.07", None)),
    TypedColumn("a_point", "point", ("(1.5,-2)", None)),
    TypedColumn("a_range", "int4range", ("[1,10)", "empty", "(,5)", None)),
    TypedColumn("a_tstzrange", "tstzrange", ('["2026-01-01 00:00:00+00","2026-02-01 00:00:00+00")', None)),
    TypedColumn("a_tsvector", "tsvector", ("'fat':2 'rat':3", None)),
    TypedColumn("a_mood", "mood", ("sad", "happy ☀", None)),
    TypedColumn("a_domain", "price", ("0", "12.5", None)),
    TypedColumn("a_pair", "pair", ('(1,"two, three")', "(,)", None)),
    TypedColumn("some_integers", "integer[]", ("{}", "{1,NULL,-3}", "{{1,2},{3,4}}", None)),
    TypedColumn("some_texts", "text[]", ("{}", '{"a,b",NULL,"NULL","q\\"uote","{}",""}', None)),
    TypedColumn("some_times", "timestamptz[]", ('{"2026-01-01 00:00:00+00",NULL}', None)),
    TypedColumn("a_long_text", "text", (_LONG, _LONG[::-1], "short")),
)

PGBENCH_TABLES: Final = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history")
TABLES: Final = (*PGBENCH_TABLES, "every_type", "probes")
APPEND_ONLY: Final = ("pgbench_history",)


def every_type_ddl() -> str:
    """The table that uses every type; its long text is stored out of line, so that updates leave it out."""
    columns = ", ".join(f"{column.name} {column.type}" for column in EVERY_TYPE)
    return (
        f"CREATE TABLE every_type ({_ID} bigint PRIMARY KEY, {columns}); "
        "ALTER TABLE every_type ALTER a_long_text SET STORAGE EXTERNAL;"
    )


def insert_sql(columns: tuple[TypedColumn, ...] = EVERY_TYPE) -> str:
    """An insert of one row; parameters are the id and one text (or None) a column."""
    names = ", ".join((_ID, *(column.name for column in columns)))
    values = ", ".join(("%s", *(f"%s::text::{column.type}" for column in columns)))
    return f"INSERT INTO every_type ({names}) VALUES ({values})"


def create(server: PostgresServer, database: str, scale: int = 1, rows: int = 200) -> None:
    """Makes the database and what its first snapshots will find: two of the tables, history and probes, are empty.

    Nothing happens where the database is there already.
    """
    if server.psql(f"SELECT 1 FROM pg_database WHERE datname = '{database}'"):
        return
    server.psql(f'CREATE DATABASE "{database}"')
    _pgbench(server, database, "-i", "-q", "-s", str(scale))
    server.psql(SCHEMA + every_type_ddl(), database)
    with server.connect(database) as connection, connection.cursor() as cursor:
        cursor.executemany(insert_sql(), [row(number) for number in range(1, rows + 1)])


def _pgbench(server: PostgresServer, database: str, *words: str) -> None:
    command = [server.bin("pgbench"), *words, server.dsn_of(database)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OpsError(f"pgbench {' '.join(words)} failed: {done.stderr.strip()}")


def row(number: int) -> list[str | int | None]:
    """The parameters of the row with that id: every sample of every column comes up in turn."""
    return [number, *(column.samples[number % len(column.samples)] for column in EVERY_TYPE)]
