"""Shards split, merged and listed."""

import itertools
from collections.abc import Mapping
from typing import Any

from .kinesis_calls import Call
from .kinesis_errors import invalid
from .kinesis_shards import Shard, ShardMap
from .kinesis_streams import Stream


def split(stream: Stream, shard: Shard, at: int, call: Call) -> None:
    counter = stream.next_counter(call.now)
    stream.reshape(stream.map.split(shard, at, stream.state.next_shard_number, counter, call.now_millis))


def merge(stream: Stream, first: Shard, second: Shard, call: Call) -> None:
    counter = stream.next_counter(call.now)
    stream.reshape(stream.map.merge(first, second, stream.state.next_shard_number, counter, call.now_millis))


def filtered(stream: Stream, filters: Mapping[str, Any], call: Call) -> list[Shard]:
    """The shards that ListShards' filter asks for, in order of their ids."""
    shards: ShardMap = stream.map
    ordered = sorted(shards.shards, key=lambda shard: shard.number)
    kind = filters.get("Type", "FROM_TRIM_HORIZON")
    horizon = call.now_millis - stream.state.retention_hours * 3_600_000
    if kind == "FROM_TRIM_HORIZON":
        return ordered
    if kind == "AFTER_SHARD_ID":
        return [shard for shard in ordered if shard.id > filters["ShardId"]]
    if kind == "AT_LATEST":
        return [shard for shard in ordered if shard.open]
    moment = horizon if kind == "AT_TRIM_HORIZON" else int(float(filters["Timestamp"]) * 1000)
    moment = max(moment, stream.state.created_millis)
    alive = [shard for shard in ordered if shard.closed_millis is None or shard.closed_millis > moment]
    if kind == "FROM_TIMESTAMP":
        return alive
    return [shard for shard in alive if shard.created_millis <= moment]


def resize(stream: Stream, target: int, call: Call) -> None:
    """Split the widest shards, or merge the narrowest neighbours, until so many are open."""
    current = len(stream.map.open_shards)
    if not (current + 1) // 2 <= target <= 2 * current:
        raise invalid(f"TargetShardCount must be from half to double the {current} open shards, is {target}")
    while len(stream.map.open_shards) < target:
        widest = max(stream.map.open_shards, key=lambda shard: shard.high - shard.low)
        split(stream, widest, (widest.low + widest.high) // 2 + 1, call)
    while len(stream.map.open_shards) > target:
        pairs = itertools.pairwise(stream.map.open_shards)
        merge(stream, *min(pairs, key=lambda pair: pair[1].high - pair[0].low), call)
