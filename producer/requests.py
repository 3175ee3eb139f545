"""Requests of the operator and of the lake, left in DynamoDB: send blocks again, or snapshot a table again."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from producer.blocks import Lane
from producer.spool import Spool
from schemas.position import Position

log = logging.getLogger(__name__)

PREFIX = "request:"
_OPEN = "open"


class Resnapshots(Protocol):
    def request(self, table: str) -> None: ...

    def tables(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Answer:
    """What became of a request: `done`, `unavailable` (the spool holds it no more) or `refused`."""

    status: str
    detail: str


class Requests:
    """Items `request:<id>` of the source. An answered one is marked, so that who asked can read the answer."""

    def __init__(self, dynamodb: Any, table_name: str, source: str, spool: Spool, snapshots: Resnapshots) -> None:
        self._dynamodb = dynamodb
        self._table_name = table_name
        self._source = source
        self._spool = spool
        self._snapshots = snapshots

    def answer_all(self) -> int:
        """Carry out every open request; how many there were. One that cannot be read is refused, with the reason."""
        found = self._dynamodb.query(
            TableName=self._table_name,
            ConsistentRead=True,
            KeyConditionExpression="#s = :source AND begins_with(#i, :prefix)",
            ExpressionAttributeNames={"#s": "source", "#i": "item"},
            ExpressionAttributeValues={":source": {"S": self._source}, ":prefix": {"S": PREFIX}},
        )["Items"]
        waiting = [item for item in found if item.get("status", {"S": _OPEN})["S"] == _OPEN]
        for item in waiting:
            self._mark(item, self._answer(item))
        return len(waiting)

    def _answer(self, item: dict[str, Any]) -> Answer:
        try:
            kind, table = item["kind"]["S"], item["table"]["S"]
            if kind == "resend":
                return self._resend(Lane(table, item["lane"]["S"]), _position(item.get("after")), item["last"])
            if kind == "resnapshot":
                return self._resnapshot(table)
        except (KeyError, ValueError, TypeError) as error:
            return Answer("refused", f"the request cannot be read: {error!r}")
        return Answer("refused", f"kind {kind!r} is unknown; expected resend or resnapshot")

    def _resend(self, lane: Lane, after: Position | None, last: dict[str, Any]) -> Answer:
        end = _position(last)
        if end is None:
            return Answer("refused", "`last` is missing; expected [era, lsn, idx]")
        resent = self._spool.resend(lane, after, end)
        damaged = f"; {resent.damaged} are damaged: ask for a resnapshot" if resent.damaged else ""
        if resent.blocks == 0:
            why = damaged or "; ask for a resnapshot"
            return Answer("unavailable", f"the spool holds no whole block of {lane} up to {end}{why}")
        return Answer("done", f"{resent.blocks} blocks are sent again{damaged}")

    def _resnapshot(self, table: str) -> Answer:
        if table not in self._snapshots.tables():
            return Answer("refused", f"table {table} is not captured")
        self._snapshots.request(table)
        return Answer("done", "a new snapshot is announced")

    def _mark(self, item: dict[str, Any], answer: Answer) -> None:
        log.info("request answered", extra={"item": item["item"]["S"], "status": answer.status, "why": answer.detail})
        self._dynamodb.update_item(
            TableName=self._table_name,
            Key={"source": item["source"], "item": item["item"]},
            UpdateExpression="SET #s = :status, detail = :detail",
            ExpressionAttributeNames={"#s": "status"},
            ExpressionAttributeValues={":status": {"S": answer.status}, ":detail": {"S": answer.detail}},
        )


def _position(attribute: dict[str, Any] | None) -> Position | None:
    """A position as DynamoDB holds it: JSON text, or a list of numbers."""
    if attribute is None or attribute.get("NULL"):
        return None
    if "S" in attribute:
        values = json.loads(attribute["S"])
        return None if values is None else Position.of(values)
    return Position.of([int(number["N"]) for number in attribute["L"]])
