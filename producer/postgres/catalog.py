"""What the source's catalog says of tables and types. Answers are of now, while a stream may still be in the past."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

from producer.postgres.connection import OrdinaryConnection
from producer.postgres.messages import Relation, RelationColumn
from producer.postgres.type_facts import TypeFacts


@dataclass(frozen=True)
class TableFacts:
    """What a Relation message does not say. primary_key: column names in the key's order. comment: on the table."""

    primary_key: tuple[str, ...] = ()
    comments: Mapping[str, str] | None = None
    comment: str | None = None


class Catalog(Protocol):
    """What a decoder asks."""

    def types(self, oids: Iterable[int]) -> dict[int, TypeFacts]:
        """The types, and all that they are made of. A type that is gone is missing."""
        ...

    def type_names(self, columns: Sequence[RelationColumn]) -> tuple[str, ...]:
        """Each column's type as SQL writes it."""
        ...

    def table(self, oid: int) -> TableFacts: ...


class SessionCatalog:
    """The catalog through an ordinary session; types are remembered."""

    def __init__(self, connection: OrdinaryConnection) -> None:
        self._connection = connection
        self._types: dict[int, TypeFacts] = {}

    def types(self, oids: Iterable[int]) -> dict[int, TypeFacts]:
        found: dict[int, TypeFacts] = {}
        wanted = set(oids)
        while wanted:
            for facts in self._known(wanted):
                found[facts.oid] = facts
            parts = {part for facts in found.values() for part in (facts.base, facts.element, *facts.parts)}
            wanted = {oid for oid in parts - found.keys() - {0} if oid not in wanted}
        return found

    def type_names(self, columns: Sequence[RelationColumn]) -> tuple[str, ...]:
        rows = self._connection.execute(
            "SELECT pg_catalog.format_type(oid, typmod) "
            "FROM unnest(%s::oid[], %s::int[]) WITH ORDINALITY AS t (oid, typmod, place) ORDER BY place",
            ([column.type_oid for column in columns], [column.typmod for column in columns]),
        ).fetchall()
        return tuple(row[0] for row in rows)

    def table(self, oid: int) -> TableFacts:
        key = self._connection.execute(
            "SELECT a.attname FROM pg_catalog.pg_index i, unnest(i.indkey) WITH ORDINALITY AS k (attnum, place), "
            "pg_catalog.pg_attribute a WHERE i.indrelid = %s AND i.indisprimary AND k.place <= i.indnkeyatts "
            "AND a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place",
            (oid,),
        ).fetchall()
        comments = self._connection.execute(
            "SELECT a.attname, d.description FROM pg_catalog.pg_description d LEFT JOIN pg_catalog.pg_attribute a "
            "ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND d.objsubid > 0 "
            "WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = %s",
            (oid,),
        ).fetchall()
        found = {row[0]: row[1] for row in comments}  # the table's own is under no column
        return TableFacts(tuple(row[0] for row in key), found, found.pop(None, None))

    def _known(self, oids: set[int]) -> list[TypeFacts]:
        missing = sorted(oids - self._types.keys())
        if missing:
            rows = self._connection.execute(_TYPES, (missing,)).fetchall()
            self._types.update((row[0], TypeFacts(*(*row[:-1], tuple(row[-1])))) for row in rows)
        return [self._types[oid] for oid in sorted(oids & self._types.keys())]


_TYPES = """
SELECT t.oid::int8, t.typname, t.typbasetype::int8, t.typtypmod,
       CASE WHEN t.typinput = 'pg_catalog.array_in'::regproc THEN t.typelem::int8 ELSE 0 END,
       coalesce(e.typdelim::text, ','),
       coalesce(CASE WHEN s.probin IS NOT NULL THEN regexp_replace(s.probin, '^.*/', '') || '.' || s.prosrc
                     WHEN s.prosrc = 'cash_send' THEN current_setting('lc_monetary') || '.cash_send'
                     ELSE s.prosrc END, ''),
       CASE t.typtype
            WHEN 'c' THEN ARRAY(SELECT a.atttypid::int8 FROM pg_catalog.pg_attribute a
                                WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
            WHEN 'r' THEN ARRAY(SELECT r.rngsubtype::int8 FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid)
            WHEN 'm' THEN ARRAY(SELECT r.rngtypid::int8 FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid)
            ELSE '{}' END
FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
LEFT JOIN pg_catalog.pg_proc s ON s.oid = t.typsend
WHERE t.oid = ANY (%s::oid[])
"""


def oid_of(connection: OrdinaryConnection, schema: str, table: str) -> int:
    """The table's oid; 0 where there is none of that name."""
    row = connection.execute(
        "SELECT c.oid::int8 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')",
        (schema, table),
    ).fetchone()
    return 0 if row is None else int(row[0])


