"""What must hold at the source before capture starts: every problem found, each with the statement that mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from producer.postgres.connection import OrdinaryConnection, quoted
from producer.postgres.source import PostgresSource
from schemas.change_record import lake_table_name

MIN_SERVER_VERSION: Final = 150_000
"""Column lists of publications can be read from 15 on."""


@dataclass(frozen=True)
class FoundTable:
    """A table at the source that the configuration names."""

    schema: str
    name: str
    append_only: bool
    identity: str
    has_primary_key: bool
    readable: bool
    owned: bool

    @property
    def lake_table(self) -> str:
        return lake_table_name(self.schema, self.name)

    @property
    def sql(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def captured_tables(connection: OrdinaryConnection, source: PostgresSource) -> list[FoundTable]:
    """The source's tables that the configuration names, by name; partitions count as their root table."""
    rows = connection.execute(_TABLES).fetchall()
    return [
        FoundTable(schema, name, source.is_append_only(schema, name), identity, primary, readable, owned)
        for schema, name, identity, primary, readable, owned in rows
        if source.choice(schema, name) is not None
    ]


_TABLES: Final = """
SELECT n.nspname, c.relname, c.relreplident::text,
       EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary),
       pg_catalog.has_table_privilege(c.oid, 'SELECT'),
       pg_catalog.pg_has_role(c.relowner, 'USAGE')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
ORDER BY 1, 2
"""


def publication_of(source: PostgresSource, append_only: bool) -> str:
    return source.append_publication if append_only else source.publication


def problems(connection: OrdinaryConnection, source: PostgresSource) -> list[str]:
    """Everything that stands in the way of capture, in the order in which it is best mended."""
    tables = captured_tables(connection, source)
    return [problem for rule in _RULES for problem in rule(connection, source, tables)]


Rule = Callable[[OrdinaryConnection, PostgresSource, list[FoundTable]], Iterator[str]]


