"""What of a table leaves the site: columns left out, hashed, masked; rows filtered; tables excluded and renamed."""

from __future__ import annotations

import hmac
import io
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import fastavro
import pytest

from producer.change import Change, Rejected, Run
from producer.errors import SourceRefused
from producer.postgres.identity import check, follow, prepare
from producer.postgres.shaping import Shaping, masked
from producer.postgres.snapshot import open_snapshot
from producer.postgres.source import TableChoice
from producer.postgres.table_names import BoundNames
from tests.producer_postgres.conftest import Upstream

KEY = b"k" * 32
MARK = TableChoice("public.headrace_tests_mark")
PEOPLE = """CREATE TABLE people (
    id int PRIMARY KEY, ssn text, email text, card varchar(20), born date, note text, secret bytea)"""
SHAPING = Shaping(frozenset({"ssn", "secret"}), frozenset({"email", "born"}), {"card": 4})


def hashed(text: str) -> str:
    return hmac.digest(KEY, text.encode(), "sha256").hex()


def shaped(upstream: Upstream, shaping: Shaping = SHAPING, **choice: Any) -> None:
    upstream.choose(TableChoice("public.people", shaping=shaping, **choice), MARK)
    upstream.source = replace(upstream.source, hash_key=KEY)


def decode(change: Change) -> dict[str, Any]:
    found = fastavro.schemaless_reader(io.BytesIO(change.datum), change.schema.to_avro(), None)
    assert isinstance(found, dict)
    return found


def datums(events: list[Any]) -> dict[str, list[bytes]]:
    """Each table's datums, in order."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for event in events:
        if isinstance(event, Change):
            found[event.table].append(event.datum)
        elif isinstance(event, Run):
            ends = [0, *event.ends.tolist()]
            found[event.table] += [event.datums[first:last] for first, last in pairwise(ends)]
    return found


def rows(events: list[Any]) -> list[dict[str, Any]]:
    return [decode(event) for event in events if isinstance(event, Change)]


def refused(upstream: Upstream) -> str:
    with pytest.raises(SourceRefused) as problems:
        check(upstream.source)
    return "\n".join(problems.value.problems)


@pytest.mark.parametrize("binary", [True, False])
def test_what_is_hidden_is_in_no_byte_that_leaves(upstream: Upstream, binary: bool) -> None:
    """In the stream and in the snapshot, in both transfers, the same; nulls stay nulls."""
    upstream.run(PEOPLE)
    shaped(upstream)
    prepare(upstream.source)
    values = "(1, '123-45', 'ada@x.org', '4111222233334444', '1815-12-10', 'hi', '\\xdeadbeefdeadbeef')"
    with upstream.capturing(binary=binary) as events:
        update = "UPDATE people SET note = 'ho' WHERE id = 1"
        upstream.run(f"INSERT INTO people VALUES {values}", "INSERT INTO people (id) VALUES (2)", update)
        found = events()
    one, two, updated = rows(found)
    assert (one["email"], one["born"], one["card"]) == (hashed("ada@x.org"), hashed("1815-12-10"), "*" * 12 + "4444")
    assert (two["email"], two["card"], updated["note"], updated["email"]) == (None, None, "ho", one["email"])
    assert [name for name in one if not name.startswith("_")] == ["id", "email", "card", "born", "note"]
    for event in found:
        if isinstance(event, Change):
            assert not any(part in event.datum for part in (b"123-45", b"ada@", b"41112222", b"\xde\xad\xbe\xef"))
    with open_snapshot(upstream.source, "public", "people", era=1) as snapshot:
        staged = {row["id"]: row for row in map(decode, snapshot.rows)}  # type: ignore[arg-type]
    assert {name: staged[1][name] for name in ("email", "born", "card", "note")} == {
        name: updated[name] for name in ("email", "born", "card", "note")
    }


@pytest.mark.parametrize("binary", [True, False])
def test_a_hashed_key_keeps_rows_apart_and_shows_itself_to_nobody(upstream: Upstream, binary: bool) -> None:
    """Also where the old key is named for people, and where a value stayed away because it did not change."""
    upstream.run(
        "CREATE TABLE people (email text PRIMARY KEY, n int, big text)",
        "ALTER TABLE people ALTER big SET STORAGE EXTERNAL",
    )
    shaped(upstream, Shaping(hash_columns=frozenset({"email"})))
    prepare(upstream.source)
    with upstream.capturing(binary=binary) as events:
        upstream.run(
            "INSERT INTO people VALUES ('a@x', 1, repeat('x', 9000))",
            "UPDATE people SET email = 'b@x'",
            "DELETE FROM people",
        )
        found = events()
    inserted, gone, moved, deleted = rows(found)
    assert [row["email"] for row in (inserted, gone, moved, deleted)] == [
        hashed("a@x"),
        hashed("a@x"),
        hashed("b@x"),
        hashed("b@x"),
    ]
    assert (moved["_unchanged"], moved["_old_key"]) == (["big"], f"email={hashed('a@x')}")
    keys = [event.key for event in found if isinstance(event, Change)]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_a_reject_of_a_table_that_hides_carries_no_raw_row(upstream: Upstream) -> None:
    """The source's message would hold what must not leave."""
    upstream.run("CREATE TABLE people (id numeric(10,2) PRIMARY KEY, ssn text)")
    shaped(upstream, Shaping(exclude_columns=frozenset({"ssn"})))
    prepare(upstream.source)
    with upstream.capturing() as events:
        upstream.run("INSERT INTO people VALUES ('NaN', '123-45')")
        (reject,) = [event for event in events() if isinstance(event, Rejected)]
    assert reject.raw is None
    assert "123-45" not in f"{reject}"


