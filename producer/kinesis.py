"""The stream at its edge: PutRecords without botocore's own retries, and the stream's identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from producer.errors import ContinuityBroken, StreamRefused
from producer.settings import AwsSettings


@dataclass(frozen=True, slots=True)
class Record:
    """One Kinesis record to put."""

    data: bytes
    partition_key: str
    hash_key: str


class Unanswered(Exception):
    """The request failed as a whole. It may have been carried out all the same."""


class Stream(Protocol):
    """Puts records; for each, in order, None when it was accepted or the error code when it was not."""

    def put(self, records: Sequence[Record]) -> list[str | None]: ...


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

    def put(self, records: Sequence[Record]) -> list[str | None]:
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
        return [result.get("ErrorCode") for result in results]

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


def client(service: str, settings: AwsSettings, *, retries: bool = True) -> Any:
    """A boto3 client with sane timeouts; without `retries`, each call is one request."""
    attempts = {"mode": "standard", "max_attempts": 4} if retries else {"mode": "standard", "max_attempts": 1}
    config = Config(retries=attempts, connect_timeout=5, read_timeout=15, tcp_keepalive=True, max_pool_connections=4)
    return boto3.client(service, region_name=settings.region, endpoint_url=settings.endpoint(service), config=config)
