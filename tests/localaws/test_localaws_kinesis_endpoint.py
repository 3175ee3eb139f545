"""Kinesis over HTTP with boto3: what clients see of it, faults asked for over HTTP, and restarts."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from localaws.process import LocalAws, running, start

ONCE = Config(retries={"total_max_attempts": 1})


def control(server: LocalAws, what: str, value: Any) -> Any:
    request = urllib.request.Request(
        f"{server.endpoint}/_local/kinesis/{what}", json.dumps(value).encode(), method="POST"
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def read_all(kinesis: Any, stream: str) -> list[bytes]:
    found = []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        named = {"StreamName": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        page = kinesis.get_records(ShardIterator=kinesis.get_shard_iterator(**named)["ShardIterator"])
        found += [record["Data"] for record in page["Records"]]
    return found


@pytest.fixture
def stream(aws: LocalAws, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name[:100].replace("[", "-").replace("]", "")
    kinesis = aws.client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=1)
    yield name
    control(aws, "faults", [])
    kinesis.delete_stream(StreamName=name)


def test_bytes_come_back_as_they_were_put(aws: LocalAws, stream: str) -> None:
    kinesis = aws.client("kinesis")
    data = bytes(range(256))
    kinesis.put_record(StreamName=stream, Data=data, PartitionKey="schlüssel")
    assert read_all(kinesis, stream) == [data]


def test_throttling_fault_is_the_services_exception(aws: LocalAws, stream: str) -> None:
    """The call does nothing, once; the next one passes."""
    kinesis = aws.client("kinesis", config=ONCE)
    rule = {"op": "PutRecords", "stream": stream, "code": "ProvisionedThroughputExceededException", "times": 1}
    control(aws, "faults", [rule])
    records = [{"Data": b"x", "PartitionKey": "k"}]
    with pytest.raises(kinesis.exceptions.ProvisionedThroughputExceededException):
        kinesis.put_records(StreamName=stream, Records=records)
    assert read_all(kinesis, stream) == []
    assert kinesis.put_records(StreamName=stream, Records=records)["FailedRecordCount"] == 0


def test_failure_after_the_write_leaves_the_records_written(aws: LocalAws, stream: str) -> None:
    """The client sees a 500 and cannot know; a retry writes the records a second time."""
    kinesis = aws.client("kinesis", config=ONCE)
    control(aws, "faults", [{"op": "PutRecords", "stream": stream, "after": True, "times": 1}])
    records = [{"Data": b"x", "PartitionKey": "k"}]
    with pytest.raises(ClientError) as caught:
        kinesis.put_records(StreamName=stream, Records=records)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    kinesis.put_records(StreamName=stream, Records=records)
    assert read_all(kinesis, stream) == [b"x", b"x"]


def test_unknown_fault_member_is_refused(aws: LocalAws) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        control(aws, "faults", [{"op": "PutRecords", "speed": 1}])
    assert caught.value.code == 400
    assert b"speed" in caught.value.read()


def test_missing_member_is_named(aws: LocalAws, stream: str) -> None:
    kinesis = aws.client("kinesis", config=Config(parameter_validation=False))
    with pytest.raises(ClientError, match="ShardIteratorType"):
        kinesis.get_shard_iterator(StreamName=stream, ShardId="shardId-000000000000")


def test_restart_keeps_records_and_another_services_state(tmp_path: Path) -> None:
    """After an orderly stop everything is there; after a kill the records are, for they are written at once."""
    with running(tmp_path) as server:
        kinesis = server.client("kinesis")
        kinesis.create_stream(StreamName="s", ShardCount=1)
        kinesis.put_record(StreamName="s", Data=b"before the stop", PartitionKey="k")
        server.client("glue").create_database(DatabaseInput={"Name": "d"})
        server.client("s3").create_bucket(Bucket="bucket")
        server.client("s3").put_object(Bucket="bucket", Key="a/b", Body=b"x")
    server = start(tmp_path)
    kinesis = server.client("kinesis")
    kinesis.put_record(StreamName="s", Data=b"before the kill", PartitionKey="k")
    server.kill()
    with running(tmp_path) as server:
        assert read_all(server.client("kinesis"), "s") == [b"before the stop", b"before the kill"]
        assert server.client("glue").get_database(Name="d")["Database"]["Name"] == "d"
        assert server.client("s3").get_object(Bucket="bucket", Key="a/b")["Body"].read() == b"x"


def test_port_in_use_is_said_at_once(aws: LocalAws, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=str(aws.port)):
        start(tmp_path, port=aws.port)
