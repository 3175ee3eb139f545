"""What is copied from the source as it is: the bytes of texts, which are looked at for UTF-8, and of bytea."""

from __future__ import annotations

import numpy as np

from producer.change import Array
from producer.postgres.chunk import Chunk


class Copied:
    """Stretches of a chunk that are output unchanged."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._texts: list[tuple[Array, Array, Array]] = []
        self._bytes: list[tuple[Array, Array]] = []

    def add(self, starts: Array, lengths: Array, rows: Array | None) -> None:
        """rows: of texts, the row of each; None for bytes."""
        if rows is None:
            self._bytes.append((starts, lengths))
        else:
            self._texts.append((starts, lengths, rows))

    def mark(self) -> list[int]:
        """Marks all of them for output; returns the rows whose texts are no UTF-8."""
        if self._bytes:
            self._chunk.keep |= self._chunk.mark(*map(np.concatenate, zip(*self._bytes, strict=True)))
        if not self._texts:
            return []
        starts, lengths, rows = map(np.concatenate, zip(*self._texts, strict=True))
        marked = self._chunk.mark(starts, lengths)
        self._chunk.keep |= marked
        if not self._chunk.beyond_ascii(marked) or self._is_utf8(starts, lengths, marked):
            return []
        spans = zip(rows.tolist(), starts.tolist(), lengths.tolist(), strict=True)
        return [row for row, start, length in spans if not _decodes(self._chunk.raw[start : start + length])]

    def _is_utf8(self, starts: Array, lengths: Array, marked: Array) -> bool:
        """A database in SQL_ASCII can hand out what is no UTF-8. All texts in a row are good together, and each by
        itself where none begins within a character."""
        if not _decodes(self._chunk.data[marked.view(np.bool_)].tobytes()):
            return False
        heads = self._chunk.data[starts[lengths > 0]]
        return bool(((heads & 0xC0) != 0x80).all())


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
