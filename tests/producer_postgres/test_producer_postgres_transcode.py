"""What is written many rows at once is what the scalar encoder writes, byte for byte, at the same positions."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer import lanes
from producer.change import Begin, Change, Commit, Event, Keepalive, Rejected, Run
from producer.errors import SourceProtocolBroken
from producer.postgres.capture import Capture
from producer.postgres.chunk import Chunk
from producer.postgres.decoder import Decoder
from producer.postgres.messages import POSTGRES_EPOCH_MICROS, Binary, Relation, RelationColumn
from producer.postgres.rows import RowEncoder
from producer.postgres.transcode import Transcoder
from producer.postgres.type_facts import TypeFacts
from producer.postgres.types import mapped
from schemas.change_record import Column, TableSchema
from tests.producer_postgres import pgoutput
from tests.producer_postgres.pgoutput import NULL, UNCHANGED, xlog

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TEXTS = (TEXT | st.sampled_from(["x" * 63, "x" * 64, "ü" * 40, "x" * 8191, "x" * 8192])).map(str.encode)
BAD_TEXT = st.sampled_from([b"\xff", b"\xc3", b"\x80abc", b"caf\xe9"])
EDGES = [0, 1, -1, 63, 64, -64, -65, 8191, 8192]


def whole(form: str, bits: int) -> st.SearchStrategy[bytes]:
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    return (st.integers(low, high) | st.sampled_from([low, high, *EDGES])).map(lambda value: struct.pack(form, value))


def decimals(precision: int, scale: int) -> st.SearchStrategy[bytes]:
    top = 10**precision - 1
    edges = [0, 1, -1, 127, 128, -128, -129, 32767, 32768, -32768, top, -top, 10 ** (precision - 1)]
    values = st.integers(-top, top) | st.sampled_from([edge for edge in edges if abs(edge) <= top])
    return values.map(lambda value: pgoutput.numeric(value, scale))


def typmod(precision: int, scale: int) -> int:
    return (precision << 16 | scale) + 4


@dataclass(frozen=True)
class Type:
    """odd: values that only the scalar encoder can write, or that nothing can."""

    oid: int
    send: str
    values: st.SearchStrategy[bytes]
    odd: st.SearchStrategy[bytes] | None = None
    typmod: int = -1
    element: int = 0


I4_ENDS = st.sampled_from([2**31 - 1, -(2**31), -730_120, 2_921_940]).map(lambda value: struct.pack(">i", value))
I8_ENDS = st.sampled_from([2**63 - 1, -(2**63), -63_082_281_600_000_001, 252_455_616_000_000_000])
NAN = st.just(pgoutput.numeric(None, 2))


def misfits(precision: int, scale: int) -> st.SearchStrategy[bytes]:
    """Numerics that no numeric(precision, scale) holds, or nothing does: another scale, more digits, no number."""
    return NAN | st.sampled_from([pgoutput.numeric(7, scale + 1), pgoutput.numeric(10 ** (precision + 3), scale)])


TYPES = [
    Type(16, "boolsend", st.booleans().map(lambda value: bytes([value]))),
    Type(21, "int2send", whole(">h", 16)),
    Type(23, "int4send", whole(">i", 32), st.integers(1000, 9999).map(lambda value: pgoutput.Text(b"%d" % value))),
    Type(20, "int8send", whole(">q", 64)),
    Type(26, "oidsend", st.integers(0, 2**32 - 1).map(lambda value: struct.pack(">I", value))),
    Type(700, "float4send", st.floats(width=32).map(lambda value: struct.pack(">f", value))),
    Type(701, "float8send", st.floats().map(lambda value: struct.pack(">d", value))),
    Type(17, "byteasend", st.binary(max_size=70)),
    Type(25, "textsend", TEXTS, BAD_TEXT),
    Type(1043, "varcharsend", TEXTS, BAD_TEXT),
    Type(1042, "bpcharsend", TEXTS, BAD_TEXT),
    Type(19, "namesend", TEXTS),
    Type(114, "json_send", TEXTS),
    Type(3802, "jsonb_send", TEXTS.map(lambda text: b"\1" + text), TEXTS.map(lambda text: b"\2" + text)),
    Type(90_001, "enum_send", TEXTS),
    Type(2950, "uuid_send", st.binary(min_size=16, max_size=16)),
    Type(1082, "date_send", st.integers(-730_119, 2_921_939).map(lambda value: struct.pack(">i", value)), I4_ENDS),
    Type(1114, "timestamp_send", st.integers(-(6 * 10**16), 25 * 10**16).map(lambda v: struct.pack(">q", v)),
         I8_ENDS.map(lambda value: struct.pack(">q", value))),
    Type(1184, "timestamptz_send", st.integers(0, 10**15).map(lambda value: struct.pack(">q", value))),
    Type(1700, "numeric_send", decimals(12, 2), misfits(12, 2), typmod(12, 2)),
    Type(1700, "numeric_send", decimals(18, 0), misfits(18, 0), typmod(18, 0)),
    Type(1700, "numeric_send", decimals(5, 5), misfits(5, 5), typmod(5, 5)),
    Type(1700, "numeric_send", decimals(19, 1), misfits(19, 1), typmod(19, 1)),
    Type(1700, "numeric_send", decimals(38, 10), misfits(38, 10), typmod(38, 10)),
    Type(1700, "numeric_send", decimals(30, 7), NAN),  # without a precision: text
    Type(1083, "time_send", st.integers(0, 86_400_000_000).map(lambda value: struct.pack(">q", value))),
    Type(1007, "array_send", st.lists(st.none() | whole(">i", 32), max_size=4).map(lambda i: pgoutput.array(23, i)),
         element=23),
    Type(90_002, "", TEXTS.map(pgoutput.Text), BAD_TEXT.map(pgoutput.Text)),
    Type(90_003, "library.some_send", TEXTS.map(lambda text: text[::-1]), BAD_TEXT),
]  # fmt: skip
FACTS = {kind.oid: TypeFacts(kind.oid, f"t{kind.oid}", send=kind.send, element=kind.element) for kind in TYPES}


@dataclass(frozen=True)
class Table:
    described: Relation
    types: tuple[Type, ...]

    @property
    def encoder(self) -> RowEncoder:
        columns = self.described.columns
        mappings = tuple(mapped(column.type_oid, column.typmod, FACTS) for column in columns)
        schema = TableSchema(
            "shop",
            self.described.name,
            tuple(Column(c.name, m.avro, c.name, "some") for c, m in zip(columns, mappings, strict=True)),
            tuple(column.name for column in columns if column.in_key),
        )
        key = tuple(n for n, c in enumerate(columns) if c.in_key)
        encoder = RowEncoder(schema, self.described, mappings, key, schema.columns)
        return encoder.asking(lambda type_oid: lambda values: [value[::-1] for value in values])


@st.composite
def tables(draw: st.DrawFn, number: int) -> Table:
    kinds = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=9))
    keys = draw(st.lists(st.integers(0, len(kinds) - 1), max_size=2))
    columns = tuple(RelationColumn(f"c{n}", kind.oid, kind.typmod, n in keys) for n, kind in enumerate(kinds))
    return Table(Relation(100 + number, "public", f"t{number}", "d", columns), tuple(kinds))


@st.composite
def rows(draw: st.DrawFn, table: Table, odd: bool, *, toast: bool = False) -> list[Any]:
    values: list[Any] = []
    for kind in table.types:
        choices = [kind.values, kind.values, st.just(NULL)]
        if toast:
            choices.append(st.just(UNCHANGED))
        if odd and kind.odd is not None:
            choices.append(kind.odd)
        values.append(draw(st.one_of(choices)))
    return values


@st.composite
def changes(draw: st.DrawFn, table: Table, odd: bool) -> bytes:
    oid = table.described.oid
    how = draw(st.sampled_from("IIUUTDFKM"))
    new = draw(rows(table, odd, toast=how in "TM"))
    if how == "I":
        return pgoutput.insert(oid, new)
    if how in "UT":
        return pgoutput.update(oid, new)
    if how == "D":
        return pgoutput.delete(oid, new, draw(st.sampled_from("KO")))
    old = draw(rows(table, odd))
    if draw(st.booleans()):
        kept = [NULL if value is UNCHANGED else value for value in new]
        columns = table.described.columns
        old = [b if c.in_key else a for a, b, c in zip(old, kept, columns, strict=True)]
    return pgoutput.update(oid, new, old, "O" if how in "FM" else "K")


@st.composite
def streams(draw: st.DrawFn, odd: bool = True) -> tuple[list[Table], list[bytes]]:
    """Payloads of a stream that begins and ends anywhere in a transaction."""
    made = [draw(tables(number)) for number in range(draw(st.integers(1, 3)))]
    payloads, lsn = [], 1000
    open_one = False
    for _ in range(draw(st.integers(1, 30))):
        at = POSTGRES_EPOCH_MICROS + 800_000_000_000_000 + lsn
        what = draw(st.sampled_from(["change"] * 8 + ["end", "end", "keepalive", "truncate", "describe"]))
        table = draw(st.sampled_from(made))
        if what == "keepalive":
            payloads.append(pgoutput.keepalive(lsn))
            continue
        if what == "end" and not open_one:
            lsn += 100
            continue
        if not open_one:
            payloads.append(xlog(pgoutput.begin(lsn, at)))
            open_one = True
        if what == "end":
            payloads.append(xlog(pgoutput.commit(lsn, at)))
            open_one, lsn = False, lsn + 100
        elif what == "truncate":
            payloads.append(xlog(pgoutput.truncate(table.described.oid)))
        elif what == "describe":
            payloads.append(xlog(pgoutput.relation(table.described)))
        else:
            payloads.append(xlog(draw(changes(table, odd))))
    return made, payloads


def decoders(made: list[Table], after_lsn: int = 0) -> tuple[Decoder, Transcoder]:
    encoders = {table.described.oid: table.encoder for table in made}
    pair = [Decoder(3, after_lsn, lambda relation: encoders[relation.oid]) for _ in range(2)]
    for decoder in pair:
        for table in made:
            decoder.decode(pgoutput.relation(table.described))
    return pair[0], Transcoder(pair[1], lambda table: True, least=1)


def one_by_one(decoder: Decoder, payloads: Iterable[bytes]) -> list[Event]:
    return Transcoder(decoder, lambda table: True, least=1 << 30).events(list(payloads))


def by_table(events: list[Event]) -> dict[str, list[Any]]:
    """What each table's lanes are made of, in order: position, time, datum and hash of every change."""
    found: dict[str, list[Any]] = {}
    for event in events:
        if isinstance(event, Change):
            code = zlib.crc32(event.key) if event.key else None
            found.setdefault(event.table, []).append((event.position, event.committed_at, event.datum, code))
        elif isinstance(event, Rejected):
            found.setdefault(event.table, []).append(event)
        elif isinstance(event, Run):
            start = 0
            for place, end in enumerate(event.ends.tolist()):
                code = None if event.hashes is None else int(event.hashes[place])
                row = (event.position(place), int(event.times[place]), event.datums[start:end], code)
                found.setdefault(event.table, []).append(row)
                start = end
            assert start == len(event.datums)
    return found


