"""`headrace verify`: every table of the lake compared with the source, row by row and value by value.

The source is read first, in one transaction, at a position; then the watermark is awaited there and the cut views are
queried, so both sides speak of the same moment as long as nothing is written in between. A table that differs is looked
at again before it is reported. Beside the rows, the history is counted: a position that is there twice is a duplicate.

What the agent's configuration makes of a table is made of the source's rows here, too, by the same functions, so that
the table is compared under its name in the lake, and hashes with hashes. What cannot be compared is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import psycopg
from rich.console import Console
from rich.table import Table

from ops import origins, tables
from ops.athena import Athena
from ops.errors import OpsError, QueryFailed
from ops.origins import Disguise, Origin
from ops.stack import Stack
from ops.values import Unheld, Value, element_type, from_athena, from_source, may_be_unheld
from ops.waiting import until
from producer import settings
from producer.postgres.connection import quoted
from schemas.change_record import RESERVED
from schemas.position import format_lsn, parse_lsn

_CAUGHT_UP_SECONDS: Final = 120.0
_SHOWN: Final = 20
_LOOKS: Final = 3
_TEXT: Final = "string"

Row = tuple[Value, ...]


@dataclass(frozen=True)
class Column:
    """A column that is compared. source, lake: its names; None where the lake does not have it yet, as good as NULL.

    kind: the Glue type by which values are read. disguise: what becomes of the source's text before.
    before: the columns that were the source's before its type changed, newest first, with their Glue types. A row has
    its value in one of them all.
    """

    source: str
    lake: str | None
    kind: str = _TEXT
    disguise: Disguise | None = None
    before: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.lake or self.source

    @property
    def homes(self) -> tuple[tuple[str | None, str], ...]:
        return ((self.lake, self.kind), *self.before)


@dataclass(frozen=True)
class Difference:
    """A row that is not the same on both sides: by its key (or its values), what the source has, what the lake has."""

    table: str
    key: str
    problem: str


@dataclass(frozen=True)
class TableResult:
    """notes: how the table was compared, where not as it stands at the source. uncompared: what was not, and why.

    dropped: the source has the table no more, so that there are no rows to compare.
    """

    table: str
    source_rows: int = 0
    lake_rows: int = 0
    changes: int = 0
    duplicates: int = 0
    holes: int = 0
    differences: tuple[Difference, ...] = ()
    differing: int = 0
    notes: tuple[str, ...] = ()
    uncompared: tuple[str, ...] = ()
    dropped: bool = False

    @property
    def equal(self) -> bool:
        return not self.differing and not self.duplicates and not self.holes and not self.uncompared

    @property
    def verdict(self) -> str:
        found = [
            f"{self.differing} rows differ" if self.differing else "",
            f"{self.duplicates} changes are there twice" if self.duplicates else "",
            f"{self.holes} holes are open" if self.holes else "",
            "not all is compared" if self.uncompared else "",
        ]
        return ", ".join(filter(None, found)) or ("dropped at the source" if self.dropped else "equal")


@dataclass(frozen=True)
class Verification:
    position: str
    tables: tuple[TableResult, ...]

    @property
    def equal(self) -> bool:
        return bool(self.tables) and all(table.equal for table in self.tables)


class Verifier:
    """Compares one source with its lake. settings: the agent's; beside its spool lies what its tables are called."""

    def __init__(self, settings: settings.Settings, athena: Athena, glue: Any) -> None:
        self._settings = settings
        self._source = settings.source.name
        self._athena = athena
        self._glue = glue

    def run(self, only: Sequence[str] = ()) -> Verification:
        """The comparison of all tables that the lake or the agent's configuration has, or of those named."""
        captured, dropped = origins.read(self._settings)
        known = {*self._lake(), *captured}
        if strangers := sorted({*only} - known):
            raise OpsError(f"there is no table {', '.join(strangers)}: there are {', '.join(sorted(known)) or 'none'}")
        position = self._await_position()
        lake = self._lake()
        wanted = sorted(only or {*lake, *captured})
        results = (
            self._dropped(lake[name])
            if name in dropped and name in lake
            else self._result(name, lake.get(name), captured.get(name))
            for name in wanted
        )
        return Verification(position, tuple(results))

    def _lake(self) -> dict[str, tables.LakeTable]:
        return {table.name: table for table in tables.lake_tables(self._glue, self._source)}

    def _await_position(self) -> str:
        """The last byte of the source's log as of now, once the watermark has reached it: every commit lies below."""
        with psycopg.connect(self._settings.source.dsn, autocommit=True) as connection:
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

    def _result(self, name: str, table: tables.LakeTable | None, origin: Origin | None) -> TableResult:
        if table is None or origin is None or not origin.columns:
            return TableResult(name, uncompared=(_why_not(table, origin),))
        result = self._compare(table, origin)
        for _ in range(_LOOKS - 1):
            if not result.differing and not result.duplicates:
                break
            self._await_position()
            result = self._compare(self._lake()[name], origin)
        return result

    def _dropped(self, table: tables.LakeTable) -> TableResult:
        """What the lake has must be whole all the same."""
        changes, duplicates = self._history(table.name)
        notes = ("dropped at the source, the lake keeps its history",)
        holes = len(table.stream.holes)
        return TableResult(table.name, changes=changes, duplicates=duplicates, holes=holes, notes=notes, dropped=True)

    def _compare(self, table: tables.LakeTable, origin: Origin) -> TableResult:
        columns, notes = paired(table, origin)
        names = [column.name for column in columns]
        if lost := [name for name in table.key if name not in names]:
            return TableResult(table.name, uncompared=(f"the source has no column for the key's {', '.join(lost)}",))
        try:
            found = compare(
                table.name, table.key, names, self._source_rows(origin, columns), self._lake_rows(table.name, columns)
            )
            changes, duplicates = self._history(table.name)
        except QueryFailed as error:
            return TableResult(table.name, uncompared=(str(error),))
        return TableResult(
            table=table.name,
            source_rows=found.source_rows,
            lake_rows=found.lake_rows,
            changes=changes,
            duplicates=duplicates,
            holes=len(table.stream.holes),
            differences=tuple(found.differences[:_SHOWN]),
            differing=len(found.differences),
            notes=notes,
        )

    def _source_rows(self, origin: Origin, columns: Sequence[Column]) -> Iterator[Row]:
        for row in origins.rows(self._settings.source.dsn, origin, [column.source for column in columns]):
            yield tuple(_read_source(cell, column) for cell, column in zip(row, columns, strict=True))

    def _lake_rows(self, table: str, columns: Sequence[Column]) -> Iterator[Row]:
        homes = [home for column in columns for home in column.homes]
        unheld = [name for name, kind in homes if name is not None and may_be_unheld(kind)]
        listed = [*(_shown(*home) for home in homes), *(f"element_at(_raw, '{name}')" for name in unheld)]
        for row in self._athena.rows(f'SELECT {", ".join(listed)} FROM "{self._source}_cut".{quoted(table)}'):
            cells = iter(row)
            found = [[(name, next(cells)) for name, _ in column.homes] for column in columns]
            raw = dict(zip(unheld, cells, strict=True))
            yield tuple(_read_lake(values, raw, column) for values, column in zip(found, columns, strict=True))

    def _history(self, table: str) -> tuple[int, int]:
        """How many changes (no snapshot rows) the lake holds, and how many of them it holds twice."""
        answer = self._athena.run(
            "SELECT count(*), count(DISTINCT CAST(_era AS varchar) || '/' || CAST(_lsn AS varchar) || '/' || "
            f'CAST(_idx AS varchar)) FROM "{self._source}_lake".{quoted(table)} '
            "WHERE _tier IN ('history', 'log') AND _op <> 'r'"
        )
        rows, distinct = (int(cell or 0) for cell in answer.rows[0])
        return distinct, rows - distinct


