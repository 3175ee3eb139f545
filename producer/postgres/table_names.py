"""The lake's name of every captured table, bound to its oid: a rename keeps it, drop and create makes a new one.

The names lie in a file of their own beside the spool. Without it every table is called as the source calls it now.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Protocol

from schemas.change_record import lake_table_name


@dataclass(frozen=True)
class Named:
    """What a table was called, here and at the source, when it was first captured.

    whole_rows: it had no key, so that its rows are told apart by all that they hold; None: nobody has said so yet.
    """

    lake_table: str
    schema: str
    table: str
    whole_rows: bool | None = None

    def names(self, schema: str, table: str) -> Iterator[tuple[str, str]]:
        """What the configuration may call it by: its name of now, and its first one."""
        yield schema, table
        if (schema, table) != (self.schema, self.table):
            yield self.schema, self.table


class TableNames(Protocol):
    def named(self, oid: int, schema: str, table: str) -> Named:
        """What the table is called, or would be if it were captured now."""
        ...

    def bind(self, oid: int, schema: str, table: str) -> Named:
        """The same, and it stays so."""
        ...

    def known(self) -> Iterable[tuple[str, str]]:
        """What every table that was ever captured was called at the source then; it may be gone since."""
        ...

    def whole_rows(self, oid: int) -> bool:
        """Whether whole rows are what a table's rows are told apart by."""
        ...

    def note_identity(self, oid: int, whole_rows: bool) -> None:
        """Remember that of a bound table; what is said first counts."""
        ...


class CurrentNames:
    """Every table is called as the source calls it now."""

    def named(self, oid: int, schema: str, table: str) -> Named:
        return Named(lake_table_name(schema, table), schema, table)

    bind = named

    def known(self) -> Iterable[tuple[str, str]]:
        return ()

    def whole_rows(self, oid: int) -> bool:
        return False

    def note_identity(self, oid: int, whole_rows: bool) -> None:
        pass


class BoundNames:
    """Names that outlive a rename, as long as the source is the same system. For one process; threads may share it."""

    def __init__(self, path: Path, renames: Mapping[str, str] | None = None) -> None:
        """renames: the lake's names of tables (`schema.table`) that are not to be called as the source calls them."""
        self._path = path
        self._renames = renames or {}
        self._system_id = ""
        self._bound: dict[int, Named] = {}
        self._lock = Lock()

    def enter(self, system_id: str) -> None:
        """The names of this system; another system's oids mean nothing here."""
        if system_id == self._system_id:
            return
        self._system_id, self._bound = system_id, {}
        if self._path.exists():
            document = json.loads(self._path.read_text())
            if document["system_id"] == system_id:
                self._bound = {int(oid): Named(*names) for oid, names in document["tables"].items()}

    def named(self, oid: int, schema: str, table: str) -> Named:
        known = self._bound.get(oid)
        if known is not None:
            return known
        wanted = self._renames.get(f"{schema}.{table}") or lake_table_name(schema, table)
        taken = {named.lake_table for named in self._bound.values()}
        name, suffix = wanted, 2
        while name in taken:
            name, suffix = f"{wanted}__{suffix}", suffix + 1
        return Named(name, schema, table)

    def bind(self, oid: int, schema: str, table: str) -> Named:
        with self._lock:
            named = self.named(oid, schema, table)
            if oid not in self._bound:
                self._write({**self._bound, oid: named})
        return named

    def lake_tables(self) -> dict[int, str]:
        """What every table that was ever captured is called in the lake, by its oid."""
        return {oid: named.lake_table for oid, named in self._bound.items()}

    def known(self) -> Iterable[tuple[str, str]]:
        return [(named.schema, named.table) for named in self._bound.values()]

    def whole_rows(self, oid: int) -> bool:
        known = self._bound.get(oid)
        return known is not None and bool(known.whole_rows)

    def note_identity(self, oid: int, whole_rows: bool) -> None:
        with self._lock:
            known = self._bound.get(oid)
            if known is not None and known.whole_rows is None:
                self._write({**self._bound, oid: replace(known, whole_rows=whole_rows)})

    def _write(self, bound: dict[int, Named]) -> None:
        """A name is on disk before any block that carries it."""
        tables = {str(oid): [n.lake_table, n.schema, n.table, n.whole_rows] for oid, n in bound.items()}
        beside = self._path.with_name(self._path.name + ".new")
        with beside.open("w") as file:
            json.dump({"system_id": self._system_id, "tables": tables}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._bound = bound
