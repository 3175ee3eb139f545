"""Shard positions and the job's epoch in DynamoDB. Positions are an optimisation: the tables' marks are the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glue_streaming import failpoints
from glue_streaming.shards import Start


@dataclass(frozen=True)
class Saved:
    """Where to go on reading, by shard, and the shards that are drained. recreated: they were another stream's."""

    starts: Mapping[str, Start]
    drained: frozenset[str]
    recreated: bool


class Positions:
    """The table `shards`: of each, the sequence number before which all is committed, and whether it is drained.

    stream: what tells this stream from an earlier one of the same name, whose shards had the same names.
    """

    def __init__(self, dynamodb: Any, table_name: str, job: str, stream: str) -> None:
        self._dynamodb = dynamodb
        self._table_name = table_name
        self._job = job
        self._stream = stream

    def load(self) -> Saved:
        """What was saved of this stream; positions in an earlier one of its name are left out."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table_name,
            ConsistentRead=True,
            KeyConditionExpression="job = :job",
            ExpressionAttributeValues={":job": {"S": self._job}},
        )
        items = [item for page in pages for item in page["Items"]]
        ours = [item for item in items if item.get("stream", {"S": self._stream})["S"] == self._stream]
        return Saved(
            starts={item["shard"]["S"]: Start(item["sequence"]["S"]) for item in ours if "sequence" in item},
            drained=frozenset(item["shard"]["S"] for item in ours if item["closed"]["BOOL"]),
            recreated=len(ours) < len(items),
        )

    def save(self, changed: Mapping[str, tuple[str | None, bool]]) -> None:
        """Saves (sequence, closed) of the shards that moved."""
        if changed:
            failpoints.reach("positions.before")
        for shard, (sequence, closed) in changed.items():
            item: dict[str, Any] = {
                "job": {"S": self._job},
                "shard": {"S": shard},
                "stream": {"S": self._stream},
                "closed": {"BOOL": closed},
            }
            if sequence is not None:
                item["sequence"] = {"S": sequence}
            self._dynamodb.put_item(TableName=self._table_name, Item=item)
            failpoints.reach("positions.saved")


def take_epoch(dynamodb: Any, table_name: str, job: str) -> int:
    """A new writer epoch of the job by one atomic increment: of two starters the later one has the higher."""
    answer = dynamodb.update_item(
        TableName=table_name,
        Key={"source": {"S": "*"}, "item": {"S": f"epoch:{job}"}},
        UpdateExpression="ADD epoch :one",
        ExpressionAttributeValues={":one": {"N": "1"}},
        ReturnValues="UPDATED_NEW",
    )
    failpoints.reach("epoch.taken")
    return int(answer["Attributes"]["epoch"]["N"])


def read_epoch(dynamodb: Any, table_name: str, job: str) -> int:
    """The epoch that is in force now: another job's, if it is above ours."""
    answer = dynamodb.get_item(
        TableName=table_name, Key={"source": {"S": "*"}, "item": {"S": f"epoch:{job}"}}, ConsistentRead=True
    )
    return int(answer.get("Item", {}).get("epoch", {}).get("N", "0"))
