"""Tables that are renamed, dropped, created and altered while the stream runs: which lake table a change goes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from producer.change import Change, Event, Rejected
from producer.errors import SourceRefused
from producer.postgres.catalog import partition_news
from producer.postgres.identity import check, follow, prepare
from producer.postgres.snapshot import open_snapshot
from producer.postgres.source import TableChoice
from producer.postgres.table_names import BoundNames, Named

Make = Callable[..., Any]
Datum = Callable[..., dict[str, Any]]


def changes(events: list[Event]) -> list[Change]:
    assert not any(isinstance(event, Rejected) for event in events)
    return [event for event in events if isinstance(event, Change)]


@pytest.fixture
def named(prepared: Make, tmp_path: Path) -> Make:
    """As `prepared`, with names that are bound."""

    def make(*statements: str, tables: tuple[TableChoice, ...] = (TableChoice("public.*"),)) -> Any:
        up = prepared(*statements)
        names = BoundNames(tmp_path / "tables.json")
        names.enter("1")
        up.source = replace(up.source, names=names, tables=tables)
        prepare(up.source)
        return up

    return make


def test_a_renamed_table_keeps_its_lake_table(named: Make, datum: Datum, tmp_path: Path) -> None:
    """Also in another schema, also after a restart, also where no pattern matches the new name; snapshots agree."""
    chosen = (TableChoice("public.a"), TableChoice("public.headrace_tests_mark"))
    up = named("CREATE TABLE a (id int PRIMARY KEY)", "CREATE SCHEMA s", tables=chosen)
    with up.capturing() as drain:
        up.run("INSERT INTO a VALUES (1)", "ALTER TABLE a RENAME TO b", "INSERT INTO b VALUES (2)")
        up.run("ALTER TABLE b SET SCHEMA s", "INSERT INTO s.b VALUES (3)")
        found = changes(drain())
    assert [(change.table, datum(change)["id"]) for change in found] == [("a", 1), ("a", 2), ("a", 3)]
    again = BoundNames(tmp_path / "tables.json")
    again.enter("1")
    up.source = replace(up.source, names=again)
    assert [(table.schema, table.name, table.lake_table) for table in check(up.source).tables][1:] == [("s", "b", "a")]
    with open_snapshot(up.source, "s", "b", era=1) as snapshot:
        assert snapshot.schema.table == "a"
        assert len(list(snapshot.rows)) == 3


def test_a_table_that_was_dropped_and_created_is_another(named: Make, datum: Datum) -> None:
    """Its changes never mix with those of the old one, whose structure may have been any."""
    up = named("CREATE TABLE a (id int PRIMARY KEY)")
    with up.capturing() as drain:
        up.run("INSERT INTO a VALUES (1)", "DROP TABLE a", "CREATE TABLE a (id text PRIMARY KEY)")
        followed = follow(up.source)
        up.run("INSERT INTO a VALUES ('x')")
        found = changes(drain())
    assert [(change.table, datum(change)["id"]) for change in found] == [("a", 1), ("a__2", "x")]
    assert [table.lake_table for table in followed.tables] == ["a__2", "headrace_tests_mark"]


def test_two_tables_that_swap_names_keep_their_lake_tables(named: Make, datum: Datum) -> None:
    """The usual way to replace a table: what was new_a is still new_a in the lake."""
    up = named("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE new_a (id int PRIMARY KEY)")
    with up.capturing() as drain:
        up.run("BEGIN; ALTER TABLE a RENAME TO old_a; ALTER TABLE new_a RENAME TO a; COMMIT")
        up.run("INSERT INTO a VALUES (1)", "INSERT INTO old_a VALUES (2)")
        found = changes(drain())
    assert [(change.table, datum(change)["id"]) for change in found] == [("new_a", 1), ("a", 2)]


def test_a_table_that_comes_is_followed(named: Make, datum: Datum) -> None:
    """It joins the publication while the stream runs; from there on its changes come, and a snapshot can be read."""
    up = named("CREATE TABLE a (id int PRIMARY KEY)")
    with up.capturing() as drain:
        up.run("CREATE TABLE b (id int PRIMARY KEY)", "INSERT INTO b VALUES (1)")
        assert [table.lake_table for table in follow(up.source).tables] == ["a", "b", "headrace_tests_mark"]
        up.run("INSERT INTO b VALUES (2)")
        found = changes(drain())
    assert [(change.table, datum(change)["id"]) for change in found] == [("b", 2)]
    with open_snapshot(up.source, "public", "b", era=1) as snapshot:
        assert [datum(row)["id"] for row in snapshot.rows] == [1, 2]


def test_a_table_that_cannot_be_captured_is_left_out_and_harms_nobody(named: Make) -> None:
    """A keyless table that matches the pattern is named with its remedy; its own UPDATE goes on working."""
    up = named("CREATE TABLE a (id int PRIMARY KEY)")
    up.run("CREATE TABLE keyless (x int)", "CREATE TABLE b (id int PRIMARY KEY)")
    followed = follow(up.source)
    assert [table.lake_table for table in followed.tables] == ["a", "b", "headrace_tests_mark"]
    (problem,) = followed.left_out
    assert "keyless has no key" in problem
    up.run("INSERT INTO keyless VALUES (1)", "UPDATE keyless SET x = 2")


def test_a_captured_table_that_loses_its_key_is_named(named: Make) -> None:
    """PostgreSQL refuses updates of a published table without identity: what troubles the application is told."""
    up = named("CREATE TABLE a (id int PRIMARY KEY)", "INSERT INTO a VALUES (1)")
    up.run("ALTER TABLE a DROP CONSTRAINT a_pkey")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="replica identity"):
        up.run("UPDATE a SET id = 2")
    (problem,) = follow(up.source).left_out
    assert "no key to tell its rows apart" in problem
    assert "fail at the source, since it is published" in problem


def test_a_dropped_table_is_let_go(named: Make, datum: Datum) -> None:
    """What it changed before arrives; afterwards the source has one table less, and the stream goes on."""
    up = named("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)")
    with up.capturing() as drain:
        up.run("INSERT INTO a VALUES (1)", "DROP TABLE a", "INSERT INTO b VALUES (2)")
        found = changes(drain())
    assert [(change.table, datum(change)["id"]) for change in found] == [("a", 1), ("b", 2)]
    assert [table.lake_table for table in follow(up.source).tables] == ["b", "headrace_tests_mark"]


def test_a_restart_does_not_ask_for_a_table_that_was_dropped(named: Make) -> None:
    """A name that was never captured is a mistake in the configuration; one that went at the source is not."""
    chosen = tuple(TableChoice(f"public.{name}") for name in ("a", "b", "headrace_tests_mark"))
    up = named("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)", tables=chosen)
    up.run("DROP TABLE a")
    assert [table.lake_table for table in check(up.source).tables] == ["b", "headrace_tests_mark"]
    up.source = replace(up.source, tables=(*chosen, TableChoice("public.never")))
    with pytest.raises(SourceRefused, match=r"no table matches public\.never"):
        check(up.source)


def test_another_system_begins_with_names_of_its_own(tmp_path: Path) -> None:
    """oids of a restored dump mean other tables: there every table is called by its name again."""
    names = BoundNames(tmp_path / "tables.json")
    names.enter("1")
    assert names.bind(10, "public", "a") == Named("a", "public", "a")
    assert names.named(11, "public", "a").lake_table == "a__2"
    names.enter("2")
    assert names.bind(11, "public", "a").lake_table == "a"
    later = BoundNames(tmp_path / "tables.json")
    later.enter("2")
    assert later.named(11, "s", "renamed") == Named("a", "public", "a")


def test_every_change_of_a_structure_in_mid_stream(prepared: Make, datum: Datum) -> None:
    """Add with a default, rename, change the type, drop, and add again: each change says what it was written under."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY, v int)")
    with up.capturing() as drain:
        up.run(
            "INSERT INTO a VALUES (1, 1)",
            "ALTER TABLE a ADD w text DEFAULT 'd'",
            "INSERT INTO a (id, v) VALUES (2, 2)",
            "ALTER TABLE a RENAME v TO u",
            "INSERT INTO a VALUES (3, 3)",
            "BEGIN; INSERT INTO a VALUES (4, 4); ALTER TABLE a ALTER u TYPE text"
            "; INSERT INTO a VALUES (5, 'x'); COMMIT",
            "ALTER TABLE a DROP u, ADD u int[]",
            "INSERT INTO a VALUES (6, 'w', '{1}')",
        )
        found = changes(drain())
    shapes = [[(c.name, c.source_type) for c in change.schema.columns[1:]] for change in found]
    assert shapes == [
        [("v", "integer")],
        [("v", "integer"), ("w", "text")],
        [("u", "integer"), ("w", "text")],
        [("u", "integer"), ("w", "text")],
        [("u", "text"), ("w", "text")],
        [("w", "text"), ("u", "integer[]")],
    ]
    assert [datum(change).get("u") for change in found] == [None, None, 3, 4, "x", [1]]