def settled(events: list[Event]) -> dict[str, int]:
    """How many entries of each table stand before the last commit."""
    last = max((n for n, event in enumerate(events) if isinstance(event, Commit)), default=-1)
    return {table: len(entries) for table, entries in by_table(events[: last + 1]).items()}


def end(events: list[Event]) -> list[Event]:
    """The last commit, and the last keepalive behind it."""
    commits = [n for n, event in enumerate(events) if isinstance(event, Commit)]
    tail = events[commits[-1] if commits else 0 :]
    return [e for e in tail if isinstance(e, Commit)] + [e for e in tail if isinstance(e, Keepalive)][-1:]


def assert_same(scalar: list[Event], many: list[Event]) -> None:
    assert by_table(many) == by_table(scalar)
    assert settled(many) == settled(scalar)
    assert end(many) == end(scalar)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(streams(), st.integers(0, 30), st.sampled_from([0, 1000, 1150]))
def test_many_at_once_is_one_by_one(made: tuple[list[Table], list[bytes]], cut: int, after_lsn: int) -> None:
    """Any stream, cut anywhere: the same bytes, positions, key hashes, rejects, commits and keepalives."""
    described, payloads = made
    decoder, transcoder = decoders(described, after_lsn)
    for part in (payloads[:cut], payloads[cut:]):
        assert_same(one_by_one(decoder, part), transcoder.events(part))
    assert decoder.open_transaction == transcoder._decoder.open_transaction


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from(TYPES))
def test_every_type_has_its_place(data: st.DataObject, kind: Type) -> None:
    """Forty rows of one type beside a key, ordinary and odd ones: as the scalar encoder writes them."""
    columns = (RelationColumn("id", 20, -1, True), RelationColumn("v", kind.oid, kind.typmod, False))
    table = Table(Relation(1, "public", "t", "d", columns), (TYPES[3], kind))
    values = st.one_of([kind.values, st.just(NULL), *([] if kind.odd is None else [kind.odd])])
    some = data.draw(st.lists(values, min_size=5, max_size=40))
    payloads = [xlog(pgoutput.insert(1, [struct.pack(">q", n), value])) for n, value in enumerate(some)]
    payloads = [xlog(pgoutput.begin(5, 10)), *payloads, xlog(pgoutput.commit(5, 10))]
    decoder, transcoder = decoders([table])
    assert_same(one_by_one(decoder, payloads), transcoder.events(payloads))


