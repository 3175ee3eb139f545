"""Tables without a key under REPLICA IDENTITY FULL: a row is told apart by all that it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from producer.change import Change, Event, Rejected, Run
from producer.postgres.capture import Capture
from producer.postgres.identity import check, follow, prepare
from producer.postgres.snapshot import open_snapshot
from producer.postgres.source import TableChoice
from producer.postgres.table_names import BoundNames
from tests.producer_postgres.runs import singly

Make = Callable[..., Any]
Datum = Callable[..., dict[str, Any]]
NOTES = ("CREATE TABLE notes (n int, doc text)", "ALTER TABLE notes REPLICA IDENTITY FULL")


def changes(events: list[Event]) -> list[Change]:
    return [event for event in events if isinstance(event, Change)]


def test_an_update_is_a_delete_of_the_old_row_and_an_insert(prepared: Make, datum: Datum) -> None:
    """Both whole, at following positions, with neither an old key nor anything left out; equal rows are not told."""
    up = prepared(*NOTES, "ALTER TABLE notes ALTER doc SET STORAGE EXTERNAL")
    with up.capturing() as drain:
        up.run(
            "INSERT INTO notes VALUES (1, repeat('x', 9000)), (1, repeat('x', 9000)), (NULL, NULL)",
            "UPDATE notes SET n = 2 WHERE ctid IN (SELECT min(ctid) FROM notes WHERE n = 1)",
            "DELETE FROM notes WHERE n IS NULL",
            "TRUNCATE notes",
        )
        found = changes(drain())
    rows = [datum(change) for change in found]
    doc = "x" * 9000
    assert [(row["_op"], row["n"], row["doc"]) for row in rows] == [
        ("c", 1, doc), ("c", 1, doc), ("c", None, None),
        ("d", 1, doc), ("c", 2, doc), ("d", None, None), ("t", None, None),
    ]  # fmt: skip
    assert {(row["_unchanged"], row["_old_key"]) for row in rows} == {(None, None)}
    old, new = found[3].position, found[4].position
    assert (old.lsn, old.idx + 1) == (new.lsn, new.idx)
    assert all(change.schema.whole_rows and change.schema.key == () for change in found)


def test_both_ways_give_the_same_bytes(prepared: Make) -> None:
    """A message at a time and many at once: equal datums and positions, beside a table with a key, out of line too."""
    up = prepared(
        *NOTES,
        "ALTER TABLE notes ADD big text, ADD amount numeric(10,2), ADD at timestamptz, ADD list int[]",
        "ALTER TABLE notes ALTER big SET STORAGE EXTERNAL",
        "CREATE TABLE keyed (id int PRIMARY KEY, doc text)",
    )
    up.run(
        "INSERT INTO notes SELECT n % 5, 'x', repeat('y', 3000), n, now(), ARRAY[n, NULL]"
        " FROM generate_series(1, 99) n",
        "INSERT INTO keyed SELECT n, 'x' FROM generate_series(1, 99) n",
        "BEGIN; UPDATE notes SET amount = 'NaN', at = 'infinity' WHERE n = 1; DELETE FROM notes WHERE n = 2; "
        "UPDATE keyed SET doc = 'z' WHERE id % 3 = 0; DELETE FROM notes WHERE amount = 'NaN'; "
        "UPDATE notes SET n = 7 WHERE n = 3; COMMIT",
        "DELETE FROM notes WHERE n = 7",
    )
    found = []
    for least in (1 << 30, 1):
        with Capture(up.source, era=1, after_lsn=0, lanes_of=lambda table: 4, least=least) as capture:
            events = up._drain(capture)
            many = any(isinstance(event, Run) for event in events)
            assert many == (least == 1)
            found.append({(c.table, c.position, c.datum) for c in singly(events) if isinstance(c, Change)})
    assert found[0] == found[1]
    assert len(found[0]) == 99 * 2 + 33 + 2 * 20 + 20 + 20 + 2 * 20 + 20


def test_a_snapshot_and_the_changes_give_the_rows(prepared: Make, datum: Datum) -> None:
    """What the snapshot read, with the changes counted in, is what the table holds."""
    up = prepared(*NOTES, "INSERT INTO notes SELECT n % 3, 'a' FROM generate_series(1, 30) n")
    with up.capturing() as drain:
        with open_snapshot(up.source, "public", "notes", era=1) as snapshot:
            rows = Counter((datum(row)["n"], datum(row)["doc"]) for row in singly(snapshot.rows))
            assert snapshot.schema.whole_rows
        up.run(
            "UPDATE notes SET doc = 'b' WHERE n = 1", "DELETE FROM notes WHERE n = 2", "INSERT INTO notes VALUES (1)"
        )
        for change in changes(drain()):
            rows[datum(change)["n"], datum(change)["doc"]] += 1 if change.op == "c" else -1
    assert +rows == Counter({(0, "a"): 10, (1, "b"): 10, (1, None): 1})


def test_full_is_all_that_is_asked_for(upstream: Any) -> None:
    """A table without a key, or with a deferrable one, is captured; its partitions need FULL as well."""
    upstream.run(
        *NOTES,
        "CREATE TABLE later (x int PRIMARY KEY DEFERRABLE)",
        "ALTER TABLE later REPLICA IDENTITY FULL",
        "CREATE TABLE parts (x int) PARTITION BY RANGE (x)",
        "CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
        "ALTER TABLE parts REPLICA IDENTITY FULL",
        "ALTER TABLE parts1 REPLICA IDENTITY FULL",
    )
    upstream.choose(TableChoice("public.*"))
    assert {"later", "notes", "parts"} <= {table.name for table in check(upstream.source).tables}


def test_a_change_without_the_whole_old_row_is_a_hole(prepared: Make, datum: Datum) -> None:
    """A partition that got an identity of its own sends no old row with an update: rejected with its reason.

    Its deletes come as whole rows of which only the key is there; they find no row in the lake, and are told there.
    """
    up = prepared(
        "CREATE TABLE parts (x int NOT NULL, v int) PARTITION BY RANGE (x)",
        "CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (100)",
        "ALTER TABLE parts REPLICA IDENTITY FULL",
        "ALTER TABLE parts1 REPLICA IDENTITY FULL",
    )
    up.run("ALTER TABLE parts1 ADD PRIMARY KEY (x)", "ALTER TABLE parts1 REPLICA IDENTITY DEFAULT")
    (problem,) = follow(up.source).left_out
    assert "ALTER TABLE parts1 REPLICA IDENTITY FULL;" in problem
    up.run("INSERT INTO parts SELECT n, n FROM generate_series(1, 60) n")
    up.run("UPDATE parts SET v = 0 WHERE x = 1", "DELETE FROM parts WHERE x = 2")
    up.run("ALTER TABLE parts1 REPLICA IDENTITY FULL", "DELETE FROM parts WHERE x = 3")
    for least in (1 << 30, 1):
        with up.capturing(least=least) as drain:
            events = drain()
        rejected = [event for event in events if isinstance(event, Rejected)]
        assert [event.op for event in rejected] == ["u"]
        assert "REPLICA IDENTITY FULL" in rejected[0].reason
        deletes = [datum(c) for c in singly(events) if isinstance(c, Change) and c.op == "d"]
        assert [(row["x"], row["v"]) for row in deletes] == [(2, None), (3, 3)]


def test_a_primary_key_that_comes_later_changes_nothing(prepared: Make, datum: Datum, tmp_path: Path) -> None:
    """As long as whole rows come, they are the identity that the table began with, also behind a restart.

    A table that began with a key is not meant: it keeps its own.
    """
    up = prepared(*NOTES, "CREATE TABLE keyed (id int PRIMARY KEY)", "ALTER TABLE keyed REPLICA IDENTITY FULL")
    names = BoundNames(tmp_path / "tables.json")
    names.enter("1")
    up.source = replace(up.source, names=names)
    prepare(up.source)
    with up.capturing() as drain:
        up.run("INSERT INTO notes VALUES (1, 'a')", "INSERT INTO keyed VALUES (1)")
        drain()
    up.run("ALTER TABLE notes ADD PRIMARY KEY (n)")
    again = BoundNames(tmp_path / "tables.json")
    again.enter("1")
    up.source = replace(up.source, names=again)
    with up.capturing() as drain:
        drain()
        up.run("UPDATE notes SET doc = 'b'", "UPDATE keyed SET id = id")
        found = changes(drain())
    assert [(c.op, c.schema.key) for c in found if c.table == "notes"][-2:] == [("d", ()), ("c", ())]
    assert [(c.op, c.schema.key) for c in found if c.table == "keyed"][-1] == ("u", ("id",))


def test_losing_the_identity_fails_at_the_source_and_is_told(prepared: Make) -> None:
    """Without FULL, PostgreSQL refuses updates of the published table; what comes meanwhile are inserts."""
    up = prepared(*NOTES, "INSERT INTO notes VALUES (1, 'a')")
    up.run("ALTER TABLE notes REPLICA IDENTITY DEFAULT")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="replica identity"):
        up.run("DELETE FROM notes")
    (problem,) = follow(up.source).left_out
    assert "REPLICA IDENTITY FULL" in problem and "fail at the source" in problem
    with up.capturing() as drain:
        up.run("INSERT INTO notes VALUES (2, 'b')", "ALTER TABLE notes REPLICA IDENTITY FULL", "DELETE FROM notes")
        found = changes(drain())
    assert [change.op for change in found][-3:] == ["c", "d", "d"]
    assert len({change.schema.fingerprint() for change in found}) == 1
