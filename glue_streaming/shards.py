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
_EXPIRED: Final = "ExpiredIteratorException"
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
class Record:
    """A Kinesis record. partition_key: names the lane for people, and is the only hint where the data is damaged."""

    sequence: str
    data: bytes
    partition_key: str = ""


@dataclass(frozen=True)
class Fetched:
    """Records of a shard, in order.

    at_tip: nothing more was there when it was read. closed: the shard has ended and is read to its end.
    refused: the stream did not know the sequence number to start at, so the oldest record kept was the start.
    """

    records: tuple[Record, ...]
    at_tip: bool
    closed: bool
    behind_seconds: float
    refused: bool = False


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


def lineage(shards: Mapping[str, Shard], hash_key: int, since: str | None = None) -> list[str]:
    """The listed shards in which a lane with that hash key lay or lies, oldest first.

    since: only from this one on; from the oldest where it is not listed.
    """
    holding = {name: shard for name, shard in shards.items() if shard.lowest_hash <= hash_key <= shard.highest_hash}
    ordered: list[str] = []
    while len(ordered) < len(holding):
        ready = [
            name
            for name, shard in sorted(holding.items())
            if name not in ordered and all(p in ordered or p not in holding for p in shard.parents)
        ]
        if not ready:
            break
        ordered += ready
    return ordered[ordered.index(since) :] if since in ordered else ordered


def identity(kinesis: Any, stream: str) -> str:
    """What tells a stream from an earlier one of the same name: when it was created."""
    summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    return f"{summary['StreamARN']} {summary['StreamCreationTimestamp'].timestamp():.3f}"


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
    page_records: int = 10_000,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Reads on through empty pages until the tip, the shard's end, or a bound; throttles and expiry are waited out."""
    deadline = clock() + max_seconds
    records: list[Record] = []
    size, behind, refused = 0, 0.0, False
    iterator: str | None = None
    while size < max_bytes:
        try:
            if iterator is None:
                iterator, unknown = _iterator(kinesis, stream, shard, Start(records[-1].sequence) if records else start)
                refused |= unknown
            page = kinesis.get_records(ShardIterator=iterator, Limit=page_records)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in _THROTTLES and code != _EXPIRED:
                raise
            if clock() >= deadline:
                break
            if code == _EXPIRED:
                iterator = None
            else:
                sleep(_BACKOFF_SECONDS)
            continue
        for record in page["Records"]:
            records.append(Record(record["SequenceNumber"], record["Data"], record.get("PartitionKey", "")))
            size += len(record["Data"])
        behind = page.get("MillisBehindLatest", 0) / 1000
        iterator = page.get("NextShardIterator")
        if iterator is None:
            return Fetched(tuple(records), at_tip=True, closed=True, behind_seconds=0.0, refused=refused)
        if behind == 0:
            return Fetched(tuple(records), at_tip=True, closed=False, behind_seconds=0.0, refused=refused)
        if clock() >= deadline:
            break
    return Fetched(tuple(records), at_tip=False, closed=False, behind_seconds=behind, refused=refused)


def _iterator(kinesis: Any, stream: str, shard: str, start: Start) -> tuple[str, bool]:
    """An iterator, and whether the stream refused the sequence number: it was created anew under its old name.

    From the oldest record on, marks drop what was loaded; nothing is passed over.
    """
    request = {"StreamName": stream, "ShardId": shard}
    try:
        return str(kinesis.get_shard_iterator(**request, **start.iterator())["ShardIterator"]), False
    except ClientError as error:
        if start.sequence is None or error.response["Error"]["Code"] != "InvalidArgumentException":
            raise
    return str(kinesis.get_shard_iterator(**request, **Start().iterator())["ShardIterator"]), True
