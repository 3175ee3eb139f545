"""What the stream says of inserts, updates, deletes, truncates, key changes, TOAST and changes of structure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from psycopg import pq

from producer.change import Begin, Change, Commit, Event, Keepalive, Rejected
from producer.errors import SourceUnreachable
from producer.postgres.capture import Capture
from producer.postgres.connection import Replication
from producer.postgres.identity import identify, prepare

Make = Callable[..., Any]
Datum = Callable[..., dict[str, Any]]


def changes(events: list[Event]) -> list[Change]:
    return [event for event in events if isinstance(event, Change)]


def test_positions_rise_through_a_transaction_and_carry_its_commit(prepared: Make, datum: Datum) -> None:
    """A transaction is Begin, its changes with idx from 0 across tables, Commit; all share the commit's position."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE TABLE b (id int PRIMARY KEY)")
    with up.capturing(era=3) as drain:
        up.run("BEGIN; INSERT INTO a VALUES (1, 'x'), (2, NULL); INSERT INTO b VALUES (9); COMMIT")
        events = drain()
    assert [type(event) for event in events] == [Begin, Change, Change, Change, Commit]
    begin, commit, rows = events[0], events[-1], changes(events)
    assert isinstance(begin, Begin)
    assert isinstance(commit, Commit)
    assert [row.position for row in rows] == [(3, begin.lsn, idx) for idx in range(3)]
    assert (commit.lsn, commit.changes, commit.committed_at) == (begin.lsn, 3, begin.committed_at)
    assert commit.end_lsn > commit.lsn
    assert [row.table for row in rows] == ["a", "a", "b"]
    first = datum(rows[0])
    assert (first["_op"], first["_era"], first["_lsn"], first["_idx"]) == ("c", 3, begin.lsn, 0)
    assert first["_committed_at"].timestamp() == pytest.approx(time.time(), abs=600)
    assert (first["id"], first["v"], datum(rows[1])["v"]) == (1, "x", None)


def test_an_update_and_a_delete_name_the_row(prepared: Make, datum: Datum) -> None:
    """An update carries the whole new row, a delete the key, both the same key bytes as the insert."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY, v text)")
    with up.capturing() as drain:
        up.run("INSERT INTO a VALUES (1, 'x')", "UPDATE a SET v = 'y'", "DELETE FROM a")
        insert, update, delete = changes(drain())
    assert (insert.op, update.op, delete.op) == ("c", "u", "d")
    assert insert.key == update.key == delete.key != b""
    assert datum(update)["v"] == "y"
    assert (datum(delete)["id"], datum(delete)["v"]) == (1, None)
    assert insert.position < update.position < delete.position


def test_a_key_change_is_a_delete_and_an_insert_right_behind_it(prepared: Make, datum: Datum) -> None:
    """The old key goes at idx n, the new one comes at n + 1; without unchanged columns nothing refers back."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'x')")
    with up.capturing() as drain:
        up.run("UPDATE a SET id = 2")
        delete, insert = changes(drain())
    assert (delete.op, datum(delete)["id"]) == ("d", 1)
    assert (insert.op, datum(insert)["id"], datum(insert)["v"], datum(insert)["_old_key"]) == ("c", 2, "x", None)
    assert insert.position == delete.position._replace(idx=delete.position.idx + 1)
    assert insert.key != delete.key


def test_a_toasted_value_that_was_not_sent_is_named_unchanged(prepared: Make, datum: Datum) -> None:
    """Its column is null and listed in _unchanged; after a key change _old_key says where the value is to be found."""
    up = prepared(
        "CREATE TABLE a (id int PRIMARY KEY, small text, large text)",
        "ALTER TABLE a ALTER large SET STORAGE EXTERNAL",
        "INSERT INTO a VALUES (1, 's', repeat('x', 10000))",
    )
    with up.capturing() as drain:
        up.run("UPDATE a SET small = 't'", "UPDATE a SET id = 2", "UPDATE a SET large = NULL")
        update, _, moved, emptied = [datum(change) for change in changes(drain())]
    assert (update["_unchanged"], update["large"], update["small"]) == (["large"], None, "t")
    assert (moved["_unchanged"], moved["_old_key"], moved["large"]) == (["large"], "id=1", None)
    assert (emptied["_unchanged"], emptied["large"]) == (None, None)


def test_a_full_replica_identity_fills_unchanged_values_and_keeps_the_primary_key(prepared: Make, datum: Datum) -> None:
    """The source sends the whole old row: nothing stays unchanged, a delete shows what was, the key is the PK."""
    up = prepared(
        "CREATE TABLE a (v text, id int PRIMARY KEY, large text)",
        "ALTER TABLE a REPLICA IDENTITY FULL",
        "ALTER TABLE a ALTER large SET STORAGE EXTERNAL",
        "INSERT INTO a VALUES ('s', 1, repeat('x', 10000))",
    )
    with up.capturing() as drain:
        up.run("UPDATE a SET v = 't'", "UPDATE a SET id = 2", "DELETE FROM a")
        found = changes(drain())
    assert [change.op for change in found] == ["u", "d", "c", "d"]
    assert {change.schema.key for change in found} == {("id",)}
    update = datum(found[0])
    assert (update["large"], update["_unchanged"]) == ("x" * 10000, None)
    assert datum(found[3])["v"] == "t"


