"""Who the source is, where its slot stands, and making what capture needs: publications and the slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import psycopg
from psycopg import sql
from psycopg.pq.abc import PGconn

from producer.errors import SourceRefused, SourceUnreachable
from producer.postgres.catalog import Partitions, partitions, published
from producer.postgres.checks import (
    FoundTable,
    captured_tables,
    hindrances,
    problems,
    publication_of,
    sorted_out,
)
from producer.postgres.connection import (
    HEARTBEAT,
    OrdinaryConnection,
    command,
    connect,
    replication_session,
    slot_creation,
)
from producer.postgres.filters import set_filter, understood
from producer.postgres.source import PostgresSource
from producer.reserves import SlotReserve
from schemas.position import parse_lsn

_REASON_SINCE: Final = 170_000


@dataclass(frozen=True)
class Slot:
    """A replication slot. confirmed_lsn: everything below it was confirmed, and is not sent again.

    lost: why it can send nothing any more.
    """

    name: str
    confirmed_lsn: int
    active: bool
    lost: str | None


@dataclass(frozen=True)
class Identity:
    """What must stay equal for the stream to be continuous, and where the source stands now."""

    system_id: str
    timeline: int
    current_lsn: int
    slot: Slot | None
    ancestors: Mapping[int, int]


@dataclass(frozen=True)
class CapturedTable:
    """A table that the configuration names, as the source and the lake call it."""

    oid: int
    schema: str
    name: str
    append_only: bool
    lake_table: str
    owned: bool


@dataclass(frozen=True)
class Looked:
    """What is captured, why tables that match are left out, and (only `follow` looks) the partitions."""

    tables: tuple[CapturedTable, ...]
    left_out: tuple[str, ...] = ()
    partitions: Partitions = field(default_factory=dict)


def identify(source: PostgresSource) -> Identity:
    """The source as it is now; nothing is made or changed. Raises SourceUnreachable."""
    session = replication_session(source.dsn)
    try:
        system = command(session, "IDENTIFY_SYSTEM")
        timeline = int(system["timeline"] or 0)
        ancestors = _ancestors(session, timeline)
    finally:
        session.finish()
    with connect(source.dsn) as connection:
        slot = _slot(connection, source.slot)
    return Identity(
        system_id=str(system["systemid"]),
        timeline=timeline,
        current_lsn=parse_lsn(system["xlogpos"] or "0/0"),
        slot=slot,
        ancestors=ancestors,
    )


def _ancestors(session: PGconn, timeline: int) -> dict[int, int]:
    """The timelines before this one, each with the LSN at which it was left; none where nobody knows."""
    if timeline <= 1:
        return {}
    try:
        history = command(session, f"TIMELINE_HISTORY {timeline}")["content"] or ""
    except psycopg.Error:
        return {}
    lines = [line.split() for line in history.splitlines() if line.strip() and not line.startswith("#")]
    return {int(line[0]): parse_lsn(line[1]) for line in lines}


def reserve(source: PostgresSource) -> SlotReserve | None:
    """What the source keeps for the slot; None where there is no slot. Raises SourceUnreachable."""
    with connect(source.dsn) as connection:
        row = connection.execute(
            "SELECT wal_status, (here - restart_lsn)::int8, safe_wal_size::int8, (here - '0/0'::pg_lsn)::int8"
            " FROM pg_catalog.pg_replication_slots, (SELECT CASE WHEN pg_catalog.pg_is_in_recovery()"
            " THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END AS here) AS now"
            " WHERE slot_name = %s",
            (source.slot,),
        ).fetchone()
    return None if row is None else SlotReserve(row[0], row[1] or 0, row[2], row[3])


def beat(source: PostgresSource) -> None:
    """Writes a message to the log that nobody reads, so that the log moves where nothing else is written."""
    with connect(source.dsn) as connection:
        connection.execute("SELECT pg_catalog.pg_logical_emit_message(false, %s, '')", (HEARTBEAT,))


def drop_slot(source: PostgresSource) -> bool:
    """Drops the slot, so that the source keeps nothing for it any more; whether there was one. Raises SourceRefused."""
    with connect(source.dsn) as connection:
        if _slot(connection, source.slot) is None:
            return False
        try:
            connection.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", (source.slot,))
        except psycopg.Error as error:
            raise SourceRefused(f"slot {source.slot} stays", [f"{str(error).strip()}: stop its agent first"]) from error
    return True


def check(source: PostgresSource) -> Looked:
    """The tables that will be captured. Raises SourceRefused with every problem and the statement that mends it."""
    with connect(source.dsn) as connection:
        tables = sorted_out(connection, source)
        found = problems(connection, source, tables)
    if found:
        raise SourceRefused(f"source {source.name} is not ready", found)
    good = tuple(_captured(table) for table in tables if not table.left_out)
    return Looked(good, tuple(why for table in tables for why in table.left_out))


def prepare(source: PostgresSource) -> Looked:
    """Checks, then makes the publications and the slot where they are missing. Idempotent.

    A slot that is missing although the spool knows one means lost changes: the caller looks with `identify` first.
    Publications come before the slot, because the slot reads the catalog as it was where it starts.
    """
    looked = check(source)
    for table in looked.tables:
        source.names.bind(table.oid, table.schema, table.name)
    with connect(source.dsn) as connection:
        _publish(connection, source, looked.tables)
        missing = _slot(connection, source.slot) is None
    if missing:
        _create_slot(source)
    return looked


def follow(source: PostgresSource) -> Looked:
    """Publishes the tables that came since and match the configuration; for while the stream runs. Idempotent.

    A table that cannot be captured is left out, with the reasons, and the others go on. Raises SourceUnreachable.
    """
    left_out: list[str] = []
    good: list[CapturedTable] = []
    with connect(source.dsn) as connection:
        try:
            tables = captured_tables(connection, source)
            for table in tables:
                found = hindrances(connection, source, table, tables)
                left_out += found
                if not found:
                    named = source.names.bind(table.oid, table.schema, table.name)
                    good.append(replace(_captured(table), lake_table=named.lake_table))
            _publish(connection, source, good)
            found_partitions = partitions(connection, [table.oid for table in good])
        except psycopg.Error as error:  # a lock that is held, a table that went meanwhile: the next time will do
            raise SourceUnreachable(f"new tables cannot be published now: {str(error).strip()}") from error
    return Looked(tuple(good), tuple(left_out), found_partitions)


def _captured(table: FoundTable) -> CapturedTable:
    return CapturedTable(table.oid, table.schema, table.name, table.append_only, table.lake_table, table.owned)


def _publish(connection: OrdinaryConnection, source: PostgresSource, tables: Sequence[CapturedTable]) -> None:
    publish = {source.publication: "insert,update,delete,truncate", source.append_publication: "insert,truncate"}
    for name, operations in publish.items():
        exists = connection.execute("SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = %s", (name,)).fetchone()
        if exists is None:
            connection.execute(
                sql.SQL("CREATE PUBLICATION {} WITH (publish = {}, publish_via_partition_root = true)").format(
                    sql.Identifier(name), sql.Literal(operations)
                )
            )
        there = published(connection, name)
        for table in tables:
            if publication_of(source, table.append_only) != name:
                continue
            where = source.shaping(table.oid, table.schema, table.name).where
            if (table.schema, table.name) not in there or (where is not None and table.owned):
                wanted = understood(connection, table.schema, table.name, where).text if where is not None else None
                if there.get((table.schema, table.name), "") != wanted:
                    set_filter(connection, name, table.schema, table.name, where)


def _create_slot(source: PostgresSource) -> None:
    session = replication_session(source.dsn)
    try:
        command(session, slot_creation(source.slot, session.server_version, failover=True))
    except psycopg.Error as error:
        raise SourceRefused(f"source {source.name} is not ready", [f"slot {source.slot}: {error}"]) from error
    finally:
        session.finish()


def _slot(connection: OrdinaryConnection, name: str) -> Slot | None:
    why = "invalidation_reason" if connection.info.server_version >= _REASON_SINCE else "NULL"
    row = connection.execute(
        "SELECT confirmed_flush_lsn::text, active,"
        f" CASE WHEN wal_status = 'lost' THEN coalesce({why}, 'the log that it needs was removed') END"
        " FROM pg_catalog.pg_replication_slots WHERE slot_name = %s".encode(),
        (name,),
    ).fetchone()
    if row is None:
        return None
    return Slot(name, parse_lsn(row[0] or "0/0"), *row[1:])
