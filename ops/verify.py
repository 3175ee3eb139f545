"""`headrace verify`: every table of the lake compared with the source, row by row and value by value.

The source is read first, in one transaction, at a position; then the watermark is awaited there and the cut views are
queried, so both sides speak of the same moment as long as nothing is written in between. A table that differs is looked
at again before it is reported. Beside the rows, the history is counted: a position that is there twice is a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.table import Table

from ops import tables
from ops.athena import Athena
from ops.stack import Stack
from ops.values import Unheld, Value, element_type, from_athena, from_source, may_be_unheld
from ops.waiting import until
from schemas.change_record import lake_table_name
from schemas.position import format_lsn, parse_lsn
from schemas.registry import Registry

_SESSION: Final = (
    "SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 1; "
    "SET bytea_output = 'hex'"
)
_CAUGHT_UP_SECONDS: Final = 120.0
_SHOWN: Final = 20
_LOOKS: Final = 3

Row = tuple[Value, ...]


@dataclass(frozen=True)
class SourceTable:
    """Where a lake table comes from: the relation, and for each lake column its name in the source."""

    relation: str
    columns: Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """A row that is not the same on both sides: by its key (or its values), what the source has, what the lake has."""

    table: str
    key: str
    problem: str


@dataclass(frozen=True)
class TableResult:
    table: str
    source_rows: int
    lake_rows: int
    changes: int
    duplicates: int
    holes: int
    differences: tuple[Difference, ...] = ()
    differing: int = 0

    @property
    def equal(self) -> bool:
        return not self.differing and not self.duplicates and not self.holes


@dataclass(frozen=True)
class Verification:
    position: str
    tables: tuple[TableResult, ...]
    missing: tuple[str, ...] = field(default=())

    @property
    def equal(self) -> bool:
        return bool(self.tables) and not self.missing and all(table.equal for table in self.tables)


class Verifier:
    """Compares one source with its lake."""

    def __init__(self, dsn: str, source: str, athena: Athena, glue: Any, registry: Registry) -> None:
        self._dsn = dsn
        self._source = source
        self._athena = athena
        self._glue = glue
        self._registry = registry

    def run(self, only: Sequence[str] = ()) -> Verification:
        """The comparison of all lake tables of the source, or of those named."""
        found = [table for table in tables.lake_tables(self._glue, self._source) if not only or table.name in only]
        missing = tuple(sorted(set(only) - {table.name for table in found}))
        position = self._await_position()
        return Verification(position, tuple(self._table(table) for table in found), missing)

    def _await_position(self) -> str:
        """The last byte of the source's log as of now, once the watermark has reached it: every commit lies below."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        position = parse_lsn(str(row[0])) - 1  # the function names the byte that is written next
        until(
            lambda: (seen := tables.watermark(self._glue, self._source).line) is not None and seen.lsn >= position,
            lambda: (
                f"the watermark to reach {format_lsn(position)}; it stands at "
                f"{tables.watermark(self._glue, self._source).line} (see `headrace status`)"
            ),
            _CAUGHT_UP_SECONDS,
        )
        return format_lsn(position)

    def _table(self, table: tables.LakeTable) -> TableResult:
        result = self._compare(table)
        for _ in range(_LOOKS - 1):
            if result.equal:
                break
            self._await_position()
            result = self._compare(table)
        return result

    def _compare(self, table: tables.LakeTable) -> TableResult:
        origin = self._origin(table)
        columns = [(name, kind) for name, kind in table.columns if name in origin.columns]
        expected = self._source_rows(origin, columns)
        actual = self._lake_rows(table.name, columns)
        found = list(differences(table.name, table.key, [name for name, _ in columns], expected, actual))
        changes, duplicates = self._history(table.name)
        return TableResult(
            table=table.name,
            source_rows=len(expected),
            lake_rows=len(actual),
            changes=changes,
            duplicates=duplicates,
            holes=len(table.stream.holes),
            differences=tuple(found[:_SHOWN]),
            differing=len(found),
        )

    def _origin(self, table: tables.LakeTable) -> SourceTable:
        """The relation whose lake name this is, and its columns as they are now."""
        latest = self._registry.latest(self._source, table.name)
        if latest is None:
            raise LookupError(f"{self._source}.{table.name}: no schema is registered")
        names = {column.source_name: column.name for column in latest.schema.columns}
        schema, relation = self._relation(table.name)
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            found = connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = (%s || '.' || %s)::regclass AND attnum > 0 "
                "AND NOT attisdropped ORDER BY attnum",
                (_quoted(schema), _quoted(relation)),
            ).fetchall()
        columns = {names[name]: name for (name,) in found if name in names}
        return SourceTable(f"{_quoted(schema)}.{_quoted(relation)}", columns)

    def _relation(self, lake_name: str) -> tuple[str, str]:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            found = connection.execute(
                "SELECT DISTINCT schemaname, tablename FROM pg_publication_tables ORDER BY 1, 2"
            ).fetchall()
        for schema, relation in found:
            if lake_table_name(schema, relation) == lake_name:
                return str(schema), str(relation)
        raise LookupError(f"{self._source}.{lake_name}: no published table of the source has this name in the lake")

    def _source_rows(self, origin: SourceTable, columns: Sequence[tuple[str, str]]) -> list[Row]:
        listed = ", ".join(_quoted(origin.columns[name]) for name, _ in columns)
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(_SESSION)
            result = connection.pgconn.exec_(f"SELECT {listed} FROM {origin.relation}".encode())
            if result.error_message:
                raise LookupError(result.error_message.decode())
            return [
                tuple(_read_source(result.get_value(at, number), kind) for number, (_, kind) in enumerate(columns))
                for at in range(result.ntuples)
            ]

    def _lake_rows(self, table: str, columns: Sequence[tuple[str, str]]) -> list[Row]:
        shown = [
            f"json_format(CAST({_quoted(name)} AS JSON))" if element_type(kind) else _quoted(name)
            for name, kind in columns
        ]
        unheld = [name for name, kind in columns if may_be_unheld(kind)]
        raws = [f"element_at(_raw, '{name}')" for name in unheld]
        answer = self._athena.run(f'SELECT {", ".join((*shown, *raws))} FROM "{self._source}_cut".{_quoted(table)}')
        width = len(columns)
        rows = []
        for row in answer.rows:
            raw = dict(zip(unheld, row[width:], strict=True))
            rows.append(
                tuple(
                    ("raw", raw[name]) if raw.get(name) is not None else from_athena(cell, kind)
                    for cell, (name, kind) in zip(row[:width], columns, strict=True)
                )
            )
        return rows

    def _history(self, table: str) -> tuple[int, int]:
        """How many changes (no snapshot rows) the lake holds, and how many of them it holds twice."""
        answer = self._athena.run(
            "SELECT count(*), count(DISTINCT CAST(_era AS varchar) || '/' || CAST(_lsn AS varchar) || '/' || "
            f'CAST(_idx AS varchar)) FROM "{self._source}_lake".{_quoted(table)} '
            "WHERE _tier IN ('history', 'log') AND _op <> 'r'"
        )
        rows, distinct = (int(cell or 0) for cell in answer.rows[0])
        return distinct, rows - distinct