def of(stack: Stack) -> Verifier:
    """The comparison of a stack's source with its lake."""
    return Verifier(settings.load(stack.agent_config), stack.athena(), stack.aws.client("glue"))


def to_json(verification: Verification) -> dict[str, Any]:
    return {**asdict(verification), "equal": verification.equal}


def show(verification: Verification, console: Console) -> None:
    """One line a table, then every difference that was kept, and what was not compared as it stands at the source."""
    view = Table(title=f"source and lake at {verification.position}", title_justify="left", show_edge=False)
    for name in ("table", "source rows", "lake rows", "changes", "twice", "holes", ""):
        view.add_column(name, justify="left" if name in ("table", "") else "right")
    for table in verification.tables:
        rows = (table.source_rows, table.lake_rows)
        counts = (table.changes, table.duplicates, table.holes)
        shown = ["-" if table.uncompared or table.dropped else f"{count:,}" for count in rows]
        shown += ["-" if table.uncompared else f"{count:,}" for count in counts]
        view.add_row(table.table, *shown, table.verdict)
    console.print(view)
    for table in verification.tables:
        for found in table.differences:
            console.print(f"{found.table}: {found.key}: {found.problem}", markup=False, soft_wrap=True)
        for sentence in (*(f"not compared: {why}" for why in table.uncompared), *table.notes):
            console.print(f"{table.table}: {sentence}", markup=False, soft_wrap=True)