def _version(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> Iterator[str]:
    version = connection.info.server_version
    if version < MIN_SERVER_VERSION:
        yield f"PostgreSQL {version // 10_000} is too old: 15 or newer is needed"


def _settings(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> Iterator[str]:
    level = _one(connection, "SHOW wal_level")
    if level != "logical":
        yield f"wal_level is {level}: ALTER SYSTEM SET wal_level = 'logical'; then restart the server"
    for name in ("max_replication_slots", "max_wal_senders"):
        if int(str(_one(connection, f"SHOW {name}"))) < 2:
            yield f"{name} is too low: ALTER SYSTEM SET {name} = 10; then restart the server"


def _rights(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> Iterator[str]:
    role = quoted(str(_one(connection, "SELECT current_user::text")))
    database = quoted(str(_one(connection, "SELECT current_database()::text")))
    if not _one(connection, "SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"):
        yield f"role {role} may not replicate: ALTER ROLE {role} REPLICATION;"
    missing = [name for name in (source.publication, source.append_publication) if not _publication(connection, name)]
    if missing and not _one(connection, "SELECT has_database_privilege(current_database(), 'CREATE')"):
        names = " and ".join(missing)
        yield f"role {role} may not create publications ({names}): GRANT CREATE ON DATABASE {database} TO {role};"
    for table in tables:
        if not table.readable:
            yield f"table {table.schema}.{table.name} may not be read: GRANT SELECT ON {table.sql} TO {role};"
        name = publication_of(source, table.append_only)
        if not table.owned and not _published(connection, name, table):
            statement = f"ALTER PUBLICATION {quoted(name)} ADD TABLE {table.sql};"
            if name in missing:
                statement = f"{_creation(source, name)} {statement}"
            yield f"table {table.schema}.{table.name} is not {role}'s to publish: as its owner, {statement}"


def _named(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> Iterator[str]:
    for choice in source.tables:
        if not any(choice.matches(table.schema, table.name) for table in tables):
            yield f"no table matches {choice.name}: create it, or take it out of the configuration"
    by_lake_table: dict[str, FoundTable] = {}
    for table in tables:
        other = by_lake_table.setdefault(table.lake_table, table)
        if other is not table:
            yield (
                f"{other.schema}.{other.name} and {table.schema}.{table.name} would both be {table.lake_table} in the "
                f"lake: ALTER TABLE {table.sql} RENAME TO ...; or leave one out of the configuration"
            )


def _identities(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> Iterator[str]:
    for table in tables:
        name = f"{table.schema}.{table.name}"
        if table.append_only or (table.identity in "df" and table.has_primary_key) or table.identity == "i":
            continue
        if table.has_primary_key:
            yield f"table {name} has REPLICA IDENTITY NOTHING: ALTER TABLE {table.sql} REPLICA IDENTITY DEFAULT;"
        else:
            yield (
                f"table {name} has no key to tell its rows apart: ALTER TABLE {table.sql} ADD PRIMARY KEY (...); or "
                f"ALTER TABLE {table.sql} REPLICA IDENTITY USING INDEX ...; or, where rows are only ever inserted, set "
                f"append_only = true for it in the configuration"
            )


def _publications(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> Iterator[str]:
    for name, append_only in ((source.publication, False), (source.append_publication, True)):
        row = _publication(connection, name)
        if row is None:
            continue
        all_tables, inserts, updates, deletes, truncates, via_root = row
        wanted = "insert,truncate" if append_only else "insert,update,delete,truncate"
        if all_tables:
            yield f"publication {name} is FOR ALL TABLES: DROP PUBLICATION {quoted(name)}; the agent makes its own"
            continue
        if (inserts, updates, deletes, truncates) != (True, not append_only, not append_only, True):
            yield f"publication {name} publishes something else: {_set(name, 'publish', wanted)}"
        if not via_root:
            yield f"publication {name} names partitions: {_set(name, 'publish_via_partition_root', 'true')}"
        yield from _members(connection, name, append_only, tables)


def _members(connection: OrdinaryConnection, name: str, append_only: bool, tables: list[FoundTable]) -> Iterator[str]:
    ours = {(table.schema, table.name) for table in tables if table.append_only == append_only}
    rows = connection.execute(
        "SELECT schemaname, tablename, rowfilter IS NOT NULL FROM pg_catalog.pg_publication_tables "
        "WHERE pubname = %s ORDER BY 1, 2",
        (name,),
    ).fetchall()
    for schema, table, filtered in rows:
        identifier = f"{quoted(schema)}.{quoted(table)}"
        if (schema, table) not in ours:
            yield (
                f"publication {name} holds {schema}.{table}, which the configuration does not place there: "
                f"ALTER PUBLICATION {quoted(name)} DROP TABLE {identifier};"
            )
        elif filtered:
            yield (
                f"publication {name} has a row filter on {schema}.{table}: ALTER PUBLICATION {quoted(name)} DROP "
                f"TABLE {identifier}; ALTER PUBLICATION {quoted(name)} ADD TABLE {identifier};"
            )


def _slot(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> Iterator[str]:
    row = connection.execute(
        "SELECT plugin::text, database::text, current_database()::text, active_pid, wal_status, two_phase "
        "FROM pg_catalog.pg_replication_slots WHERE slot_name = %s",
        (source.slot,),
    ).fetchone()
    if row is None:
        return
    plugin, database, here, active_pid, wal_status, two_phase = row
    drop = f"SELECT pg_drop_replication_slot('{source.slot}');"
    if plugin != "pgoutput" or database != here:
        yield f"slot {source.slot} is another's ({plugin or 'physical'}, {database}): choose another name, or {drop}"
    elif wal_status == "lost":
        yield f"slot {source.slot} was invalidated, changes are lost: {drop} then start the agent with --new-era"
    elif two_phase:
        yield f"slot {source.slot} decodes prepared transactions: {drop} then start the agent with --new-era"
    elif active_pid is not None:
        yield (
            f"slot {source.slot} is in use by process {active_pid}: stop the other agent, or "
            f"SELECT pg_terminate_backend({active_pid});"
        )


_RULES: Final[tuple[Rule, ...]] = (_version, _settings, _rights, _named, _identities, _publications, _slot)


def _publication(connection: OrdinaryConnection, name: str) -> tuple[bool, ...] | None:
    return connection.execute(
        "SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot "
        "FROM pg_catalog.pg_publication WHERE pubname = %s",
        (name,),
    ).fetchone()


def _published(connection: OrdinaryConnection, publication: str, table: FoundTable) -> bool:
    row = connection.execute(
        "SELECT 1 FROM pg_catalog.pg_publication_tables WHERE pubname = %s AND schemaname = %s AND tablename = %s",
        (publication, table.schema, table.name),
    ).fetchone()
    return row is not None


def _creation(source: PostgresSource, name: str) -> str:
    wanted = "insert,truncate" if name == source.append_publication else "insert,update,delete,truncate"
    return f"CREATE PUBLICATION {quoted(name)} WITH (publish = '{wanted}', publish_via_partition_root = true);"


def _set(publication: str, option: str, value: str) -> str:
    return f"ALTER PUBLICATION {quoted(publication)} SET ({option} = '{value}');"


def _one(connection: OrdinaryConnection, query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row is not None else None