def relation(connection: OrdinaryConnection, oid: int, publication: str) -> Relation | None:
    """The table as pgoutput would announce it for this publication; None where there is no such table in it."""
    row = connection.execute(
        "SELECT n.nspname, c.relname, c.relreplident::text FROM pg_catalog.pg_class c "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s",
        (oid,),
    ).fetchone()
    if row is None:
        return None
    columns = connection.execute(columns_query(connection), {"oid": oid, "pub": publication}).fetchall()
    schema, table, identity = row
    found = tuple(RelationColumn(*column) for column in columns)
    return Relation(oid, schema, table, identity, found) if found else None


def published(connection: OrdinaryConnection, publication: str) -> dict[tuple[str, str], str | None]:
    """The tables of a publication, and the row filter that holds some of their rows back, as the server prints it."""
    filtered = "rowfilter" if connection.info.server_version >= COLUMN_LISTS_SINCE else "NULL"
    rows = connection.execute(
        f"SELECT schemaname, tablename, {filtered} FROM pg_catalog.pg_publication_tables "
        "WHERE pubname = %s ORDER BY 1, 2".encode(),
        (publication,),
    ).fetchall()
    return {(schema, table): condition for schema, table, condition in rows}


def column_names(connection: OrdinaryConnection, oid: int) -> list[str]:
    rows = connection.execute(
        "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped", (oid,)
    ).fetchall()
    return [row[0] for row in rows]


class Partition(NamedTuple):
    """file: goes with it, and changes with a TRUNCATE. brought_rows: it was a table of its own before it was attached,
    and is not empty."""

    name: str
    file: int
    brought_rows: bool


Partitions: TypeAlias = Mapping[int, Mapping[int, Partition]]
"""The leaf partitions of every partitioned table, both by oid."""


class PartitionNews(NamedTuple):
    """root: the table whose rows in the lake are no more the source's. missing: it lacks some; else it has too many."""

    root: int
    said: str
    missing: bool


def partitions(connection: OrdinaryConnection, tables: Sequence[int]) -> Partitions:
    found: dict[int, dict[int, Partition]] = {}
    for root, oid, *values in connection.execute(_PARTITIONS, (list(tables),)).fetchall():
        found.setdefault(root, {})
        if oid is not None:
            found[root][oid] = Partition(*values)
    return found


_PARTITIONS: Final = """
SELECT c.oid::int8, p.relid::oid::int8, p.relid::regclass::text, coalesce(pg_relation_filenode(p.relid), 0)::int8,
       pg_relation_size(p.relid) > 0 AND EXISTS (
           SELECT FROM pg_catalog.pg_partition_ancestors(p.relid) s
           JOIN pg_catalog.pg_inherits i ON i.inhrelid = s.relid
           JOIN pg_catalog.pg_attribute a ON a.attrelid = s.relid AND a.attnum = -1
           WHERE i.xmin <> a.xmin OR i.cmin::text::int8 - a.cmin::text::int8 > 2)
FROM pg_catalog.pg_class c LEFT JOIN LATERAL pg_catalog.pg_partition_tree(c.oid) p ON p.isleaf AND p.relid <> c.oid
WHERE c.oid = ANY (%s::oid[]) AND c.relkind = 'p'
"""
"""A table's system columns are written when it is made, and never again; its place under another is written by the same
command where it is made there (two steps later, seen with 18), and by a later one where it is attached."""


def partition_news(before: Partitions, now: Partitions) -> list[PartitionNews]:
    """What was done to partitions that the stream does not tell, of tables that were known before. Pure."""
    news = []
    for root in before.keys() & now.keys():
        known, found = before[root], now[root]
        for oid, partition in known.items():
            if oid not in found:
                said = f"partition {partition.name} was dropped or detached: its rows stay in the lake"
                news.append(PartitionNews(root, said, missing=False))
            elif found[oid].file != partition.file:
                said = f"partition {partition.name} was truncated or rewritten: if truncated, its rows stay in the lake"
                news.append(PartitionNews(root, said, missing=False))
        for oid, partition in found.items():
            if oid not in known and partition.brought_rows:
                said = f"partition {partition.name} was attached with rows, which the lake does not have"
                news.append(PartitionNews(root, said, missing=True))
    return news


def columns_query(connection: OrdinaryConnection) -> bytes:
    """Before column lists a publication has all columns, and before 18 never a generated one."""
    version = connection.info.server_version
    listed = "a.attname = ANY (p.attnames)" if version >= COLUMN_LISTS_SINCE else "true"
    stored = "true" if version >= GENERATED_COLUMNS_SINCE else "a.attgenerated = ''"
    return _COLUMNS.replace("WANTED", f"{listed} AND {stored}").encode()


COLUMN_LISTS_SINCE: Final = 150_000
"""Column lists and row filters of publications."""
GENERATED_COLUMNS_SINCE: Final = 180_000
"""A publication may hold stored generated columns."""

_COLUMNS: Final = """
SELECT a.attname, a.atttypid::int8, a.atttypmod,
       coalesce(c.relreplident = 'f' OR a.attnum = ANY (i.indkey), false)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_publication_tables p
  ON p.pubname = %(pub)s AND p.schemaname = n.nspname AND p.tablename = c.relname AND WANTED
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
  AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
