"""Streams as Kinesis describes them."""

from .kinesis_calls import Reply
from .kinesis_streams import Stream, StreamState


def heading(state: StreamState) -> Reply:
    return {
        "StreamName": state.name,
        "StreamARN": state.arn,
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": state.mode},
        "StreamCreationTimestamp": state.created_millis / 1000,
    }


def summary(stream: Stream) -> Reply:
    state = stream.state
    answer = heading(state) | {
        "RetentionPeriodHours": state.retention_hours,
        "EnhancedMonitoring": [{"ShardLevelMetrics": list(state.metrics)}],
        "EncryptionType": state.encryption,
        "OpenShardCount": len(stream.map.open_shards),
        "ConsumerCount": 0,
        "MaxRecordSizeInKiB": state.max_record_kib,
        "RecordDistributionStrategy": state.distribution,
    }
    return answer | ({"KeyId": state.key_id} if state.key_id else {})


def tag_list(stream: Stream) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(stream.state.tags.items())]