def ordinary(count: int) -> tuple[Table, list[bytes]]:
    columns = (RelationColumn("id", 20, -1, True), RelationColumn("v", 25, -1, False))
    table = Table(Relation(1, "public", "t", "d", columns), (TYPES[3], TYPES[8]))
    messages = [pgoutput.insert(1, [struct.pack(">q", n), b"value %d" % n]) for n in range(count)]
    return table, [xlog(pgoutput.begin(5, 10)), *map(xlog, messages), xlog(pgoutput.commit(5, 10))]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=40), st.integers(0, 17))
def test_the_bytes_of_stretches_are_marked(gaps: list[tuple[int, int]], behind: int) -> None:
    """Stretches of any length, empty ones and ones that meet too, anywhere in a word."""
    shown, starts = b"", []
    for gap, length in gaps:
        starts.append(len(shown) + gap)
        shown += bytes(gap) + b"\1" * length
    shown += bytes(behind)
    marked = Chunk(shown).mark(np.array(starts), np.array([length for _, length in gaps]))
    assert marked.tobytes() == shown + bytes(len(marked) - len(shown))


def test_ordinary_rows_take_the_fast_way() -> None:
    """A hundred inserts are one run, none of them written by the scalar encoder."""
    table, payloads = ordinary(100)
    _, transcoder = decoders([table])
    run, commit = transcoder.events(payloads)
    assert isinstance(run, Run)
    assert (run.count, transcoder.written) == (100, 100)
    assert isinstance(commit, Commit)
    assert commit.changes == 100


