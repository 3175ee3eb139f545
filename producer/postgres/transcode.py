"""Many messages at once: pgoutput's binary values to Avro datums, in runs of one table each.

Messages that come together are classified, cut into columns and written with numpy; a row that this has no form for
(an odd value, a key that changed) is found first and goes through the scalar encoder, in its place. The scalar decoder
is also what every datum here must equal.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from producer.change import Array, Commit, Event, Keepalive, Run
from producer.errors import SourceProtocolBroken
from producer.postgres import avro
from producer.postgres.chunk import Chunk, inserted, kept, varints
from producer.postgres.columns import STREAM_PREFIX, Columns, Malformed, tuple_ends
from producer.postgres.connection import KEEPALIVE, XLOG_DATA, XLOG_HEADER, Payload
from producer.postgres.decoder import Decoder
from producer.postgres.forms import Form, form_of
from producer.postgres.messages import LOGICAL, NO_MEANING, POSTGRES_EPOCH_MICROS
from producer.postgres.rows import RowEncoder

LEAST_MESSAGES: Final = 48
"""Fewer are decoded one by one: setting numpy to work costs more."""

_INSERT, _UPDATE, _DELETE, _BEGIN, _COMMIT = b"IUDBC"
_KEY, _NEW, _OLD = b"KNO"
_TUPLE: Final = XLOG_HEADER + 8
"""Where the first column is: behind kind, relation, tuple's kind and number of columns."""
_USUAL: Final = np.isin(np.arange(256), np.frombuffer(b"IUDBC", np.uint8))
_NO_MEANING: Final = np.isin(np.arange(256), list(NO_MEANING))
_OPS: Final = np.zeros(256, np.uint8)
_OPS[[_UPDATE, _DELETE]] = 2, 4


class Plan(NamedTuple):
    """How the rows of one relation are written."""

    encoder: RowEncoder
    forms: tuple[Form, ...]
    hashed: bool

    @classmethod
    def of(cls, encoder: RowEncoder, *, hashed: bool) -> Plan:
        return cls(encoder, tuple(form_of(mapping) for mapping in encoder.mapped), hashed and bool(encoder.key))


