"""Snapshots: the rows of one consistent point, and the stream that continues them without a gap or an overlap."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import pairwise
from typing import Any

import pytest

from producer.change import Change, Commit, Rejected
from producer.errors import SnapshotVoid, SourceProtocolBroken, SourceRefused, SourceUnreachable
from producer.groups import Group
from producer.postgres import catalog
from producer.postgres.connection import connect
from producer.postgres.copied_rows import CopiedRows
from producer.postgres.rows import row_encoder
from producer.postgres.snapshot import open_snapshot, plan
from tests.producer_postgres.runs import singly

Make = Callable[..., Any]
Datum = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("more", ["", ", acl aclitem"], ids=["binary", "text"])
def test_rows_carry_the_position_below_the_consistent_point(prepared: Make, datum: Datum, more: str) -> None:
    """Op r, lsn C - 1, ordinals from 0, the same schema and key bytes as the stream's. A type without a binary form
    makes COPY send text."""
    up = prepared(f"CREATE TABLE a (id int PRIMARY KEY, v text{more})", "INSERT INTO a VALUES (1, 'x'), (2, NULL)")
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
        ids = [datum(row)["id"] for row in singly(snapshot.rows)]
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
        assert [datum(row)["v"] for row in singly(snapshot.rows)] == texts


def test_key_ranges_cover_a_table_once(prepared: Make, datum: Datum) -> None:
    """Low is inside, high is outside, over all columns of the key; ranges that meet share no row and miss none."""
    up = prepared("CREATE TABLE a (x int, y text, PRIMARY KEY (x, y))")
    up.run("INSERT INTO a SELECT x, y FROM generate_series(1, 9) x, unnest('{a,b,c}'::text[]) y")
    cuts = [None, ("3", "b"), ("3", "c"), ("7", "a"), None]
    found = []
    for low, high in pairwise(cuts):
        with open_snapshot(up.source, "public", "a", era=1, group=Group(low, high)) as snapshot:
            found.append([(datum(row)["x"], datum(row)["y"]) for row in singly(snapshot.rows)])
    assert found[1] == [(3, "b")]
    assert [len(part) for part in found] == [7, 1, 10, 9]
    assert len({row for part in found for row in part}) == 27


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("int", "(n * 7919) % 5003"),
        ('text COLLATE "C"', "chr(65 + n % 50) || ' \\''' || md5(n::text)"),
        ("uuid", "md5(n::text)::uuid"),
        ("timestamptz", "'2020-01-01'::timestamptz - n * interval '1.7 s'"),
        ("float8", "sqrt(n) - 30"),
    ],
)
def test_a_plan_cuts_any_key_into_groups_that_share_and_miss_no_row(
    prepared: Make, datum: Datum, key: str, values: str
) -> None:
    """Read one by one, the groups are the table; none holds most of it."""
    up = prepared(f"CREATE TABLE a (k {key}, n int, PRIMARY KEY (k, n))")
    up.run(f"INSERT INTO a SELECT {values}, n FROM generate_series(1, 3000) n")
    found: list[list[int]] = []
    groups = plan(up.source, "public", "a", 64 * 1024).groups
    for group in groups:
        with open_snapshot(up.source, "public", "a", era=1, group=group) as snapshot:
            found.append([datum(row)["n"] for row in singly(snapshot.rows)])
    assert len(groups) >= 3
    assert {group.file for group in groups} == {None}
    assert sorted(n for part in found for n in part) == list(range(1, 3001))
    assert max(map(len, found)) < 2500


def test_scattered_keys_are_cut_by_pages(prepared: Make, datum: Datum) -> None:
    """Each page is read once; what is added meanwhile belongs to the last group or to the stream."""
    up = prepared("CREATE TABLE a (k uuid PRIMARY KEY, n int)")
    up.run("INSERT INTO a SELECT md5(n::text)::uuid, n FROM generate_series(1, 3000) n", "ANALYZE a")
    planned = plan(up.source, "public", "a", 64 * 1024)
    assert planned.rows == 3000
    assert None not in {group.file for group in planned.groups}
    found: list[int] = []
    for number, group in enumerate(planned.groups):
        with open_snapshot(up.source, "public", "a", era=1, group=group) as snapshot:
            found += [datum(row)["n"] for row in singly(snapshot.rows)]
        up.run(f"INSERT INTO a SELECT md5(n::text || 'x')::uuid, -n FROM generate_series(1, 9) n WHERE {number} = 0")
    assert sorted(n for n in found if n > 0) == list(range(1, 3001))


@pytest.mark.parametrize("statement", ["VACUUM FULL a", "CLUSTER a USING a_pkey"])
def test_groups_of_pages_are_void_once_the_table_was_rewritten(prepared: Make, statement: str) -> None:
    """Its rows lie elsewhere then, and no change says so."""
    up = prepared("CREATE TABLE a (k uuid PRIMARY KEY, n int)")
    up.run("INSERT INTO a SELECT md5(n::text)::uuid, n FROM generate_series(1, 3000) n", "ANALYZE a")
    group = plan(up.source, "public", "a", 64 * 1024).groups[1]
    up.run(statement)
    with pytest.raises(SnapshotVoid, match="rewritten"), open_snapshot(up.source, "public", "a", era=1, group=group):
        pass


def test_groups_of_keys_are_void_once_the_key_is_another(prepared: Make) -> None:
    up = prepared("CREATE TABLE a (k int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
    up.run("ALTER TABLE a DROP CONSTRAINT a_pkey, ADD PRIMARY KEY (k, n)")
    with (
        pytest.raises(SnapshotVoid, match="another key"),
        open_snapshot(up.source, "public", "a", era=1, group=Group(("5",), None)),
    ):
        pass


def test_tables_that_inherit_are_not_read_with_their_parent(prepared: Make, datum: Datum) -> None:
    """Their changes come under their own names."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (PRIMARY KEY (id)) INHERITS (a)")
    up.run("INSERT INTO a VALUES (1)", "INSERT INTO b VALUES (2)")
    with open_snapshot(up.source, "public", "a", era=1) as snapshot:
        assert [datum(row)["id"] for row in singly(snapshot.rows)] == [1]


