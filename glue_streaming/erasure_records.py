"""Erasures on record: items `erasure:<table>:<id>` of the DynamoDB table `sources`, and the secret of their hashes.

The secret is an item too, made once a source: whoever reads the table could try keys against it, whoever sees a record
alone (in a log, a report, a backup of it) cannot.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from glue_streaming.erasures import Erasure, Erasures
from schemas.position import Line

PREFIX: Final = "erasure:"
SECRET: Final = "erasure-secret"


@dataclass(frozen=True)
class Record:
    """One request. done_at: when the lake was found to hold nothing of it; report: what was rewritten, by tier.

    intended: what a commit that sets the table's `erased_at` to the text in front rewrites; a run that dies behind it
    leaves it to the next one to count that.
    """

    item: str
    table: str
    erasure: Erasure
    requested_at: str
    by: str
    done_at: str | None = None
    report: Mapping[str, int] | None = None
    intended: tuple[str, Mapping[str, int]] | None = None


class Records:
    """One source's."""

    def __init__(self, dynamodb: Any, table_name: str, source: str) -> None:
        self._dynamodb, self._table_name, self.source = dynamodb, table_name, source

    def all(self) -> list[Record]:
        """Every record; they stay for good, since an old backup of the stream may be read again."""
        return _records(self._items())

    def by_table(self) -> dict[str, Erasures]:
        """What is to be erased of each table that has a record."""
        items = self._items()
        found: dict[str, tuple[Erasure, ...]] = {}
        for record in _records(items):
            found[record.table] = (*found.get(record.table, ()), record.erasure)
        return {table: Erasures(_secret(items), records) for table, records in found.items()}

    def secret(self) -> bytes:
        """The source's secret, made where there is none. Never the same in two sources."""
        item = {"source": {"S": self.source}, "item": {"S": SECRET}, "value": {"B": secrets.token_bytes(32)}}
        with suppress(self._dynamodb.exceptions.ConditionalCheckFailedException):
            self._dynamodb.put_item(
                TableName=self._table_name,
                Item=item,
                ConditionExpression="attribute_not_exists(#item)",
                ExpressionAttributeNames={"#item": "item"},
            )
        return _secret(self._items())

    def add(self, record: Record) -> None:
        """Idempotent: the same request is the same item, and keeps what was done of it."""
        erasure = record.erasure
        values = {
            "table": record.table,
            "columns": ",".join(erasure.columns),
            "digest": erasure.digest,
            "old_digest": erasure.old_digest,
            "through": f"{erasure.through.era}/{erasure.through.lsn}",
            "requested_at": record.requested_at,
            "by": record.by,
        }
        names = {f"#{n}": name for n, name in enumerate(values)}
        self._dynamodb.update_item(
            TableName=self._table_name,
            Key={"source": {"S": self.source}, "item": {"S": record.item}},
            UpdateExpression="SET " + ", ".join(f"#{n} = :{n}" for n in range(len(values))) + " REMOVE done_at",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={f":{n}": {"S": value} for n, value in enumerate(values.values())},
        )

    def intend(self, record: Record, erased_at: str, report: Mapping[str, int]) -> None:
        """Keeps what a commit is about to rewrite; `count` behind it adds that to the report."""
        self._update(record, "SET intended = :it", {":it": {"S": json.dumps([erased_at, dict(report)])}})

    def count(self, record: Record, report: Mapping[str, int]) -> None:
        """Adds what was done to what was done before, and forgets what was intended."""
        added = ", ".join(f"report_{name} :{name}" for name in report)
        values = {f":{name}": {"N": str(count)} for name, count in report.items()}
        self._update(record, (f"ADD {added} " if report else "") + "REMOVE intended", values)

    def count_object(self, record: Record, what: str, key: str) -> None:
        """Counts an object that is about to be rewritten or deleted; the same one again is the same one."""
        value = {"BS": [hashlib.sha256(key.encode()).digest()[:8]]}
        self._update(record, f"ADD report_{what} :object", {":object": value})

    def close(self, record: Record, done_at: datetime) -> None:
        """Nothing is left of it in the lake."""
        self._update(record, "SET done_at = :at", {":at": {"S": done_at.isoformat(timespec="seconds")}})

    def _update(self, record: Record, expression: str, values: Mapping[str, Any]) -> None:
        self._dynamodb.update_item(
            TableName=self._table_name,
            Key={"source": {"S": self.source}, "item": {"S": record.item}},
            UpdateExpression=expression,
            **({"ExpressionAttributeValues": values} if values else {}),
        )

    def _items(self) -> list[Any]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table_name,
            ConsistentRead=True,
            KeyConditionExpression="#source = :source AND begins_with(#item, :prefix)",
            ExpressionAttributeNames={"#source": "source", "#item": "item"},
            ExpressionAttributeValues={":source": {"S": self.source}, ":prefix": {"S": "erasure"}},
        )
        return [item for page in pages for item in page["Items"]]


def item_name(table: str, digest: str) -> str:
    return f"{PREFIX}{table}:{digest[:16]}"


def _secret(items: Sequence[Mapping[str, Any]]) -> bytes:
    return next(bytes(item["value"]["B"]) for item in items if item["item"]["S"] == SECRET)


def _records(items: Sequence[Mapping[str, Any]]) -> list[Record]:
    return [_record(item) for item in items if item["item"]["S"].startswith(PREFIX)]


def _record(item: Mapping[str, Any]) -> Record:
    text = {name: value["S"] for name, value in item.items() if "S" in value}
    era, lsn = text["through"].split("/")
    erasure = Erasure(tuple(text["columns"].split(",")), text["digest"], text["old_digest"], Line(int(era), int(lsn)))
    found = {name.removeprefix("report_"): value for name, value in item.items() if name.startswith("report_")}
    counts = {name: int(value["N"]) if "N" in value else len(value["BS"]) for name, value in found.items()}
    at, report = json.loads(text["intended"]) if "intended" in text else (None, {})
    return Record(
        *(text["item"], text["table"], erasure, text["requested_at"], text["by"], text.get("done_at"), counts),
        intended=None if at is None else (at, report),
    )
