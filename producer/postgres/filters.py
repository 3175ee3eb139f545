"""Row filters of publications (PostgreSQL 15 and newer): what the server makes of one, without leaving a trace."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

import psycopg
from psycopg import sql

from producer.postgres.connection import OrdinaryConnection


@dataclass(frozen=True)
class Understood:
    """A filter as the server prints it, and the columns that it looks at."""

    text: str
    columns: frozenset[str]


def understood(connection: OrdinaryConnection, schema: str, table: str, where: str) -> Understood:
    """Raises psycopg.Error with the server's message where it is no filter for this table.

    Only a publication tells, so one is made and rolled back. It is prepared, since then no second statement can follow.
    """
    name = f"headrace_look_{uuid4().hex[:16]}"
    with connection.transaction(force_rollback=True):
        connection.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLE ONLY {} WHERE ({})").format(
                sql.Identifier(name),
                sql.Identifier(schema, table),
                sql.SQL(where),
            ),
            prepare=True,
        )
        row = connection.execute(_TEXT, (name,)).fetchone()
        columns = connection.execute(_COLUMNS, (name,)).fetchall()
    return Understood(str(row[0]) if row is not None else "", frozenset(column[0] for column in columns))


_TEXT = "SELECT rowfilter FROM pg_catalog.pg_publication_tables WHERE pubname = %s"
_COLUMNS = """
SELECT DISTINCT a.attname
FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_publication_rel'::regclass AND d.objid = r.oid
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE p.pubname = %s AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0
"""


def set_filter(connection: OrdinaryConnection, publication: str, schema: str, table: str, where: str | None) -> None:
    """Publishes the table with this filter in place of what it had; in one step, so that no change is held back."""
    relation = sql.Identifier(schema, table)
    condition = sql.SQL("") if where is None else sql.SQL(" WHERE ({})").format(sql.SQL(where))
    with connection.transaction():
        try:
            with connection.transaction():
                connection.execute(
                    sql.SQL("ALTER PUBLICATION {} DROP TABLE ONLY {}").format(sql.Identifier(publication), relation)
                )
        except psycopg.errors.UndefinedObject:
            pass  # it was not in it yet
        statement = sql.SQL("ALTER PUBLICATION {} ADD TABLE ONLY {}{}")
        connection.execute(statement.format(sql.Identifier(publication), relation, condition))