def test_the_transaction_that_commits_exactly_at_the_point_is_in_the_stream_alone(prepared: Make, datum: Datum) -> None:
    """Its commit is the first record behind the slot's point: lsn C, above the rows' C - 1, and in no row.

    A slot gets its point where the transactions that it waits for have ended. `live` begins while it waits for the
    last of them, so that it is decoded whole, and commits as soon as there is a point.
    """
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    met = []
    for number in range(1, 21):
        point, commits = _raced(up, number, datum)
        met.append(point in commits)
        if met[-1]:
            break  # else the server wrote a record of its own in between
    assert met[-1]


def _raced(up: Any, number: int, datum: Datum) -> tuple[int, set[int]]:
    """A snapshot's point beside a transaction that inserts `number`, and where commits are; the rows are checked."""
    with ExitStack() as stack:
        first, second, live = (stack.enter_context(up.server.connect(up.dbname)) for _ in range(3))
        opening = stack.enter_context(ThreadPoolExecutor(1))
        first.execute("BEGIN")
        first.execute("SELECT pg_current_xact_id()")
        snapshot = opening.submit(lambda: stack.enter_context(open_snapshot(up.source, "public", "a", era=1)))
        _wait_for_waiter(up, first)
        second.execute("BEGIN")
        second.execute("SELECT pg_current_xact_id()")
        first.execute("COMMIT")
        _wait_for_waiter(up, second)
        live.execute("BEGIN")
        live.execute(f"INSERT INTO a VALUES ({number})")
        second.execute("COMMIT")
        point = snapshot.result(120).consistent_point
        live.execute("COMMIT")
        rows = [datum(row)["id"] for row in snapshot.result().rows]
    assert rows == list(range(1, number))
    with up.capturing() as drain:
        return point, {event.lsn for event in drain() if isinstance(event, Commit)}


