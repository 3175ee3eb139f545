"""A laptop's AWS with what one streaming job needs: a bucket, a stream, the DynamoDB tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from localaws.process import LocalAws
from ops.names import DYNAMODB_KEYS
from schemas.change_record import TableSchema
from schemas.control import lane_hash_key, partition_key
from schemas.registry import Registry

_PREFIX: Final = "bench"
_JOB: Final = "headrace-stream"
_REQUEST_RECORDS: Final = 20


@dataclass(frozen=True)
class Laptop:
    """One source on it."""

    aws: LocalAws
    source: str
    stream: str
    bucket: str = "bench-lake"

    def arguments(self, **more: str) -> list[str]:
        """The job's, as Glue passes them."""
        given = {
            "source": self.source,
            "stream_name": self.stream,
            "lake_bucket": self.bucket,
            "dynamodb_prefix": f"{_PREFIX}-{self.source}",
            "fold_horizon_seconds": "5",
            **more,
        }
        return [word for name, value in given.items() for word in (f"--{name}", value)]

    def register(self, schema: TableSchema) -> None:
        Registry(self.aws.client("dynamodb"), f"{_PREFIX}-{self.source}-schemas").register(schema)

    def set(self, **settings: object) -> None:
        """Settings of the job, by name."""
        dynamodb = self.aws.client("dynamodb")
        for name, value in settings.items():
            item = {"job": {"S": _JOB}, "name": {"S": name}, "value": {"S": str(value)}}
            dynamodb.put_item(TableName=f"{_PREFIX}-{self.source}-settings", Item=item)

    def send(self, kinesis: Any, records: list[tuple[str, str, bytes]]) -> None:
        """(table, lane, data) each; one after the other, as the agent does it lane by lane."""
        for start in range(0, len(records), _REQUEST_RECORDS):
            entries = [
                {
                    "Data": data,
                    "PartitionKey": partition_key(self.source, table, lane),
                    "ExplicitHashKey": str(lane_hash_key(self.source, table, lane)),
                }
                for table, lane, data in records[start : start + _REQUEST_RECORDS]
            ]
            answer = kinesis.put_records(StreamName=self.stream, Records=entries)
            if answer["FailedRecordCount"]:
                raise RuntimeError(f"{answer['FailedRecordCount']} records were refused by the laptop's Kinesis")


def make(aws: LocalAws, source: str, shards: int = 1) -> Laptop:
    laptop = Laptop(aws, source, f"bench-{source}")
    s3, kinesis, dynamodb = (aws.client(service) for service in ("s3", "kinesis", "dynamodb"))
    s3.create_bucket(Bucket=laptop.bucket)
    kinesis.create_stream(StreamName=laptop.stream, ShardCount=shards)
    kinesis.get_waiter("stream_exists").wait(StreamName=laptop.stream, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    for table, keys in DYNAMODB_KEYS.items():
        dynamodb.create_table(
            TableName=f"{_PREFIX}-{source}-{table}",
            KeySchema=[
                {"AttributeName": name, "KeyType": role}
                for (name, _), role in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in keys],
            BillingMode="PAY_PER_REQUEST",
        )
    return laptop
