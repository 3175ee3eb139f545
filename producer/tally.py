"""The spool's tally: what lies in it and what went through it, counted as it comes and goes. Nobody asks the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from producer.blocks import Lane, PackedBlock


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the agent started, and what lies in the spool now. spooled_bytes: of changes, not of snapshots.

    refetched_blocks: damaged, and captured again. lost_blocks: damaged, and declared to the lake.
    """

    spooled_changes: int
    accepted_changes: int
    spooled_blocks: int
    spooled_bytes: int
    accepted_blocks: int
    pending_blocks: int
    pending_bytes: int
    spool_bytes: int
    refetched_blocks: int
    lost_blocks: int


class Tally:
    """Who counts holds the spool's lock.

    queued: how many blocks of each lane can be sent. pending_bytes: of these and of the open transaction's tail, which
    is tail_bytes. spool_bytes: of all blocks, accepted ones too.
    """

    def __init__(self) -> None:
        self.queued: Counter[Lane] = Counter()
        self.pending_bytes = self.tail_bytes = self.spool_bytes = 0
        self.spooled_changes = self.spooled_blocks = self.spooled_bytes = 0
        self.accepted_changes = self.accepted_blocks = 0
        self.refetched_blocks = self.lost_blocks = 0

    @property
    def pending_blocks(self) -> int:
        return sum(self.queued.values())

    def found(self, queued: Iterable[tuple[str, str, int, int]], spool_bytes: int) -> None:
        """Start from what the file has, without a tail. queued: table, lane, blocks and bytes of those to be sent."""
        rows = list(queued)
        self.queued = Counter({Lane(table, lane): count for table, lane, count, _ in rows})
        self.pending_bytes, self.tail_bytes = sum(size for *_, size in rows), 0
        self.spool_bytes = spool_bytes

    def changes(self, blocks: Sequence[PackedBlock], settled: Sequence[Lane] | None) -> None:
        """Blocks of changes came. settled: the lanes of the tail's blocks, which can be sent as well now; None where
        these belong to the tail."""
        size = self._stored(blocks)
        self.spooled_changes += sum(block.count for block in blocks)
        self.spooled_bytes += size
        if settled is None:
            self.tail_bytes += size
            return
        self.tail_bytes = 0
        self.queued.update([*settled, *(block.lane for block in blocks)])

    def rows(self, blocks: Sequence[PackedBlock]) -> None:
        """Blocks of a snapshot came."""
        self._stored(blocks)
        self.queued.update(block.lane for block in blocks)

    def again(self, lane: Lane, sizes: Sequence[int]) -> None:
        """Blocks that lie here are to be sent once more."""
        self.queued[lane] += len(sizes)
        self.pending_bytes += sum(sizes)

    def accepted(self, lane: Lane, size: int, changes: int) -> None:
        """Kinesis took a block, of so many changes that it had not taken before."""
        self.queued[lane] -= 1
        self.pending_bytes -= size
        self.accepted_blocks += 1
        self.accepted_changes += changes

    def totals(self) -> Totals:
        return Totals(
            spooled_changes=self.spooled_changes,
            accepted_changes=self.accepted_changes,
            spooled_blocks=self.spooled_blocks,
            spooled_bytes=self.spooled_bytes,
            accepted_blocks=self.accepted_blocks,
            pending_blocks=self.pending_blocks,
            pending_bytes=self.pending_bytes,
            spool_bytes=self.spool_bytes,
            refetched_blocks=self.refetched_blocks,
            lost_blocks=self.lost_blocks,
        )

    def _stored(self, blocks: Sequence[PackedBlock]) -> int:
        size = sum(len(block.data) for block in blocks)
        self.pending_bytes += size
        self.spool_bytes += size
        self.spooled_blocks += len(blocks)
        return size
