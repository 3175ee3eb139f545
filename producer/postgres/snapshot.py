"""Reading one table, or a key range of it, as it was at a consistent point of the stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.pq.abc import PGconn

from producer.change import Change, Rejected, Run
from producer.errors import SnapshotVoid, SourceRefused, SourceUnreachable
from producer.groups import EVERYTHING, Group, Plan
from producer.postgres import catalog, groups
from producer.postgres.connection import (
    UNKNOWN_ENCODING,
    OrdinaryConnection,
    command,
    connect,
    quoted,
    reaching,
    replication_session,
    slot_creation,
)
from producer.postgres.copied_rows import CopiedRows
from producer.postgres.rows import RowEncoder, row_encoder
from producer.postgres.shaping import LEFT_OUT
from producer.postgres.source import PostgresSource
from producer.postgres.types import Mapped
from schemas.change_record import TableSchema
from schemas.position import parse_lsn

_LOCK_SECONDS: Final = 10.0
_PLAN_SECONDS: Final = 600.0


_slot_turn = threading.Lock()
"""Slots are made one after the other, so that no two groups share a consistent point."""


@dataclass(frozen=True)
class Snapshot:
    """An open snapshot. Its rows carry position (era, consistent_point - 1, ordinal from 0) and op 'r'.

    consistent_point: C; whatever committed below it is in the rows, whatever committed at or above it is in the stream.
    rows: once only, inside the `with`. Raises SourceUnreachable.
    """

    consistent_point: int
    schema: TableSchema
    rows: Iterator[Change | Run | Rejected]


@contextmanager
def open_snapshot(
    source: PostgresSource, schema: str, table: str, *, era: int, group: Group = EVERYTHING
) -> Iterator[Snapshot]:
    """A snapshot of a group under a temporary slot of its own, which goes with the session that made it.

    Raises SourceRefused (no such table published, no slot free), SnapshotVoid (the group is none of this table any
    more) or SourceUnreachable.
    """
    with closing(connect(source.dsn, statement_seconds=0, lock_seconds=_LOCK_SECONDS)) as connection:
        session = replication_session(source.dsn)
        try:
            with reaching(f"no snapshot of {schema}.{table}"):
                with _slot_turn:
                    slot = _temporary_slot(session, source)
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(slot["snapshot_name"])))
        finally:
            session.finish()  # the importing transaction keeps the snapshot alive; the slot is free again
        consistent_point = parse_lsn(slot["consistent_point"] or "0/0")
        with reaching(f"no snapshot of {schema}.{table}"):
            encoder = _encoder(connection, source, schema, table)
            _check_group(connection, encoder, group)
        where = source.shaping(encoder.relation.oid, schema, table).where
        rows = _rows(connection, encoder, era, consistent_point - 1, group, where)
        yield Snapshot(consistent_point, encoder.schema, rows)


def plan(source: PostgresSource, schema: str, table: str, group_bytes: int) -> Plan:
    """The groups in which to read a table. Raises as open_snapshot does."""
    with (
        closing(connect(source.dsn, statement_seconds=_PLAN_SECONDS, lock_seconds=_LOCK_SECONDS)) as connection,
        reaching(f"{schema}.{table} cannot be cut into groups"),
    ):
        return groups.plan(connection, _encoder(connection, source, schema, table), group_bytes)


def _check_group(connection: OrdinaryConnection, encoder: RowEncoder, group: Group) -> None:
    """Groups cover a table only as long as its key, or its file, is the one that they were cut by."""
    name = f"{encoder.relation.namespace}.{encoder.relation.name}"
    if group.file is not None:
        # The lock keeps the file: what rewrites a table needs it alone.
        table = sql.Identifier(encoder.relation.namespace, encoder.relation.name)
        connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(table))
        if groups.file_of(connection, encoder.relation.oid) != group.file:
            raise SnapshotVoid(f"{name} was rewritten while its snapshot was read in groups of pages")
    elif any(bound is not None and len(bound) != len(encoder.key) for bound in group.keys):
        raise SnapshotVoid(f"{name} has another key than when its snapshot was cut into groups")


def _temporary_slot(session: PGconn, source: PostgresSource) -> dict[str, str | None]:
    name = f"{source.slot[:40]}_s_{uuid4().hex[:16]}"
    try:
        return command(session, slot_creation(name, session.server_version, temporary=True, export=True))
    except psycopg.errors.ConfigurationLimitExceeded as error:
        hint = "ALTER SYSTEM SET max_replication_slots = 20; then restart the server"
        raise SourceRefused(f"source {source.name} has no slot for a snapshot", [f"{error}: {hint}"]) from error


def _encoder(connection: OrdinaryConnection, source: PostgresSource, schema: str, table: str) -> RowEncoder:
    oid = catalog.oid_of(connection, schema, table)
    append_only = source.is_append_only(oid, schema, table)
    publication = source.append_publication if append_only else source.publication
    relation = catalog.relation(connection, oid, publication)
    if relation is None:
        statement = f"ALTER PUBLICATION {quoted(publication)} ADD TABLE {quoted(schema)}.{quoted(table)};"
        raise SourceRefused(
            f"no snapshot of {schema}.{table}", [f"it is not in publication {publication}: {statement}"]
        )
    lake_table = source.names.bind(oid, schema, table).lake_table
    return row_encoder(source, lake_table, relation, catalog.SessionCatalog(connection), append_only=append_only)


def _rows(
    connection: OrdinaryConnection, encoder: RowEncoder, era: int, lsn: int, group: Group, where: str | None
) -> Iterator[Change | Run | Rejected]:
    committed_at = _now_micros(connection)
    copy = _copy(connection, encoder, group, where).as_string(connection).encode()
    try:
        if connection.info.parameter_status("server_encoding") == UNKNOWN_ENCODING:
            connection.execute(f"SET client_encoding TO '{UNKNOWN_ENCODING}'".encode())  # COPY's own is for text only
        yield from CopiedRows(encoder, era, lsn, committed_at).read(connection.pgconn, copy)
    except psycopg.OperationalError as error:
        raise SourceUnreachable(f"the snapshot of {encoder.schema.table} broke off: {str(error).strip()}") from error


def _now_micros(connection: OrdinaryConnection) -> int:
    row = connection.execute("SELECT (extract(epoch FROM transaction_timestamp()) * 1000000)::int8").fetchone()
    return int(row[0]) if row is not None else int(datetime.now().timestamp() * 1_000_000)


def _copy(connection: OrdinaryConnection, encoder: RowEncoder, group: Group, where: str | None) -> sql.Composed:
    pairs = zip(encoder.relation.columns, encoder.mapped, strict=True)
    columns = sql.SQL(", ").join(_copied(column.name, mapping) for column, mapping in pairs)
    query = sql.SQL("SELECT {} FROM {}").format(columns, groups.rows_of(connection, encoder.relation))
    conditions = list(_conditions(encoder, group))
    if where is not None:
        conditions.append(sql.SQL("({})").format(sql.SQL(where)))
    if conditions:
        query = sql.SQL("{} WHERE {}").format(query, sql.SQL(" AND ").join(conditions))
    return sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)


def _copied(column: str, mapping: Mapped) -> sql.Composable:
    """What is read of a column: its value, or the text that its type's output function prints. A cast to text prints
    some types otherwise, and a composite that holds nulls only IS NULL."""
    if mapping is LEFT_OUT:
        return sql.SQL("NULL")
    name = sql.Identifier(column)
    if mapping.encode_binary is not None:
        return name
    return sql.SQL("CASE WHEN pg_catalog.num_nulls({0}) = 0 THEN pg_catalog.format('%s', {0}) END").format(name)


def _conditions(encoder: RowEncoder, group: Group) -> Iterator[sql.Composed]:
    key = sql.SQL(", ").join(sql.Identifier(encoder.relation.columns[place].name) for place in encoder.key)
    for operator, bound in ((">=", group.low), ("<", group.high)):
        if bound is not None and group.file is not None:
            yield sql.SQL("ctid " + operator + " {}::tid").format(sql.Literal(f"({bound[0]},0)"))
        elif bound is not None:
            yield sql.SQL("({}) " + operator + " ({})").format(key, sql.SQL(", ").join(map(sql.Literal, bound)))