def test_a_replica_identity_index_is_the_key(prepared: Make) -> None:
    """REPLICA IDENTITY USING INDEX: the key is that index's columns."""
    up = prepared(
        "CREATE TABLE a (id int PRIMARY KEY, x int NOT NULL, y int NOT NULL)",
        "CREATE UNIQUE INDEX a_xy ON a (x, y)",
        "ALTER TABLE a REPLICA IDENTITY USING INDEX a_xy",
    )
    with up.capturing() as drain:
        up.run("INSERT INTO a VALUES (1, 2, 3)", "UPDATE a SET id = 7", "DELETE FROM a")
        insert, update, delete = changes(drain())
    assert insert.schema.key == ("x", "y")
    assert (update.op, delete.op) == ("u", "d")
    assert insert.key == update.key == delete.key


def test_a_truncate_is_one_change_for_every_table(prepared: Make, datum: Datum) -> None:
    """One `t` a table, all columns null, no key, each with its own idx."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)")
    with up.capturing() as drain:
        up.run("INSERT INTO a VALUES (1)", "TRUNCATE a, b")
        insert, *truncates = changes(drain())
    assert insert.op == "c"
    assert sorted((change.table, change.op, change.key) for change in truncates) == [("a", "t", b""), ("b", "t", b"")]
    assert [change.position.idx for change in truncates] == [0, 1]
    assert all(datum(change)["id"] is None for change in truncates)


def test_an_append_only_table_has_no_key_and_no_updates(prepared: Make) -> None:
    """Inserts and truncates come through; an UPDATE and a DELETE work at the source and are not captured."""
    up = prepared("CREATE TABLE h (x int)", append_only=("h",))
    with up.capturing() as drain:
        up.run("INSERT INTO h VALUES (1)", "UPDATE h SET x = 2", "DELETE FROM h", "TRUNCATE h")
        found = changes(drain())
    assert [(change.op, change.key, change.schema.key) for change in found] == [("c", b"", ()), ("t", b"", ())]


def test_a_change_carries_the_structure_it_was_written_under(prepared: Make, datum: Datum) -> None:
    """ALTER TABLE in mid-stream: earlier changes keep the old schema, later ones have the new, names stay stable."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    with up.capturing() as drain:
        up.run(
            "INSERT INTO a VALUES (1)",
            "ALTER TABLE a ADD COLUMN v numeric(5,2) DEFAULT 1.5",
            "INSERT INTO a VALUES (2)",
            "ALTER TABLE a ALTER v TYPE numeric(7,2)",
            "ALTER TABLE a DROP COLUMN v",
            "INSERT INTO a VALUES (3)",
        )
        found = changes(drain())
    assert [[column.name for column in change.schema.columns] for change in found] == [["id"], ["id", "v"], ["id"]]
    assert found[0].schema == found[2].schema != found[1].schema
    assert str(datum(found[1])["v"]) == "1.50"


def test_a_key_that_the_lake_cannot_hold_is_rejected_in_its_place(prepared: Make) -> None:
    """Two such keys would be one null; the change keeps its position and says why."""
    up = prepared("CREATE TABLE a (at timestamptz PRIMARY KEY)")
    with up.capturing() as drain:
        up.run("INSERT INTO a VALUES ('2020-01-01'), ('infinity'), ('2020-01-02')")
        events = drain()
    _, first, rejected, third, commit = events
    assert isinstance(rejected, Rejected)
    assert isinstance(first, Change)
    assert isinstance(third, Change)
    assert (rejected.position.idx, rejected.op, rejected.key_text) == (1, "c", "at=infinity")
    assert "key column at" in rejected.reason
    assert "infinity" in rejected.reason
    assert rejected.raw is not None
    assert isinstance(commit, Commit)
    assert commit.changes == 3