@pytest.mark.parametrize("least", [1, 1 << 30], ids=["many at once", "one by one"])
def test_transactions_up_to_the_spools_end_are_passed_over_whole(least: int) -> None:
    """Their truncates too: the spool has all of them. The next one comes whole."""
    table, _ = ordinary(0)
    payloads = []
    for lsn in (5, 6, 7):
        messages = [pgoutput.insert(1, [struct.pack(">q", lsn), b"v"]), pgoutput.truncate(1), pgoutput.commit(lsn, 10)]
        payloads += map(xlog, [pgoutput.begin(lsn, 10), *messages])
    for after_lsn, left in ((4, [5, 6, 7]), (5, [6, 7]), (6, [7]), (7, [])):
        decoder = Decoder(3, after_lsn, lambda relation: table.encoder)
        decoder.decode(pgoutput.relation(table.described))
        events = Transcoder(decoder, lambda table: True, least=least).events(payloads)
        assert [position.lsn for position, *_ in by_table(events).get("t", [])] == [n for n in left for _ in range(2)]


@pytest.mark.parametrize("least", [1, 1 << 30], ids=["many at once", "one by one"])
def test_a_key_that_was_not_sent_names_no_row(least: int) -> None:
    """An unchanged value in the key is known from the old row; without one the change is rejected, not loaded without
    its key."""
    table, _ = ordinary(0)
    key = struct.pack(">q", 1)
    updates = [pgoutput.update(1, [UNCHANGED, b"v"], [key, NULL], "K"), pgoutput.update(1, [UNCHANGED, b"v"])]
    payloads = [xlog(pgoutput.begin(5, 10)), *map(xlog, updates)]
    decoder, transcoder = decoders([table])
    many = transcoder.events(payloads)
    events = many if least == 1 else one_by_one(decoder, payloads)
    known, unknown = [event for event in events if not isinstance(event, Begin)]
    assert isinstance(known, Change)
    assert known.key == table.encoder.encode([Binary(key), None]).columns[0]
    assert isinstance(unknown, Rejected)
    assert unknown.reason.startswith("key column id cannot hold")


