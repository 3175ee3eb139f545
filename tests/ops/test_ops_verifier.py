"""The comparison as a whole, against a real PostgreSQL: what differs in the lake's answers is found by its key."""

import hmac
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from glue_streaming.holes import Hole
from glue_streaming.state import FoldState, StreamState
from ops import tables
from ops import verify as module
from ops.athena import Answer, Athena, Row
from ops.errors import OpsError, QueryFailed, TookTooLong
from ops.postgres_server import PostgresServer
from ops.verify import TableResult, Verification, Verifier, show
from producer.postgres_source import PostgresTables
from producer.settings import Settings, parse
from schemas.position import Line, Position, parse_lsn

KEY = b"k" * 32
HOLE = Hole("0", Position(1, 10, 0), Position(1, 20, 3), "gap", "2026-01-02T03:00:00+00:00")
ROWS: list[Row] = [("1", "1.10", '["a,b",null]', None, None), ("2", None, None, "NaN", None)]
SETUP = """
CREATE TABLE things (id bigint PRIMARY KEY, price numeric(9,2), words text[]);
INSERT INTO things VALUES (1, 1.1, ARRAY['a,b', NULL]), (2, 'NaN', NULL);
CREATE TABLE people (id int PRIMARY KEY, ssn text, email text, card text, born date);
INSERT INTO people VALUES (1, '111', 'a@b', '12345678', '2000-01-02'), (2, '222', NULL, NULL, NULL);
CREATE TABLE orders (id int PRIMARY KEY, region text); ALTER TABLE orders REPLICA IDENTITY FULL;
INSERT INTO orders VALUES (1, 'EU'), (2, 'US'), (3, NULL);
CREATE TABLE notes (n int, doc text); ALTER TABLE notes REPLICA IDENTITY FULL;
INSERT INTO notes VALUES (1, 'a'), (1, 'a'), (NULL, NULL);
CREATE TABLE parts (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED) PARTITION BY RANGE (id);
CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
INSERT INTO parts VALUES (1), (11);
CREATE TABLE early (id int PRIMARY KEY); INSERT INTO early VALUES (1);
CREATE TABLE mother (id int PRIMARY KEY); INSERT INTO mother VALUES (1);
CREATE TABLE child () INHERITS (mother); INSERT INTO child VALUES (2);
"""
TABLES: list[dict[str, Any]] = [
    {"name": "public.people", "rename": "clients", "exclude_columns": ["ssn"], "hash_columns": ["email", "born"],
     "mask_columns": {"card": 4}},
    {"name": "public.orders", "where": "region = 'EU'"},
    *({"name": f"public.{name}"} for name in ("things", "notes", "parts", "early", "mother")),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not pytest's own, which closes its folders to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="headrace-verifier-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def source(folder: Path) -> Iterator[PostgresServer]:
    """A database, published as the agent does it; then a table got another name."""
    server = PostgresServer(folder / "postgres", settings={"fsync": "off", "autovacuum": "off"}).start()
    server.psql(SETUP)
    (folder / "hash.key").write_bytes(KEY)
    agent = PostgresTables(configured(folder, server))
    agent.check()
    agent.prepare()
    server.psql("ALTER TABLE early RENAME TO late")
    yield server
    server.stop()


def configured(folder: Path, server: PostgresServer, entries: Sequence[dict[str, Any]] = TABLES) -> Settings:
    source = {"name": "shop", "dsn": server.dsn, "hash_key_file": str(folder / "hash.key")}
    return parse({"source": source, "spool": {"path": str(folder / "spool")}, "tables": list(entries)}, "agent.toml")


def changed(name: str, **to: Any) -> list[dict[str, Any]]:
    """The configuration with one of its tables as it is not in the lake."""
    return [{**entry, **to} if entry["name"] == f"public.{name}" else entry for entry in TABLES]


def hashed(text: str) -> str:
    return hmac.digest(KEY, text.encode(), "sha256").hex()


def lake_table(name: str, *columns: tuple[str, str], key: tuple[str, ...] = ("id",)) -> tables.LakeTable:
    return tables.LakeTable(name, key, (("_op", "string"), *columns), StreamState(), FoldState())


LAKE = {
    table.name: (table, rows)
    for table, rows in (
        (lake_table("things", ("id", "bigint"), ("price", "decimal(9,2)"), ("words", "array<string>")), ROWS),
        (
            lake_table("clients", ("id", "int"), ("email", "string"), ("card", "string"), ("born", "string")),
            [("1", hashed("a@b"), "****5678", hashed("2000-01-02")), ("2", None, None, None)],
        ),
        (lake_table("orders", ("id", "int"), ("region", "string")), [("1", "EU")]),
        (
            lake_table("notes", ("n", "int"), ("doc", "string"), key=()),
            [("1", "a"), (None, None), ("1", "a")],
        ),
        (lake_table("parts", ("id", "int")), [("11",), ("1",)]),
        (lake_table("early", ("id", "int")), [("1",)]),
        (lake_table("mother", ("id", "int")), [("1",)]),
    )
}
"""What the lake holds where all is right."""


@dataclass
class Lake:
    """An Athena whose cut holds these rows, and a Glue catalog whose watermark is ahead of everything."""

    rows_of: dict[str, list[Row]]
    twice: int = 0
    asked: list[str] = field(default_factory=list)

    def run(self, sql: str) -> Answer:
        assert "count(DISTINCT" in sql
        return Answer((), ((str(7 + self.twice), "7"),), 0, 0.0)

    def rows(self, sql: str) -> Iterator[Row]:
        self.asked.append(sql)
        (name,) = re.findall(r'"shop_cut"\."(\w+)"', sql)
        if name not in self.rows_of:
            raise QueryFailed(f"TABLE_NOT_FOUND: {name}")
        yield from self.rows_of[name]


@pytest.fixture
def verify(source: PostgresServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verification]:
    """Compares with a lake in which some tables' rows, or the configuration, are not as they are to be."""
    monkeypatch.setattr(tables, "watermark", lambda *_: tables.Watermark(Line(1, 2**62), {}, None, {}))

    def run(
        *only: str,
        twice: int = 0,
        configuration: Sequence[dict[str, Any]] = TABLES,
        without: str = "",
        beside: tuple[tables.LakeTable, ...] = (),
        **rows: list[Row] | None,
    ) -> Verification:
        replaced = {without, *(table.name for table in beside)}
        known = [*beside, *(table for table, _ in LAKE.values() if table.name not in replaced)]
        monkeypatch.setattr(tables, "lake_tables", lambda *_: known)
        held = {name: right for name, (_, right) in LAKE.items()} | rows
        lake = Lake({name: found for name, found in held.items() if found is not None}, twice)
        settings = configured(folder, source, configuration)
        return Verifier(settings, cast(Athena, lake), None).run(only)

    return run


def of(found: Verification, table: str) -> TableResult:
    return next(result for result in found.tables if result.table == table)


def test_lake_that_equals_the_source_is_equal(verify: Callable[..., Verification]) -> None:
    """By whatever name, hashed, masked, filtered, in partitions; NaN, which the decimal cannot hold, by its text."""
    found = verify()
    assert found.equal, found
    assert {result.table: result.source_rows for result in found.tables} == {
        "clients": 2, "early": 1, "mother": 1, "notes": 3, "orders": 1, "parts": 2, "things": 2,
    }  # fmt: skip


def test_what_is_compared_in_another_form_is_said(verify: Callable[..., Verification]) -> None:
    found = verify()
    assert of(found, "clients").notes == (
        "column ssn is left out by the agent's configuration",
        "column email is compared by its hash",
        "column card is compared as far as its mask shows it",
        "column born is compared by its hash",
    )
    assert of(found, "orders").notes == ("rows are compared WHERE region = 'EU'",)
    assert of(found, "parts").notes == ("column twice is not published, as generated columns are not",)
    assert of(found, "things").notes == ()


@pytest.mark.parametrize(
    ("rows", "key", "problem"),
    [
        ([("1", "1.11", '["a,b",null]', None, None), ROWS[1]], "id=1", "price"),
        ([("1", "1.10", '["a","b",null]', None, None), ROWS[1]], "id=1", "words"),
        ([ROWS[0], ("2", None, None, None, None)], "id=2", "price"),
        ([ROWS[0]], "id=2", "1 more in the source"),
        ([*ROWS, ("3", None, None, None, None)], "id=3", "1 more in the lake"),
    ],
)
def test_injected_difference_is_found(
    verify: Callable[..., Verification], rows: list[Row], key: str, problem: str
) -> None:
    found = verify(things=rows)
    assert not found.equal
    (difference,) = of(found, "things").differences
    assert (difference.table, difference.key) == ("things", key)
    assert problem in difference.problem


@pytest.mark.parametrize(
    ("table", "rows", "problem"),
    [
        ("clients", [("1", hashed("a@c"), "****5678", hashed("2000-01-02")), ("2", None, None, None)], "email"),
        ("clients", [("1", "a@b", "****5678", hashed("2000-01-02")), ("2", None, None, None)], "email"),
        ("clients", [("1", hashed("a@b"), "12345678", hashed("2000-01-02")), ("2", None, None, None)], "card"),
        ("clients", [("1", hashed("a@b"), "****5678", hashed("")), ("2", None, None, None)], "born"),
        ("clients", [("1", hashed("a@b"), "****5678", hashed("2000-01-02")), ("2", hashed(""), None, None)], "email"),
        ("orders", [("1", "EU"), ("2", "US")], "1 more in the lake"),
        ("orders", [], "1 more in the source"),
        ("notes", [("1", "a"), (None, None)], "1 more in the source"),
        ("notes", [("1", "a"), (None, None), ("1", "a"), ("1", "a")], "1 more in the lake"),
        ("notes", [("1", "a"), (None, ""), ("1", "a")], "1 more in the"),
        ("parts", [("1",)], "1 more in the source"),
        ("early", [("2",)], "1 more in the"),
        ("mother", [("1",), ("2",)], "1 more in the lake"),
    ],
)
def test_difference_in_a_shaped_table_is_found(
    verify: Callable[..., Verification], table: str, rows: list[Row], problem: str
) -> None:
    """A value that another key hashed, that came unhidden, a row that is filtered, one too few or too many."""
    found = verify(**{table: rows})
    assert [result.table for result in found.tables if not result.equal] == [table]
    assert problem in of(found, table).differences[0].problem


@pytest.mark.parametrize(
    ("table", "lake", "to"),
    [
        ("people", "clients", {"hash_columns": ["born"]}),
        ("people", "clients", {"mask_columns": {"card": 3}}),
        ("people", "clients", {"mask_columns": {}}),
        ("orders", "orders", {"where": "region = 'US'"}),
    ],
)
def test_lake_that_was_filled_under_another_configuration_differs(
    verify: Callable[..., Verification], table: str, lake: str, to: dict[str, Any]
) -> None:
    found = verify(configuration=changed(table, **to))
    assert [result.table for result in found.tables if not result.equal] == [lake]


def test_position_that_is_there_twice_is_no_equality(verify: Callable[..., Verification]) -> None:
    found = verify(twice=1)
    assert of(found, "things").duplicates == 1
    assert not found.equal


@pytest.mark.parametrize(
    ("how", "table", "why"),
    [
        ({"without": "things"}, "things", "the lake does not have public.things yet"),
        ({"notes": None}, "notes", "TABLE_NOT_FOUND: notes"),
        ({"configuration": [entry for entry in TABLES if entry["name"] != "public.orders"]}, "orders", "no table"),
        ({"configuration": changed("notes", append_only=True)}, "notes", "public.notes is not published"),
    ],
)
def test_table_that_cannot_be_compared_is_no_equality(
    verify: Callable[..., Verification], how: dict[str, Any], table: str, why: str
) -> None:
    """It is named with the reason, and the others are compared."""
    found = verify(**how)
    assert [result.table for result in found.tables if not result.equal] == [table]
    assert why in of(found, table).uncompared[0]
    assert len(found.tables) == len(LAKE)


def test_table_that_nobody_has_is_a_mistake(verify: Callable[..., Verification]) -> None:
    with pytest.raises(OpsError, match="there is no table others: there are clients, "):
        verify("things", "others")


@pytest.mark.parametrize("held", [StreamState(), StreamState(holes=(HOLE,))], ids=["whole", "with a hole"])
def test_table_that_was_dropped_at_the_source_is_no_difference(
    source: PostgresServer, folder: Path, verify: Callable[..., Verification], held: StreamState
) -> None:
    """The agent remembers that it captured it; what the lake keeps of it must be whole all the same."""
    source.psql("CREATE TABLE brief (id int PRIMARY KEY)")
    agent = PostgresTables(configured(folder, source, [*TABLES, {"name": "public.brief"}]))
    agent.check()
    agent.prepare()
    kept = replace(lake_table("brief", ("id", "int")), stream=held)
    assert not verify(beside=(kept,)).equal  # it is there, and is captured no more
    source.psql("DROP TABLE brief")
    found = verify(beside=(kept,), brief=[("1",)])
    assert found.equal == (not held.holes)
    assert of(found, "brief").notes == ("dropped at the source, the lake keeps its history",)
    assert of(found, "brief").verdict == ("1 holes are open" if held.holes else "dropped at the source")


def test_column_that_goes_on_in_another_is_compared(
    source: PostgresServer, folder: Path, verify: Callable[..., Verification]
) -> None:
    """A row has its value in the one or the other, by when it was written: a wrong one is found, and a lost one."""
    source.psql("CREATE TABLE moved (id int PRIMARY KEY, v text); INSERT INTO moved VALUES (1, 'EU'), (2, '7')")
    entries = [*TABLES, {"name": "public.moved"}]
    agent = PostgresTables(configured(folder, source, entries))
    agent.check()
    agent.prepare()
    columns = (("id", "int"), ("v", "bigint"), ("v__2", "string"))
    moved = replace(lake_table("moved", *columns), origins={"v__2": "v"})
    try:
        for new, old, equal in (("EU", "7", True), ("US", "7", False), ("EU", "8", False), ("EU", None, False)):
            answers: list[Row] = [("1", new, None), ("2", None, old)]
            found = verify("moved", configuration=entries, beside=(moved,), moved=answers)
            assert found.equal == equal, found
    finally:
        source.psql("DROP TABLE moved")


def test_nothing_is_counted_of_what_was_not_compared(verify: Callable[..., Verification]) -> None:
    """A row of zeros would look like an empty table."""
    console = Console(file=io.StringIO(), width=200)
    show(verify("things", without="things"), console)
    said: str = console.file.getvalue()  # type: ignore[attr-defined]
    (cells,) = (line.split("│") for line in said.splitlines() if line.strip().startswith("things "))
    assert [cell.strip() for cell in cells[1:6]] == ["-"] * 5


def test_structure_that_the_lake_does_not_have_yet_is_compared_as_null(
    source: PostgresServer, verify: Callable[..., Verification]
) -> None:
    """A column that came since: equal as long as it holds nothing."""
    source.psql("ALTER TABLE late ADD later int")
    try:
        found = verify("early", early=[("1", None)])
        assert found.equal
        assert of(found, "early").notes == ("column later is not in the lake yet, where it is compared as NULL",)
        source.psql("UPDATE late SET later = 0")
        (difference,) = of(verify("early", early=[("1", None)]), "early").differences
        assert "later: '0' in the source, None in the lake" in difference.problem
    finally:
        source.psql("ALTER TABLE late DROP later")


def test_hash_key_that_cannot_be_read_ends_it_with_the_reason(
    verify: Callable[..., Verification], folder: Path
) -> None:
    path = folder / "hash.key"
    path.rename(folder / "away")
    try:
        with pytest.raises(OpsError, match=r"hash\.key cannot be read"):
            verify()
    finally:
        (folder / "away").rename(path)


def test_watermark_at_the_last_byte_of_the_log_is_enough(
    source: PostgresServer, verify: Callable[..., Verification], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quiet source goes no further, so waiting for more would be waiting for ever; one byte less is too little."""
    monkeypatch.setattr(module, "_CAUGHT_UP_SECONDS", 0.1)

    def stands(behind: int) -> None:
        """From the first look on, behind the log's end of that moment: the log may move before a look."""
        seen: list[int] = []

        def watermark(*_: object) -> tables.Watermark:
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
            seen.append(parse_lsn(row[0]) - behind if row else 0)
            return tables.Watermark(Line(1, seen[0]), {}, None, {})

        monkeypatch.setattr(tables, "watermark", watermark)

    with source.connect() as connection:
        verify()  # so that what a first read of pages leaves in the log is there
        stands(1)
        assert verify().equal
        stands(2)
        with pytest.raises(TookTooLong, match="headrace status"):
            verify()
