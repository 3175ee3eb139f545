"""The stream at its edge: PutRecords without botocore's own retries, and the stream's identity."""

from __future__ import annotations

import json
from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from producer.errors import ContinuityBroken, StreamRefused


@dataclass(frozen=True, slots=True)
class Record:
    """One Kinesis record to put."""

    data: bytes
    partition_key: str
    hash_key: str


class Unanswered(Exception):
    """The request failed as a whole. It may have been carried out all the same."""


class Put(NamedTuple):
    """What became of a record: accepted in a shard, or refused with an error code."""

    code: str | None = None
    shard: str | None = None


class Stream(Protocol):
    """Puts records; says what became of each, in order."""

    def put(self, records: Sequence[Record]) -> list[Put]: ...


@dataclass(frozen=True)
class StreamIdentity:
    """What makes a stream the same stream: a recreated one has the same name and nothing in it."""

    arn: str
    created_at: str

    def __str__(self) -> str:
        return f"{self.arn} {self.created_at}"


class KinesisStream:
    """A stream through boto3. `put` raises Unanswered for anything that leaves the outcome unknown."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def put(self, records: Sequence[Record]) -> list[Put]:
        entries = [
            {"Data": record.data, "PartitionKey": record.partition_key, "ExplicitHashKey": record.hash_key}
            for record in records
        ]
        try:
            answer = self._client.put_records(StreamName=self._name, Records=entries)
        except (BotoCoreError, ClientError, OSError) as error:
            raise Unanswered(str(error)) from error
        results = answer["Records"]
        if len(results) != len(records):
            raise Unanswered(f"{len(records)} records were put, {len(results)} results came back")
        return [Put(result.get("ErrorCode"), result.get("ShardId")) for result in results]

    def identity(self) -> StreamIdentity:
        """Who the stream is. Raises StreamRefused when it is missing, Unanswered when nobody answers."""
        try:
            summary = self._client.describe_stream_summary(StreamName=self._name)["StreamDescriptionSummary"]
        except self._client.exceptions.ResourceNotFoundException as error:
            raise StreamRefused(f"Kinesis stream {self._name}: not found; create it, or mend aws.stream") from error
        except (BotoCoreError, ClientError, OSError) as error:
            raise Unanswered(str(error)) from error
        if summary.get("RecordDistributionStrategy") == "AUTO":
            raise StreamRefused(
                f"Kinesis stream {self._name}: its record distribution is AUTO, which ignores hash keys and so breaks"
                " the order of lanes; set it back to the default"
            )
        return StreamIdentity(summary["StreamARN"], summary["StreamCreationTimestamp"].isoformat())


def check_same(known: str | None, found: StreamIdentity) -> None:
    """Raises ContinuityBroken when the stream is not the one that the spool has filled."""
    if known is not None and known != str(found):
        raise ContinuityBroken(
            f"the Kinesis stream was recreated: the spool knows {known}, found {found}; what it held is lost to readers"
            " who had not read it. Start once with --new-era to begin again with snapshots"
        )


def write_records_ourselves(client: Any) -> None:
    """Has PutRecords' body written here, byte for byte as botocore does, by way of strings and for three times the CPU.

    botocore writes and checks the request around the first record without its data; the signature is its own too.
    """
    client.meta.events.register("before-parameter-build.kinesis.PutRecords", _set_aside)
    client.meta.events.register("before-call.kinesis.PutRecords", _put_in)


def _set_aside(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    context["records"] = params["Records"]
    params["Records"] = [{**params["Records"][0], "Data": b""}]


def _put_in(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    before, behind = params["body"].partition(b"[")[0], params["body"].rpartition(b"]")[2]
    pieces = [before, b"["]  # put together once: they are megabytes
    for record in context["records"]:
        keys = json.dumps(record["PartitionKey"]), json.dumps(record["ExplicitHashKey"])
        pieces += b'{"Data": "', b2a_base64(record["Data"], newline=False)
        pieces += b'", "PartitionKey": %b, "ExplicitHashKey": %b}' % tuple(map(str.encode, keys)), b", "
    pieces[-1:] = b"]", behind
    params["body"] = b"".join(pieces)