def test_a_label_that_an_enum_gets_in_mid_stream(prepared: Make, datum: Datum) -> None:
    """It is a text as the others are; the structure did not change."""
    up = prepared("CREATE TYPE mood AS ENUM ('sad')", "CREATE TABLE a (id int PRIMARY KEY, m mood)")
    with up.capturing() as drain:
        up.run("INSERT INTO a VALUES (1, 'sad')", "ALTER TYPE mood ADD VALUE 'ok'", "INSERT INTO a VALUES (2, 'ok')")
        found = changes(drain())
    assert [datum(change)["m"] for change in found] == ["sad", "ok"]
    assert found[0].schema == found[1].schema


def test_sixteen_hundred_columns(prepared: Make, datum: Datum) -> None:
    """As many as PostgreSQL has, with quoted and odd names."""
    names = [f'"Column {n} é"' for n in range(1599)]
    up = prepared(f"CREATE TABLE a (id int PRIMARY KEY, {', '.join(f'{name} int' for name in names)})")
    with up.capturing() as drain:
        up.run(f"INSERT INTO a VALUES (1, {', '.join(map(str, range(1599)))})")
        (change,) = changes(drain())
    record = datum(change)
    assert [record[column.name] for column in change.schema.columns[1:]] == list(range(1599))
    assert change.schema.columns[7].source_name == "Column 6 é"


