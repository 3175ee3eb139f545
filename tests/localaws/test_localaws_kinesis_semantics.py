"""What Kinesis promises, tried on the service itself, with a clock that the test moves."""

import base64
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localaws import kinesis_data
from localaws.kinesis_calls import Call
from localaws.kinesis_errors import KinesisError
from localaws.kinesis_faults import Fault
from localaws.kinesis_service import Kinesis
from localaws.kinesis_shards import MAX_HASH_KEY, hash_key

NOON = 1_800_000_000.0
HOUR = 3600.0


class Client:
    """Calls the service as one account, at a time of the test's choice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOON
        self.kinesis = Kinesis(folder, dice=random.Random(7))

    def __call__(self, operation: str, **request: Any) -> dict[str, Any]:
        name = self.kinesis.stream_name(request)
        fault = self.kinesis.faults.strike(operation, name)
        return self.kinesis.call(operation, request, Call("000000000000", "us-east-1", self.now, fault))

    def restart(self) -> None:
        self.kinesis.close()
        self.kinesis = Kinesis(self.folder, dice=random.Random(7))

    def put(self, data: str, key: int | str = 0, stream: str = "s") -> dict[str, Any]:
        """One record; an integer key is an explicit hash key."""
        explicit = {"ExplicitHashKey": str(key)} if isinstance(key, int) else {}
        return self("PutRecord", StreamName=stream, Data=b64(data), PartitionKey=str(key), **explicit)

    def iterator(self, shard: str, kind: str = "TRIM_HORIZON", **more: Any) -> str:
        found = self("GetShardIterator", StreamName="s", ShardId=shard, ShardIteratorType=kind, **more)
        return str(found["ShardIterator"])

    def read(self, shard: str, kind: str = "TRIM_HORIZON", **more: Any) -> list[str]:
        page = self("GetRecords", ShardIterator=self.iterator(shard, kind, **more))
        return [base64.b64decode(record["Data"]).decode() for record in page["Records"]]

    def shards(self, **more: Any) -> list[str]:
        return [shard["ShardId"] for shard in self("ListShards", StreamName="s", **more)["Shards"]]


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def shard(number: int) -> str:
    return f"shardId-{number:012d}"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    made = Client(tmp_path / "kinesis")
    made("CreateStream", StreamName="s", ShardCount=2)
    return made


def entries(*texts: str) -> list[dict[str, str]]:
    return [{"Data": b64(text), "PartitionKey": "k", "ExplicitHashKey": "0"} for text in texts]


def refused(client: Client, operation: str, **request: Any) -> str:
    with pytest.raises(KinesisError) as caught:
        client(operation, **request)
    return caught.value.code


def test_record_goes_to_the_shard_of_its_partition_keys_md5(client: Client) -> None:
    """MD5 of the partition key, as a 128-bit integer, falls into the shard's hash-key range."""
    for key in ("a", "b", "account-17", "é"):
        expected = shard(0 if hash_key(key, None) < 2**127 else 1)
        assert client.put("x", key)["ShardId"] == expected


def test_explicit_hash_key_overrides_the_partition_key(client: Client) -> None:
    """The ends of the ranges belong to their shards."""
    at = {0: 0, 2**127 - 1: 0, 2**127: 1, MAX_HASH_KEY: 1}
    assert {key: int(client.put("x", key)["ShardId"][-1]) for key in at} == at


@pytest.mark.parametrize("key", ["-1", str(2**128), "x", ""])
def test_explicit_hash_key_out_of_range_is_refused(client: Client, key: str) -> None:
    record = {"Data": b64("x"), "PartitionKey": "k", "ExplicitHashKey": key}
    assert refused(client, "PutRecord", StreamName="s", **record) == "InvalidArgumentException"


def test_records_of_a_shard_keep_their_order_and_numbers_rise(client: Client) -> None:
    """In one request and over several, even when the clock stands still or goes back."""
    numbers = [int(client.put(text)["SequenceNumber"]) for text in "abc"]
    client.now -= 5
    reply = client("PutRecords", StreamName="s", Records=entries("d", "e", "f"))
    numbers += [int(record["SequenceNumber"]) for record in reply["Records"]]
    assert numbers == sorted(set(numbers))
    assert client.read(shard(0)) == list("abcdef")


