"""A database in memory whose log is streamed as a walsender does it: for tests of what stands behind one.

It has tables of integers and texts under REPLICA IDENTITY DEFAULT, sends values as text, and keeps a walsender's
promises: whole transactions in the order of their commits, again and again until they are confirmed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from producer.postgres.catalog import TableFacts
from producer.postgres.connection import Payload, xlog_data
from producer.postgres.messages import RelationColumn
from producer.postgres.type_facts import TypeFacts

TYPES: Final = {"integer": 23, "text": 25}
_FIRST_LSN: Final = 0x1000
_STEP: Final = 0x40
_FIRST_OID: Final = 16_384

Values: TypeAlias = Mapping[str, int | str | None]


@dataclass(frozen=True)
class _Table:
    oid: int
    name: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]

    def relation(self) -> bytes:
        data = b"R" + struct.pack(">I", self.oid) + b"public\0" + self.name.encode() + b"\0d"
        data += struct.pack(">H", len(self.columns))
        for name, type_name in self.columns:
            data += bytes([name in self.key]) + name.encode() + b"\0" + struct.pack(">Ii", TYPES[type_name], -1)
        return data

    def row(self, values: Values, only: Sequence[str] | None = None) -> bytes:
        data = struct.pack(">H", len(self.columns))
        for name, _ in self.columns:
            value = values.get(name) if only is None or name in only else None
            text = None if value is None else str(value).encode()
            data += b"n" if text is None else b"t" + struct.pack(">I", len(text)) + text
        return data


@dataclass(frozen=True)
class _Sent:
    """A message, and the table as it was when it was written."""

    tables: tuple[_Table, ...]
    message: bytes


@dataclass(frozen=True)
class _Transaction:
    xid: int
    lsn: int
    committed_at: int
    changes: tuple[_Sent, ...]

    @property
    def end_lsn(self) -> int:
        return self.lsn + _STEP // 2


@dataclass
class FakeDatabase:
    """confirmed_lsn: the slot's. `now` is the commit time of what comes next, in microseconds since 2000."""

    now: int = 0
    confirmed_lsn: int = _FIRST_LSN
    _tables: dict[str, _Table] = field(default_factory=dict)
    _rows: dict[str, list[dict[str, int | str | None]]] = field(default_factory=dict)
    _log: list[_Transaction] = field(default_factory=list)
    _open: list[_Sent] | None = None

    @property
    def current_lsn(self) -> int:
        return self._log[-1].end_lsn if self._log else _FIRST_LSN

    def create(self, name: str, columns: Mapping[str, str], key: Sequence[str]) -> None:
        self._tables[name] = _Table(_FIRST_OID + len(self._tables), name, tuple(columns.items()), tuple(key))
        self._rows[name] = []

    def add_column(self, name: str, column: str, type_name: str) -> None:
        table = self._tables[name]
        self._tables[name] = replace(table, columns=(*table.columns, (column, type_name)))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done within commits at its end, or is rolled back where it raises."""
        rows, self._open = {name: list(rows) for name, rows in self._rows.items()}, []
        try:
            yield
        except BaseException:
            self._rows, self._open = rows, None
            raise
        changes, self._open = tuple(self._open), None
        if changes:
            number = len(self._log)
            self._log.append(_Transaction(number + 700, _FIRST_LSN + (number + 1) * _STEP, self.now, changes))

    def insert(self, name: str, values: Values) -> None:
        self._rows[name].append(dict(values))
        table = self._tables[name]
        self._say(table, b"I" + struct.pack(">I", table.oid) + b"N" + table.row(values))

    def update(self, name: str, where: Values, values: Values) -> None:
        """Of the rows that match, in order. A key that changes is sent with its old value."""
        table = self._tables[name]
        for place, old in enumerate(self._rows[name]):
            if where.items() <= old.items():
                new = self._rows[name][place] = {**old, **values}
                moved = any(old[column] != new[column] for column in table.key)
                before = b"K" + table.row(old, table.key) if moved else b""
                self._say(table, b"U" + struct.pack(">I", table.oid) + before + b"N" + table.row(new))

    def delete(self, name: str, where: Values) -> None:
        table = self._tables[name]
        for old in [row for row in self._rows[name] if where.items() <= row.items()]:
            self._rows[name].remove(old)
            self._say(table, b"D" + struct.pack(">I", table.oid) + b"K" + table.row(old, table.key))

    def truncate(self, *names: str) -> None:
        tables = tuple(self._tables[name] for name in names)
        for name in names:
            self._rows[name] = []
        oids = [table.oid for table in tables]
        message = b"T" + struct.pack(f">IB{len(oids)}I", len(oids), 0, *oids)
        self._sent().append(_Sent(tables, message))

    def replication(self, start_lsn: int = 0) -> FakeReplication:
        """A stream from the slot's confirmed position, or from start_lsn where that is further."""
        start = max(start_lsn, self.confirmed_lsn)
        return FakeReplication(self, [one for one in self._log if one.end_lsn > start])

    def since(self, known: int) -> list[_Transaction]:
        return self._log[known:]

    @property
    def transactions(self) -> int:
        return len(self._log)

    def _say(self, table: _Table, message: bytes) -> None:
        self._sent().append(_Sent((table,), message))

    def _sent(self) -> list[_Sent]:
        if self._open is None:
            raise ValueError("changes are made within a transaction")
        return self._open


class FakeReplication:
    """What a Replication does, on a FakeDatabase."""

    def __init__(self, database: FakeDatabase, behind: Iterable[_Transaction]) -> None:
        self._database = database
        self._known = database.transactions
        self._described: dict[int, _Table] = {}
        self._payloads = [payload for one in behind for payload in self._stream(one)]
        self._told = 0

    def receive(self, wait_seconds: float, most: int) -> list[Payload]:
        """Never waits. Where nothing is left, a keepalive says how far the database is."""
        for transaction in self._database.since(self._known):
            self._payloads += self._stream(transaction)
        self._known = self._database.transactions
        taken, self._payloads = self._payloads[:most], self._payloads[most:]
        if not taken and self._told < self._database.current_lsn:
            self._told = self._database.current_lsn
            return [b"k" + struct.pack(">QqB", self._told, self._database.now, 0)]
        return list(taken)

    def confirm(self, lsn: int) -> None:
        self._database.confirmed_lsn = max(self._database.confirmed_lsn, lsn)

    def close(self) -> None: ...

    def _stream(self, transaction: _Transaction) -> Iterator[bytes]:
        lsn, at = transaction.lsn, transaction.committed_at
        yield xlog_data(lsn, b"B" + struct.pack(">QqI", lsn, at, transaction.xid))
        for sent in transaction.changes:
            for table in sent.tables:
                if self._described.get(table.oid) != table:
                    self._described[table.oid] = table
                    yield xlog_data(lsn, table.relation())
            yield xlog_data(lsn, sent.message)
        yield xlog_data(lsn, b"C" + struct.pack(">BQQq", 0, lsn, transaction.end_lsn, at))


class FakeCatalog:
    """The catalog of a FakeDatabase."""

    def types(self, oids: Iterable[int]) -> dict[int, TypeFacts]:
        return {}

    def type_names(self, columns: Sequence[RelationColumn]) -> tuple[str, ...]:
        names = {oid: name for name, oid in TYPES.items()}
        return tuple(names[column.type_oid] for column in columns)

    def table(self, oid: int) -> TableFacts:
        return TableFacts()
