"""The operations of Kinesis: what each accepts, refuses and answers. Told the time; knows nothing of HTTP.

Limits and meanings are those of the Kinesis Data Streams API reference and its page on quotas.
"""

import base64
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

from . import kinesis_data, kinesis_records, kinesis_resharding
from .kinesis_calls import Call, Reply, Request
from .kinesis_descriptions import heading, summary, tag_list
from .kinesis_errors import KinesisError, invalid, malformed, not_found
from .kinesis_faults import Faults
from .kinesis_iterators import Position, starting_counter
from .kinesis_records import Entry
from .kinesis_shards import Shard, even_shards, hash_key
from .kinesis_streams import Stream, Streams, StreamState

MAX_RECORDS_PER_REQUEST = 500
MAX_REQUEST_BYTES = 10 * 2**20
MAX_RECORDS_PER_READ = 10_000
MAX_PARTITION_KEY_CHARACTERS = 256
ITERATOR_SECONDS = 300
MIN_RETENTION_HOURS, MAX_RETENTION_HOURS = 24, 8760
MIN_RECORD_KIB, MAX_RECORD_KIB = 1024, 10_240
DEFAULT_SHARDS_PER_PAGE = 1000
DEFAULT_ON_DEMAND_SHARDS = 4
SHARD_QUOTA = 500


