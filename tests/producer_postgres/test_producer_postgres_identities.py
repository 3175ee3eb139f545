"""How a row is told apart: replica identities, partitions, generated columns. What would lose a key is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from producer.change import Change, Event
from producer.errors import SourceRefused
from producer.postgres.identity import check, prepare
from producer.postgres.source import TableChoice

Make = Callable[..., Any]
Datum = Callable[..., dict[str, Any]]


def changes(events: list[Event]) -> list[Change]:
    return [event for event in events if isinstance(event, Change)]


def refusal(up: Any) -> str:
    with pytest.raises(SourceRefused) as caught:
        check(up.source)
    (problem,) = caught.value.problems
    return problem


@pytest.fixture
def chosen(upstream: Any) -> Make:
    """A database whose statements make the table `a`, the only one that is chosen."""

    def make(*statements: str) -> Any:
        upstream.run(*statements)
        upstream.choose(TableChoice("public.a"))
        return upstream

    return make


REFUSED = {
    "nothing, with a key": (
        ["CREATE TABLE a (id int PRIMARY KEY)", "ALTER TABLE a REPLICA IDENTITY NOTHING"],
        "has REPLICA IDENTITY NOTHING",
    ),
    "nothing, without a key": (
        ["CREATE TABLE a (x int)", "ALTER TABLE a REPLICA IDENTITY NOTHING"],
        "append_only = true",
    ),
    "default, without a key": (["CREATE TABLE a (x int)"], 'ALTER TABLE "public"."a" REPLICA IDENTITY FULL; or'),
    "a key that is deferrable": (["CREATE TABLE a (x int PRIMARY KEY DEFERRABLE)"], "(a deferrable one does not)"),
    "a partition without the whole row": (
        [
            "CREATE TABLE a (x int) PARTITION BY RANGE (x)",
            "CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (10)",
            "ALTER TABLE a REPLICA IDENTITY FULL",
        ],
        "partition a1 of public.a tells its rows apart by another key than (the whole row): ALTER TABLE a1",
    ),
    "an index that is gone": (
        [
            "CREATE TABLE a (x int NOT NULL)",
            "CREATE UNIQUE INDEX ax ON a (x)",
            "ALTER TABLE a REPLICA IDENTITY USING INDEX ax",
            "DROP INDEX ax",
        ],
        "has lost the index that was its REPLICA IDENTITY",
    ),
    "a generated column in the key": (
        ["CREATE TABLE a (x int, y int GENERATED ALWAYS AS (x * 2) STORED, PRIMARY KEY (x, y))"],
        "has generated columns in its key (y)",
    ),
    "a partition without identity": (
        [
            "CREATE TABLE a (x int PRIMARY KEY) PARTITION BY RANGE (x)",
            "CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (10)",
            "ALTER TABLE a1 REPLICA IDENTITY NOTHING",
        ],
        "ALTER TABLE a1 REPLICA IDENTITY FULL;",
    ),
    "a partition with another identity": (
        [
            "CREATE TABLE a (x int NOT NULL, y int NOT NULL, PRIMARY KEY (x, y)) PARTITION BY RANGE (x)",
            "CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (10)",
            "CREATE UNIQUE INDEX ax ON a (x)",
            "ALTER TABLE a REPLICA IDENTITY USING INDEX ax",
        ],
        "partition a1 of public.a tells its rows apart by another key than (x)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_lose_a_key_is_refused(chosen: Make, case: str) -> None:
    """With the statement that mends it, or the setting."""
    statements, said = REFUSED[case]
    assert said in refusal(chosen(*statements))


@pytest.mark.parametrize("identity", ["NOTHING", "FULL"])
def test_a_table_without_a_key_can_be_append_only(prepared: Make, datum: Datum, identity: str) -> None:
    """Where the operator says that rows are only ever inserted: whatever its identity, inserts and truncates come."""
    up = prepared("CREATE TABLE a (x int)", f"ALTER TABLE a REPLICA IDENTITY {identity}", append_only=("a",))
    with up.capturing() as drain:
        up.run(
            "INSERT INTO a VALUES (1)", "UPDATE a SET x = 2", "DELETE FROM a", "INSERT INTO a VALUES (3)", "TRUNCATE a"
        )
        found = changes(drain())
    assert [(change.op, datum(change)["x"]) for change in found] == [("c", 1), ("c", 3), ("t", None)]


def test_an_identity_index_can_hold_no_nulls(prepared: Make, datum: Datum) -> None:
    """PostgreSQL sees to it; the index's columns are the key though there is a primary key, also when it is updated."""
    up = prepared(
        "CREATE TABLE a (id int PRIMARY KEY, x int NOT NULL, y text)",
        "CREATE UNIQUE INDEX ax ON a (x)",
        "ALTER TABLE a REPLICA IDENTITY USING INDEX ax",
    )
    with pytest.raises(psycopg.errors.InvalidTableDefinition, match="replica identity"):
        up.run("ALTER TABLE a ALTER x DROP NOT NULL")
    with up.capturing() as drain:
        up.run(
            "INSERT INTO a VALUES (1, 2, 'v')", "UPDATE a SET id = 9, y = NULL", "UPDATE a SET x = 3", "DELETE FROM a"
        )
        found = [(change.op, datum(change)["x"], datum(change)["id"]) for change in changes(drain())]
    assert found == [("c", 2, 1), ("u", 2, 9), ("d", 2, None), ("c", 3, 9), ("d", 3, None)]


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_key_change_with_large_values_beside_it(prepared: Make, datum: Datum, identity: str) -> None:
    """Unchanged values are marked where the source does not send them, with the place where they are; under FULL none
    is missing. Neither is ever nulled; a null that is new is one."""
    up = prepared(
        "CREATE TABLE a (id int PRIMARY KEY, one text, two text)",
        "ALTER TABLE a ALTER one SET STORAGE EXTERNAL, ALTER two SET STORAGE EXTERNAL",
        f"ALTER TABLE a REPLICA IDENTITY {identity}",
        "INSERT INTO a VALUES (1, repeat('x', 10000), repeat('y', 10000))",
    )
    with up.capturing() as drain:
        up.run("UPDATE a SET id = 2, two = NULL")
        old, new = (datum(change) for change in changes(drain()))
    assert (old["_op"], old["id"], new["_op"], new["id"], new["two"]) == ("d", 1, "c", 2, None)
    if identity == "FULL":
        assert (new["one"], new["_unchanged"], new["_old_key"]) == ("x" * 10000, None, None)
        assert old["two"] == "y" * 10000
    else:
        assert (new["one"], new["_unchanged"], new["_old_key"]) == (None, ["one"], "id=1")