def of(stack: Stack) -> Verifier:
    """The comparison of a stack's source with its lake."""
    registry = Registry(stack.aws.client("dynamodb"), stack.names.dynamodb("schemas"))
    return Verifier(stack.facts.dsn, stack.source, stack.athena(), stack.aws.client("glue"), registry)


def to_json(verification: Verification) -> dict[str, Any]:
    return {**asdict(verification), "equal": verification.equal}


def show(verification: Verification, console: Console) -> None:
    """One line a table, then every difference that was kept."""
    view = Table(title=f"source and lake at {verification.position}", title_justify="left", show_edge=False)
    for name in ("table", "source rows", "lake rows", "changes", "twice", "holes", ""):
        view.add_column(name, justify="left" if name in ("table", "") else "right")
    for table in verification.tables:
        counts = (table.source_rows, table.lake_rows, table.changes, table.duplicates, table.holes)
        verdict = "equal" if table.equal else f"{table.differing} rows differ"
        view.add_row(table.table, *(f"{count:,}" for count in counts), verdict)
    console.print(view)
    for table in verification.tables:
        for found in table.differences:
            console.print(f"{found.table}: {found.key}: {found.problem}", markup=False, soft_wrap=True)
    for name in verification.missing:
        console.print(f"{name}: no such table in the lake", markup=False)


def differences(
    table: str, key: Sequence[str], columns: Sequence[str], expected: Sequence[Row], actual: Sequence[Row]
) -> list[Difference]:
    """Rows that differ, by key; rows of a table without a key are compared as a whole, and as often as they occur."""
    identity = [columns.index(name) for name in key] or list(range(len(columns)))
    wanted, found = _grouped(expected, identity), _grouped(actual, identity)
    problems = []
    for name in sorted(wanted.keys() | found.keys(), key=repr):
        left, right = wanted.get(name, []), found.get(name, [])
        if left == right:
            continue
        shown = ", ".join(f"{columns[at]}={value!r}" for at, value in zip(identity, name, strict=True))
        problems.append(Difference(table, shown, _problem(columns, left, right)))
    return problems


def _grouped(rows: Sequence[Row], identity: Sequence[int]) -> dict[Row, list[Row]]:
    groups: dict[Row, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[at] for at in identity), []).append(row)
    return groups


def _problem(columns: Sequence[str], left: Sequence[Row], right: Sequence[Row]) -> str:
    if len(left) != len(right):
        return f"{len(left)} in the source, {len(right)} in the lake"
    unlike = [
        f"{name}: {mine!r:.80} in the source, {theirs!r:.80} in the lake"
        for one, other in zip(left, right, strict=True)
        for name, mine, theirs in zip(columns, one, other, strict=True)
        if mine != theirs
    ]
    return "; ".join(unlike)


def _read_source(cell: bytes | None, kind: str) -> Value:
    text = None if cell is None else cell.decode()
    try:
        return from_source(text, kind)
    except Unheld:
        return ("raw", text)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