class Kinesis:
    """All streams of one server. Not safe for use by several threads at once."""

    def __init__(self, folder: Path, *, enforce_limits: bool = False, dice: random.Random | None = None) -> None:
        self._streams = Streams(folder)
        self._dice = dice or random.Random()
        self.enforce_limits = enforce_limits
        self.faults = Faults(self._dice)

    def call(self, operation: str, request: Request, call: Call) -> Reply:
        """Do one operation. Raises KinesisError."""
        handler = _OPERATIONS.get(operation)
        if handler is None:
            raise KinesisError("UnknownOperationException", f"Operation {operation} is not offered here.")
        return handler(self, request, call)

    def stream_name(self, request: Request) -> str | None:
        """The stream that a request is about, as far as it says so."""
        if name := request.get("StreamName"):
            return str(name)
        if arn := request.get("StreamARN") or request.get("ResourceARN"):
            return str(arn).rpartition("stream/")[2]
        if token := request.get("ShardIterator"):
            return Position.decode(token).stream
        return None

    def key_of(self, stream_arn: str) -> str | None:
        """The KMS key that encrypts a stream; safe to ask from any thread."""
        parts = stream_arn.split(":")
        if len(parts) != 6 or not parts[5].startswith("stream/"):
            return None
        try:
            return self._streams.get(parts[4], parts[3], parts[5].removeprefix("stream/")).state.key_id
        except KinesisError:
            return None

    def close(self) -> None:
        self._streams.close()

    # Streams

    def create_stream(self, request: Request, call: Call) -> Reply:
        name = str(request.get("StreamName", ""))
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,128}", name):
            raise malformed(f"StreamName must match [a-zA-Z0-9_.-]{{1,128}}: {name!r}")
        mode = request.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED")
        count = request.get("ShardCount") or DEFAULT_ON_DEMAND_SHARDS
        if mode == "PROVISIONED" and "ShardCount" not in request:
            raise malformed("ShardCount is required in PROVISIONED mode")
        if not 1 <= count <= SHARD_QUOTA:
            raise KinesisError("LimitExceededException", f"ShardCount must be 1 to {SHARD_QUOTA}, is {count}")
        counter = int(call.now * 1_000_000)
        self._streams.create(
            StreamState(
                account=call.account,
                region=call.region,
                name=name,
                created_millis=call.now_millis,
                shards=even_shards(count, counter, call.now_millis),
                next_shard_number=count,
                mode=mode,
                max_record_kib=_record_kib(request.get("MaxRecordSizeInKiB", MIN_RECORD_KIB)),
                distribution=request.get("RecordDistributionStrategy", "USER_PARTITION_KEY"),
                tags=dict(request.get("Tags", {})),
            )
        )
        return {}

    def delete_stream(self, request: Request, call: Call) -> Reply:
        self._streams.delete(self._stream(request, call))
        return {}

    def list_streams(self, request: Request, call: Call) -> Reply:
        after = request.get("NextToken") or request.get("ExclusiveStartStreamName") or ""
        names = [name for name in self._streams.names(call.account, call.region) if name > after]
        page = names[: request.get("Limit", 100)]
        reply: Reply = {"StreamNames": page, "HasMoreStreams": len(page) < len(names)}
        reply["StreamSummaries"] = [heading(self._streams.get(call.account, call.region, name).state) for name in page]
        if reply["HasMoreStreams"]:
            reply["NextToken"] = page[-1]
        return reply

    def describe_stream_summary(self, request: Request, call: Call) -> Reply:
        stream = self._stream(request, call)
        return {"StreamDescriptionSummary": summary(stream)}

    def describe_stream(self, request: Request, call: Call) -> Reply:
        stream = self._stream(request, call)
        after = request.get("ExclusiveStartShardId", "")
        shards = [shard for shard in stream.map.shards if shard.id > after]
        page = shards[: request.get("Limit", 100)]
        told = summary(stream)
        for absent in ("OpenShardCount", "ConsumerCount", "MaxRecordSizeInKiB", "RecordDistributionStrategy"):
            del told[absent]
        shown = {"Shards": [shard.describe() for shard in page], "HasMoreShards": len(page) < len(shards)}
        return {"StreamDescription": told | shown}

    def describe_limits(self, request: Request, call: Call) -> Reply:
        names = self._streams.names(call.account, call.region)
        streams = [self._streams.get(call.account, call.region, name) for name in names]
        return {
            "ShardLimit": SHARD_QUOTA,
            "OpenShardCount": sum(len(stream.map.open_shards) for stream in streams),
            "OnDemandStreamCount": sum(stream.state.mode == "ON_DEMAND" for stream in streams),
            "OnDemandStreamCountLimit": 50,
        }

    def increase_retention(self, request: Request, call: Call) -> Reply:
        stream, hours = self._stream(request, call), _retention_hours(request)
        if hours < stream.state.retention_hours:
            raise invalid(f"Requested retention period ({hours} hours) must not be below the current one")
        stream.change(retention_hours=hours)
        return {}

    def decrease_retention(self, request: Request, call: Call) -> Reply:
        stream, hours = self._stream(request, call), _retention_hours(request)
        if hours > stream.state.retention_hours:
            raise invalid(f"Requested retention period ({hours} hours) must not be above the current one")
        stream.change(retention_hours=hours)
        return {}

    def update_max_record_size(self, request: Request, call: Call) -> Reply:
        self._stream(request, call).change(max_record_kib=_record_kib(request["MaxRecordSizeInKiB"]))
        return {}

    def start_encryption(self, request: Request, call: Call) -> Reply:
        self._stream(request, call).change(key_id=request["KeyId"])
        return {}

    def stop_encryption(self, request: Request, call: Call) -> Reply:
        self._stream(request, call).change(key_id=None)
        return {}

    def update_mode(self, request: Request, call: Call) -> Reply:
        self._stream(request, call).change(mode=request["StreamModeDetails"]["StreamMode"])
        return {}

    def update_distribution(self, request: Request, call: Call) -> Reply:
        self._stream(request, call).change(distribution=request["RecordDistributionStrategy"])
        return {}

    def enable_monitoring(self, request: Request, call: Call) -> Reply:
        stream = self._stream(request, call)
        return self._change_metrics(stream, set(stream.state.metrics) | set(request["ShardLevelMetrics"]))

    def disable_monitoring(self, request: Request, call: Call) -> Reply:
        stream = self._stream(request, call)
        dropped = set(request["ShardLevelMetrics"])
        kept = set() if "ALL" in dropped else set(stream.state.metrics) - dropped
        return self._change_metrics(stream, kept)

    def _change_metrics(self, stream: Stream, wanted: set[str]) -> Reply:
        before = list(stream.state.metrics)
        stream.change(metrics=tuple(sorted(wanted)))
        return {
            "StreamName": stream.state.name,
            "StreamARN": stream.state.arn,
            "CurrentShardLevelMetrics": before,
            "DesiredShardLevelMetrics": sorted(wanted),
        }

    # Tags

    def add_tags(self, request: Request, call: Call) -> Reply:
        stream = self._stream(request, call)
        stream.change(tags={**stream.state.tags, **request["Tags"]})
        return {}

    def remove_tags(self, request: Request, call: Call) -> Reply:
        stream = self._stream(request, call)
        stream.change(tags={k: v for k, v in stream.state.tags.items() if k not in request["TagKeys"]})
        return {}

    def list_tags(self, request: Request, call: Call) -> Reply:
        return {"Tags": tag_list(self._stream(request, call)), "HasMoreTags": False}

    def list_resource_tags(self, request: Request, call: Call) -> Reply:
        return {"Tags": tag_list(self._stream(request, call))}

    # Shards

    def list_shards(self, request: Request, call: Call) -> Reply:
        token = json.loads(base64.b64decode(request["NextToken"])) if request.get("NextToken") else None
        stream = self._stream({"StreamName": token["stream"]} if token else request, call)
        stream.apply_retention(call.now)
        filters = token["filter"] if token else dict(request.get("ShardFilter", {}))
        after = token["after"] if token else request.get("ExclusiveStartShardId", "")
        shards = [shard for shard in kinesis_resharding.filtered(stream, filters, call) if shard.id > after]
        page = shards[: request.get("MaxResults", DEFAULT_SHARDS_PER_PAGE)]
        reply: Reply = {"Shards": [shard.describe() for shard in page]}
        if len(page) < len(shards):
            following = {"stream": stream.state.name, "filter": filters, "after": page[-1].id}
            reply["NextToken"] = base64.b64encode(json.dumps(following).encode()).decode()
        return reply

    def split_shard(self, request: Request, call: Call) -> Reply:
        stream = self._stream(request, call)
        at = hash_key("", str(request["NewStartingHashKey"]))
        kinesis_resharding.split(stream, stream.shard(request["ShardToSplit"]), at, call)
        return {}

    def merge_shards(self, request: Request, call: Call) -> Reply:
        stream = self._stream(request, call)
        kinesis_resharding.merge(
            stream, stream.shard(request["ShardToMerge"]), stream.shard(request["AdjacentShardToMerge"]), call
        )
        return {}

    def update_shard_count(self, request: Request, call: Call) -> Reply:
        stream, target = self._stream(request, call), int(request["TargetShardCount"])
        current = len(stream.map.open_shards)
        kinesis_resharding.resize(stream, target, call)
        return {
            "StreamName": stream.state.name,
            "StreamARN": stream.state.arn,
            "CurrentShardCount": current,
            "TargetShardCount": target,
        }

    # Records

    def put_record(self, request: Request, call: Call) -> Reply:
        stream = self._stream(request, call)
        entry = self._entry(stream, request)
        self._count_write(stream, entry, call)
        stored = kinesis_records.store(stream, [entry], call)[0]
        return {**stored, "EncryptionType": stream.state.encryption}

    def put_records(self, request: Request, call: Call) -> Reply:
        """Every entry is stored or refused by itself; entries of one shard keep their order."""
        stream, records = self._stream(request, call), request["Records"]
        if not 1 <= len(records) <= MAX_RECORDS_PER_REQUEST:
            raise malformed(f"Records must hold 1 to {MAX_RECORDS_PER_REQUEST} entries, holds {len(records)}")
        entries = [self._entry(stream, record) for record in records]
        if sum(entry.size for entry in entries) > MAX_REQUEST_BYTES:
            raise invalid(f"Records size exceeds {MAX_REQUEST_BYTES} bytes")
        refusals = [self._refusal(stream, entry, call) for entry in entries]
        accepted = [entry for entry, refusal in zip(entries, refusals, strict=True) if refusal is None]
        stored = iter(kinesis_records.store(stream, accepted, call))
        return {
            "FailedRecordCount": len(entries) - len(accepted),
            "Records": [
                next(stored) if refusal is None else {"ErrorCode": refusal.code, "ErrorMessage": refusal.message}
                for refusal in refusals
            ],
            "EncryptionType": stream.state.encryption,
        }

    def get_shard_iterator(self, request: Request, call: Call) -> Reply:
        stream = self._stream(request, call)
        shard = stream.shard(request["ShardId"])
        counter = starting_counter(stream, shard, request)
        state = stream.state
        position = Position(state.name, state.created_millis, shard.id, counter, call.now)
        return {"ShardIterator": position.encode()}

    def get_records(self, request: Request, call: Call) -> Reply:
        position = Position.decode(request["ShardIterator"])
        if call.now - position.issued_at > ITERATOR_SECONDS:
            raise KinesisError(
                "ExpiredIteratorException",
                f"Iterator expired. It was issued at {position.issued_at} and is valid for {ITERATOR_SECONDS} s.",
            )
        limit = request.get("Limit", MAX_RECORDS_PER_READ)
        if not 1 <= limit <= MAX_RECORDS_PER_READ:
            raise malformed(f"Limit must be 1 to {MAX_RECORDS_PER_READ}, is {limit}")
        stream = self._streams.get(call.account, call.region, position.stream)
        if stream.state.created_millis != position.stream_created_millis:
            raise not_found(f"The iterator's stream {position.stream} was deleted, and created anew.")
        shard = stream.shard(position.shard)
        if self.enforce_limits:
            stream.limits[shard.number].read(call.now, _where(stream, shard))
        stream.apply_retention(call.now)
        return kinesis_records.page(
            stream, shard, position.counter, 0 if call.fault and call.fault.empty else limit, call
        )

    def _stream(self, request: Request, call: Call) -> Stream:
        name = self.stream_name(request)
        if not name:
            raise malformed("A StreamName or a StreamARN is required")
        return self._streams.get(call.account, call.region, name)

    def _entry(self, stream: Stream, request: Request) -> Entry:
        partition_key = request["PartitionKey"]
        if not 1 <= len(partition_key) <= MAX_PARTITION_KEY_CHARACTERS:
            raise malformed(f"PartitionKey must have 1 to {MAX_PARTITION_KEY_CHARACTERS} characters")
        data = kinesis_data.checked(request["Data"])
        raw_key = partition_key.encode()
        size, limit = kinesis_data.size(data) + len(raw_key), stream.state.max_record_kib * 1024
        if size > limit:
            raise malformed(f"A record with its partition key has {size} bytes; {limit} are allowed")
        key = hash_key(partition_key, request.get("ExplicitHashKey"))
        if stream.state.distribution == "AUTO":
            return Entry(self._dice.choice(stream.map.open_shards), raw_key, data, size)
        return Entry(stream.map.route(key), raw_key, data, size)

    def _count_write(self, stream: Stream, entry: Entry, call: Call) -> None:
        if self.enforce_limits:
            stream.limits[entry.shard.number].write(entry.size, call.now, _where(stream, entry.shard))

    def _refusal(self, stream: Stream, entry: Entry, call: Call) -> KinesisError | None:
        if call.fault and self.faults.entry_fails(call.fault):
            return call.fault.error()
        try:
            self._count_write(stream, entry, call)
        except KinesisError as error:
            return error
        return None


