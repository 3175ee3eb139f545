"""A chunk of source messages in one buffer, where rows become Avro in place: numpy writes each encoded field over the
slot that the value came in, marks the bytes to keep, and squeezes the rest out once for all rows."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from producer.change import Array

_PADDING: Final = 64
_WIDEST: Final = 48
_KEEP: Final = np.tril(np.ones((_WIDEST + 1, _WIDEST), np.uint8), -1)
"""Row L keeps the first L bytes of a slot."""
_ONES: Final = np.uint64(0x0101010101010101)


class Chunk:
    """`raw` as it came; `data` the same bytes, rewritten; `keep` 1 for every byte of `data` that is output.

    i2, i4, i8: big-endian integers at any byte offset.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.size = len(raw)
        room = self.size + _PADDING
        self.data: Array = np.empty(room, np.uint8)
        self.data[: self.size] = np.frombuffer(raw, np.uint8)
        self.data[self.size :] = 0
        self.keep: Array = np.zeros(room, np.uint8)
        self.i2 = self._view(self.data, ">i2")
        self.i4 = self._view(self.data, ">i4")
        self.i8 = self._view(self.data, ">i8")

    def put(self, at: Array, rows: Array, lengths: Array | int) -> None:
        """Writes each row of a byte matrix at its offset, of which the first `lengths` bytes are output."""
        width = rows.shape[1]
        self._view(self.data, f"V{width}")[at] = _joined(rows)
        self._view(self.keep, f"V{width}")[at] = _keeps(width)[lengths]

    def put_kept(self, at: Array, rows: Array, kept: Array) -> None:
        """Writes each row of a byte matrix at its offset, with a matrix that says which bytes are output."""
        width = rows.shape[1]
        self._view(self.data, f"V{width}")[at] = _joined(rows)
        self._view(self.keep, f"V{width}")[at] = _joined(kept)

    def bytes_at(self, at: Array, width: int) -> Array:
        """A matrix of `width` bytes from each offset."""
        return self._view(self.data, f"V{width}")[at].view(np.uint8).reshape(-1, width)

    def mark(self, starts: Array, lengths: Array) -> Array:
        """1 for the bytes of the given stretches, which do not overlap.

        A byte is within one where the edges up to it are odd in number. They are counted eight at once: times _ONES,
        a word's bytes are the sums of its bytes so far.
        """
        edges: Array = np.zeros((len(self.data) + 8) // 8 * 8, np.uint8)
        some = lengths > 0
        edges[starts[some]] = 1
        edges[(starts + lengths)[some]] ^= 1
        words = edges.view("<u8")
        words *= _ONES
        words &= _ONES
        words[1:] ^= np.bitwise_xor.accumulate(words[:-1] >> np.uint64(56)) * _ONES
        return edges[: len(self.data)]

    def beyond_ascii(self, marked: Array) -> bool:
        """Whether a byte that `mark` has marked is 0x80 or more. Eight at once: a 1 moved to the top of its byte.

        The last seven bytes may be left out: they are padding.
        """
        whole = len(marked) // 8 * 8
        high = marked[:whole].view("<u8") << np.uint64(7)
        high &= self.data[:whole].view("<u8")
        return bool(high.any())

    def output(self) -> bytes:
        return self.data[self.keep.view(np.bool_)].tobytes()

    def _view(self, data: Array, form: str) -> Array:
        dtype = np.dtype(form)
        return np.ndarray((len(data) - dtype.itemsize + 1,), dtype, data, 0, (1,))


def varints(values: Array) -> tuple[Array, Array]:
    """Avro's zig-zag encoding of int64s: a byte matrix, and how many bytes of each row are it."""
    codes = ((values << 1) ^ (values >> 63)).view(np.uint64)
    widest = max(1, (int(codes.max(initial=0)).bit_length() + 6) // 7)
    matrix = np.empty((len(values), widest), np.uint8)
    lengths = np.ones(len(values), np.int64)
    for place in range(widest):
        matrix[:, place] = codes & np.uint64(0x7F)
        codes = codes >> np.uint64(7)
        if place + 1 < widest:
            more = codes != 0
            lengths += more
            matrix[:, place] |= more.view(np.uint8) << 7
    return matrix, lengths


def kept(lengths: Array, width: int) -> Array:
    """A matrix that keeps the first `lengths` of `width` bytes."""
    keep: Array = _keeps(width)[lengths].view(np.uint8).reshape(-1, width)
    return keep


@cache
def _keeps(width: int) -> Array:
    """The rows of _KEEP in that width, each as one value."""
    return _joined(_KEEP[:, :width])


def inserted(data: bytes, inserts: list[tuple[Array, list[bytes]]]) -> bytes:
    """The bytes with pieces put in at their places; those at one place stay in order."""
    if not inserts:
        return data
    places = np.concatenate([at for at, _ in inserts])
    pieces = [piece for _, some in inserts for piece in some]
    order = np.argsort(places, kind="stable")
    joined: list[bytes] = []
    at = 0
    for place, number in zip(places[order].tolist(), order.tolist(), strict=True):
        joined.append(data[at:place])
        joined.append(pieces[number])
        at = place
    joined.append(data[at:])
    return b"".join(joined)


def _joined(rows: Array) -> Array:
    """Each row as one value, for a single write."""
    rows = np.ascontiguousarray(rows)
    return rows.reshape(-1).view(f"V{rows.shape[1]}")
