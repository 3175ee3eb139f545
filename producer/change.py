"""What the capture hands on: the seam between reading a source and everything behind it.

A source yields events in commit order: `Begin`, then the transaction's `Change`s and `Rejected`s by rising `idx`, then
`Commit`; a `Keepalive` stands between transactions. Where many come together, `Run`s hold changes of several
transactions: table by table, in order within each, and the `Commit` of the last says that all before it are whole.
Snapshots yield `Change`s, `Run`s and `Rejected`s only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.change_record import TableSchema
from schemas.position import Position

Array: TypeAlias = npt.NDArray[Any]

# NamedTuples where other modules have frozen dataclasses: one is made for every change, at a third of the cost.


class Begin(NamedTuple):
    """A transaction opens. `lsn` is its commit position already (pgoutput sends transactions once they committed)."""

    lsn: int
    committed_at: int  # microseconds since 1970, UTC
    xid: int


class Change(NamedTuple):
    """One change of one row, encoded.

    table: the lake's name of the table; schema: what `datum` was written with.
    key: canonical bytes of the key, equal for equal keys under any position, for choosing a lane; b"" where the table
    has no key or the change is a truncate.
    committed_at: microseconds since 1970, UTC.
    datum: one Avro datum of schema.to_avro(), metadata fields included.
    """

    table: str
    schema: TableSchema
    op: str
    key: bytes
    position: Position
    committed_at: int
    datum: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Many changes of one table, in order, in one piece; of one transaction or of several whole ones.

    datums: their Avro datums of schema.to_avro(), concatenated; ends: where each ends in it.
    lsns, idxs, times: of each change its position in `era`, and when it committed (microseconds since 1970, UTC).
    hashes: CRC-32 of each change's key, as Change.key has it; None where the table has no key or only one lane.
    """

    table: str
    schema: TableSchema
    era: int
    lsns: Array
    idxs: Array
    times: Array
    ends: Array
    datums: bytes
    hashes: Array | None

    @classmethod
    def of(cls, changes: Sequence[Change]) -> Run:
        """Changes of one table and schema, as a run; the hashes are left out."""
        head, positions = changes[0], [change.position for change in changes]
        return cls(
            head.table,
            head.schema,
            head.position.era,
            np.array([position.lsn for position in positions], np.int64),
            np.array([position.idx for position in positions], np.int64),
            np.array([change.committed_at for change in changes], np.int64),
            np.cumsum([len(change.datum) for change in changes]),
            b"".join([change.datum for change in changes]),
            None,
        )

    @property
    def count(self) -> int:
        return len(self.ends)

    def position(self, at: int) -> Position:
        return Position(self.era, int(self.lsns[at]), int(self.idxs[at]))

    def part(self, first: int, last: int) -> Run:
        """The changes from `first` up to, without, `last`."""
        if first == 0 and last == self.count:
            return self
        start = int(self.ends[first - 1]) if first else 0
        rows = slice(first, last)
        return self._of(rows, self.ends[rows] - start, self.datums[start : int(self.ends[last - 1])])

    def chosen(self, rows: Array) -> Run:
        """The changes of rising numbers."""
        ends = self.ends[rows]
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        datums = b"".join([self.datums[start:end] for start, end in spans])
        return self._of(rows, np.cumsum(ends - starts), datums)

    def _of(self, rows: slice | Array, ends: Array, datums: bytes) -> Run:
        return replace(
            self,
            lsns=self.lsns[rows],
            idxs=self.idxs[rows],
            times=self.times[rows],
            ends=ends,
            datums=datums,
            hashes=None if self.hashes is None else self.hashes[rows],
        )


class Rejected(NamedTuple):
    """A change that could not be encoded; it keeps its place in the order.

    key: canonical bytes as in Change (b"" when unknown); key_text: the same for people.
    raw: the source's message, to look into or replay.
    """

    table: str
    schema: TableSchema
    op: str
    key: bytes
    key_text: str | None
    position: Position
    committed_at: int
    reason: str
    raw: bytes | None


class Commit(NamedTuple):
    """The transaction is whole. `end_lsn` is where the next may start: what is confirmed to the source afterwards."""

    lsn: int
    end_lsn: int
    committed_at: int
    changes: int  # Changes and Rejecteds since Begin


class Keepalive(NamedTuple):
    """The source says that nothing that committed below `lsn` is still to come."""

    lsn: int


Event: TypeAlias = Begin | Change | Run | Rejected | Commit | Keepalive
