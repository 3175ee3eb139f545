"""A stream's shards: hash-key ranges, parents and children, and the sequence numbers that name records. Pure."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .kinesis_errors import invalid

MAX_HASH_KEY = 2**128 - 1

# A sequence number is a decimal of 56 digits that carries the record's counter and its shard's number, so that it
# grows with the counter, and one that is used with a foreign shard can be refused.
_SEQUENCE_BASE = 49 * 10**54
_SHARD_DIGITS = 10**6


def sequence_number(counter: int, shard_number: int) -> str:
    return str(_SEQUENCE_BASE + counter * _SHARD_DIGITS + shard_number)


def parse_sequence_number(text: str) -> tuple[int, int]:
    """The counter and the shard number that a sequence number carries. Raises KinesisError."""
    if not text.isdecimal() or not _SEQUENCE_BASE <= int(text) < 2 * _SEQUENCE_BASE:
        raise invalid(f"Invalid StartingSequenceNumber. It is not a sequence number of this stream: {text}")
    return divmod(int(text) - _SEQUENCE_BASE, _SHARD_DIGITS)


def hash_key(partition_key: str, explicit: str | None) -> int:
    """Where a record goes: its explicit hash key, or the MD5 of its partition key as an integer."""
    if explicit is None:
        return int.from_bytes(hashlib.md5(partition_key.encode()).digest(), "big")
    if not explicit.isdecimal() or int(explicit) > MAX_HASH_KEY:
        raise invalid(f"Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Is {explicit}")
    return int(explicit)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard. An open one has no `closed_counter`; a closed one is readable to its end and takes no record."""

    number: int
    low: int
    high: int
    first_counter: int
    created_millis: int
    parents: tuple[int, ...] = ()
    closed_counter: int | None = None
    closed_millis: int | None = None

    @property
    def id(self) -> str:
        return f"shardId-{self.number:012d}"

    @property
    def open(self) -> bool:
        return self.closed_counter is None

    def describe(self) -> dict[str, object]:
        """The shard as ListShards shows it."""
        sequence = {"StartingSequenceNumber": sequence_number(self.first_counter, self.number)}
        if self.closed_counter is not None:
            sequence["EndingSequenceNumber"] = sequence_number(self.closed_counter, self.number)
        described: dict[str, object] = {
            "ShardId": self.id,
            "HashKeyRange": self.hash_key_range(),
            "SequenceNumberRange": sequence,
        }
        for name, parent in zip(("ParentShardId", "AdjacentParentShardId"), self.parents, strict=False):
            described[name] = f"shardId-{parent:012d}"
        return described

    def hash_key_range(self) -> dict[str, str]:
        return {"StartingHashKey": str(self.low), "EndingHashKey": str(self.high)}


def even_shards(count: int, counter: int, now_millis: int) -> tuple[Shard, ...]:
    """The shards of a new stream: equal ranges that cover every hash key."""
    width = (MAX_HASH_KEY + 1) // count
    return tuple(
        Shard(n, n * width, MAX_HASH_KEY if n == count - 1 else (n + 1) * width - 1, counter, now_millis)
        for n in range(count)
    )


@dataclass(frozen=True, slots=True)
class ShardMap:
    """All shards of a stream that retention still keeps, and the routing of hash keys to the open ones."""

    shards: tuple[Shard, ...]
    _open: tuple[Shard, ...] = field(init=False)
    _lows: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        open_shards = tuple(sorted((s for s in self.shards if s.open), key=lambda shard: shard.low))
        object.__setattr__(self, "_open", open_shards)
        object.__setattr__(self, "_lows", tuple(shard.low for shard in open_shards))

    @property
    def open_shards(self) -> tuple[Shard, ...]:
        """By hash-key range."""
        return self._open

    def route(self, key: int) -> Shard:
        return self._open[bisect_right(self._lows, key) - 1]

    def find(self, shard_id: str) -> Shard | None:
        return next((shard for shard in self.shards if shard.id == shard_id), None)

    def children(self, parent: Shard) -> tuple[Shard, ...]:
        return tuple(shard for shard in self.shards if parent.number in shard.parents)

    def split(self, parent: Shard, at: int, next_number: int, counter: int, now_millis: int) -> "ShardMap":
        """Close the parent; two children share its range, the second from `at`. Raises KinesisError."""
        _require_open(parent)
        if not parent.low < at <= parent.high:
            raise invalid(f"NewStartingHashKey {at} used in SplitShard() is not within {parent.id}'s hash key range")
        ranges = ((parent.low, at - 1), (at, parent.high))
        children = [
            Shard(next_number + n, low, high, counter + 1, now_millis, (parent.number,))
            for n, (low, high) in enumerate(ranges)
        ]
        return self._replace({parent.number}, children, counter, now_millis)

    def merge(self, first: Shard, second: Shard, next_number: int, counter: int, now_millis: int) -> "ShardMap":
        """Close two adjacent shards; one child takes both ranges. Raises KinesisError."""
        _require_open(first)
        _require_open(second)
        low, high = sorted((first, second), key=lambda shard: shard.low)
        if low.high + 1 != high.low:
            raise invalid(f"Shards {first.id} and {second.id} are not adjacent and cannot be merged")
        parents = (first.number, second.number)
        child = Shard(next_number, low.low, high.high, counter + 1, now_millis, parents)
        return self._replace(set(parents), [child], counter, now_millis)

    def without_expired(self, before_millis: int) -> "ShardMap":
        """Without the closed shards whose last possible record is older than retention keeps."""
        kept = tuple(s for s in self.shards if s.closed_millis is None or s.closed_millis >= before_millis)
        return self if len(kept) == len(self.shards) else ShardMap(kept)

    def _replace(self, closing: set[int], added: Iterable[Shard], counter: int, now_millis: int) -> "ShardMap":
        kept = (
            replace(shard, closed_counter=counter, closed_millis=now_millis) if shard.number in closing else shard
            for shard in self.shards
        )
        return ShardMap((*kept, *added))


def _require_open(shard: Shard) -> None:
    if not shard.open:
        raise invalid(f"Shard {shard.id} is closed; only an open shard can be split or merged")