def test_one_odd_row_does_not_slow_the_others() -> None:
    """An infinite timestamp among 99 good ones: one row goes the scalar way, in its place."""
    columns = (RelationColumn("id", 20, -1, True), RelationColumn("at", 1184, -1, False))
    table = Table(Relation(1, "public", "t", "d", columns), (TYPES[3], TYPES[18]))
    moments = [struct.pack(">q", 2**63 - 1 if n == 50 else n) for n in range(100)]
    messages = [pgoutput.insert(1, [struct.pack(">q", n), at]) for n, at in enumerate(moments)]
    payloads = [xlog(pgoutput.begin(5, 10)), *map(xlog, messages), xlog(pgoutput.commit(5, 10))]
    decoder, transcoder = decoders([table])
    events = transcoder.events(payloads)
    assert transcoder.written == 99
    assert_same(one_by_one(decoder, payloads), events)


def test_halves_of_a_character_in_two_columns_are_no_text() -> None:
    """Together they would be UTF-8; each by itself is rejected, as the scalar encoder does."""
    columns = tuple(RelationColumn(name, oid, -1, name == "id") for name, oid in (("id", 20), ("a", 25), ("b", 25)))
    table = Table(Relation(1, "public", "t", "d", columns), (TYPES[3], TYPES[8], TYPES[8]))
    rows_of = [[struct.pack(">q", n), b"\xc3", b"\xa9"] for n in range(3)]
    payloads = [xlog(pgoutput.begin(5, 10)), *(xlog(pgoutput.insert(1, row)) for row in rows_of)]
    decoder, transcoder = decoders([table])
    events = transcoder.events(payloads)
    assert sum(isinstance(event, Rejected) for event in events) == 3
    assert_same(one_by_one(decoder, payloads), events)


@pytest.mark.parametrize("hurt", ["cut", "long", "kind", "stray", "commit", "unknown"])
def test_a_broken_stream_is_told_as_the_scalar_path_tells_it(hurt: str) -> None:
    """A message cut short, a length beyond it, an impossible kind: SourceProtocolBroken, nothing is passed over."""
    table, payloads = ordinary(60)
    middle = payloads[30]
    payloads[30] = {
        "cut": middle[:-3],
        "long": middle[:-11] + b"\x7f" + middle[-10:],
        "kind": middle[:33] + b"z" + middle[34:],
        "stray": xlog(pgoutput.begin(6, 11)),
        "commit": xlog(pgoutput.commit(6, 11)),
        "unknown": xlog(pgoutput.insert(9, [b"x"])),
    }[hurt]
    _, transcoder = decoders([table])
    with pytest.raises(SourceProtocolBroken):
        transcoder.events(payloads)


