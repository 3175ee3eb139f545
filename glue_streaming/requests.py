"""What operators ask of the streaming job, left in DynamoDB: replay stored bytes, accept a hole for good, or let a
table out of the cut and in again.

Items `lake-request:<id>` of the source, beside the `request:<id>` that its agent answers. An answered one keeps its
answer for a day, so that who asked can read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from glue_streaming.holes import Hole
from glue_streaming.state import StreamState
from glue_streaming.task import LaneKey
from schemas.control import parse_snapshot_lane
from schemas.position import Position

PREFIX: Final = "lake-request:"
AGENT_PREFIX: Final = "request:"
OPEN: Final = "open"
KINDS: Final = ("replay", "accept")
CUT_KINDS: Final = ("exclude", "include")
ACCEPTED: Final = "the hole is closed; its changes stay missing for good"
_KEEP_SECONDS: Final = 86_400.0


@dataclass(frozen=True)
class Request:
    """One request, about the hole (after, last] of a lane as whoever asks has seen it."""

    item: str
    kind: str
    key: LaneKey
    after: Position | None
    last: Position
    by: str
    because: str = ""

    @property
    def source(self) -> str:
        return self.key.source

    def means(self, hole: Hole) -> bool:
        return (hole.lane, hole.after, hole.last) == (self.key.lane, self.after, self.last)


@dataclass(frozen=True)
class CutRequest:
    """One request about a whole table: exclude (its cut view raises, the others go on) or include."""

    item: str
    kind: str
    source: str
    table: str
    by: str
    because: str = ""


class Requests:
    """The items of the table `sources`."""

    def __init__(self, dynamodb: Any, table_name: str) -> None:
        self._dynamodb = dynamodb
        self._table_name = table_name

    def open(self, source: str, now: float) -> list[Request | CutRequest]:
        """The open requests, in the order of their ids. One that cannot be read is refused, with the reason."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table_name,
            ConsistentRead=True,
            KeyConditionExpression="#source = :source AND begins_with(#item, :prefix)",
            ExpressionAttributeNames={"#source": "source", "#item": "item"},
            ExpressionAttributeValues={":source": {"S": source}, ":prefix": {"S": PREFIX}},
        )
        found: list[Request | CutRequest] = []
        for item in [item for page in pages for item in page["Items"]]:
            if item.get("status", {"S": OPEN})["S"] != OPEN:
                self._forget(item, now)
                continue
            try:
                found.append(_request(source, item))
            except (KeyError, ValueError, TypeError) as error:
                self._mark(source, item["item"]["S"], "refused", f"the request cannot be read: {error!r}", now)
        return found

    def answer(self, request: Request | CutRequest, status: str, detail: str, now: float) -> None:
        """status: done or refused."""
        self._mark(request.source, request.item, status, detail, now)

    def ask_for_snapshot(self, source: str, table: str, snapshot: int, why: str) -> None:
        """Asks the agent once to take another snapshot in the place of one that is void."""
        item = {
            "source": source,
            "item": f"{AGENT_PREFIX}instead-of-{snapshot}",
            "kind": "resnapshot",
            "table": table,
            "by": "the streaming job",
            "because": why,
            "status": OPEN,
        }
        try:
            self._dynamodb.put_item(
                TableName=self._table_name,
                Item={name: {"S": value} for name, value in item.items()},
                ConditionExpression="attribute_not_exists(#item)",
                ExpressionAttributeNames={"#item": "item"},
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return

    def _mark(self, source: str, item: str, status: str, detail: str, now: float) -> None:
        self._dynamodb.update_item(
            TableName=self._table_name,
            Key={"source": {"S": source}, "item": {"S": item}},
            UpdateExpression="SET #status = :status, detail = :detail, answered_at = :now",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":status": {"S": status}, ":detail": {"S": detail}, ":now": {"N": str(now)}},
        )

    def _forget(self, item: dict[str, Any], now: float) -> None:
        if now - float(item.get("answered_at", {"N": str(now)})["N"]) > _KEEP_SECONDS:
            self._dynamodb.delete_item(TableName=self._table_name, Key={"source": item["source"], "item": item["item"]})


def find(holes: Iterable[Hole], request: Request) -> Hole | None:
    """The hole as the request names it; None where it has changed or gone since."""
    return next((hole for hole in holes if request.means(hole)), None)


def was_accepted(state: StreamState, request: Request) -> bool:
    """Whether the table holds already what is asked for: the driver that did it was lost before it answered."""
    return request.kind == "accept" and any(request.means(item.hole) for item in state.accepted)


def unacceptable(state: StreamState, hole: Hole) -> str | None:
    """Why a hole cannot be accepted; None where it can."""
    if parse_snapshot_lane(hole.lane) is not None:
        return "the hole lies in a snapshot, which it voids, and goes with the next one: ask for a re-snapshot"
    if state.sealed is not None and hole.ends_below(state.sealed):
        return "a complete snapshot repairs the hole, and closes it when the fold takes it in: wait for that"
    return None


def _request(source: str, item: dict[str, Any]) -> Request | CutRequest:
    kind, because = item["kind"]["S"], item.get("because", {"S": ""})["S"]
    if kind in CUT_KINDS:
        return CutRequest(item["item"]["S"], kind, source, item["table"]["S"], item["by"]["S"], because)
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected {', '.join(KINDS + CUT_KINDS)}")
    after = json.loads(item["after"]["S"]) if "after" in item else None
    return Request(
        item=item["item"]["S"],
        kind=kind,
        key=LaneKey(source, item["table"]["S"], item["lane"]["S"]),
        after=None if after is None else Position.of(after),
        last=Position.of(json.loads(item["last"]["S"])),
        by=item["by"]["S"],
        because=because,
    )
