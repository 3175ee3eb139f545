"""What must hold at the source before capture starts: every problem found, each with the statement that mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import psycopg

from producer.postgres import catalog
from producer.postgres.connection import OrdinaryConnection, quoted
from producer.postgres.filters import understood
from producer.postgres.source import PostgresSource
from schemas.change_record import VERSIONS

MIN_SERVER_VERSION: Final = 140_000
"""Before 14 pgoutput sends no binary values."""


@dataclass(frozen=True)
class FoundTable:
    """A table at the source that the configuration names.

    key: the columns that tell its rows apart by its replica identity, under FULL those of its primary key; none where
    it has none, or only a deferrable one: under it two rows may be one for a while. Under FULL the whole row does then.
    hidden_key: those of them that are generated and not published.
    odd_partitions: partitions whose updates and deletes would not carry that key.
    published: in one of our publications. pattern: by which the configuration means it; None where it names it.
    left_out: why it is not captured, and is in nobody's way.
    """

    oid: int
    schema: str
    name: str
    lake_table: str
    append_only: bool
    identity: str
    key: tuple[str, ...]
    hidden_key: tuple[str, ...]
    odd_partitions: tuple[str, ...]
    readable: bool
    owned: bool
    published: bool
    pattern: str | None
    left_out: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def captured_tables(connection: OrdinaryConnection, source: PostgresSource) -> list[FoundTable]:
    """The source's tables that the configuration names, by name; partitions count as their root table."""
    tables = []
    publications = (source.publication, source.append_publication)
    there = {table for publication in publications for table in catalog.published(connection, publication)}
    for oid, schema, name, identity, key, hidden, odd, readable, owned in connection.execute(_TABLES).fetchall():
        choice = source.choice(oid, schema, name)
        if choice is not None:
            lake_table = source.names.named(oid, schema, name).lake_table
            columns = tuple(key or ()), tuple(hidden or ()), tuple(odd)
            found = FoundTable(
                oid, schema, name, lake_table, choice.append_only, identity, *columns, readable, owned,
                published=(schema, name) in there, pattern=choice.name if choice.is_pattern else None,
            )  # fmt: skip
            tables.append(found)
    return tables


_KEY: Final = """
LATERAL (
    SELECT array_agg(a.attname::text ORDER BY a.attname) AS columns,
           array_agg(a.attname::text ORDER BY a.attname) FILTER (WHERE a.attgenerated <> '') AS generated
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
      ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
    WHERE i.indrelid = {table}.oid AND i.indisvalid AND i.indimmediate
      AND CASE {table}.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
)"""
_TABLES: Final = f"""
SELECT c.oid::int8, n.nspname, c.relname, c.relreplident::text, k.columns, k.generated,
       ARRAY(SELECT p.relid::text FROM pg_catalog.pg_partition_tree(c.oid) p
             JOIN pg_catalog.pg_class l ON l.oid = p.relid, {_KEY.format(table="l")} lk
             WHERE c.relkind = 'p' AND p.isleaf AND l.relreplident <> 'f'
               AND (l.relreplident = 'n' OR k.columns IS NULL OR lk.columns IS DISTINCT FROM k.columns) ORDER BY 1),
       pg_catalog.has_table_privilege(c.oid, 'SELECT'),
       pg_catalog.pg_has_role(c.relowner, 'USAGE')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, {_KEY.format(table="c")} k
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
ORDER BY 2, 3
"""


def publication_of(source: PostgresSource, append_only: bool) -> str:
    return source.append_publication if append_only else source.publication


def sorted_out(connection: OrdinaryConnection, source: PostgresSource) -> list[FoundTable]:
    """The tables that the configuration names; those that only a pattern matches are left out where they are hindered,
    as a table is that comes while the agent runs. But a pattern is to capture something."""
    tables = captured_tables(connection, source)
    found = {t.oid: hindrances(connection, source, t, tables) for t in tables if t.pattern is not None}
    fruitful = {table.pattern for table in tables if not found.get(table.oid)}
    return [
        replace(table, left_out=tuple(found.get(table.oid, ()))) if table.pattern in fruitful else table
        for table in tables
    ]


def hindrances(
    connection: OrdinaryConnection, source: PostgresSource, table: FoundTable, tables: Sequence[FoundTable]
) -> list[str]:
    """Why the table cannot be captured, or not go on to be."""
    if table.published:
        harm = "; until then its updates and deletes may fail at the source, since it is published"
        return [problem + harm for problem in identity_problems(table)]
    return [
        *identity_problems(table),
        *rights_problems(connection, source, table),
        *shaping_problems(connection, source, table),
        *name_problems(table, tables),
    ]