def test_columns_that_are_not_there_or_tell_rows_apart_are_refused(upstream: Upstream) -> None:
    upstream.run(PEOPLE)
    shaped(upstream, Shaping(frozenset({"id", "nmae"}), frozenset(), {"crad": 1}))
    found = refused(upstream)
    for part in ("column crad", "column nmae", "column id of public.people is in its key"):
        assert part in found


def test_a_row_filter_holds_in_stream_and_snapshot(upstream: Upstream) -> None:
    """A row that moves into the filter comes as an insert, one that moves out as a delete."""
    upstream.run("CREATE TABLE people (id int PRIMARY KEY, eu bool)", "ALTER TABLE people REPLICA IDENTITY FULL")
    shaped(upstream, Shaping(where="eu AND id > 0"))
    prepare(upstream.source)
    prepare(upstream.source)
    with upstream.capturing() as events:
        upstream.run(
            "INSERT INTO people VALUES (1, true), (2, false), (-3, true)",
            "UPDATE people SET eu = NOT eu WHERE id IN (1, 2)",
        )
        found = [(row["_op"], row["id"]) for row in rows(events())]
    assert found == [("c", 1), ("d", 1), ("c", 2)]
    with open_snapshot(upstream.source, "public", "people", era=1) as snapshot:
        assert [decode(row)["id"] for row in snapshot.rows] == [2]  # type: ignore[arg-type]


def test_a_changed_row_filter_replaces_the_one_that_was_published(upstream: Upstream) -> None:
    upstream.run("CREATE TABLE people (id int PRIMARY KEY)")
    for condition in ("id > 0", "id > 10"):
        shaped(upstream, Shaping(where=condition))
        prepare(upstream.source)
    with upstream.capturing() as events:
        upstream.run("INSERT INTO people VALUES (5), (15)")
        assert [row["id"] for row in rows(events())] == [15]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nmae = 1", "is refused: column"),
        ("id = 1); DROP TABLE people; --", "is refused"),
        ("eu", "REPLICA IDENTITY FULL"),
    ],
)
def test_a_row_filter_that_would_break_the_source_is_refused(upstream: Upstream, where: str, said: str) -> None:
    """With the server's own words, or because the source's updates would fail; nothing is left of the look at it."""
    upstream.run("CREATE TABLE people (id int PRIMARY KEY, eu bool)")
    shaped(upstream, Shaping(where=where))
    assert said in refused(upstream)
    assert upstream.query("SELECT count(*) FROM pg_publication") == [(0,)]
    assert upstream.query("SELECT to_regclass('people') IS NOT NULL") == [(True,)]


