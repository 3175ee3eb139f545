"""Reading one table, or a key range of it, as it was at a consistent point of the stream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.pq.abc import PGconn

from producer.change import Change, Rejected
from producer.errors import SourceRefused, SourceUnreachable
from producer.postgres import catalog
from producer.postgres.connection import OrdinaryConnection, command, connect, quoted, replication_session
from producer.postgres.decoder import encode_change
from producer.postgres.messages import Row
from producer.postgres.rows import RowEncoder, Stamp, row_encoder
from producer.postgres.source import PostgresSource
from schemas.change_record import TableSchema
from schemas.position import Position, parse_lsn

_LOCK_SECONDS: Final = 10.0


@dataclass(frozen=True)
class KeyRange:
    """Rows with low <= key < high, in the order of the key's columns; None is without end. Values as text."""

    low: tuple[str, ...] | None = None
    high: tuple[str, ...] | None = None


EVERYTHING: Final = KeyRange()


@dataclass(frozen=True)
class Snapshot:
    """An open snapshot. Its rows carry position (era, consistent_point - 1, ordinal from 0) and op 'r'.

    consistent_point: C; whatever committed below it is in the rows, whatever committed at or above it is in the stream.
    rows: once only, inside the `with`. Raises SourceUnreachable.
    """

    consistent_point: int
    schema: TableSchema
    rows: Iterator[Change | Rejected]


@contextmanager
def open_snapshot(
    source: PostgresSource, schema: str, table: str, *, era: int, key_range: KeyRange = EVERYTHING
) -> Iterator[Snapshot]:
    """A snapshot under a temporary slot of its own, which goes with the session that made it.

    Raises SourceRefused (no such table published, no slot free) or SourceUnreachable.
    """
    with closing(connect(source.dsn, statement_seconds=0, lock_seconds=_LOCK_SECONDS)) as connection:
        session = replication_session(source.dsn)
        try:
            slot = _temporary_slot(session, source)
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(slot["snapshot_name"])))
        except psycopg.OperationalError as error:
            raise SourceUnreachable(f"no snapshot of {schema}.{table}: {str(error).strip()}") from error
        finally:
            session.finish()  # the importing transaction keeps the snapshot alive; the slot is free again
        consistent_point = parse_lsn(slot["consistent_point"] or "0/0")
        encoder = _encoder(connection, source, schema, table)
        rows = _rows(connection, encoder, era, consistent_point - 1, key_range)
        yield Snapshot(consistent_point, encoder.schema, rows)


def _temporary_slot(session: PGconn, source: PostgresSource) -> dict[str, str | None]:
    name = f"{source.slot[:40]}_s_{uuid4().hex[:16]}"
    try:
        return command(
            session, f"CREATE_REPLICATION_SLOT {quoted(name)} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')"
        )
    except psycopg.errors.ConfigurationLimitExceeded as error:
        hint = "ALTER SYSTEM SET max_replication_slots = 20; then restart the server"
        raise SourceRefused(f"source {source.name} has no slot for a snapshot", [f"{error}: {hint}"]) from error


def _encoder(connection: OrdinaryConnection, source: PostgresSource, schema: str, table: str) -> RowEncoder:
    append_only = source.is_append_only(schema, table)
    publication = source.append_publication if append_only else source.publication
    relation = catalog.relation(connection, schema, table, publication)
    if relation is None:
        statement = f"ALTER PUBLICATION {quoted(publication)} ADD TABLE {quoted(schema)}.{quoted(table)};"
        raise SourceRefused(
            f"no snapshot of {schema}.{table}", [f"it is not in publication {publication}: {statement}"]
        )
    return row_encoder(source.name, relation, catalog.SessionCatalog(connection), append_only=append_only)


def _rows(
    connection: OrdinaryConnection, encoder: RowEncoder, era: int, lsn: int, key_range: KeyRange
) -> Iterator[Change | Rejected]:
    committed_at = _now_micros(connection)
    stamp = Stamp.of(era, lsn, committed_at)
    try:
        with connection.cursor().copy(_copy(encoder, key_range)) as copy:
            for ordinal, line in enumerate(copy):
                data = bytes(line)
                position = Position(era, lsn, ordinal)
                yield encode_change(encoder, "r", parse_copy_line(data), position, committed_at, stamp, data)
    except psycopg.OperationalError as error:
        raise SourceUnreachable(f"the snapshot of {encoder.schema.table} broke off: {str(error).strip()}") from error


def _now_micros(connection: OrdinaryConnection) -> int:
    row = connection.execute("SELECT (extract(epoch FROM transaction_timestamp()) * 1000000)::int8").fetchone()
    return int(row[0]) if row is not None else int(datetime.now().timestamp() * 1_000_000)


def _copy(encoder: RowEncoder, key_range: KeyRange) -> sql.Composed:
    relation = encoder.relation
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in relation.columns)
    query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(relation.namespace, relation.name))
    bounds = [(">=", key_range.low), ("<", key_range.high)]
    key = sql.SQL(", ").join(sql.Identifier(relation.columns[place].name) for place in encoder.key)
    conditions = [
        sql.SQL("({}) " + operator + " ({})").format(key, sql.SQL(", ").join(map(sql.Literal, bound)))
        for operator, bound in bounds
        if bound is not None
    ]
    if conditions:
        query = sql.SQL("{} WHERE {}").format(query, sql.SQL(" AND ").join(conditions))
    return sql.SQL("COPY ({}) TO STDOUT").format(query)


_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"\\": b"\\"}


def parse_copy_line(line: bytes) -> Row:
    """The values in a line of COPY's text format."""
    fields = line[:-1].split(b"\t") if line.endswith(b"\n") else line.split(b"\t")
    if b"\\" not in line:
        return list(fields)
    return [None if field == b"\\N" else _ESCAPED.sub(_unescape, field) for field in fields]


def _unescape(match: re.Match[bytes]) -> bytes:
    return _ESCAPES[match[1]]
