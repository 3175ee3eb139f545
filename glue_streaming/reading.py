"""Where the job goes on reading: the shards, the next record of each, and what of it may be saved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from glue_streaming import shards
from glue_streaming.parking import earliest
from glue_streaming.positions import Positions
from glue_streaming.shards import Shard, Start
from glue_streaming.state import Mark
from glue_streaming.task import LaneKey, Outcome
from schemas.control import lane_hash_key

_SHARD_LIST_SECONDS: Final = 30.0


class Reading:
    """The shards of the stream, as far as they are read.

    recreated: positions of an earlier stream of the same name were found, so records may be gone with that one.
    """

    def __init__(self, kinesis: Any, stream: str, dynamodb: Any, table_name: str, job: str) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._positions_in: Callable[[str], Positions] = partial(Positions, dynamodb, table_name, job)
        self._shards: dict[str, Shard] = {}
        self._listed_at = float("-inf")
        self._begin(shards.identity(kinesis, stream))

    def _begin(self, identity: str) -> None:
        """Takes up what was saved of the stream with that identity, and of no other."""
        self._identity = identity
        self._positions = self._positions_in(identity)
        saved = self._positions.load()
        self.recreated = saved.recreated
        self._starts = dict(saved.starts)
        self._drained = set(saved.drained)
        self._saved: dict[str, tuple[str | None, bool]] = {}
        self._rewinds: list[tuple[str, Start]] = []

    def readable(self, now: float) -> dict[str, Start]:
        """The shards that may be read now, and where each goes on."""
        if now - self._listed_at >= _SHARD_LIST_SECONDS:
            identity = shards.identity(self._kinesis, self._stream)
            if identity != self._identity:
                self._begin(identity)
            self._shards = shards.list_shards(self._kinesis, self._stream)
            self._listed_at = now
        return {name: self._starts.get(name, Start()) for name in shards.readable(self._shards, self._drained)}

    @property
    def rewound(self) -> bool:
        """Whether something is to be read again since the last `advance`."""
        return bool(self._rewinds)

    def rewind(self, starts: Mapping[str, Start]) -> None:
        """Reads these shards again from there, drained ones too; their children wait for them as before."""
        self._rewinds += starts.items()

    def from_mark(self, key: LaneKey, mark: Mark | None) -> dict[str, Start]:
        """Where a lane must be read again from: its mark's record, and every later shard that the lane lies in."""
        path = shards.lineage(
            self._shards, lane_hash_key(key.source, key.table, key.lane), None if mark is None else mark.shard
        )
        return {
            name: Start(mark.sequence, inclusive=True) if mark is not None and name == mark.shard else Start()
            for name in path
        }

    def lists(self, shard: str) -> bool:
        return shard in self._shards

    def advance(self, outcomes: Sequence[Outcome], held: Collection[str]) -> None:
        """Moves on, and saves what is safe: not past a block that waits (held), or that is to be read again.

        A drained shard lets its children be read, also while a lane waits in it.
        """
        for outcome in outcomes:
            if outcome.last_sequence is not None:
                self._starts[outcome.shard] = Start(outcome.last_sequence)
            if outcome.closed:
                self._drained.add(outcome.shard)
                self._listed_at = float("-inf")
        unsafe = set(held)
        for shard, start in self._rewinds:
            self._starts[shard] = earliest(self._starts, shard, start)
            self._drained.discard(shard)
            unsafe.add(shard)
        self._rewinds = []
        self._save({outcome.shard for outcome in outcomes} - unsafe)

    def _save(self, safe: Collection[str]) -> None:
        changed: dict[str, tuple[str | None, bool]] = {}
        for shard in safe:
            start = self._starts.get(shard, Start())
            value = (start.sequence, shard in self._drained)
            if value != self._saved.get(shard) and not start.inclusive:
                changed[shard] = value
        self._positions.save(changed)
        self._saved |= changed