def test_excluded_tables_are_not_published(upstream: Upstream) -> None:
    upstream.run(*(f"CREATE TABLE {name} (id int PRIMARY KEY)" for name in ("a", "b", "tmp_a")))
    upstream.choose(TableChoice("public.*", exclude=("tmp_*", "public.b")))
    assert [table.name for table in prepare(upstream.source).tables] == ["a", "headrace_tests_mark"]
    published = upstream.query("SELECT tablename FROM pg_publication_tables ORDER BY 1")
    assert published == [("a",), ("headrace_tests_mark",)]


def test_a_renamed_table_has_its_name_in_the_lake_from_the_first(upstream: Upstream, tmp_path: Any) -> None:
    """A name that the lake has already stays: history would be torn in two."""
    upstream.run("CREATE TABLE people (id int PRIMARY KEY)")
    names = BoundNames(tmp_path / "names", {"public.people": "persons"})
    names.enter("1")
    shaped(upstream, Shaping(rename="persons"))
    upstream.source = replace(upstream.source, names=names)
    assert {table.lake_table for table in prepare(upstream.source).tables} == {"persons", "headrace_tests_mark"}
    with upstream.capturing() as events:
        upstream.run("INSERT INTO people VALUES (1)")
        assert [event.table for event in events() if isinstance(event, Change)] == ["persons"]
    shaped(upstream, Shaping(rename="humans"))
    upstream.source = replace(upstream.source, names=names)
    assert "is persons in the lake" in refused(upstream)


@pytest.mark.parametrize(("first", "then"), [("orders", "orders_versions"), ("orders_versions", "orders")])
def test_a_table_called_as_the_versions_of_another_is_left_out(upstream: Upstream, first: str, then: str) -> None:
    """It is told with what to do, and the other goes on, while the agent runs as at a start; where it is named, a start
    refuses. One that is published already stands in nobody's way."""
    upstream.run(f"CREATE TABLE {first} (id int PRIMARY KEY)")
    upstream.choose(TableChoice("public.*"))
    prepare(upstream.source)
    upstream.run(f"CREATE TABLE {then} (id int PRIMARY KEY)")
    said = f"set rename for public.{then} in the configuration"
    upstream.choose(TableChoice(f"public.{first}"), TableChoice(f"public.{then}"), MARK)
    assert said in refused(upstream)
    upstream.choose(TableChoice("public.*"))
    found = follow(upstream.source)
    assert found.left_out == check(upstream.source).left_out
    assert {table.name for table in found.tables} == {first, "headrace_tests_mark"}
    (problem,) = found.left_out
    assert said in problem and f"public.{first} and public.{then} would be orders and orders_versions" in problem
    upstream.run(f"ALTER PUBLICATION {upstream.source.publication} ADD TABLE {then}")
    assert len(check(upstream.source).tables) == 3


@pytest.mark.parametrize(
    ("text", "kept", "shown"),
    [("41112222", 4, "****2222"), ("abc", 4, "**c"), ("a", 4, "*"), ("", 1, ""), ("ab", 0, "**")],
)
def test_a_mask_never_shows_more_than_half(text: str, kept: int, shown: str) -> None:
    assert masked(text, kept) == shown


def test_rows_written_many_at_once_hide_the_same(upstream: Upstream) -> None:
    """Byte for byte as those written one by one, between rows of a table that hides nothing."""
    upstream.run(PEOPLE, "CREATE TABLE plain (id int PRIMARY KEY, ssn text)")
    upstream.choose(TableChoice("public.people", shaping=SHAPING), TableChoice("public.plain"), MARK)
    upstream.source = replace(upstream.source, hash_key=KEY)
    prepare(upstream.source)
    with upstream.capturing(least=1) as events:
        upstream.run(
            "INSERT INTO people SELECT n, CASE n % 3 WHEN 0 THEN NULL ELSE repeat('s', n % 200) END, "
            "CASE n % 5 WHEN 0 THEN NULL ELSE 'mail' || n END, 'card' || n, DATE '2000-01-01' + n, 'note', "
            "CASE n % 7 WHEN 0 THEN NULL ELSE '\\xdead'::bytea END FROM generate_series(1, 300) n",
            "INSERT INTO plain SELECT n, 'open' FROM generate_series(1, 300) n",
            "UPDATE people SET note = 'other' WHERE id < 200",
        )
        many = events()
    with upstream.capturing() as events:
        single = events()
    assert any(isinstance(event, Run) for event in many)
    assert datums(many) == datums(single)
    assert len(datums(many)["people"]) == 499
