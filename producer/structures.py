"""What the tables without a key last looked like, in the spool, and which of them have to be read anew for it.

Their rows are told apart by all that they hold. When such a table changes its structure, rows that were written before
look different at the source: a default stands in the new column, the dropped one is gone. A delete then names a row
that the lake does not have in that form, so the lake needs the rows as they are now.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Final

from producer.blocks import PackedBlock
from producer.spool_file import SpoolFile
from schemas.block import Kind
from schemas.change_record import TableSchema
from schemas.compatibility import changes_rows

_LOOKS: Final = "structure."
_STALE: Final = "restructured."


def follow(db: sqlite3.Connection, blocks: Iterable[PackedBlock], schemas: Iterable[TableSchema]) -> None:
    """Notes the structure that blocks of changes, or the end of a snapshot, have; within the spool's transaction.

    schemas: all that the blocks were written with. A snapshot's end holds the rows as they are: it makes nothing stale.
    """
    keyless = {schema.fingerprint(): schema for schema in schemas if not schema.key}
    if not keyless:
        return
    known: dict[str, TableSchema | None] = {}
    for block in blocks:
        new = keyless.get(block.fingerprint)
        if new is None or block.kind not in (Kind.DATA, Kind.SNAPSHOT_END):
            continue
        old = known[new.table] if new.table in known else _known(db, new.table)
        if old != new:
            _note(db, _LOOKS + new.table, json.dumps(new.to_avro()))
        if block.kind is Kind.DATA and new.whole_rows and old is not None and changes_rows(new, old):
            _note(db, _STALE + new.table, new.fingerprint().hex())
        known[new.table] = new


def restructured(file: SpoolFile) -> list[tuple[str, str]]:
    """The tables that have to be read anew, each with what `settle` takes."""
    rows = file.read("SELECT key, value FROM meta WHERE key >= ? AND key < ?", (_STALE, _STALE + "\U0010ffff"))
    return [(key.removeprefix(_STALE), value) for key, value in rows]


def settle(db: sqlite3.Connection, table: str, structure: str) -> None:
    """A snapshot of the table under that structure is announced; one of a later structure may still be due."""
    db.execute("DELETE FROM meta WHERE key = ? AND value = ?", (_STALE + table, structure))


def _known(db: sqlite3.Connection, table: str) -> TableSchema | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_LOOKS + table,)).fetchone()
    return None if row is None else TableSchema.from_avro(json.loads(row[0]))


def _note(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