def test_iterator_types_start_where_they_say(client: Client) -> None:
    """TRIM_HORIZON, AT and AFTER a sequence number, AT_TIMESTAMP and LATEST."""
    numbers = []
    for text in "abc":
        numbers.append(client.put(text)["SequenceNumber"])
        client.now += 10
    assert client.read(shard(0)) == ["a", "b", "c"]
    assert client.read(shard(0), "AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1]) == ["b", "c"]
    assert client.read(shard(0), "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1]) == ["c"]
    assert client.read(shard(0), "AT_TIMESTAMP", Timestamp=NOON + 10) == ["b", "c"]
    assert client.read(shard(0), "AT_TIMESTAMP", Timestamp=NOON + 11) == ["c"]
    latest = client.iterator(shard(0), "LATEST")
    client.put("d")
    assert len(client("GetRecords", ShardIterator=latest)["Records"]) == 1


def test_sequence_number_of_another_shard_is_refused(client: Client) -> None:
    number = client.put("x", 2**127)["SequenceNumber"]
    request = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number}
    assert (
        refused(client, "GetShardIterator", StreamName="s", ShardId=shard(0), **request) == "InvalidArgumentException"
    )


def test_iterator_expires_after_five_minutes(client: Client) -> None:
    iterator = client.iterator(shard(0))
    client.now += 300
    client("GetRecords", ShardIterator=iterator)
    client.now += 1
    assert refused(client, "GetRecords", ShardIterator=iterator) == "ExpiredIteratorException"


def test_iterator_of_a_deleted_stream_does_not_read_its_successor(client: Client) -> None:
    iterator = client.iterator(shard(0))
    client("DeleteStream", StreamName="s")
    client.now += 1
    client("CreateStream", StreamName="s", ShardCount=2)
    assert refused(client, "GetRecords", ShardIterator=iterator) == "ResourceNotFoundException"


def test_millis_behind_latest_is_zero_only_at_the_tip(client: Client) -> None:
    """While records wait, it is the age of the first of them."""
    for text in "abc":
        client.put(text)
        client.now += 2
    page = client("GetRecords", ShardIterator=client.iterator(shard(0)), Limit=1)
    assert page["MillisBehindLatest"] == 4000
    page = client("GetRecords", ShardIterator=page["NextShardIterator"], Limit=2)
    assert page["MillisBehindLatest"] == 0
    assert client("GetRecords", ShardIterator=page["NextShardIterator"])["Records"] == []


def test_page_ends_before_ten_mebibytes(client: Client) -> None:
    """Records of 1,000,000 bytes: ten fit into a page, the eleventh waits for the next."""
    for _ in range(11):
        client.put("x" * 1_000_000)
    page = client("GetRecords", ShardIterator=client.iterator(shard(0)))
    assert len(page["Records"]) == 10
    assert len(client("GetRecords", ShardIterator=page["NextShardIterator"])["Records"]) == 1


def test_split_keeps_the_parent_until_it_is_drained(client: Client) -> None:
    """The closed parent is read to its end, which names the children; new records go to the children."""
    before = int(client.put("old")["SequenceNumber"])
    client("SplitShard", StreamName="s", ShardToSplit=shard(0), NewStartingHashKey=str(2**126))
    after = client.put("new", 2**126)
    assert after["ShardId"] == shard(3)
    assert int(after["SequenceNumber"]) > before
    page = client("GetRecords", ShardIterator=client.iterator(shard(0)), Limit=1)
    assert [base64.b64decode(r["Data"]) for r in page["Records"]] == [b"old"]
    assert "NextShardIterator" not in page
    assert [(child["ShardId"], child["ParentShards"]) for child in page["ChildShards"]] == [
        (shard(2), [shard(0)]),
        (shard(3), [shard(0)]),
    ]
    assert client.read(shard(3)) == ["new"]


def test_closed_shard_with_records_left_gives_an_iterator_and_no_children(client: Client) -> None:
    for text in "ab":
        client.put(text)
    client("SplitShard", StreamName="s", ShardToSplit=shard(0), NewStartingHashKey="5")
    page = client("GetRecords", ShardIterator=client.iterator(shard(0)), Limit=1)
    assert "NextShardIterator" in page
    assert "ChildShards" not in page


def test_split_numbers_of_children_follow_the_parents(client: Client) -> None:
    """The parent's ending number lies above its records, the children's starting numbers above that."""
    last = int(client.put("x")["SequenceNumber"])
    client("SplitShard", StreamName="s", ShardToSplit=shard(0), NewStartingHashKey="5")
    shards = {s["ShardId"]: s for s in client("ListShards", StreamName="s")["Shards"]}
    ending = int(shards[shard(0)]["SequenceNumberRange"]["EndingSequenceNumber"])
    starting = int(shards[shard(2)]["SequenceNumberRange"]["StartingSequenceNumber"])
    assert last < ending < starting
    assert shards[shard(2)]["ParentShardId"] == shard(0)


def test_merge_has_one_child_with_two_parents(client: Client) -> None:
    client("MergeShards", StreamName="s", ShardToMerge=shard(0), AdjacentShardToMerge=shard(1))
    for key in (0, MAX_HASH_KEY):
        assert client.put("x", key)["ShardId"] == shard(2)
    for parent in (shard(0), shard(1)):
        page = client("GetRecords", ShardIterator=client.iterator(parent))
        assert page["ChildShards"][0]["ParentShards"] == [shard(0), shard(1)]


def test_closed_shard_cannot_be_split_or_merged(client: Client) -> None:
    client("SplitShard", StreamName="s", ShardToSplit=shard(0), NewStartingHashKey="5")
    again = {"ShardToSplit": shard(0), "NewStartingHashKey": "3"}
    assert refused(client, "SplitShard", StreamName="s", **again) == "InvalidArgumentException"
    merge = {"ShardToMerge": shard(0), "AdjacentShardToMerge": shard(1)}
    assert refused(client, "MergeShards", StreamName="s", **merge) == "InvalidArgumentException"


def test_shards_that_do_not_touch_cannot_be_merged(client: Client) -> None:
    client("SplitShard", StreamName="s", ShardToSplit=shard(0), NewStartingHashKey="5")
    merge = {"ShardToMerge": shard(2), "AdjacentShardToMerge": shard(1)}
    assert refused(client, "MergeShards", StreamName="s", **merge) == "InvalidArgumentException"


@pytest.mark.parametrize("target", [1, 3, 4])
def test_update_shard_count_covers_every_hash_key_once(client: Client, target: int) -> None:
    client("UpdateShardCount", StreamName="s", TargetShardCount=target, ScalingType="UNIFORM_SCALING")
    ranges = [
        (int(s["HashKeyRange"]["StartingHashKey"]), int(s["HashKeyRange"]["EndingHashKey"]))
        for s in client("ListShards", StreamName="s", ShardFilter={"Type": "AT_LATEST"})["Shards"]
    ]
    ranges.sort()
    assert len(ranges) == target
    assert (ranges[0][0], ranges[-1][1]) == (0, MAX_HASH_KEY)
    assert all(low[1] + 1 == high[0] for low, high in itertools.pairwise(ranges))


def test_list_shards_pages_and_filters(client: Client) -> None:
    """Pages hold every shard once; a filter shows the shards that were open at its moment."""
    client.now += 100
    client("SplitShard", StreamName="s", ShardToSplit=shard(0), NewStartingHashKey="5")
    page = client("ListShards", StreamName="s", MaxResults=3)
    rest = client("ListShards", NextToken=page["NextToken"])
    assert [s["ShardId"] for s in page["Shards"] + rest["Shards"]] == [shard(n) for n in range(4)]
    assert client.shards(ShardFilter={"Type": "AT_LATEST"}) == [shard(1), shard(2), shard(3)]
    assert client.shards(ShardFilter={"Type": "AT_TRIM_HORIZON"}) == [shard(0), shard(1)]
    assert client.shards(ShardFilter={"Type": "AFTER_SHARD_ID", "ShardId": shard(1)}) == [shard(2), shard(3)]
    assert client.shards(ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": NOON + 50}) == [shard(0), shard(1)]


def test_records_and_drained_parents_leave_after_retention(client: Client) -> None:
    """24 hours by default: a later record stays, the closed shard is listed no more."""
    client.put("old")
    client("SplitShard", StreamName="s", ShardToSplit=shard(0), NewStartingHashKey="5")
    client.now += 23 * HOUR
    client.put("young", 2**127)
    assert client.read(shard(0)) == ["old"]
    client.now += 2 * HOUR
    assert client.read(shard(1)) == ["young"]
    assert client.shards() == [shard(1), shard(2), shard(3)]


def test_longer_retention_keeps_records_longer(client: Client) -> None:
    client("IncreaseStreamRetentionPeriod", StreamName="s", RetentionPeriodHours=168)
    client.put("old")
    client.now += 167 * HOUR
    assert client.read(shard(0)) == ["old"]
    client.now += 2 * HOUR
    assert client.read(shard(0)) == []


def test_record_limit_counts_the_partition_key(client: Client) -> None:
    """1 MiB for data and key together by default; UpdateMaxRecordSize raises it."""
    client("PutRecord", StreamName="s", Data=b64("x" * (2**20 - 1)), PartitionKey="k")
    large = {"Data": b64("x" * 2**20), "PartitionKey": "k"}
    assert refused(client, "PutRecord", StreamName="s", **large) == "ValidationException"
    client("UpdateMaxRecordSize", StreamARN="arn:aws:kinesis:us-east-1:000000000000:stream/s", MaxRecordSizeInKiB=2048)
    client("PutRecord", StreamName="s", **large)


@pytest.mark.parametrize("text", ["a", "ab=c", "abc\n", "====", "a===", "ab*=", "abé=", "YQ==="])
def test_data_that_is_not_base64_is_refused(client: Client, text: str) -> None:
    assert refused(client, "PutRecord", StreamName="s", Data=text, PartitionKey="k") == "SerializationException"


@given(st.binary(max_size=50))
def test_size_of_data_is_that_of_its_bytes(data: bytes) -> None:
    """Limits count what the client sent, though it is kept as base64."""
    kept = kinesis_data.checked(base64.b64encode(data).decode())
    assert kinesis_data.size(kept) == len(data)


def test_request_limits(client: Client) -> None:
    """500 records and 10 MiB a request; nothing of a refused request is stored."""
    assert refused(client, "PutRecords", StreamName="s", Records=entries(*"x" * 501)) == "ValidationException"
    big = entries(*["x" * 1_000_000] * 11)
    assert refused(client, "PutRecords", StreamName="s", Records=big) == "InvalidArgumentException"
    assert client.read(shard(0)) == []
    assert client("PutRecords", StreamName="s", Records=entries(*"x" * 500))["FailedRecordCount"] == 0


def test_enforced_write_rate_fails_single_records_and_recovers(client: Client) -> None:
    """1,000 records a second and shard: the rest of a request is refused entry by entry, and passes a second later."""
    client.kinesis.enforce_limits = True
    replies = [client("PutRecords", StreamName="s", Records=entries(*"x" * 500)) for _ in range(3)]
    assert [reply["FailedRecordCount"] for reply in replies] == [0, 0, 500]
    assert replies[2]["Records"][0]["ErrorCode"] == "ProvisionedThroughputExceededException"
    client.now += 1
    assert client("PutRecords", StreamName="s", Records=entries("x"))["FailedRecordCount"] == 0


def test_enforced_write_rate_counts_bytes(client: Client) -> None:
    """1 MiB a second and shard; the other shard is not touched."""
    client.kinesis.enforce_limits = True
    client.put("x" * 700_000)
    with pytest.raises(KinesisError, match="Rate exceeded"):
        client.put("x" * 700_000)
    client.put("x" * 700_000, 2**127)
    client.now += 1
    client.put("x" * 700_000)


def test_enforced_read_rate(client: Client) -> None:
    """Five calls a second and shard, and 2 MiB a second: a page of 10 MB blocks the shard for five seconds."""
    for _ in range(10):
        client.put("x" * 1_000_000)
    client.kinesis.enforce_limits = True
    iterator = client.iterator(shard(1))
    for _ in range(5):
        client("GetRecords", ShardIterator=iterator)
    assert refused(client, "GetRecords", ShardIterator=iterator) == "ProvisionedThroughputExceededException"
    iterator = client.iterator(shard(0))
    client("GetRecords", ShardIterator=iterator)
    client.now += 4
    assert refused(client, "GetRecords", ShardIterator=iterator) == "ProvisionedThroughputExceededException"
    client.now += 1
    client("GetRecords", ShardIterator=iterator)


def test_partial_failure_names_the_failed_entries_and_stores_the_others(client: Client) -> None:
    client.kinesis.faults.replace([Fault("PutRecords", fraction=0.5, times=1)])
    texts = [str(n) for n in range(100)]
    reply = client("PutRecords", StreamName="s", Records=entries(*texts))
    failed = [text for text, result in zip(texts, reply["Records"], strict=True) if "ErrorCode" in result]
    assert 20 < reply["FailedRecordCount"] == len(failed) < 80
    assert client.read(shard(0)) == [text for text in texts if text not in failed]
    assert client("PutRecords", StreamName="s", Records=entries("x"))["FailedRecordCount"] == 0


def test_empty_page_says_that_it_is_behind(client: Client) -> None:
    """A page without records at a position that has some: the reader has to go on, and loses nothing."""
    client.put("a")
    client.kinesis.faults.replace([Fault("GetRecords", empty=True, times=1)])
    page = client("GetRecords", ShardIterator=client.iterator(shard(0)))
    assert page["Records"] == []
    assert page["MillisBehindLatest"] > 0
    assert len(client("GetRecords", ShardIterator=page["NextShardIterator"])["Records"]) == 1


def test_fault_strikes_only_its_operation_stream_and_number_of_times(client: Client) -> None:
    client.kinesis.faults.replace([Fault("PutRecord", stream="s", code="InternalFailure", times=2)])
    strikes = [client.kinesis.faults.strike("PutRecord", name) for name in ("other", "s", "s", "s")]
    assert [strike is not None for strike in strikes] == [False, True, True, False]
    assert client.kinesis.faults.strike("GetRecords", "s") is None


def test_restart_keeps_streams_shards_records_and_iterators(client: Client) -> None:
    """Also what comes after it has higher numbers than all before, and a running iterator goes on."""
    first = client.put("a")
    client("AddTagsToStream", StreamName="s", Tags={"owner": "me"})
    client("SplitShard", StreamName="s", ShardToSplit=shard(1), NewStartingHashKey=str(2**127 + 9))
    iterator = client("GetRecords", ShardIterator=client.iterator(shard(0)))["NextShardIterator"]
    client.restart()
    second = client.put("b")
    assert int(second["SequenceNumber"]) > int(first["SequenceNumber"])
    assert client.read(shard(0)) == ["a", "b"]
    assert len(client("GetRecords", ShardIterator=iterator)["Records"]) == 1
    assert client.shards() == [shard(n) for n in range(4)]
    assert client("ListTagsForStream", StreamName="s")["Tags"] == [{"Key": "owner", "Value": "me"}]


def test_distribution_auto_ignores_the_hash_key(client: Client) -> None:
    """The setting that breaks the order of a lane: records of one key spread over the shards."""
    arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
    client("UpdateStreamRecordDistributionStrategy", StreamARN=arn, RecordDistributionStrategy="AUTO")
    assert {client.put("x")["ShardId"] for _ in range(50)} == {shard(0), shard(1)}


def test_unknown_streams_and_shards_are_named(client: Client) -> None:
    assert refused(client, "DescribeStreamSummary", StreamName="t") == "ResourceNotFoundException"
    request = {"ShardId": shard(9), "ShardIteratorType": "LATEST"}
    assert refused(client, "GetShardIterator", StreamName="s", **request) == "ResourceNotFoundException"
    assert refused(client, "CreateStream", StreamName="s", ShardCount=1) == "ResourceInUseException"