class Transcoder:
    """Turns what has arrived together into events, as `decoder` would one by one.

    hashed: whether a table's changes are spread over lanes, so that its runs need hashes. least: see LEAST_MESSAGES.
    passed_over: hears of each logical message, which is no change and becomes no event.
    """

    def __init__(
        self,
        decoder: Decoder,
        hashed: Callable[[str], bool],
        least: int = LEAST_MESSAGES,
        passed_over: Callable[[Payload], None] = lambda message: None,
    ) -> None:
        self._decoder = decoder
        self._passed_over = passed_over
        self._hashed = hashed
        self._least = least
        self._plans: dict[int, Plan] = {}
        self.written = 0
        """Changes that were written many at once."""

    def events(self, payloads: Sequence[Payload]) -> list[Event]:
        """The events of CopyData payloads, in order. Raises SourceProtocolBroken."""
        if len(payloads) < self._least:
            return self._one_by_one(payloads)
        starts, raw = _joined(payloads)
        data = np.frombuffer(raw, np.uint8)
        kinds = data[np.minimum(starts[:-1] + XLOG_HEADER, len(raw) - 1)]
        unusual = np.flatnonzero((data[starts[:-1]] == XLOG_DATA) & ~_USUAL[kinds])
        if not len(unusual):
            return self._usual(payloads, raw, starts)
        if _NO_MEANING[kinds[unusual]].any():
            return self.events(self._meaningful(payloads))
        events, first = [], 0
        for number in [*unusual.tolist(), len(payloads)]:
            if first < number:
                part = raw[starts[first] : starts[number]]
                events += self._usual(payloads[first:number], part, starts[first : number + 1] - starts[first])
            events += self._one_by_one(payloads[number : number + 1])
            first = number + 1
        return events

    def _meaningful(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Without messages that change nothing: what is between them is still decoded at once."""
        kept = []
        for payload in payloads:
            kind = payload[XLOG_HEADER] if payload[0] == XLOG_DATA and len(payload) > XLOG_HEADER else None
            if kind not in NO_MEANING:
                kept.append(payload)
            elif kind == LOGICAL:
                self._passed_over(payload[XLOG_HEADER:])
        return kept

    def _one_by_one(self, payloads: Sequence[Payload]) -> list[Event]:
        events: list[Event] = []
        for payload in self._meaningful(payloads):
            if payload[0] == XLOG_DATA:
                events += self._decoder.decode(bytes(payload[XLOG_HEADER:]))
            elif payload[0] != KEEPALIVE:
                raise SourceProtocolBroken(f"unknown replication message {bytes(payload[:16])!r}")
            elif self._decoder.between_transactions:
                events.append(Keepalive(int.from_bytes(payload[1:9], "big")))
        return events

    def _usual(self, payloads: Sequence[Payload], raw: bytes, starts: Array) -> list[Event]:
        """Begins, commits, inserts, updates, deletes and keepalives."""
        if len(payloads) < self._least:
            return self._one_by_one(payloads)
        chunk = Chunk(raw)
        try:
            stream = _Stream.of(chunk, starts, self._decoder)
            part = _Part.of(chunk, stream, self._plan)
        except Malformed:
            return self._one_by_one(payloads)
        rows = part.rows(self._decoder)
        self.written += len(rows.sizes) - len(rows.scalar)
        events = rows.events(slice(0, stream.whole))
        if stream.commit is not None:
            events.append(stream.commit(rows.emitted_of(stream.commit_transaction)))
        if stream.keepalive is not None:
            events.append(Keepalive(stream.keepalive))
        events += rows.events(slice(stream.whole, None))
        stream.leave(self._decoder, rows)
        return events

    def _plan(self, oid: int) -> Plan:
        encoder = self._decoder.encoder_of(oid)
        if encoder is None:
            raise Malformed
        plan = self._plans.get(oid)
        hashed = self._hashed(encoder.schema.table)
        if plan is None or plan.encoder is not encoder or plan.hashed != (hashed and bool(encoder.key)):
            plan = self._plans[oid] = Plan.of(encoder, hashed=hashed)
        return plan


@dataclass(frozen=True)
class _Stream:
    """The transactions of a part. Arrays by transaction: the one that was open before comes first.

    rows, ends, kinds, transaction: of each change that is not to be skipped. whole: how many of them belong to
    transactions that have committed.
    """

    rows: Array
    ends: Array
    kinds: Array
    transaction: Array
    lsns: Array
    times: Array
    skipped: Array
    emitted: int
    whole: int
    open: bool
    commit: Callable[[int], Commit] | None
    commit_transaction: int
    keepalive: int | None

    @classmethod
    def of(cls, chunk: Chunk, starts: Array, decoder: Decoder) -> _Stream:
        heads = chunk.data[starts[:-1]]
        if not np.isin(heads, (XLOG_DATA, KEEPALIVE)).all():
            raise Malformed
        here = np.flatnonzero(heads == XLOG_DATA)
        at = starts[here]
        kinds = chunk.data[at + XLOG_HEADER]
        begins, commits = kinds == _BEGIN, kinds == _COMMIT
        known = decoder.open_transaction
        depth = np.cumsum(begins.astype(np.int64) - commits) + (known is not None)
        if (depth != np.where(commits, 0, 1)).any():
            raise Malformed
        begun, ended = at[begins], at[commits]
        first = (0, 0, True) if known is None else (known.lsn, known.committed_at, known.skipped)
        lsns = np.concatenate(([first[0]], chunk.i8[begun + XLOG_HEADER + 1].astype(np.int64)))
        micros = chunk.i8[begun + XLOG_HEADER + 9].astype(np.int64) + POSTGRES_EPOCH_MICROS
        times = np.concatenate(([first[1]], micros))
        skipped = lsns <= decoder.after_lsn
        skipped[0] = first[2]
        ordinal = np.cumsum(begins)
        if (chunk.i8[ended + XLOG_HEADER + 2] != lsns[ordinal[commits]]).any():
            raise Malformed
        changes = ~(begins | commits) & ~skipped[ordinal]
        rows = np.flatnonzero(changes)
        told = np.flatnonzero(commits & ~skipped[ordinal])
        last = int(told[-1]) if len(told) else -1
        return cls(
            rows=at[changes],
            ends=starts[1:][here][changes],
            kinds=kinds[changes],
            transaction=ordinal[changes],
            lsns=lsns,
            times=times,
            skipped=skipped,
            emitted=0 if known is None else known.emitted,
            whole=int(np.searchsorted(rows, last)),
            open=bool(depth[-1]) if len(depth) else known is not None,
            commit=None if last < 0 else _commit(chunk, int(at[last]) + XLOG_HEADER),
            commit_transaction=int(ordinal[last]) if last >= 0 else 0,
            keepalive=_keepalive(chunk, starts, here, depth, last, known is not None),
        )

    def leave(self, decoder: Decoder, rows: _Rows) -> None:
        """Tells the decoder which transaction is open behind the part."""
        if not self.open:
            decoder.close_transaction()
            return
        last = len(self.lsns) - 1
        decoder.enter_transaction(
            int(self.lsns[last]), int(self.times[last]), rows.emitted_of(last), skipped=bool(self.skipped[last])
        )


def _commit(chunk: Chunk, at: int) -> Callable[[int], Commit]:
    lsn, end = int(chunk.i8[at + 2]), int(chunk.i8[at + 10])
    micros = int(chunk.i8[at + 18]) + POSTGRES_EPOCH_MICROS
    return lambda changes: Commit(lsn, end, micros, changes)


def _keepalive(
    chunk: Chunk, starts: Array, here: Array, depth: Array, last_commit: int, open_before: bool
) -> int | None:
    """The last keepalive between transactions, where no commit came after it that says more."""
    places = np.setdiff1d(np.arange(len(starts) - 1), here, assume_unique=True)
    for place in places[::-1].tolist():
        before = int(np.searchsorted(here, place))
        if before <= last_commit:
            return None
        if not (bool(depth[before - 1]) if before else open_before):
            return int(chunk.i8[starts[place] + 1])
    return None


@dataclass(frozen=True)
class _Part:
    """The rows of a part with their columns written."""

    chunk: Chunk
    stream: _Stream
    plans: tuple[Plan, ...]
    table_of: Array | None
    columns: Columns
    odd: Array

    @classmethod
    def of(cls, chunk: Chunk, stream: _Stream, plan_of: Callable[[int], Plan]) -> _Part:
        rows = stream.rows
        oids, table_of = _distinct(chunk.i4[rows + XLOG_HEADER + 1].astype(np.int64) & 0xFFFFFFFF)
        plans = tuple(plan_of(oid) for oid in oids)
        widths = np.array([len(plan.forms) for plan in plans], np.int64)
        width_of = widths if table_of is None else widths[table_of]
        kind = chunk.data[rows + XLOG_HEADER + 5]
        old = np.flatnonzero((stream.kinds == _UPDATE) & (kind != _NEW))
        counts = chunk.i2[rows + XLOG_HEADER + 6].astype(np.int64)
        at = rows + _TUPLE
        keys = frozenset(place for plan in plans for place in plan.encoder.key)
        old_slots: dict[int, tuple[Array, Array]] = {}
        if len(old):
            behind, old_slots = tuple_ends(chunk, at[old], counts[old], keys)
            if (chunk.data[behind] != _NEW).any():
                raise Malformed
            counts[old] = chunk.i2[behind + 1]
            at[old] = behind + 3
        if (counts != width_of).any():
            raise Malformed
        columns = Columns(chunk, STREAM_PREFIX, at, stream.ends)
        if len(rows):
            columns.write([plan.forms for plan in plans], table_of, keys)
        part = cls(chunk, stream, plans, table_of, columns, columns.odd)
        part._find_odd(old, kind[old] == _KEY, old_slots)
        part._find_whole_rows(kind)
        return part

    def plan_of(self, row: int) -> Plan:
        return self.plans[0 if self.table_of is None else int(self.table_of[row])]

    def _find_odd(self, old: Array, key_only: Array, old_slots: dict[int, tuple[Array, Array]]) -> None:
        """Keys that moved, and values that only the old row tells."""
        self.odd[old[key_only]] = True
        for rows, place in self.columns.unchanged:
            self.odd[np.intersect1d(rows, old, assume_unique=True)] = True
            for row in rows.tolist():
                if place in self.plan_of(row).encoder.key:
                    self.odd[row] = True
        for number, row in enumerate(old.tolist()):
            if not self.odd[row] and any(
                self._bytes(old_slots[place], number) != self._bytes(self.columns.slots[place], row)
                for place in self.plan_of(row).encoder.key
            ):
                self.odd[row] = True

    def _find_whole_rows(self, kind: Array) -> None:
        """Of tables without a key: updates, which are two changes each, and what came without the whole old row."""
        whole = np.array([plan.encoder.schema.whole_rows for plan in self.plans], bool)
        if not whole.any():
            return
        mine = whole[np.zeros(len(kind), np.int64) if self.table_of is None else self.table_of]
        kinds = self.stream.kinds
        self.odd[mine & ((kinds == _UPDATE) | ((kinds == _DELETE) & (kind != _OLD)))] = True

    def _bytes(self, slots: tuple[Array, Array], number: int) -> bytes:
        start = int(slots[0][number])
        return self.chunk.raw[start : start + int(slots[1][number])]

    def rows(self, decoder: Decoder) -> _Rows:
        """Metadata in front of the columns, and everything as one piece."""
        scalar, idxs, emits = self._scalar(decoder)
        lengths, added, inserts = self._write_metadata(decoder.era, idxs)
        columns = self.columns
        data = self.chunk.output()
        kept_ends = np.cumsum(lengths + columns.kept)
        if len(kept_ends) and kept_ends[-1] != len(data):
            raise AssertionError(f"{len(data)} bytes were kept, {kept_ends[-1]} were counted")
        begins = kept_ends - lengths - columns.kept
        inserts += [(begins[rows] + lengths[rows] + at, pieces) for rows, at, pieces in columns.inserts]
        sizes = lengths + added + columns.sizes
        hashes = None
        whole = inserted(data, inserts)
        if any(plan.hashed for plan in self.plans):
            hashes = self._hashes(whole, np.cumsum(sizes) - columns.sizes, scalar)
        return _Rows(self, whole, sizes, np.cumsum(sizes), idxs, emits, scalar, hashes, decoder.era)

    def _scalar(self, decoder: Decoder) -> tuple[dict[int, list[Event]], Array, Array]:
        """The odd rows' events by row; the idx of each row's first change; how many changes each row is."""
        transaction = self.stream.transaction
        count = len(transaction)
        emits = np.ones(count, np.int64)
        firsts = np.searchsorted(transaction, transaction)
        base = np.where(transaction == 0, self.stream.emitted, 0)
        scalar: dict[int, list[Event]] = {}
        current, shift = -1, 0
        for row in np.flatnonzero(self.odd).tolist():
            if transaction[row] != current:
                current, shift = int(transaction[row]), 0
            idx = int(base[row]) + row - int(firsts[row]) + shift
            decoder.enter_transaction(int(self.stream.lsns[current]), int(self.stream.times[current]), idx)
            start, end = int(self.stream.rows[row]) + XLOG_HEADER, int(self.stream.ends[row])
            scalar[row] = decoder.decode(self.chunk.raw[start:end])
            emits[row] = len(scalar[row])
            shift += len(scalar[row]) - 1
        before = np.cumsum(emits) - emits
        return scalar, base + before - before[firsts] if count else base, emits

    def _write_metadata(self, era: int, idxs: Array) -> tuple[Array, Array, list[tuple[Array, list[bytes]]]]:
        """Writes _op to _raw over what stood before the first column. Returns how long it is, how much longer inserts
        make it, and those inserts."""
        stream = self.stream
        count = len(stream.rows)
        lsns, lsn_sizes = varints(stream.lsns)
        times, time_sizes = varints(stream.times)
        ordinals, idx_sizes = varints(idxs)
        era_bytes = np.frombuffer(avro.long(era), np.uint8)
        transaction = stream.transaction
        head = np.empty((count, 1 + len(era_bytes)), np.uint8)
        head[:, 0] = _OPS[stream.kinds]
        head[:, 1:] = era_bytes
        ones = np.ones((count, head.shape[1]), np.uint8)
        odd = np.ones((count, 3), np.uint8)
        unchanged = self._unchanged()
        odd[list(unchanged), 0] = 0
        matrix = np.concatenate((head, lsns[transaction], ordinals, times[transaction], np.zeros_like(odd)), axis=1)
        keep = np.concatenate(
            (
                ones,
                kept(lsn_sizes, lsns.shape[1])[transaction],
                kept(idx_sizes, ordinals.shape[1]),
                kept(time_sizes, times.shape[1])[transaction],
                odd,
            ),
            axis=1,
        )
        if matrix.shape[1] > _TUPLE:
            raise AssertionError("an era beyond a million")
        self.chunk.put_kept(stream.rows, matrix, keep)
        lengths = head.shape[1] + 3 + lsn_sizes[transaction] + idx_sizes + time_sizes[transaction]
        added = np.zeros(count, np.int64)
        if not unchanged:
            return lengths, added, []
        rows = np.fromiter(unchanged, np.int64, len(unchanged))
        pieces = list(unchanged.values())
        lengths[rows] -= 1
        added[rows] = np.fromiter(map(len, pieces), np.int64, len(pieces))
        ends = np.cumsum(lengths + self.columns.kept) - self.columns.kept
        return lengths, added, [(ends[rows] - 2, pieces)]

    def _unchanged(self) -> dict[int, bytes]:
        """What _unchanged is, by row, where it is not null; by rising row."""
        places: dict[int, list[int]] = {}
        for rows, place in self.columns.unchanged:
            for row in rows.tolist():
                if not self.odd[row]:
                    places.setdefault(row, []).append(place)
        known: dict[tuple[int, ...], bytes] = {}
        result = {}
        for row in sorted(places):
            plan = self.plan_of(row)
            kind = (id(plan), *places[row])
            if kind not in known:
                names = [column.name for place in places[row] if (column := plan.encoder.columns[place]) is not None]
                known[kind] = avro.optional_strings(names)
            result[row] = known[kind]
        return result

    def _hashes(self, whole: bytes, starts: Array, scalar: dict[int, list[Event]]) -> Array:
        """CRC-32 of each row's canonical key, where its table has one. starts: where the rows' columns are."""
        hashes = np.zeros(len(starts), np.uint32)
        for table, plan in enumerate(self.plans):
            if not plan.hashed:
                continue
            rows = np.arange(len(starts)) if self.table_of is None else np.flatnonzero(self.table_of == table)
            codes = [0] * len(rows)
            for place in plan.encoder.key:
                before, size = self.columns.spans[place]
                first = (starts + before)[rows]
                last = first + size[rows]
                spans = zip(codes, first.tolist(), last.tolist(), strict=True)
                codes = [zlib.crc32(whole[begin:end], code) for code, begin, end in spans]
            hashes[rows] = codes
        return hashes


@dataclass(frozen=True)
class _Rows:
    """The datums of a part's rows, in order; those of `scalar` rows are to be replaced."""

    part: _Part
    data: bytes
    sizes: Array
    ends: Array
    idxs: Array
    emits: Array
    scalar: dict[int, list[Event]]
    hashes: Array | None
    era: int

    def emitted_of(self, transaction: int) -> int:
        """How many changes a transaction has so far."""
        mine = self.part.stream.transaction == transaction
        before = self.part.stream.emitted if transaction == 0 else 0
        return before + int(self.emits[mine].sum())

    def events(self, rows: slice) -> list[Event]:
        """The rows as runs, table by table, and what was rejected between them."""
        first, last, _ = rows.indices(len(self.sizes))
        if first == last:
            return []
        if self.part.table_of is None:
            return self._of_table(0, np.arange(first, last))
        tables = self.part.table_of[first:last]
        order = np.argsort(tables, kind="stable")
        edges = np.flatnonzero(np.diff(tables[order])) + 1
        events: list[Event] = []
        for mine in np.split(order + first, edges):
            events += self._of_table(int(self.part.table_of[mine[0]]), mine)
        return events

    def _of_table(self, table: int, rows: Array) -> list[Event]:
        plan = self.part.plans[table]
        if not self.scalar or not any(row in self.scalar for row in rows.tolist()):
            return [self._run(plan, rows)]
        events: list[Event] = []
        at = 0
        numbers = rows.tolist()
        for place, row in enumerate([*numbers, -1]):
            if row >= 0 and row not in self.scalar:
                continue
            if at < place:
                events.append(self._run(plan, rows[at:place]))
            events += self.scalar.get(row, [])
            at = place + 1
        return events

    def _run(self, plan: Plan, rows: Array) -> Run:
        schema, stream = plan.encoder.schema, self.part.stream
        ends = self.ends[rows]
        sizes = self.sizes[rows]
        first, last = int(rows[0]), int(rows[-1])
        if last - first + 1 == len(rows):
            datums = self.data[ends[0] - sizes[0] : ends[-1]]
        else:
            spans = zip((ends - sizes).tolist(), ends.tolist(), strict=True)
            datums = b"".join([self.data[begin:end] for begin, end in spans])
        transaction = stream.transaction[rows]
        return Run(
            table=schema.table,
            schema=schema,
            era=self.era,
            lsns=stream.lsns[transaction],
            idxs=self.idxs[rows],
            times=stream.times[transaction],
            ends=np.cumsum(sizes),
            datums=datums,
            hashes=self.hashes[rows] if self.hashes is not None and plan.hashed else None,
        )


def _joined(payloads: Sequence[Payload]) -> tuple[Array, bytes]:
    """Where each payload starts (and the last one ends), and all of them in one piece."""
    starts = np.zeros(len(payloads) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, payloads), np.int64, len(payloads)), out=starts[1:])
    return starts, b"".join(payloads)


def _distinct(oids: Array) -> tuple[list[int], Array | None]:
    """The relations, and which of them each row is of; None where there is one at most."""
    if not len(oids):
        return [], None
    if (oids == oids[0]).all():
        return [int(oids[0])], None
    distinct, table_of = np.unique(oids, return_inverse=True)
    return distinct.tolist(), table_of
