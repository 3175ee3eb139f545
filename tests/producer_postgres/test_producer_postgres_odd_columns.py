"""A column whose binary form is not read here costs what it costs itself: the source's stream stays binary and fast."""

from __future__ import annotations

import hmac
import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import fastavro
import pytest

from producer.errors import SourceUnreachable, TextNeeded
from producer.postgres.capture import Capture, Transfer
from producer.postgres.identity import prepare
from producer.postgres.shaping import Shaping
from producer.postgres.snapshot import open_snapshot
from producer.postgres.source import TableChoice
from tests.producer_postgres.conftest import Upstream
from tests.producer_postgres.runs import singly

Make = Callable[..., Upstream]

TYPES = {
    "no binary form": ("isbn13", "ARRAY['978-0-11-000533-1', NULL, '978-0-306-40615-7']"),
    "asked for": ("tsquery", "ARRAY['a & !b:*A', NULL, '''it''''s'' <-> ü']"),
    "many, asked for": ("cube[]", "ARRAY['{\"(1,2)\",NULL}', NULL, '{}']"),
    "composite": ("search", "ARRAY['(a,\"''b''\")', NULL, '(,)']"),
}
EXTENSIONS = ("CREATE EXTENSION isn", "CREATE EXTENSION cube", "CREATE TYPE search AS (name text, query tsquery)")


def written(odd: str, values: str) -> tuple[str, ...]:
    """Rows of a plain table and of an odd one: inserts, updates, deletes, keys that move."""
    value = f"(({values})[1 + n % 3])::{odd}"
    return (
        f"INSERT INTO odd SELECT n, {value}, 'v' || n FROM generate_series(1, 700) n",
        "INSERT INTO plain SELECT n, now(), 'v' || n FROM generate_series(1, 700) n",
        "UPDATE odd SET v = v || 'x' WHERE n % 2 = 0",
        "UPDATE odd SET n = -n WHERE n % 100 = 0",
        "DELETE FROM odd WHERE n % 5 = 0",
    )


def tables(odd: str) -> tuple[str, ...]:
    plain = "CREATE TABLE plain (n int PRIMARY KEY, at timestamptz, v text)"
    return (*EXTENSIONS, plain, f"CREATE TABLE odd (n int PRIMARY KEY, odd {odd}, v text)")


def decoded(change: Any) -> dict[str, Any]:
    found = fastavro.schemaless_reader(io.BytesIO(change.datum), change.schema.to_avro(), None)
    assert isinstance(found, dict)
    return found


def odd_values(up: Upstream) -> dict[int, str | None]:
    """As the source prints them."""
    rows = up.query("SELECT n, CASE WHEN num_nulls(odd) = 0 THEN format('%s', odd) END FROM odd")
    return dict(rows)


def latest(events: Iterable[Any], table: str = "odd") -> dict[int, Any]:
    """What is left of the table, by its key."""
    rows: dict[int, Any] = {}
    for change in (event for event in singly(events) if getattr(event, "table", None) == table):
        row = decoded(change)
        if change.op == "d":
            del rows[row["n"]]
        else:
            rows[row["n"]] = row["odd"]
    return rows


def as_text(value: Any) -> str | None:
    """A value of the lake as the source prints it, where it is an array of texts."""
    if not isinstance(value, list):
        return value  # type: ignore[no-any-return]
    return "{" + ",".join("NULL" if item is None else f'"{item}"' for item in value) + "}"


@pytest.mark.parametrize("kind", TYPES)
def test_one_odd_column_leaves_the_stream_binary_and_fast(prepared: Make, kind: str) -> None:
    """Only rows whose key moves take the scalar path, as anywhere; its values are what the source prints."""
    up = prepared(*tables(TYPES[kind][0]))
    up.run(*written(*TYPES[kind]))
    transfer = Transfer()
    with Capture(up.source, era=1, after_lsn=0, transfer=transfer, least=1) as capture:
        events = up._drain(capture)
        fast = capture._transcoder.written
    assert transfer.binary
    assert fast == 700 + 700 + 350 + 140
    assert {n: as_text(value) for n, value in latest(events).items()} == odd_values(up)


@pytest.mark.parametrize("kind", TYPES)
def test_every_way_of_reading_an_odd_column_gives_the_same(prepared: Make, kind: str) -> None:
    """In binary and in text, many at once and one by one, and in a snapshot."""
    up = prepared(*tables(TYPES[kind][0]))
    up.run(*written(*TYPES[kind]))
    streamed = []
    for binary, least in ((True, 1), (True, 1 << 30), (False, 1)):
        with up.capturing(binary=binary, least=least) as drain:
            events = [event for event in singly(drain()) if getattr(event, "table", None) == "odd"]
        streamed.append([(event.position, event.datum) for event in events])
    assert streamed[0] == streamed[1] == streamed[2]
    with open_snapshot(up.source, "public", "odd", era=1) as snapshot:
        assert {n: as_text(value) for n, value in latest(snapshot.rows).items()} == odd_values(up)


