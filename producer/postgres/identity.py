"""Who the source is, where its slot stands, and making what capture needs: publications and the slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from producer.errors import SourceRefused
from producer.postgres.checks import captured_tables, problems, publication_of
from producer.postgres.connection import OrdinaryConnection, command, connect, quoted, replication_session
from producer.postgres.source import PostgresSource
from schemas.position import parse_lsn

_FAILOVER_SINCE: Final = 170_000


@dataclass(frozen=True)
class Slot:
    """A replication slot. confirmed_lsn: everything below it was confirmed, and is not sent again."""

    name: str
    confirmed_lsn: int
    active: bool
    invalidated: bool


@dataclass(frozen=True)
class Identity:
    """What must stay equal for the stream to be continuous, and where the source stands now."""

    system_id: str
    timeline: int
    current_lsn: int
    slot: Slot | None


@dataclass(frozen=True)
class CapturedTable:
    """A table that the configuration names, as the source and the lake call it."""

    schema: str
    name: str
    append_only: bool
    lake_table: str


def identify(source: PostgresSource) -> Identity:
    """The source as it is now; nothing is made or changed. Raises SourceUnreachable."""
    session = replication_session(source.dsn)
    try:
        system = command(session, "IDENTIFY_SYSTEM")
    finally:
        session.finish()
    with connect(source.dsn) as connection:
        slot = _slot(connection, source.slot)
    return Identity(
        system_id=str(system["systemid"]),
        timeline=int(system["timeline"] or 0),
        current_lsn=parse_lsn(system["xlogpos"] or "0/0"),
        slot=slot,
    )


def check(source: PostgresSource) -> tuple[CapturedTable, ...]:
    """The tables that will be captured. Raises SourceRefused with every problem and the statement that mends it."""
    with connect(source.dsn) as connection:
        found = problems(connection, source)
        if found:
            raise SourceRefused(f"source {source.name} is not ready", found)
        return tuple(
            CapturedTable(table.schema, table.name, table.append_only, table.lake_table)
            for table in captured_tables(connection, source)
        )


def prepare(source: PostgresSource) -> tuple[CapturedTable, ...]:
    """Checks, then makes the publications and the slot where they are missing. Idempotent.

    A slot that is missing although the spool knows one means lost changes: the caller looks with `identify` first.
    Publications come before the slot, because the slot reads the catalog as it was where it starts.
    """
    tables = check(source)
    with connect(source.dsn) as connection:
        _publish(connection, source, tables)
        missing = _slot(connection, source.slot) is None
    if missing:
        _create_slot(source)
    return tables


def _publish(connection: OrdinaryConnection, source: PostgresSource, tables: tuple[CapturedTable, ...]) -> None:
    publish = {source.publication: "insert,update,delete,truncate", source.append_publication: "insert,truncate"}
    for name, operations in publish.items():
        exists = connection.execute("SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = %s", (name,)).fetchone()
        if exists is None:
            connection.execute(
                sql.SQL("CREATE PUBLICATION {} WITH (publish = {}, publish_via_partition_root = true)").format(
                    sql.Identifier(name), sql.Literal(operations)
                )
            )
        there = connection.execute(
            "SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = %s", (name,)
        ).fetchall()
        for table in tables:
            if publication_of(source, table.append_only) == name and (table.schema, table.name) not in there:
                connection.execute(
                    sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(
                        sql.Identifier(name), sql.Identifier(table.schema, table.name)
                    )
                )


def _create_slot(source: PostgresSource) -> None:
    session = replication_session(source.dsn)
    try:
        options = "SNAPSHOT 'nothing'"
        if session.server_version >= _FAILOVER_SINCE:
            options += ", FAILOVER true"
        command(session, f"CREATE_REPLICATION_SLOT {quoted(source.slot)} LOGICAL pgoutput ({options})")
    except psycopg.Error as error:
        raise SourceRefused(f"source {source.name} is not ready", [f"slot {source.slot}: {error}"]) from error
    finally:
        session.finish()


def _slot(connection: OrdinaryConnection, name: str) -> Slot | None:
    row = connection.execute(
        "SELECT confirmed_flush_lsn::text, active, coalesce(wal_status = 'lost', false) "
        "FROM pg_catalog.pg_replication_slots WHERE slot_name = %s",
        (name,),
    ).fetchone()
    if row is None:
        return None
    return Slot(name, parse_lsn(row[0] or "0/0"), row[1], row[2])