def problems(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> list[str]:
    """Everything that stands in the way of capture, in the order in which it is best mended."""
    return [problem for rule in _RULES for problem in rule(connection, source, tables)]


Rule = Callable[[OrdinaryConnection, PostgresSource, list[FoundTable]], Iterator[str]]


def _version(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> Iterator[str]:
    version = connection.info.server_version
    if version < MIN_SERVER_VERSION:
        yield f"PostgreSQL {version // 10_000} is too old: 14 or newer is needed"


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


def shaping_problems(connection: OrdinaryConnection, source: PostgresSource, table: FoundTable) -> Iterator[str]:
    """Whether what the configuration makes of the table leaves its rows apart."""
    shaping = source.shaping(table.oid, table.schema, table.name)
    for column in sorted(shaping.exclude_columns | shaping.mask_columns.keys()):
        if not table.append_only and column in table.key:
            yield (
                f"column {column} of {table.shown} is in its key and cannot be left out or masked: hash it "
                f"(hash_columns), so that rows still differ"
            )
    if shaping.rename is not None and table.lake_table != shaping.rename:
        yield (
            f"table {table.shown} is {table.lake_table} in the lake, which a later rename = {shaping.rename!r} does "
            f"not change: take it out of the configuration"
        )
    if shaping.where is not None:
        yield from _filtered(connection, source, table, shaping.where)


def _filtered(connection: OrdinaryConnection, source: PostgresSource, table: FoundTable, where: str) -> Iterator[str]:
    if connection.info.server_version < catalog.COLUMN_LISTS_SINCE:
        yield f"table {table.shown} has a row filter (where), which PostgreSQL 15 and newer can publish: take it out"
        return
    name = publication_of(source, table.append_only)
    if not table.owned:
        if catalog.published(connection, name).get((table.schema, table.name)) is None:
            add = f"ALTER PUBLICATION {quoted(name)} ADD TABLE {table.sql} WHERE ({where});"
            drop = f"ALTER PUBLICATION {quoted(name)} DROP TABLE {table.sql};"
            yield f"table {table.shown} is published without its row filter: as its owner, {drop} {add}"
        return
    try:
        columns = understood(connection, table.schema, table.name, where).columns
    except psycopg.Error as error:
        yield f"the row filter of {table.shown} ({where}) is refused: {str(error).strip()}"
        return
    outside = sorted(columns - set(table.key))
    if outside and not table.append_only and table.identity != "f":
        yield (
            f"the row filter of {table.shown} looks at {', '.join(outside)}, which updates and deletes do not carry, "
            f"so they would fail at the source: ALTER TABLE {table.sql} REPLICA IDENTITY FULL; or filter by its key"
        )


def rights_problems(connection: OrdinaryConnection, source: PostgresSource, table: FoundTable) -> Iterator[str]:
    """What the role may not do with the table."""
    role = quoted(str(_one(connection, "SELECT current_user::text")))
    if not table.readable:
        yield f"table {table.shown} may not be read: GRANT SELECT ON {table.sql} TO {role};"
    name = publication_of(source, table.append_only)
    if not table.owned and (table.schema, table.name) not in catalog.published(connection, name):
        statement = f"ALTER PUBLICATION {quoted(name)} ADD TABLE {table.sql};"
        if _publication(connection, name) is None:
            statement = f"{_creation(source, name)} {statement}"
        yield f"table {table.shown} is not {role}'s to publish: as its owner, {statement}"


def name_problems(table: FoundTable, tables: Sequence[FoundTable]) -> Iterator[str]:
    """Whether the table's name in the lake is that of the view of another's versions, or the other way round."""
    for other in tables:
        names = sorted((table.lake_table, other.lake_table))
        if names[0] + VERSIONS == names[1]:
            yield (
                f"{other.shown} and {table.shown} would be {' and '.join(names)} in the lake, where {names[1]} is what "
                f"the versions of {names[0]} are called: set rename for {table.shown} in the configuration"
            )


def identity_problems(table: FoundTable) -> Iterator[str]:
    """Why updates and deletes would not name their row."""
    if table.append_only:
        return
    name, alter = f"table {table.shown}", f"ALTER TABLE {table.sql}"
    if table.identity == "n" and table.key:
        yield f"{name} has REPLICA IDENTITY NOTHING: {alter} REPLICA IDENTITY DEFAULT;"
    elif table.identity == "i" and not table.key:
        yield f"{name} has lost the index that was its REPLICA IDENTITY: {alter} REPLICA IDENTITY DEFAULT;"
    elif not table.key and table.identity != "f":
        yield (
            f"{name} has no key to tell its rows apart (a deferrable one does not): {alter} ADD PRIMARY KEY (...); or "
            f"{alter} REPLICA IDENTITY USING INDEX ...; or {alter} REPLICA IDENTITY FULL; or, where rows are only ever "
            f"inserted, set append_only = true for it in the configuration"
        )
    elif table.hidden_key:
        yield (
            f"{name} has generated columns in its key ({', '.join(table.hidden_key)}), which are not published: "
            f"{alter} REPLICA IDENTITY USING INDEX ... with one that has none"
        )
    if not table.key and table.identity != "f":
        return
    for partition in table.odd_partitions:
        yield (
            f"partition {partition} of {table.shown} tells its rows apart by another key than "
            f"({', '.join(table.key) or 'the whole row'}): ALTER TABLE {partition} REPLICA IDENTITY FULL;"
        )


def _named(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> Iterator[str]:
    for choice in source.tables:
        matched = [table for table in tables if choice in source.choices(table.oid, table.schema, table.name)]
        if not matched and any(choice.matches(*name) for name in source.names.known()):
            continue  # it was dropped since
        if not matched:
            yield f"no table matches {choice.name}: create it, or take it out of the configuration"
            continue
        there = {name for table in matched for name in catalog.column_names(connection, table.oid)}
        for column in sorted(choice.shaping.columns - there):
            yield f"no table that matches {choice.name} has a column {column}: mend its name in the configuration"
    by_lake_table: dict[str, FoundTable] = {}
    for table in tables:
        other = by_lake_table.setdefault(table.lake_table, table)
        if other is not table:
            yield (
                f"{other.schema}.{other.name} and {table.schema}.{table.name} would both be {table.lake_table} in the "
                f"lake: ALTER TABLE {table.sql} RENAME TO ...; or leave one out of the configuration"
            )


def _each_table(connection: OrdinaryConnection, source: PostgresSource, tables: list[FoundTable]) -> Iterator[str]:
    for table in tables:
        if table.left_out and not table.published:
            continue
        yield from rights_problems(connection, source, table)
        if not table.left_out:
            yield from identity_problems(table)
        yield from shaping_problems(connection, source, table)
        if not table.published:
            yield from name_problems(table, tables)


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
        yield from _members(connection, source, name, append_only, tables)


def _members(
    connection: OrdinaryConnection, source: PostgresSource, name: str, append_only: bool, tables: list[FoundTable]
) -> Iterator[str]:
    ours = {(table.schema, table.name) for table in tables if table.append_only == append_only}
    shapings = {(t.schema, t.name): source.shaping(t.oid, t.schema, t.name) for t in tables}
    filtering = {name for name, shaping in shapings.items() if shaping.where is not None}
    for (schema, table), filtered in catalog.published(connection, name).items():
        identifier = f"{quoted(schema)}.{quoted(table)}"
        if (schema, table) not in ours:
            yield (
                f"publication {name} holds {schema}.{table}, which the configuration does not place there: "
                f"ALTER PUBLICATION {quoted(name)} DROP TABLE {identifier};"
            )
        elif filtered is not None and (schema, table) not in filtering:
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
    elif active_pid is not None and not source.slot_is_ours:
        yield (
            f"slot {source.slot} is in use by process {active_pid}: stop the other agent, or "
            f"SELECT pg_terminate_backend({active_pid});"
        )


_RULES: Final[tuple[Rule, ...]] = (_version, _settings, _rights, _named, _each_table, _publications, _slot)


def _publication(connection: OrdinaryConnection, name: str) -> tuple[bool, ...] | None:
    return connection.execute(
        "SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot "
        "FROM pg_catalog.pg_publication WHERE pubname = %s",
        (name,),
    ).fetchone()


def _creation(source: PostgresSource, name: str) -> str:
    wanted = "insert,truncate" if name == source.append_publication else "insert,update,delete,truncate"
    return f"CREATE PUBLICATION {quoted(name)} WITH (publish = '{wanted}', publish_via_partition_root = true);"


def _set(publication: str, option: str, value: str) -> str:
    return f"ALTER PUBLICATION {quoted(publication)} SET ({option} = '{value}');"


def _one(connection: OrdinaryConnection, query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row is not None else None