def test_what_is_done_to_partitions_is_told(named: Make) -> None:
    """The stream does not say that rows came or went with a partition; the catalog shows it. A new or an empty one is
    no news."""
    part = "FOR VALUES FROM ({0}0) TO ({0}9)"
    up = named(
        "CREATE TABLE a (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        *(f"CREATE TABLE a{n} PARTITION OF a {part.format(n)}" for n in range(4)),
        "CREATE TABLE a4 (id int PRIMARY KEY)",
        "INSERT INTO a4 VALUES (40)",
    )
    before = follow(up.source).partitions
    up.run("TRUNCATE a1", "DROP TABLE a2", "ALTER TABLE a DETACH PARTITION a3", "INSERT INTO a VALUES (5)")
    up.run(
        f"ALTER TABLE a ATTACH PARTITION a4 {part.format(4)}",
        f"BEGIN; CREATE TABLE a5 (LIKE a); INSERT INTO a5 VALUES (50);"
        f"ALTER TABLE a ATTACH PARTITION a5 {part.format(5)}; COMMIT",
        f"CREATE TABLE a6 (LIKE a); ALTER TABLE a ATTACH PARTITION a6 {part.format(6)}",
        f"CREATE TABLE a7 PARTITION OF a {part.format(7)}",
        f"BEGIN; CREATE TABLE a8 PARTITION OF a {part.format(8)} PARTITION BY RANGE (id);"
        "CREATE TABLE a80 PARTITION OF a8 DEFAULT; COMMIT",
        "CREATE TABLE a9 (LIKE a) PARTITION BY RANGE (id)",
        "CREATE TABLE a90 PARTITION OF a9 DEFAULT",
        "INSERT INTO a9 VALUES (90)",
        f"ALTER TABLE a ATTACH PARTITION a9 {part.format(9)}",
        "INSERT INTO a VALUES (71), (81)",
        "VACUUM FREEZE pg_inherits",
    )
    now = follow(up.source).partitions
    assert sorted(
        (news.said.partition(":")[0].partition(",")[0], news.missing) for news in partition_news(before, now)
    ) == [
        ("partition a1 was truncated or rewritten", False),
        ("partition a2 was dropped or detached", False),
        ("partition a3 was dropped or detached", False),
        ("partition a4 was attached with rows", True),
        ("partition a5 was attached with rows", True),
        ("partition a90 was attached with rows", True),
    ]
    assert partition_news({}, now) == partition_news(now, now) == []