def _where(stream: Stream, shard: Shard) -> str:
    return f"shard {shard.id} in stream {stream.state.name} under account {stream.state.account}"


def _record_kib(value: int) -> int:
    if not MIN_RECORD_KIB <= value <= MAX_RECORD_KIB:
        raise malformed(f"MaxRecordSizeInKiB must be {MIN_RECORD_KIB} to {MAX_RECORD_KIB}, is {value}")
    return value


def _retention_hours(request: Request) -> int:
    hours = int(request["RetentionPeriodHours"])
    if not MIN_RETENTION_HOURS <= hours <= MAX_RETENTION_HOURS:
        raise invalid(f"RetentionPeriodHours must be {MIN_RETENTION_HOURS} to {MAX_RETENTION_HOURS}, is {hours}")
    return hours


_OPERATIONS: dict[str, Callable[[Kinesis, Request, Call], Reply]] = {
    "AddTagsToStream": Kinesis.add_tags,
    "CreateStream": Kinesis.create_stream,
    "DecreaseStreamRetentionPeriod": Kinesis.decrease_retention,
    "DeleteStream": Kinesis.delete_stream,
    "DescribeLimits": Kinesis.describe_limits,
    "DescribeStream": Kinesis.describe_stream,
    "DescribeStreamSummary": Kinesis.describe_stream_summary,
    "DisableEnhancedMonitoring": Kinesis.disable_monitoring,
    "EnableEnhancedMonitoring": Kinesis.enable_monitoring,
    "GetRecords": Kinesis.get_records,
    "GetShardIterator": Kinesis.get_shard_iterator,
    "IncreaseStreamRetentionPeriod": Kinesis.increase_retention,
    "ListShards": Kinesis.list_shards,
    "ListStreams": Kinesis.list_streams,
    "ListTagsForResource": Kinesis.list_resource_tags,
    "ListTagsForStream": Kinesis.list_tags,
    "MergeShards": Kinesis.merge_shards,
    "PutRecord": Kinesis.put_record,
    "PutRecords": Kinesis.put_records,
    "RemoveTagsFromStream": Kinesis.remove_tags,
    "SplitShard": Kinesis.split_shard,
    "StartStreamEncryption": Kinesis.start_encryption,
    "StopStreamEncryption": Kinesis.stop_encryption,
    "TagResource": Kinesis.add_tags,
    "UntagResource": Kinesis.remove_tags,
    "UpdateMaxRecordSize": Kinesis.update_max_record_size,
    "UpdateShardCount": Kinesis.update_shard_count,
    "UpdateStreamMode": Kinesis.update_mode,
    "UpdateStreamRecordDistributionStrategy": Kinesis.update_distribution,
}
