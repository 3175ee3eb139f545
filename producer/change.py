"""What the capture hands on: the seam between reading a source and everything behind it.

A source yields events in commit order: `Begin`, then the transaction's `Change`s and `Rejected`s by rising `idx`, then
`Commit`; a `Keepalive` stands between transactions. Snapshots yield `Change`s and `Rejected`s only.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from schemas.change_record import TableSchema
from schemas.position import Position

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


Event: TypeAlias = Begin | Change | Rejected | Commit | Keepalive
