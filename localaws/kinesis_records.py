"""Records on their way into shards and out of them."""

from dataclasses import dataclass

from . import kinesis_data
from .kinesis_calls import Call, Reply
from .kinesis_iterators import Position
from .kinesis_log import Record
from .kinesis_shards import Shard, sequence_number
from .kinesis_streams import Stream

MAX_BYTES_PER_READ = 10 * 2**20


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a write, checked and routed."""

    shard: Shard
    partition_key: bytes
    data: bytes
    size: int  # of key and decoded data


def store(stream: Stream, entries: list[Entry], call: Call) -> list[Reply]:
    """Append the entries to their shards, in order; what the client is told of each."""
    by_shard: dict[int, list[Record]] = {}
    stored = []
    for entry in entries:
        counter = stream.next_counter(call.now)
        record = Record(counter, call.now_millis, entry.partition_key, entry.data)
        by_shard.setdefault(entry.shard.number, []).append(record)
        stored.append({"SequenceNumber": sequence_number(counter, entry.shard.number), "ShardId": entry.shard.id})
    for number, records in by_shard.items():
        stream.logs[number].append(records)
    return stored


def page(stream: Stream, shard: Shard, start: int, limit: int, call: Call) -> Reply:
    """One GetRecords answer: records from `start` on, and where to go on."""
    records: list[Reply] = []
    size, following = 0, start
    log = stream.logs[shard.number]
    for record in log.read_from(start):
        record_size = len(record.partition_key) + kinesis_data.size(record.data)
        if len(records) >= limit or (records and size + record_size > MAX_BYTES_PER_READ):
            break
        size += record_size
        following = record.counter + 1
        records.append(_shown(record, shard))
    stream.limits[shard.number].returned(size, call.now)
    waiting = log.oldest_arrival_from(following)
    reply: Reply = {
        "Records": records,
        "MillisBehindLatest": 0 if waiting is None else max(1, call.now_millis - waiting),
    }
    if shard.open or waiting is not None:
        state = stream.state
        reply["NextShardIterator"] = Position(state.name, state.created_millis, shard.id, following, call.now).encode()
    else:
        reply["ChildShards"] = [_child(child) for child in stream.map.children(shard)]
    return reply


def _shown(record: Record, shard: Shard) -> Reply:
    return {
        "SequenceNumber": sequence_number(record.counter, shard.number),
        "ApproximateArrivalTimestamp": record.arrival_millis / 1000,
        "Data": record.data.decode("ascii"),
        "PartitionKey": record.partition_key.decode(),
    }


def _child(shard: Shard) -> Reply:
    parents = [f"shardId-{parent:012d}" for parent in shard.parents]
    return {"ShardId": shard.id, "ParentShards": parents, "HashKeyRange": shard.hash_key_range()}