def _wait_for_waiter(up: Any, holder: Any) -> None:
    """Until a slot that is being made waits for the transaction of `holder`."""
    query = f"""
        SELECT 1 FROM pg_locks w JOIN pg_locks h USING (transactionid)
        WHERE NOT w.granted AND h.granted AND h.pid = {holder.info.backend_pid}"""
    deadline = time.monotonic() + 120
    while not up.query(query):
        assert time.monotonic() < deadline


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
        for _ in range(5_000):
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


def test_many_rows_at_once_are_the_rows_one_by_one(prepared: Make) -> None:
    """The same datums and positions, with values that only the scalar encoder can write, over several portions."""
    up = prepared(
        "CREATE TABLE a (id int PRIMARY KEY, v text, n numeric(12,2), wide numeric(38,4), at timestamptz, day date,"
        " ok boolean, u uuid, j jsonb, list int[], f float8, g float4, b bytea, took interval)",
        "INSERT INTO a SELECT n, repeat('ü', n % 90), n * 1.25, n * 10::numeric ^ (n % 30), now(), current_date - n,"
        " n % 2 = 0, gen_random_uuid(), to_jsonb(n), ARRAY[n, NULL], sqrt(n), -n, decode(md5(n::text), 'hex'), NULL"
        " FROM generate_series(1, 9000) n",
        "UPDATE a SET n = 'NaN' WHERE id % 100 = 0",
        "UPDATE a SET at = 'infinity', j = NULL, took = '1 mon' WHERE id % 70 = 0",
    )
    with open_snapshot(up.source, "public", "a", era=3) as snapshot:
        many = list(snapshot.rows)
    with closing(connect(up.source.dsn)) as connection:
        lsn, at = snapshot.consistent_point - 1, next(row.committed_at for row in singly(many))
        relation = catalog.relation(connection, catalog.oid_of(connection, "public", "a"), up.source.publication)
        facts = catalog.SessionCatalog(connection)
        encoder = row_encoder(up.source, "a", relation, facts, append_only=False)
        copied = CopiedRows(encoder, 3, lsn, at, least=1 << 30)
        names = ", ".join(column.name for column in relation.columns)
        copy = f"COPY (SELECT {names} FROM a) TO STDOUT (FORMAT binary)"
        single = list(copied.read(connection.pgconn, copy.encode()))
    assert [row.position.idx for row in single] == [*range(9000)]
    assert sum(isinstance(item, Change) for item in many) < 400
    assert [(row.position, row.datum) for row in singly(many)] == [(row.position, row.datum) for row in single]


@pytest.mark.parametrize("least", [1, 1 << 30], ids=["many at once", "one by one"])
@pytest.mark.parametrize("columns", ["id", "id, v, v"])
def test_rows_of_another_count_of_columns_stop_the_agent(prepared: Make, columns: str, least: int) -> None:
    """Nothing is passed over, and no value is taken for another column's."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'x'), (2, 'y')")
    with closing(connect(up.source.dsn)) as connection:
        relation = catalog.relation(connection, catalog.oid_of(connection, "public", "a"), up.source.publication)
        encoder = row_encoder(up.source, "a", relation, catalog.SessionCatalog(connection), append_only=False)
        copied = CopiedRows(encoder, 1, 8, 0, least)
        with pytest.raises(SourceProtocolBroken, match="a row of COPY makes no sense"):
            list(copied.read(connection.pgconn, f"COPY (SELECT {columns} FROM a) TO STDOUT (FORMAT binary)".encode()))


@pytest.mark.parametrize("how", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_copy_that_breaks_off_is_no_snapshot(prepared: Make, how: str) -> None:
    """A statement that fails in its middle ends in SourceUnreachable, whatever rows it gave before."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY, v text)")
    up.run("INSERT INTO a SELECT n, repeat('x', 1500) FROM generate_series(1, 20000) n")
    with open_snapshot(up.source, "public", "a", era=1) as snapshot:
        next(snapshot.rows)
        up.query(f"SELECT {how}(pid) FROM pg_stat_activity WHERE query LIKE 'COPY %'")
        with pytest.raises(SourceUnreachable):
            list(snapshot.rows)
