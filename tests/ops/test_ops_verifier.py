"""The comparison as a whole, against a real PostgreSQL: what differs in the lake's answers is found by its key."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from ops import tables
from ops.athena import Answer, Athena, Column
from ops.postgres_server import PostgresServer
from ops.verify import Verifier
from schemas import change_record
from schemas.registry import Registry

ROWS = [("1", "1.10", '["a,b",null]', None, None), ("2", None, None, "NaN", None)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    folder = tmp_path_factory.mktemp("verifier")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    server = PostgresServer(folder / "postgres", settings={"fsync": "off"}).start()
    server.psql(
        "CREATE TABLE things (id bigint PRIMARY KEY, price numeric(9,2), words text[]); "
        "INSERT INTO things VALUES (1, 1.1, ARRAY['a,b', NULL]), (2, 'NaN', NULL); "
        "CREATE PUBLICATION p FOR TABLE things"
    )
    yield server
    server.stop()


class Lake:
    """An Athena whose cut holds these rows, and a Glue catalog whose watermark is ahead of everything."""

    def __init__(self, rows: list[tuple[str | None, ...]], twice: int = 0) -> None:
        self._rows, self._twice = rows, twice

    def run(self, sql: str) -> Answer:
        if "count(DISTINCT" in sql:
            return Answer((), ((str(7 + self._twice), "7"),), 0, 0.0)
        return Answer((Column("id", "bigint"),), tuple(self._rows), 0, 0.0)

    def latest(self, _source: str, _table: str) -> Any:
        columns = (
            change_record.Column("id", "long", "id", "bigint"),
            change_record.Column("price", "string", "price", "numeric"),
            change_record.Column("words", "string", "words", "text[]"),
        )
        schema = change_record.TableSchema("shop", "things", columns, ("id",))
        return type("Registered", (), {"schema": schema})


@pytest.fixture
def verify(source: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    from glue_streaming.state import FoldState, StreamState
    from schemas.position import Line

    columns = (("_op", "string"), ("id", "bigint"), ("price", "decimal(9,2)"), ("words", "array<string>"))
    table = tables.LakeTable("things", ("id",), columns, StreamState(), FoldState())
    monkeypatch.setattr(tables, "lake_tables", lambda *_: [table])
    monkeypatch.setattr(tables, "watermark", lambda *_: tables.Watermark(Line(1, 2**62), {}, None, {}))

    def run(rows: list[tuple[str | None, ...]], twice: int = 0, only: tuple[str, ...] = ()) -> Any:
        lake = Lake(rows, twice)
        return Verifier(source.dsn, "shop", cast(Athena, lake), None, cast(Registry, lake)).run(only)

    return run


def test_lake_that_equals_the_source_is_equal(verify: Callable[..., Any]) -> None:
    """NaN, which the decimal cannot hold, is equal by its original text."""
    found = verify(ROWS)
    assert found.equal
    assert found.tables[0].source_rows == 2


@pytest.mark.parametrize(
    ("rows", "key", "problem"),
    [
        ([("1", "1.11", '["a,b",null]', None, None), ROWS[1]], "id=1", "price"),
        ([("1", "1.10", '["a","b",null]', None, None), ROWS[1]], "id=1", "words"),
        ([ROWS[0], ("2", None, None, None, None)], "id=2", "price"),
        ([ROWS[0]], "id=2", "1 in the source, 0 in the lake"),
        ([*ROWS, ("3", None, None, None, None)], "id=3", "0 in the source, 1 in the lake"),
    ],
)
def test_injected_difference_is_found(
    verify: Callable[..., Any], rows: list[tuple[str | None, ...]], key: str, problem: str
) -> None:
    found = verify(rows)
    assert not found.equal
    (difference,) = found.tables[0].differences
    assert (difference.table, difference.key) == ("things", key)
    assert problem in difference.problem


def test_position_that_is_there_twice_is_no_equality(verify: Callable[..., Any]) -> None:
    assert verify(ROWS, twice=1).tables[0].duplicates == 1
    assert not verify(ROWS, twice=1).equal


def test_table_that_the_lake_lacks_is_no_equality(verify: Callable[..., Any]) -> None:
    assert verify(ROWS, only=("things", "others")).missing == ("others",)


def test_watermark_at_the_last_byte_of_the_log_is_enough(
    source: PostgresServer, verify: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quiet source goes no further, so waiting for more would be waiting for ever; one byte less is too little."""
    from ops import verify as module
    from ops.errors import TookTooLong
    from schemas.position import Line, parse_lsn

    end = parse_lsn(source.psql("CHECKPOINT; SELECT pg_current_wal_insert_lsn()"))
    monkeypatch.setattr(module, "_CAUGHT_UP_SECONDS", 0.1)
    monkeypatch.setattr(tables, "watermark", lambda *_: tables.Watermark(Line(1, end - 1), {}, None, {}))
    assert verify(ROWS).equal
    monkeypatch.setattr(tables, "watermark", lambda *_: tables.Watermark(Line(1, end - 2), {}, None, {}))
    with pytest.raises(TookTooLong, match="headrace status"):
        verify(ROWS)
