"""Shard iterators: where a reader goes on, and where it may begin."""

import base64
import binascii
import json
from dataclasses import dataclass

from .kinesis_calls import Request
from .kinesis_errors import invalid, malformed
from .kinesis_shards import Shard, parse_sequence_number
from .kinesis_streams import Stream


@dataclass(frozen=True, slots=True)
class Position:
    """What a shard iterator holds: where to read next, and since when."""

    stream: str
    stream_created_millis: int
    shard: str
    counter: int
    issued_at: float

    def encode(self) -> str:
        fields = [self.stream, self.stream_created_millis, self.shard, self.counter, self.issued_at]
        return base64.b64encode(json.dumps(fields).encode()).decode()

    @classmethod
    def decode(cls, token: str) -> "Position":
        try:
            return cls(*json.loads(base64.b64decode(token, validate=True)))
        except (binascii.Error, ValueError, TypeError):
            raise invalid("Invalid ShardIterator.") from None


def starting_counter(stream: Stream, shard: Shard, request: Request) -> int:
    kind = str(request["ShardIteratorType"])
    log = stream.logs[shard.number]
    if kind == "TRIM_HORIZON":
        return 0
    if kind == "LATEST":
        return max(log.last_counter, shard.first_counter) + 1
    if kind == "AT_TIMESTAMP":
        found = log.counter_at(int(float(request["Timestamp"]) * 1000))
        return max(log.last_counter, shard.first_counter) + 1 if found is None else found
    if kind not in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        raise malformed(f"ShardIteratorType {kind} is not one of the service's")
    counter, number = parse_sequence_number(str(request.get("StartingSequenceNumber", "")))
    if number != shard.number:
        raise invalid(
            f"Invalid StartingSequenceNumber. It encodes shardId-{number:012d}, while it was used with {shard.id}"
        )
    return counter + int(kind == "AFTER_SEQUENCE_NUMBER")
