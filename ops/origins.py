"""Where a lake table comes from: the table of the source, and what the agent's configuration makes of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from ops.errors import OpsError
from producer.errors import ProducerError
from producer.postgres import catalog
from producer.postgres.checks import FoundTable, captured_tables, publication_of
from producer.postgres.connection import OrdinaryConnection, connect, quoted
from producer.postgres.groups import rows_of
from producer.postgres.identity import identify
from producer.postgres.shaping import Shaping
from producer.postgres.source import PostgresSource
from producer.postgres_source import names_of, source_of
from producer.settings import Settings

_FETCHED: Final = 10_000

Disguise = Callable[[bytes], bytes]
"""What the text of a hashed or masked value becomes."""


@dataclass(frozen=True)
class Origin:
    """A table of the source that is captured, whatever the lake calls it.

    relation: as FROM has it. columns: those that arrive, as the source calls them; none where the table is not
    published. disguises: by column. where: the rows that arrive. notes: what of the table does not arrive as it is.
    """

    table: str
    relation: str
    columns: tuple[str, ...]
    disguises: Mapping[str, Disguise] = field(default_factory=dict)
    where: str | None = None
    notes: tuple[str, ...] = ()


def read(settings: Settings) -> tuple[dict[str, Origin], set[str]]:
    """The source's tables that the agent captures, by their names in the lake; and those that it captured once and that
    were dropped since. Raises OpsError."""
    if settings.files is not None:
        raise OpsError(f"{settings.source.name} is a folder of files: only a database can be compared with its lake")
    try:
        names = names_of(settings)
        source = source_of(settings, names)
        names.enter(identify(source).system_id)
        with connect(source.dsn) as connection:
            there = _oids(connection)
            dropped = {name for oid, name in names.lake_tables().items() if oid not in there}
            found = captured_tables(connection, source)
            return {table.lake_table: _origin(connection, source, table) for table in found}, dropped
    except (ProducerError, psycopg.Error) as error:
        raise OpsError(str(error).strip()) from error


def rows(dsn: str, origin: Origin, columns: Sequence[str]) -> Iterator[tuple[bytes | None, ...]]:
    """The rows of the table that arrive in the lake, as the source prints their values; read at one moment.

    Raises OpsError with the source's words.
    """
    listed = ", ".join(quoted(column) for column in columns)
    where = "" if origin.where is None else f" WHERE ({origin.where})"
    try:
        with connect(dsn, statement_seconds=0) as connection, connection.transaction():
            _answer(connection, f"DECLARE rows NO SCROLL CURSOR FOR SELECT {listed} FROM {origin.relation}{where}")
            while (page := _answer(connection, f"FETCH {_FETCHED} FROM rows")).ntuples:
                for at in range(page.ntuples):
                    yield tuple(page.get_value(at, place) for place in range(len(columns)))
    except (ProducerError, psycopg.Error) as error:
        raise OpsError(f"{origin.table}: {str(error).strip()}") from error


def _oids(connection: OrdinaryConnection) -> set[int]:
    return {oid for (oid,) in connection.execute("SELECT oid::int8 FROM pg_catalog.pg_class").fetchall()}


def _answer(connection: OrdinaryConnection, statement: str) -> Any:
    result = connection.pgconn.exec_(statement.encode())
    if result.error_message:
        raise psycopg.DatabaseError(result.error_message.decode())
    return result


def _origin(connection: OrdinaryConnection, source: PostgresSource, table: FoundTable) -> Origin:
    relation = catalog.relation(connection, table.oid, publication_of(source, table.append_only))
    if relation is None:
        return Origin(table.shown, table.sql, ())
    shaping = source.shaping(table.oid, table.schema, table.name)
    published = [column.name for column in relation.columns]
    columns = tuple(name for name in published if name not in shaping.exclude_columns)
    disguises = {name: made for name in columns if (made := shaping.disguise(name, source.hash_key)) is not None}
    every = catalog.column_names(connection, table.oid)
    notes = tuple(_notes(shaping, every, published))
    return Origin(
        table.shown, rows_of(connection, relation).as_string(connection), columns, disguises, shaping.where, notes
    )


def _notes(shaping: Shaping, every: Sequence[str], published: Sequence[str]) -> Iterator[str]:
    for column in every:
        if column in shaping.exclude_columns:
            yield f"column {column} is left out by the agent's configuration"
        elif column not in published:
            yield f"column {column} is not published, as generated columns are not"
        elif column in shaping.hash_columns:
            yield f"column {column} is compared by its hash"
        elif column in shaping.mask_columns:
            yield f"column {column} is compared as far as its mask shows it"
    if shaping.where is not None:
        yield f"rows are compared WHERE {shaping.where}"
