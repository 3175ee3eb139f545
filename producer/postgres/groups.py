"""Cutting a table into groups: by quantiles of a sample of its keys, or by pages where the keys are scattered."""

from __future__ import annotations

from psycopg import sql

from producer import groups
from producer.groups import Plan, TableSize
from producer.postgres.connection import OrdinaryConnection
from producer.postgres.messages import Relation
from producer.postgres.rows import RowEncoder

_SAMPLED_PAGES = 20  # a group


def plan(connection: OrdinaryConnection, encoder: RowEncoder, group_bytes: int) -> Plan:
    """The table in groups of about group_bytes. Reads a sample of the table's pages, at most."""
    size = _size(connection, encoder)
    count = groups.count_of(size, group_bytes)
    if count == 1:
        return Plan(rows=size.rows)
    if size.file is not None and groups.by_pages(size):
        return Plan(groups.cut_pages(size.file, size.pages, count), size.rows)
    return Plan(groups.cut_keys(_quantiles(connection, encoder, size.pages, count)), size.rows)


def _size(connection: OrdinaryConnection, encoder: RowEncoder) -> TableSize:
    oid = encoder.relation.oid
    key = encoder.relation.columns[encoder.key[0]].name if encoder.key else None
    row = connection.execute(_SIZE, {"oid": oid, "key": key}).fetchone()
    assert row is not None
    size, pages, rows, file, out_of_line, correlation = row
    return TableSize(size, pages, rows, bool(encoder.key), file, out_of_line, correlation)


_SIZE = """
WITH parts AS (
    SELECT c.oid, c.reltuples, c.reltoastrelid FROM pg_catalog.pg_class c
    WHERE c.oid = %(oid)s AND c.relkind = 'r'
    UNION ALL
    SELECT c.oid, c.reltuples, c.reltoastrelid FROM pg_catalog.pg_partition_tree(%(oid)s) t
    JOIN pg_catalog.pg_class c ON c.oid = t.relid WHERE t.isleaf AND c.relkind = 'r' AND c.oid <> %(oid)s
)
SELECT coalesce(sum(pg_catalog.pg_table_size(oid)), 0)::int8,
       coalesce(sum(pg_catalog.pg_relation_size(oid)) / current_setting('block_size')::int8, 0)::int8,
       CASE WHEN min(reltuples) >= 0 THEN sum(reltuples)::int8 END,
       (SELECT pg_catalog.pg_relation_filenode(oid)::int8 FROM pg_catalog.pg_class WHERE oid = %(oid)s
        AND relkind = 'r'),
       coalesce(sum(pg_catalog.pg_relation_size(nullif(reltoastrelid, 0))), 0) > 0,
       (SELECT s.correlation::float8 FROM pg_catalog.pg_stats s, pg_catalog.pg_class c, pg_catalog.pg_namespace n
        WHERE c.oid = %(oid)s AND n.oid = c.relnamespace AND s.schemaname = n.nspname AND s.tablename = c.relname
        AND s.attname = %(key)s AND NOT s.inherited)
FROM parts
"""


def _quantiles(connection: OrdinaryConnection, encoder: RowEncoder, pages: int, count: int) -> list[tuple[str, ...]]:
    """The first key of each group but the first, in the order of the key's own collation."""
    names = [sql.Identifier(encoder.relation.columns[place].name) for place in encoder.key]
    query = sql.SQL(
        "SELECT {texts} FROM (SELECT {names}, row_number() OVER (ORDER BY {names}) AS headrace_n,"
        " count(*) OVER () AS headrace_total FROM {table} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (0)) AS sampled"
        " WHERE headrace_n > 1 AND (headrace_n - 1) * {count} / headrace_total"
        " <> (headrace_n - 2) * {count} / headrace_total ORDER BY headrace_n"
    ).format(
        texts=sql.SQL(", ").join(sql.SQL("{}::text").format(name) for name in names),
        names=sql.SQL(", ").join(names),
        table=rows_of(connection, encoder.relation),
        percent=sql.Literal(min(100.0, 100.0 * _SAMPLED_PAGES * count / max(1, pages))),
        count=sql.Literal(count),
    )
    return [tuple(row) for row in connection.execute(query).fetchall()]


def rows_of(connection: OrdinaryConnection, relation: Relation) -> sql.Composed:
    """The table as FROM has it: a plain one without tables that inherit from it, whose changes are their own."""
    row = connection.execute("SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = %s", (relation.oid,)).fetchone()
    only = sql.SQL("") if row == ("p",) else sql.SQL("ONLY ")
    return only + sql.Identifier(relation.namespace, relation.name)


def file_of(connection: OrdinaryConnection, oid: int) -> int | None:
    """The file that a table's rows lie in now. VACUUM FULL and the like give it another one."""
    row = connection.execute("SELECT pg_catalog.pg_relation_filenode(%s::oid)::int8", (oid,)).fetchone()
    return None if row is None else row[0]