def paired(table: tables.LakeTable, origin: Origin) -> tuple[list[Column], tuple[str, ...]]:
    """The columns to compare, and how they are compared. Pure."""
    homes: dict[str, list[tuple[str, str]]] = {}
    for name, kind in table.columns:
        if name not in RESERVED:
            homes.setdefault(table.origins.get(name, name), []).append((name, kind))
    columns: list[Column] = []
    notes = [*origin.notes]
    for source in origin.columns:
        disguise, known = origin.disguises.get(source), homes.pop(source, [])
        if not known:
            notes.append(f"column {source} is not in the lake yet, where it is compared as NULL")
            columns.append(Column(source, None))
        else:
            (lake, kind), *before = reversed(known)
            if before:
                notes.append(f"column {source}: its type has changed, and a row's value is in one of {_names(known)}")
            columns.append(Column(source, lake, kind if disguise is None else _TEXT, disguise, tuple(before)))
    for known in homes.values():
        notes.append(f"{_names(known)} of the lake is not compared: it does not come from the source (any more)")
    return columns, tuple(notes)


def _why_not(table: tables.LakeTable | None, origin: Origin | None) -> str:
    if origin is None:
        return "the agent captures no table into it: not configured, or dropped before"
    if not origin.columns:
        return f"{origin.table} is not published: the agent's log and its /status say why"
    return f"the lake does not have {origin.table} yet"


class Compared(NamedTuple):
    source_rows: int
    lake_rows: int
    differences: list[Difference]


def compare(
    table: str, key: Sequence[str], columns: Sequence[str], source: Iterable[Row], lake: Iterable[Row]
) -> Compared:
    """Rows that differ, by key; rows of a table without a key are compared as a whole, and as often as they occur.

    Holds the source's rows; of the lake's only those that differ.
    """
    missing = Counter(source)
    source_rows, lake_rows = missing.total(), 0
    surplus = []
    for row in lake:
        lake_rows += 1
        if missing[row] > 0:
            missing[row] -= 1
        else:
            surplus.append(row)
    identity = [columns.index(name) for name in key] or list(range(len(columns)))
    wanted, found = _grouped(missing.elements(), identity), _grouped(surplus, identity)
    problems = []
    for name in sorted(wanted.keys() | found.keys(), key=repr):
        shown = ", ".join(f"{columns[at]}={value!r}" for at, value in zip(identity, name, strict=True))
        problem = _problem(columns, wanted.get(name, []), found.get(name, []))
        problems.append(Difference(table, shown, problem))
    return Compared(source_rows, lake_rows, problems)


def _grouped(rows: Iterable[Row], identity: Sequence[int]) -> dict[Row, list[Row]]:
    groups: dict[Row, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[at] for at in identity), []).append(row)
    return groups


def _problem(columns: Sequence[str], left: Sequence[Row], right: Sequence[Row]) -> str:
    if len(left) != len(right):
        more, less = ("source", "lake") if len(left) > len(right) else ("lake", "source")
        return f"{abs(len(left) - len(right))} more in the {more} than in the {less}"
    unlike = [
        f"{name}: {mine!r:.80} in the source, {theirs!r:.80} in the lake"
        for one, other in zip(left, right, strict=True)
        for name, mine, theirs in zip(columns, one, other, strict=True)
        if mine != theirs
    ]
    return "; ".join(unlike)


def _shown(name: str | None, kind: str) -> str:
    """What Athena is asked for."""
    if name is None:
        return "CAST(NULL AS varchar)"
    return f"json_format(CAST({quoted(name)} AS JSON))" if element_type(kind) else quoted(name)


def _read_lake(cells: Sequence[tuple[str | None, str | None]], raw: Mapping[str, str | None], column: Column) -> Value:
    """The value of the newest home that has one, read by the newest type, as the source converted it, too."""
    for name, cell in cells:
        if name is not None and raw.get(name) is not None:
            return ("raw", raw[name])
        if cell is not None:
            try:
                return from_athena(cell, column.kind)
            except (Unheld, ValueError, ArithmeticError):
                if not column.before:
                    raise
                return ("raw", cell)
    return None


def _read_source(cell: bytes | None, column: Column) -> Value:
    if cell is None:
        return None
    text = (cell if column.disguise is None else column.disguise(cell)).decode()
    try:
        return from_source(text, column.kind)
    except (Unheld, ValueError, ArithmeticError):  # also the text of another type than the lake's, which equals nothing
        return ("raw", text)


def _names(known: Sequence[tuple[str, str]]) -> str:
    return " and ".join(name for name, _ in known)
