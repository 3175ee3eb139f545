"""The writer schemas of spooled blocks: each is registered before the first block under it goes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from producer.spool_file import SpoolFile
from schemas.change_record import TableSchema


class SpoolSchemas:
    def __init__(self, file: SpoolFile) -> None:
        self._file = file
        self._written: set[bytes] = set()

    def fresh(self, schemas: Iterable[TableSchema]) -> list[TableSchema]:
        """Those that this process has not written yet."""
        return [schema for schema in schemas if schema.fingerprint() not in self._written]

    def written(self, schemas: Iterable[TableSchema]) -> None:
        """The transaction that held them is on disk."""
        self._written.update(schema.fingerprint() for schema in schemas)

    def unregistered(self, fingerprint: bytes) -> TableSchema | None:
        rows = self._file.read("SELECT avro FROM schemas WHERE fingerprint = ? AND registered = 0", (fingerprint,))
        return TableSchema.from_avro(json.loads(rows[0][0])) if rows else None

    def registered(self, fingerprint: bytes) -> None:
        self._file.write(
            lambda db: db.execute("UPDATE schemas SET registered = 1 WHERE fingerprint = ?", (fingerprint,))
        )


def insert(db: sqlite3.Connection, schemas: Iterable[TableSchema]) -> None:
    rows = [(schema.fingerprint(), json.dumps(schema.to_avro())) for schema in schemas]
    db.executemany("INSERT OR IGNORE INTO schemas (fingerprint, avro) VALUES (?, ?)", rows)
