"""Shard positions and the job's epoch in DynamoDB. Positions are an optimisation: the tables' marks are the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glue_streaming.shards import Start


class Positions:
    """The table `shards`: of each, the sequence number before which all is committed, and whether it is drained."""

    def __init__(self, dynamodb: Any, table_name: str, job: str) -> None:
        self._dynamodb = dynamodb
        self._table_name = table_name
        self._job = job

    def load(self) -> tuple[dict[str, Start], set[str]]:
        """Where to go on reading, by shard, and the shards that are drained."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table_name,
            ConsistentRead=True,
            KeyConditionExpression="job = :job",
            ExpressionAttributeValues={":job": {"S": self._job}},
        )
        items = [item for page in pages for item in page["Items"]]
        starts = {item["shard"]["S"]: Start(item["sequence"]["S"]) for item in items if "sequence" in item}
        return starts, {item["shard"]["S"] for item in items if item["closed"]["BOOL"]}

    def save(self, changed: Mapping[str, tuple[str | None, bool]]) -> None:
        """Saves (sequence, closed) of the shards that moved."""
        for shard, (sequence, closed) in changed.items():
            item: dict[str, Any] = {"job": {"S": self._job}, "shard": {"S": shard}, "closed": {"BOOL": closed}}
            if sequence is not None:
                item["sequence"] = {"S": sequence}
            self._dynamodb.put_item(TableName=self._table_name, Item=item)


def take_epoch(dynamodb: Any, table_name: str, job: str) -> int:
    """A new writer epoch of the job by one atomic increment: of two starters the later one has the higher."""
    answer = dynamodb.update_item(
        TableName=table_name,
        Key={"source": {"S": "*"}, "item": {"S": f"epoch:{job}"}},
        UpdateExpression="ADD epoch :one",
        ExpressionAttributeValues={":one": {"N": "1"}},
        ReturnValues="UPDATED_NEW",
    )
    return int(answer["Attributes"]["epoch"]["N"])


def read_epoch(dynamodb: Any, table_name: str, job: str) -> int:
    """The epoch that is in force now: another job's, if it is above ours."""
    answer = dynamodb.get_item(
        TableName=table_name, Key={"source": {"S": "*"}, "item": {"S": f"epoch:{job}"}}, ConsistentRead=True
    )
    return int(answer.get("Item", {}).get("epoch", {}).get("N", "0"))