def test_transactions_up_to_a_position_are_passed_over_whole(prepared: Make, datum: Datum) -> None:
    """Starting behind a commit's lsn gives the next transaction first, though the source confirmed nothing."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    up.run("INSERT INTO a VALUES (1), (2)", "INSERT INTO a VALUES (3)")
    with up.capturing() as drain:
        events = drain()
    commits = [event for event in events if isinstance(event, Commit)]
    with up.capturing(after_lsn=commits[0].lsn) as drain:
        again = drain()
    assert [datum(change)["id"] for change in changes(again)] == [3]
    assert again == events[-len(again) :]


def test_only_what_was_confirmed_is_forgotten(prepared: Make) -> None:
    """Without a confirmation the source sends everything again; with one it starts behind it."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    before = identify(up.source).slot
    up.run("INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2)")
    with up.capturing() as drain:
        commits = [event for event in drain() if isinstance(event, Commit)]
    assert identify(up.source).slot == before
    with Capture(up.source, era=1, after_lsn=0) as capture:
        capture.confirm(commits[0].end_lsn)
    slot = identify(up.source).slot
    assert slot is not None
    assert slot.confirmed_lsn == commits[0].end_lsn
    with up.capturing() as drain:
        assert [event for event in drain() if isinstance(event, Commit)] == commits[1:]


def test_a_stream_is_ended_in_agreement(prepared: Make) -> None:
    """The server is told, says that it has ended too, and lets the slot go before anybody asks for it again."""

    class Watched:
        def __init__(self, pgconn: Any) -> None:
            self.pgconn, self.ended = pgconn, False

        def __getattr__(self, name: str) -> Any:
            return getattr(self.pgconn, name)

        def get_result(self) -> Any:
            result = self.pgconn.get_result()
            self.ended = result.status == pq.ExecStatus.COMMAND_OK
            return result

    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    stream: Any = Replication(up.source.dsn, up.source.slot, [up.source.publication], 0, {"proto_version": "1"})
    watched = stream._pgconn = Watched(stream._pgconn)
    stream.close()
    assert watched.ended


def test_an_idle_source_says_how_far_it_is_complete(prepared: Make) -> None:
    """A keepalive comes at or behind the last commit's end, though what moved was a table that nobody captures."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    with Capture(up.source, era=1, after_lsn=0) as capture:
        up.run("CREATE TABLE other (id int)", "INSERT INTO other VALUES (1)")
        target = identify(up.source).current_lsn
        deadline = time.monotonic() + 120
        lsn = 0
        while lsn < target and time.monotonic() < deadline:
            lsn = max([lsn, *(event.lsn for event in capture.poll(0.5) if isinstance(event, Keepalive))])
    assert lsn >= target


def test_a_lost_connection_is_told_apart(prepared: Make) -> None:
    """A terminated walsender ends in SourceUnreachable, and a new capture goes on."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    with Capture(up.source, era=1, after_lsn=0) as capture:
        capture.poll(0.1)
        up.query(
            f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{up.source.slot}'"
        )
        with pytest.raises(SourceUnreachable):
            for _ in range(100):
                capture.poll(0.2)
    up.run("INSERT INTO a VALUES (1)")
    with up.capturing() as drain:
        assert len(changes(drain())) == 1


def test_partitions_are_one_table(prepared: Make, datum: Datum) -> None:
    """Rows of partitions come under their root's name; a move between partitions is a delete and an insert."""
    up = prepared(
        "CREATE TABLE a (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k)",
        "CREATE TABLE a1 PARTITION OF a FOR VALUES IN (1)",
        "CREATE TABLE a2 PARTITION OF a FOR VALUES IN (2)",
    )
    with up.capturing() as drain:
        up.run("INSERT INTO a VALUES (1, 1)", "UPDATE a SET k = 2")
        found = changes(drain())
    assert {change.table for change in found} == {"a"}
    assert [(change.op, datum(change)["k"]) for change in found] == [("c", 1), ("d", 1), ("c", 2)]


def test_names_and_comments_reach_the_schema(prepared: Make) -> None:
    """Awkward names get lake names; source names, types and comments stay with the column."""
    up = prepared(
        'CREATE TABLE "Odd Table" ("Id" int PRIMARY KEY, "ID" varchar(5), _op text)',
        """COMMENT ON COLUMN "Odd Table"."Id" IS 'who'""",
        """COMMENT ON TABLE "Odd Table" IS 'what'""",
    )
    with up.capturing() as drain:
        up.run("""INSERT INTO "Odd Table" VALUES (1, 'a', 'b')""")
        (change,) = changes(drain())
    assert (change.table, change.schema.comment) == ("odd_table", "what")
    assert [(c.name, c.source_name, c.source_type, c.comment) for c in change.schema.columns] == [
        ("id", "Id", "integer", "who"),
        ("id__2", "ID", "character varying(5)", None),
        ("_op__2", "_op", "text", None),
    ]


def test_prepare_adds_tables_and_changes_nothing_else(prepared: Make) -> None:
    """A second run keeps the slot; a table that came since joins the publication."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    slot = identify(up.source).slot
    up.run("CREATE TABLE b (id int PRIMARY KEY)")
    tables = prepare(replace(up.source)).tables
    assert [table.lake_table for table in tables] == ["a", "b", "headrace_tests_mark"]
    assert identify(up.source).slot == slot
    with up.capturing() as drain:
        up.run("INSERT INTO b VALUES (1)")
        assert [change.table for change in changes(drain())] == ["b"]