@pytest.mark.parametrize("binary", [True, False])
def test_a_hashed_key_of_an_odd_type(upstream: Upstream, binary: bool) -> None:
    """It moves, and the row is known by it; also where the old key is named, since a value did not change."""
    upstream.run("CREATE TABLE odd (odd tsquery PRIMARY KEY, n int, big text)")
    upstream.run("ALTER TABLE odd ALTER big SET STORAGE EXTERNAL")
    shaping = Shaping(hash_columns=frozenset({"odd"}))
    upstream.choose(TableChoice("public.odd", shaping=shaping), TableChoice("public.headrace_tests_mark"))
    upstream.source = replace(upstream.source, hash_key=b"k" * 32)
    prepare(upstream.source)
    with upstream.capturing(binary=binary) as drain:
        upstream.run("INSERT INTO odd VALUES ('a & b', 1, repeat('x', 9000))", "UPDATE odd SET n = 2")
        upstream.run("UPDATE odd SET odd = 'c'")
        found = [(event.op, decoded(event)) for event in singly(drain()) if getattr(event, "op", None)]
    old, new = (hmac.digest(b"k" * 32, text, "sha256").hex() for text in (b"'a' & 'b'", b"'c'"))
    assert [(op, row["odd"]) for op, row in found] == [("c", old), ("u", old), ("d", old), ("c", new)]
    assert found[-1][1]["_old_key"] == f"odd={old}"


@pytest.mark.parametrize("least", [1, 1 << 30])
def test_what_is_hidden_of_an_odd_column_is_made_of_its_text(upstream: Upstream, least: int) -> None:
    """Hashed and masked: the same in both transfers and in a snapshot. Left out: neither asked for nor read."""
    upstream.run(
        *EXTENSIONS, "CREATE EXTENSION seg", "CREATE TABLE odd (n int PRIMARY KEY, a tsquery, b isbn13, c seg)"
    )
    shaping = Shaping(frozenset({"c"}), frozenset({"a"}), {"b": 4})
    upstream.choose(TableChoice("public.odd", shaping=shaping), TableChoice("public.headrace_tests_mark"))
    upstream.source = replace(upstream.source, hash_key=b"k" * 32)
    prepare(upstream.source)
    upstream.run("INSERT INTO odd SELECT n, 'a & b', '978-0-11-000533-1', '~1' FROM generate_series(1, 60) n")
    found = []
    for binary in (True, False):
        with Capture(upstream.source, era=1, after_lsn=0, transfer=Transfer(binary), least=least) as capture:
            events = upstream._drain(capture)
            assert capture._transcoder.written == (60 if binary and least == 1 else 0)
        found.append([decoded(event) for event in singly(events) if getattr(event, "table", None) == "odd"])
    with open_snapshot(upstream.source, "public", "odd", era=1) as snapshot:
        found.append([decoded(change) for change in singly(snapshot.rows)])
    shown = [{(row["a"], row["b"], "c" in row) for row in rows} for rows in found]
    assert shown[0] == shown[1] == shown[2]
    ((a, b, has_c),) = shown[0]
    assert (len(a), b, has_c) == (64, "*" * 13 + "33-1", False)


@pytest.mark.parametrize(
    ("odd", "value"),
    [("seg[]", "{~1}"), ("regtype", "integer"), ("measured", "(1,~1)"), ("aclitem[]", "{=r/postgres}")],
)
def test_what_a_binary_stream_cannot_say_is_read_in_text(prepared: Make, odd: str, value: str) -> None:
    """Nothing comes of it before the stream begins again."""
    made = ("CREATE EXTENSION seg", "CREATE TYPE measured AS (n int, s seg)")
    up = prepared(*made, f"CREATE TABLE odd (n int PRIMARY KEY, odd {odd})")
    up.run(f"INSERT INTO odd VALUES (1, '{value}')")
    transfer = Transfer()
    with pytest.raises(TextNeeded), up.capturing(transfer=transfer) as drain:
        drain()
    assert not transfer.binary
    with up.capturing(transfer=transfer) as drain:
        ((n, found),) = latest(drain()).items()
    assert (n, found if isinstance(found, str) else "{" + ",".join(found) + "}") == (1, value)


@pytest.mark.parametrize("least", [1, 1 << 30])
def test_a_type_that_changed_since_is_read_in_text(prepared: Make, least: int) -> None:
    """What was sent is none of the type's values now: the stream begins again in text, where the source knows both."""
    up = prepared(*tables("search"))
    up.run("INSERT INTO odd SELECT n, '(a,b)', 'v' FROM generate_series(1, 3) n")
    up.run("ALTER TYPE search ADD ATTRIBUTE more int")
    transfer = Transfer()
    with pytest.raises(TextNeeded), up.capturing(transfer=transfer, least=least) as drain:
        drain()
    assert not transfer.binary
    with up.capturing(transfer=transfer, least=least) as drain:
        assert set(latest(drain()).values()) == {"(a,'b')"}


def test_a_lost_session_is_no_reason_for_text(prepared: Make) -> None:
    """Who cannot be asked now is asked after the next start, in the same transfer."""
    up = prepared(*tables("tsquery"))
    transfer = Transfer()
    with Capture(up.source, era=1, after_lsn=0, transfer=transfer, least=1) as capture:
        up.run("INSERT INTO odd VALUES (1, 'a', 'v')")
        up._drain(capture)
        up.run(f"SELECT pg_terminate_backend({capture._session.info.backend_pid})")
        up.run("INSERT INTO odd VALUES (2, 'b', 'v')")
        with pytest.raises(SourceUnreachable) as lost:
            up._drain(capture)
    assert not isinstance(lost.value, TextNeeded)
    assert transfer.binary
    events: list[Any] = []
    with Capture(up.source, era=1, after_lsn=0, transfer=transfer) as capture:
        for _ in range(40):
            events += capture.poll(0.5)
            if len(latest(events)) == 2:
                break
    assert latest(events) == {1: "'a'", 2: "'b'"}
