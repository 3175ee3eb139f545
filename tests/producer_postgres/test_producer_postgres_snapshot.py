"""Snapshots: the rows of one consistent point, and the stream that continues them without a gap or an overlap."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from producer.change import Change, Commit, Rejected
from producer.errors import SourceRefused
from producer.postgres.snapshot import KeyRange, open_snapshot

Make = Callable[..., Any]
Datum = Callable[..., dict[str, Any]]


def test_rows_carry_the_position_below_the_consistent_point(prepared: Make, datum: Datum) -> None:
    """Op r, lsn C - 1, ordinals from 0, the same schema and key bytes as the stream's."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'x'), (2, NULL)")
    with open_snapshot(up.source, "public", "a", era=4) as snapshot:
        rows = list(snapshot.rows)
    assert [row.position for row in rows] == [(4, snapshot.consistent_point - 1, ordinal) for ordinal in range(2)]
    assert [(datum(row)["_op"], datum(row)["id"], datum(row)["v"]) for row in rows] == [("r", 1, "x"), ("r", 2, None)]
    with up.capturing() as drain:
        up.run("UPDATE a SET v = 'y' WHERE id = 1")
        _, update, _ = drain()
    assert (update.key, update.schema) == (rows[0].key, rows[0].schema)
    assert snapshot.schema == update.schema


def test_a_row_is_in_the_snapshot_or_behind_its_point_in_the_stream(prepared: Make, datum: Datum) -> None:
    """What commits after the snapshot opened is not in its rows and has lsn >= C; what was before has lsn < C."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    up.run("INSERT INTO a VALUES (1)")
    with open_snapshot(up.source, "public", "a", era=1) as snapshot:
        up.run("INSERT INTO a VALUES (2)", "DELETE FROM a WHERE id = 1")
        ids = [datum(row)["id"] for row in snapshot.rows]
    with up.capturing() as drain:
        commits = [event.lsn for event in drain() if isinstance(event, Commit)]
    assert ids == [1]
    assert commits[0] < snapshot.consistent_point <= commits[1] < commits[2]


def test_awkward_text_survives(prepared: Make, datum: Datum) -> None:
    """Whatever COPY escapes comes back as it was."""
    texts = ["", "\\N", "a\tb", "line\nfeed\r", "back\\slash\\", "\\.", "\b\f\v", "ünï", "{}", "\\\\x"]
    up = prepared("CREATE TABLE a (id int PRIMARY KEY, v text)")
    values = ", ".join(f"({place}, $t${text}$t$)" for place, text in enumerate(texts))
    up.run(f"INSERT INTO a VALUES {values}")
    with open_snapshot(up.source, "public", "a", era=1) as snapshot:
        assert [datum(row)["v"] for row in snapshot.rows] == texts


def test_key_ranges_cover_a_table_once(prepared: Make, datum: Datum) -> None:
    """Low is inside, high is outside, over all columns of the key; ranges that meet share no row and miss none."""
    up = prepared("CREATE TABLE a (x int, y text, PRIMARY KEY (x, y))")
    up.run("INSERT INTO a SELECT x, y FROM generate_series(1, 9) x, unnest('{a,b,c}'::text[]) y")
    cuts = [None, ("3", "b"), ("3", "c"), ("7", "a"), None]
    found = []
    for low, high in pairwise(cuts):
        with open_snapshot(up.source, "public", "a", era=1, key_range=KeyRange(low, high)) as snapshot:
            found.append([(datum(row)["x"], datum(row)["y"]) for row in snapshot.rows])
    assert found[1] == [(3, "b")]
    assert [len(part) for part in found] == [7, 1, 10, 9]
    assert len({row for part in found for row in part}) == 27


def test_what_the_stream_leaves_out_the_snapshot_leaves_out(prepared: Make, datum: Datum) -> None:
    """A generated column is in neither, so both write one schema; partitions come with their root."""
    up = prepared(
        "CREATE TABLE a (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED) PARTITION BY RANGE (id)",
        "CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE a2 PARTITION OF a FOR VALUES FROM (10) TO (20)",
    )
    with up.capturing() as drain:
        up.run("INSERT INTO a (id) VALUES (1), (11)")
        _, change, *_ = drain()
    assert isinstance(change, Change)
    with open_snapshot(up.source, "public", "a", era=1) as snapshot:
        assert sorted(datum(row)["id"] for row in snapshot.rows) == [1, 11]
    assert snapshot.schema == change.schema
    assert [column.name for column in snapshot.schema.columns] == ["id"]


def test_a_row_that_cannot_be_written_is_rejected_with_its_ordinal(prepared: Make) -> None:
    """The other rows go on."""
    up = prepared("CREATE TABLE a (at date PRIMARY KEY)", "INSERT INTO a VALUES ('2020-01-01'), ('infinity')")
    with open_snapshot(up.source, "public", "a", era=1) as snapshot:
        first, second = snapshot.rows
    assert isinstance(first, Change)
    assert isinstance(second, Rejected)
    assert (second.position.idx, second.key_text) == (1, "at=infinity")


def test_no_slot_stays_behind(prepared: Make) -> None:
    """The temporary slot goes as soon as its snapshot was taken over."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    count = f"SELECT count(*) FROM pg_replication_slots WHERE database = '{up.dbname}' AND temporary AND active"
    with open_snapshot(up.source, "public", "a", era=1) as snapshot:
        assert list(snapshot.rows) == []
        for _ in range(500):
            if up.query(count) == [(0,)]:
                break
        assert up.query(count) == [(0,)]


def test_an_unpublished_table_is_refused(prepared: Make) -> None:
    """The refusal names the statement that publishes it."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    up.run("CREATE TABLE b (id int PRIMARY KEY)")
    with (
        pytest.raises(SourceRefused, match=r'ALTER PUBLICATION .* ADD TABLE "public"."b";'),
        open_snapshot(up.source, "public", "b", era=1),
    ):
        pass