def test_a_key_that_lies_out_of_line_is_never_missing(prepared: Make, datum: Datum) -> None:
    """The source marks it as unchanged in the new row, and sends it as the old key."""
    key = "repeat('k', 2500)"
    up = prepared(
        "CREATE TABLE a (id text PRIMARY KEY, v text)",
        "ALTER TABLE a ALTER id SET STORAGE EXTERNAL",
        f"INSERT INTO a VALUES ({key}, 'x')",
    )
    with up.capturing() as drain:
        up.run("UPDATE a SET v = 'y'", "DELETE FROM a")
        found = [datum(change) for change in changes(drain())]
    assert [(row["_op"], row["id"], row["_unchanged"]) for row in found] == [
        ("u", "k" * 2500, None),
        ("d", "k" * 2500, None),
    ]


def test_partitions_of_any_shape_are_one_table(prepared: Make, datum: Datum) -> None:
    """Columns in another order, identity FULL, attached later, nested; truncating the root is one truncate."""
    up = prepared(
        "CREATE TABLE a (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k)",
        "CREATE TABLE a1 (v text, k int NOT NULL, gone int, id int NOT NULL)",
        "ALTER TABLE a1 DROP gone, ADD PRIMARY KEY (id, k), REPLICA IDENTITY FULL",
        "ALTER TABLE a ATTACH PARTITION a1 FOR VALUES IN (1)",
        "CREATE TABLE a2 PARTITION OF a FOR VALUES IN (2) PARTITION BY HASH (id)",
        "CREATE TABLE a20 PARTITION OF a2 FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    )
    with up.capturing() as drain:
        up.run(
            "INSERT INTO a VALUES (1, 1, 'x'), (2, 2, 'y')",
            "UPDATE a SET v = v || '!'",
            "UPDATE a SET id = 3, k = 2 WHERE id = 1",
        )
        up.run("CREATE TABLE a3 PARTITION OF a FOR VALUES IN (3)", "INSERT INTO a VALUES (9, 3, 'z')", "TRUNCATE a")
        found = [
            (change.table, change.op, datum(change)["id"], datum(change)["k"], datum(change)["v"])
            for change in changes(drain())
            if change.op != "d"
        ]
    assert found[:4] == [("a", "c", 1, 1, "x"), ("a", "c", 2, 2, "y"), ("a", "u", 1, 1, "x!"), ("a", "u", 2, 2, "y!")]
    assert found[-2:] == [("a", "c", 9, 3, "z"), ("a", "t", None, None, None)]


def test_generated_columns_are_left_out(prepared: Make, server_version: int) -> None:
    """Stored ones, and virtual ones where the server has them: neither in the schema nor in a row."""
    virtual = ", w int GENERATED ALWAYS AS (id + 1) VIRTUAL" if server_version >= 180_000 else ""
    up = prepared(f"CREATE TABLE a (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id * 2) STORED{virtual}, x text)")
    with up.capturing() as drain:
        up.run("INSERT INTO a (id, x) VALUES (1, 'x')", "UPDATE a SET id = 2", "DELETE FROM a")
        found = changes(drain())
    assert [change.op for change in found] == ["c", "d", "c", "d"]
    assert {tuple(column.name for column in change.schema.columns) for change in found} == {("id", "x")}


def test_a_source_is_ready_again_once_its_partitions_are_mended(chosen: Make) -> None:
    """Following the remedy makes the refusal go."""
    up = chosen(*REFUSED["a partition without identity"][0])
    up.run(refusal(up).partition(": ")[2])
    assert [table.name for table in prepare(up.source).tables] == ["a"]