def test_parts_of_a_run_are_runs() -> None:
    """Cut and chosen runs hold the same datums under the same positions."""
    table, payloads = ordinary(50)
    _, transcoder = decoders([table])
    run = transcoder.events(payloads)[0]
    assert isinstance(run, Run)
    whole_run = by_table([run])["t"]
    assert by_table([run.part(0, 7), run.part(7, 50)])["t"] == whole_run
    assert by_table([run.chosen(np.arange(1, 50, 2))])["t"] == whole_run[1::2]


def test_a_run_is_split_over_the_lanes_of_its_changes() -> None:
    """Each on the lane that lanes.lane makes of its key, in order."""
    table, payloads = ordinary(50)
    decoder, transcoder = decoders([table])
    expected: dict[str, list[Any]] = {}
    for change in one_by_one(decoder, payloads):
        if isinstance(change, Change):
            expected.setdefault(lanes.lane(change, 7), []).append((change.position, change.datum))
    run = transcoder.events(payloads)[0]
    assert isinstance(run, Run)
    found = {name: [(at, datum) for at, _, datum, _ in by_table([part])["t"]] for name, part in lanes.split(run, 7)}
    assert found == expected


WORKLOAD = """
    INSERT INTO plain SELECT n, n % 7, 'name ' || n, CASE WHEN n % 5 = 0 THEN NULL ELSE n * 1.25 END, now(), now(),
        current_date, n % 2 = 0, gen_random_uuid(), ('{"n": ' || n || '}')::jsonb, sqrt(n), decode(md5(n::text), 'hex')
        FROM generate_series(1, 300) n;
    UPDATE plain SET amount = 'NaN' WHERE id % 50 = 0;
    UPDATE plain SET at = 'infinity', day = '-infinity' WHERE id % 60 = 0;
    UPDATE plain SET id = id + 1000 WHERE id % 40 = 0;
    DELETE FROM plain WHERE id % 3 = 0;
    INSERT INTO whole SELECT n, n % 3, repeat('x', n), ARRAY[n, NULL, -n], make_interval(0, 0, 0, n) FROM
        generate_series(1, 200) n;
    UPDATE whole SET note = note || 'y' WHERE id % 2 = 0;
    UPDATE whole SET id = -id WHERE id % 9 = 0;
    DELETE FROM whole WHERE id % 4 = 0;
    INSERT INTO toasted SELECT n, 0, repeat(md5(n::text), 200), n * 12345678901234567890.5
        FROM generate_series(1, 90) n;
    UPDATE toasted SET small = 1;
    UPDATE toasted SET id = id + 500 WHERE id > 80;
    TRUNCATE whole;
    INSERT INTO log SELECT n, 'line ' || n FROM generate_series(1, 100) n;
"""


def test_a_real_stream_gives_the_same_bytes_both_ways(prepared: Callable[..., Any]) -> None:
    """The same slot read twice, a message at a time and many at once: equal datums, positions and lanes' hashes."""
    up = prepared(
        "CREATE TABLE plain (id bigint PRIMARY KEY, k smallint, name text, amount numeric(12,2), at timestamptz,"
        " local timestamp, day date, on_ boolean, u uuid, j jsonb, f float8, b bytea)",
        "CREATE TABLE whole (id int, k int, note text, list int[], took interval, PRIMARY KEY (id, k))",
        "ALTER TABLE whole REPLICA IDENTITY FULL",
        "CREATE TABLE toasted (id int PRIMARY KEY, small int, big text, wide numeric(38,4))",
        "ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL",
        "CREATE TABLE log (n int, line text)",
        append_only=("log",),
    )
    statements = [one for one in WORKLOAD.split(";") if one.strip()]
    up.run(*statements[:7], "BEGIN; " + ";".join(statements[7:]) + "; COMMIT")
    found = []
    for least in (1 << 30, 1):
        with Capture(up.source, era=1, after_lsn=0, lanes_of=lambda table: 4, least=least) as capture:
            found.append(up._drain(capture))
            written = capture._transcoder.written
    scalar, many = found
    assert by_table(many) == by_table(scalar)
    assert end(many) == end(scalar)
    assert not any(isinstance(event, Run) for event in scalar)
    assert written > 1000
