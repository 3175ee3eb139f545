"""What the source's catalog says of tables and types. Answers are of now, while a stream may still be in the past."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from producer.postgres.connection import OrdinaryConnection
from producer.postgres.messages import Relation, RelationColumn
from producer.postgres.types import TypeFacts


@dataclass(frozen=True)
class TableFacts:
    """What a Relation message does not say. primary_key: column names in the key's order."""

    primary_key: tuple[str, ...] = ()
    comments: Mapping[str, str] | None = None


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
            parts = {part for facts in found.values() for part in (facts.base, facts.element)}
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
            "SELECT a.attname, d.description FROM pg_catalog.pg_description d JOIN pg_catalog.pg_attribute a "
            "ON a.attrelid = d.objoid AND a.attnum = d.objsubid "
            "WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = %s AND d.objsubid > 0",
            (oid,),
        ).fetchall()
        return TableFacts(tuple(row[0] for row in key), {row[0]: row[1] for row in comments})

    def _known(self, oids: set[int]) -> list[TypeFacts]:
        missing = sorted(oids - self._types.keys())
        if missing:
            rows = self._connection.execute(_TYPES, (missing,)).fetchall()
            self._types.update((row[0], TypeFacts(*row)) for row in rows)
        return [self._types[oid] for oid in sorted(oids & self._types.keys())]


_TYPES = """
SELECT t.oid::int8, t.typname, t.typbasetype::int8, t.typtypmod,
       CASE WHEN t.typinput = 'pg_catalog.array_in'::regproc THEN t.typelem::int8 ELSE 0 END,
       coalesce(e.typdelim::text, ',')
FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
WHERE t.oid = ANY (%s::oid[])
"""


def relation(connection: OrdinaryConnection, schema: str, table: str, publication: str) -> Relation | None:
    """The table as pgoutput would announce it for this publication; None where there is no such table in it."""
    row = connection.execute(
        "SELECT c.oid::int8, c.relreplident::text FROM pg_catalog.pg_class c "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')",
        (schema, table),
    ).fetchone()
    if row is None:
        return None
    columns = connection.execute(_COLUMNS, {"oid": row[0], "schema": schema, "table": table, "pub": publication})
    found = tuple(RelationColumn(*column) for column in columns.fetchall())
    return Relation(row[0], schema, table, row[1], found) if found else None


_COLUMNS = """
SELECT a.attname, a.atttypid::int8, a.atttypmod,
       coalesce(c.relreplident = 'f' OR a.attnum = ANY (i.indkey), false)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_publication_tables p
  ON p.pubname = %(pub)s AND p.schemaname = %(schema)s AND p.tablename = %(table)s AND a.attname = ANY (p.attnames)
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
  AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
