"""Columns of many rows at once: PostgreSQL's values to Avro, the form of every column found beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np

from producer.change import Array
from producer.postgres import avro
from producer.postgres.chunk import Chunk, varints
from producer.postgres.copied import Copied
from producer.postgres.decimals import NARROW_DIGITS, Numbers
from producer.postgres.forms import Form, Kind
from producer.postgres.types import Unheld

STREAM_PREFIX: Final = 5
"""What stands before a value in pgoutput: its kind (b, t, n, u), and where it has one its length."""
COPY_PREFIX: Final = 4
"""What stands before a value in COPY's binary format: its length, -1 for null."""

_NULL, _UNCHANGED, _TEXT, _BINARY = b"nutb"
_EPOCH_MICROS: Final = 946_684_800_000_000
_EPOCH_DAYS: Final = 10_957
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31, days since 1970
_DAY_MICROS: Final = 86_400_000_000
_HEX: Final = np.frombuffer(b"".join(b"%02x" % code for code in range(256)), np.uint8).reshape(256, 2)
_UUID_PLACES: Final = [place for place in range(36) if place not in (8, 13, 18, 23)]


class Malformed(Exception):
    """The messages are not what they should be; the scalar path finds out what is wrong."""


class Columns:
    """Writes the columns of a chunk's rows. After `write`:

    sizes: bytes of each row's columns. odd: rows that only the scalar encoder can write.
    unchanged: (rows, column) of TOASTed values that were not sent. inserts: what did not fit its slot.
    spans: for each column of a key, where it lies behind the row's metadata and how long it is.
    """

    def __init__(self, chunk: Chunk, prefix: int, at: Array, ends: Array) -> None:
        self._chunk = chunk
        self._prefix = prefix
        self._null_width = 1 if prefix == STREAM_PREFIX else prefix
        self._at = at.copy()
        self._all = np.arange(len(at))
        self._ends = ends
        self.kept = np.zeros(len(at), np.int64)
        self.added = np.zeros(len(at), np.int64)
        self.odd = np.zeros(len(at), np.bool_)
        self.unchanged: list[tuple[Array, int]] = []
        self.inserts: list[tuple[Array, Array, list[bytes]]] = []
        self.slots: dict[int, tuple[Array, Array]] = {}
        self.spans: dict[int, tuple[Array, Array]] = {}
        self._copied = Copied(chunk)

    @property
    def sizes(self) -> Array:
        return self.kept + self.added

    def write(self, tables: Sequence[Sequence[Form]], table_of: Array | None, keys: frozenset[int]) -> None:
        """tables: the columns' forms by table; table_of: each row's table, None where there is one only.

        keys: columns whose spans and slots are wanted. Raises Malformed.
        """
        for place in range(max(map(len, tables))):
            before, slot = self.sizes, self._at.copy()
            for form, rows in _groups(tables, table_of, place):
                self._column(form, rows, place)
            if place in keys:
                self.slots[place] = slot, self._at - slot
                self.spans[place] = before, self.sizes - before
        if (self._at != self._ends).any():
            raise Malformed
        self.odd[self._copied.mark()] = True

    def _column(self, form: Form, rows: Array | None, place: int) -> None:
        at = self._at if rows is None else self._at[rows]
        if (at >= self._ends if rows is None else at >= self._ends[rows]).any():
            raise Malformed
        numbers = self._all if rows is None else rows
        present = None if form.kind is Kind.LEFT_OUT else self._present(form, at, numbers, place)
        advance: Array | int
        size: Array | int
        if form.kind is Kind.LEFT_OUT:
            advance, size = self._passed(at), 0
        elif present is None:
            advance, size = self._values(form, at, numbers)
        else:
            advance, size = np.full(len(at), self._null_width), np.ones(len(at), np.int64)
            absent = at[~present]
            self._chunk.data[absent] = 0
            self._chunk.keep[absent] = 1
            some = np.flatnonzero(present)
            if len(some):
                advance[some], size[some] = self._values(form, at[some], numbers[some])
        if rows is None:
            self._at += advance
            self.kept += size
        else:
            self._at[rows] += advance
            self.kept[rows] += size

    def _present(self, form: Form, at: Array, rows: Array, place: int) -> Array | None:
        """Which rows have a value; None where all have. A value in the other form is left to the scalar path."""
        present: Array
        if self._prefix == COPY_PREFIX:
            return self._valued(at)
        kinds = self._chunk.data[at]
        present = kinds == (_TEXT if form.as_text else _BINARY)
        if present.all():
            return None
        unchanged = kinds == _UNCHANGED
        if not (present | unchanged | (kinds == _NULL)).all():
            raise Malformed
        if unchanged.any():
            self.unchanged.append((rows[unchanged], place))
        return present

    def _valued(self, at: Array) -> Array | None:
        """Which rows of COPY have a length that is not -1; None where all have. The sign is in its first byte."""
        present: Array = self._chunk.data[at] < 0x80
        if present.all():
            return None
        if (self._chunk.i4[at[~present]] != -1).any():
            raise Malformed
        return present

    def _passed(self, at: Array) -> Array:
        """Bytes of values that nothing is kept of."""
        if self._prefix == COPY_PREFIX:
            present = self._chunk.i4[at] != -1
        else:
            present = np.isin(self._chunk.data[at], (_BINARY, _TEXT))
            if not np.isin(self._chunk.data[at[~present]], (_NULL, _UNCHANGED)).all():
                raise Malformed
        advance = np.full(len(at), self._null_width)
        advance[present] = self._lengths(at[present]) + self._prefix
        return advance

    def _values(self, form: Form, at: Array, rows: Array) -> tuple[Array | int, Array | int]:
        """Writes present values; returns bytes that they took and bytes kept of them."""
        return _WRITERS[form.kind](self, form, at, rows)

    def _reject(self, rows: Array, bad: Array) -> None:
        if bad.any():
            self.odd[rows[bad]] = True

    def _lengths(self, at: Array) -> Array:
        lengths: Array = self._chunk.i4[at + self._prefix - 4].astype(np.int64)
        if len(lengths) and (lengths.min() < 0 or int((at + lengths).max()) + self._prefix > self._chunk.size):
            raise Malformed
        return lengths

    # ---- forms

    def _bool(self, form: Form, at: Array, rows: Array) -> tuple[int, int]:
        data, keep = self._chunk.data, self._chunk.keep
        data[at + 1] = data[at + self._prefix]
        data[at] = 2
        keep[at] = 1
        keep[at + 1] = 1
        return self._prefix + 1, 2

    def _whole(self, at: Array, values: Array) -> Array:
        matrix, lengths = varints(values)
        rows = np.empty((len(at), matrix.shape[1] + 1), np.uint8)
        rows[:, 0] = 2
        rows[:, 1:] = matrix
        lengths += 1
        self._chunk.put(at, rows, lengths)
        return lengths

    def _int(self, form: Form, at: Array, rows: Array) -> tuple[int, Array]:
        view = {2: self._chunk.i2, 4: self._chunk.i4, 8: self._chunk.i8}[form.width]
        return self._prefix + form.width, self._whole(at, view[at + self._prefix].astype(np.int64))

    def _oid(self, form: Form, at: Array, rows: Array) -> tuple[int, Array]:
        values = self._chunk.i4[at + self._prefix].astype(np.int64) & 0xFFFFFFFF
        return self._prefix + 4, self._whole(at, values)

    def _date(self, form: Form, at: Array, rows: Array) -> tuple[int, Array]:
        values = self._chunk.i4[at + self._prefix].astype(np.int64) + _EPOCH_DAYS
        self._reject(rows, (values < _FIRST_DAY) | (values > _LAST_DAY))
        return self._prefix + 4, self._whole(at, values)

    def _timestamp(self, form: Form, at: Array, rows: Array) -> tuple[int, Array]:
        values = self._chunk.i8[at + self._prefix].astype(np.int64)
        first, behind = _FIRST_DAY * _DAY_MICROS - _EPOCH_MICROS, (_LAST_DAY + 1) * _DAY_MICROS - _EPOCH_MICROS
        bad = (values < first) | (values >= behind)
        self._reject(rows, bad)
        values = np.where(bad, 0, values) + _EPOCH_MICROS
        return self._prefix + 8, self._whole(at, values)

    def _float(self, form: Form, at: Array, rows: Array) -> tuple[int, int]:
        width = form.width
        out = np.empty((len(at), width + 1), np.uint8)
        out[:, 0] = 2
        out[:, 1:] = self._chunk.bytes_at(at + self._prefix, width)[:, ::-1]
        self._chunk.put(at, out, width + 1)
        return self._prefix + width, width + 1

    def _text(self, form: Form, at: Array, rows: Array) -> tuple[Array, Array]:
        lengths = self._lengths(at)
        starts = at + self._prefix
        taken = lengths + self._prefix
        if form.kind is Kind.JSONB:
            self._reject(rows, self._chunk.data[starts] != 1)
            starts, lengths = starts + 1, lengths - 1
        matrix, head = varints(lengths)
        large = head + 1 > starts - at
        if large.any():
            self._reject(rows, large)
            lengths = np.where(large, 0, lengths)
            matrix, head = varints(lengths)
        data, keep = self._chunk.data, self._chunk.keep
        for place in range(matrix.shape[1]):
            mine = slice(None) if place == 0 else head > place
            where = (starts - head + place)[mine]
            data[where] = matrix[mine, place]
            keep[where] = 1
        data[starts - head - 1] = 2
        keep[starts - head - 1] = 1
        self._copied.add(starts, lengths, None if form.kind is Kind.BYTES else rows)
        return taken, lengths + head + 1

    def _decimal(self, form: Form, at: Array, rows: Array) -> tuple[Array, Array]:
        start = at + self._prefix
        taken = self._lengths(at) + self._prefix
        numbers = Numbers.at(self._chunk, start, form.precision, form.scale)
        self._reject(rows, numbers.bad)
        if form.precision <= NARROW_DIGITS:
            return taken, self._narrow(start, numbers)
        return taken, self._wide(at + taken, taken, numbers, rows)

    def _narrow(self, start: Array, numbers: Numbers) -> Array:
        value, size = numbers.narrow()
        self._chunk.put_kept(start, _big_endian(value), _kept_right(size))
        self._decimal_head(start + 6 - size, size)
        return size + 2

    def _wide(self, end: Array, slot: Array, numbers: Numbers, rows: Array) -> Array:
        """Written to the end of the slot, which may be too short."""
        limbs, size = numbers.wide()
        large = size + 2 > slot
        if large.any():
            self._insert_wide([limb[large] for limb in limbs], size[large], rows[large])
        fits = ~large
        end, limbs = end[fits], [limb[fits] for limb in limbs]
        data, keep = self._chunk.data, self._chunk.keep
        for place in range(int(size[fits].max(initial=0))):
            mine = size[fits] > place
            where = (end - 1 - place)[mine]
            data[where] = (limbs[place // 4] >> np.uint64(place % 4 * 8)).astype(np.uint8)[mine]
            keep[where] = 1
        self._decimal_head(end - size[fits] - 2, size[fits])
        return np.where(large, 0, size + 2)

    def _insert_wide(self, limbs: list[Array], size: Array, rows: Array) -> None:
        """Few digits far above the point: they came shorter than they go."""
        whole = np.stack(limbs[::-1], axis=1).astype(">u4").tobytes()
        spans = zip(range(16, len(whole) + 1, 16), size.tolist(), strict=True)
        self._insert(rows, [avro.VALUE + avro.data(whole[end - length : end]) for end, length in spans])

    def _decimal_head(self, at: Array, size: Array) -> None:
        data, keep = self._chunk.data, self._chunk.keep
        data[at] = 2
        data[at + 1] = size << 1
        keep[at] = 1
        keep[at + 1] = 1

    def _uuid(self, form: Form, at: Array, rows: Array) -> tuple[int, int]:
        text = np.full((len(at), 38), ord("-"), np.uint8)
        text[:, :2] = 2, 72
        text[:, np.array(_UUID_PLACES) + 2] = _HEX[self._chunk.bytes_at(at + self._prefix, 16)].reshape(-1, 32)
        whole = text.tobytes()
        self._insert(rows, [whole[start : start + 38] for start in range(0, len(whole), 38)])
        return self._prefix + 16, 0

    def _one_by_one(self, form: Form, at: Array, rows: Array) -> tuple[Array, int]:
        lengths = self._lengths(at)
        starts = at + self._prefix
        raw, encode, pieces = self._chunk.raw, form.encode, []
        assert encode is not None
        values = [raw[start:end] for start, end in zip(starts.tolist(), (starts + lengths).tolist(), strict=True)]
        if form.ask is not None:
            values = form.ask(values)
        bad = []
        for number, value in enumerate(values):
            try:
                pieces.append(encode(value))
            except (Unheld, ValueError):
                pieces.append(avro.NULL)
                bad.append(number)
        self.odd[rows[bad]] = True
        self._insert(rows, pieces)
        return lengths + self._prefix, 0

    def _insert(self, rows: Array, pieces: list[bytes]) -> None:
        self.inserts.append((rows, self.kept[rows], pieces))
        self.added[rows] += np.fromiter(map(len, pieces), np.int64, len(pieces))


_Writer: TypeAlias = Callable[[Columns, Form, Array, Array], tuple[Array | int, Array | int]]
_WRITERS: Final[dict[Kind, _Writer]] = {
    Kind.BOOL: Columns._bool,
    Kind.INT: Columns._int,
    Kind.OID: Columns._oid,
    Kind.FLOAT: Columns._float,
    Kind.DATE: Columns._date,
    Kind.TIMESTAMP: Columns._timestamp,
    Kind.DECIMAL: Columns._decimal,
    Kind.TEXT: Columns._text,
    Kind.JSONB: Columns._text,
    Kind.BYTES: Columns._text,
    Kind.UUID: Columns._uuid,
    Kind.ODD: Columns._one_by_one,
}


def _groups(
    tables: Sequence[Sequence[Form]], table_of: Array | None, place: int
) -> Iterator[tuple[Form, Array | None]]:
    """Each form that the column of that place has, with the rows of it; None for all rows."""
    forms = [forms[place] if place < len(forms) else None for forms in tables]
    distinct = list(dict.fromkeys(forms))
    if len(distinct) == 1 and distinct[0] is not None:
        yield distinct[0], None
        return
    assert table_of is not None
    codes = np.array([distinct.index(form) for form in forms])[table_of]
    for code, form in enumerate(distinct):
        if form is not None:
            rows = np.flatnonzero(codes == code)
            if len(rows):
                yield form, rows


def tuple_ends(
    chunk: Chunk, at: Array, counts: Array, keys: frozenset[int]
) -> tuple[Array, dict[int, tuple[Array, Array]]]:
    """Where tuples of pgoutput end that are passed over, and (start, width) of the wanted columns in them."""
    at, slots = at.copy(), {}
    for place in range(int(counts.max(initial=0))):
        if int(at.max()) >= chunk.size:
            raise Malformed
        width = np.ones(len(at), np.int64)
        valued = np.isin(chunk.data[at], (_BINARY, _TEXT))
        width[valued] = STREAM_PREFIX + chunk.i4[at[valued] + 1].astype(np.int64)
        width[counts <= place] = 0
        if width.min() < 0:
            raise Malformed
        if place in keys:
            slots[place] = at.copy(), width
        at += width
    return at, slots


def _big_endian(values: Array) -> Array:
    return values.astype(">i8").view(np.uint8).reshape(-1, 8)


_RIGHT: Final = np.tril(np.ones((9, 8), np.uint8), -1)[:, ::-1].copy()


def _kept_right(size: Array) -> Array:
    """A matrix that keeps the last `size` of 8 bytes."""
    keep: Array = _RIGHT[size]
    return keep
