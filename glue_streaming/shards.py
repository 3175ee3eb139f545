"""Shards: what may be read next, and reading it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

_THROTTLES: Final = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "KMSThrottlingException",
        "InternalFailure",
        "ServiceUnavailable",
    }
)
_BACKOFF_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Start:
    """Where to read from: at a sequence number, after it, or (None) from the oldest record kept."""

    sequence: str | None = None
    inclusive: bool = False

    def iterator(self) -> dict[str, str]:
        if self.sequence is None:
            return {"ShardIteratorType": "TRIM_HORIZON"}
        kind = "AT_SEQUENCE_NUMBER" if self.inclusive else "AFTER_SEQUENCE_NUMBER"
        return {"ShardIteratorType": kind, "StartingSequenceNumber": self.sequence}


@dataclass(frozen=True)
class Shard:
    """A shard as ListShards describes it."""

    shard: str
    parents: tuple[str, ...]
    lowest_hash: int
    highest_hash: int


@dataclass(frozen=True)
class Fetched:
    """Records of a shard, in order, as (sequence number, data).

    at_tip: nothing more was there when it was read. closed: the shard has ended and is read to its end.
    """

    records: tuple[tuple[str, bytes], ...]
    at_tip: bool
    closed: bool
    behind_seconds: float


def readable(shards: Mapping[str, Shard], drained: Collection[str]) -> list[str]:
    """The shards to read: not drained themselves, and every parent that is still listed is.

    A lane moves from parent to child at a reshard; reading a child early would see its chain out of order. A parent
    that is no longer listed is past its retention.
    """
    return [
        name
        for name, shard in sorted(shards.items())
        if name not in drained and all(parent in drained or parent not in shards for parent in shard.parents)
    ]


def list_shards(kinesis: Any, stream: str) -> dict[str, Shard]:
    request: dict[str, Any] = {"StreamName": stream}
    found: dict[str, Shard] = {}
    while True:
        page = kinesis.list_shards(**request)
        for item in page["Shards"]:
            parents = (item.get("ParentShardId"), item.get("AdjacentParentShardId"))
            span = item["HashKeyRange"]
            found[item["ShardId"]] = Shard(
                item["ShardId"],
                tuple(parent for parent in parents if parent),
                int(span["StartingHashKey"]),
                int(span["EndingHashKey"]),
            )
        if not page.get("NextToken"):
            return found
        request = {"NextToken": page["NextToken"]}


def fetch(
    kinesis: Any,
    stream: str,
    shard: str,
    start: Start,
    *,
    max_bytes: int,
    max_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Reads on through empty pages until the tip, the shard's end, or a bound; throttles and expiry are waited out."""
    deadline = clock() + max_seconds
    records: list[tuple[str, bytes]] = []
    size, behind = 0, 0.0
    iterator: str | None = None
    while size < max_bytes:
        if iterator is None:
            iterator = _iterator(kinesis, stream, shard, Start(records[-1][0]) if records else start)
        try:
            page = kinesis.get_records(ShardIterator=iterator, Limit=10_000)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ExpiredIteratorException":
                iterator = None
            elif code in _THROTTLES and clock() < deadline:
                sleep(_BACKOFF_SECONDS)
            elif code in _THROTTLES:
                break
            else:
                raise
            continue
        for record in page["Records"]:
            records.append((record["SequenceNumber"], record["Data"]))
            size += len(record["Data"])
        behind = page.get("MillisBehindLatest", 0) / 1000
        iterator = page.get("NextShardIterator")
        if iterator is None:
            return Fetched(tuple(records), at_tip=True, closed=True, behind_seconds=0.0)
        if behind == 0:
            return Fetched(tuple(records), at_tip=True, closed=False, behind_seconds=0.0)
        if clock() >= deadline:
            break
    return Fetched(tuple(records), at_tip=False, closed=False, behind_seconds=behind)


def _iterator(kinesis: Any, stream: str, shard: str, start: Start) -> str:
    answer = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, **start.iterator())
    return str(answer["ShardIterator"])
