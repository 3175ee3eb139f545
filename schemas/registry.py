"""The schema registry: every version of every table's writer schema, in DynamoDB."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from schemas.change_record import RESERVED_TABLES, TableSchema
from schemas.compatibility import transitive_problems
from schemas.errors import IncompatibleSchema, RegistryConflict, UnknownFingerprint


@dataclass(frozen=True)
class Registered:
    version: int
    fingerprint: bytes
    schema: TableSchema


class Registry:
    """Reads are cached for ever: what is registered never changes.

    Each version is written with a second item under its fingerprint in one transaction, so that a block's schema is
    found by one consistent read (a global index would answer late).
    """

    def __init__(self, dynamodb: Any, table_name: str) -> None:
        self._dynamodb = dynamodb
        self._table_name = table_name
        self._by_fingerprint: dict[bytes, Registered] = {}

    def register(self, schema: TableSchema) -> Registered:
        """The version under which the schema is registered, now or already. Idempotent.

        Raises IncompatibleSchema, or RegistryConflict when another writer took the version first (call again).
        """
        fingerprint = schema.fingerprint()
        known = self._find(fingerprint)
        if known is not None:
            return known
        earlier = self.versions(schema.source, schema.table)
        problems = transitive_problems(schema, [item.schema for item in earlier])
        if schema.table in RESERVED_TABLES:
            problems.append(f"{schema.table} is what Headrace calls a table of its own: give this one another name")
        if problems:
            raise IncompatibleSchema(schema.subject, problems)
        registered = Registered(earlier[-1].version + 1 if earlier else 1, fingerprint, schema)
        self._put(registered)
        self._by_fingerprint[fingerprint] = registered
        return registered

    def by_fingerprint(self, fingerprint: bytes) -> Registered:
        """The schema under a block's fingerprint. Raises UnknownFingerprint."""
        found = self._find(fingerprint)
        if found is None:
            raise UnknownFingerprint(f"no schema is registered under {fingerprint.hex()}")
        return found

    def latest(self, source: str, table: str) -> Registered | None:
        earlier = self.versions(source, table)
        return earlier[-1] if earlier else None

    def versions(self, source: str, table: str) -> list[Registered]:
        """All versions of a table's schema, oldest first."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table_name,
            ConsistentRead=True,
            KeyConditionExpression="subject = :subject",
            ExpressionAttributeValues={":subject": {"S": f"{source}.{table}"}},
        )
        return [_registered(item) for page in pages for item in page["Items"]]

    def _find(self, fingerprint: bytes) -> Registered | None:
        if fingerprint not in self._by_fingerprint:
            item = self._dynamodb.get_item(
                TableName=self._table_name,
                Key={"subject": {"S": _fingerprint_subject(fingerprint)}, "version": {"N": "0"}},
                ConsistentRead=True,
            ).get("Item")
            if item is None:
                return None
            self._by_fingerprint[fingerprint] = _registered(item)
        return self._by_fingerprint[fingerprint]

    def _put(self, registered: Registered) -> None:
        keys = (
            (registered.schema.subject, registered.version),
            (_fingerprint_subject(registered.fingerprint), 0),
        )
        puts = [
            {
                "Put": {
                    "TableName": self._table_name,
                    "Item": _item(registered, subject, version),
                    "ConditionExpression": "attribute_not_exists(subject)",
                }
            }
            for subject, version in keys
        ]
        try:
            self._dynamodb.transact_write_items(TransactItems=puts)
        except self._dynamodb.exceptions.TransactionCanceledException as error:
            raise RegistryConflict(
                f"version {registered.version} of {registered.schema.subject} was registered by another writer"
            ) from error


def _fingerprint_subject(fingerprint: bytes) -> str:
    return f"fp:{fingerprint.hex()}"


def _item(registered: Registered, subject: str, version: int) -> dict[str, Any]:
    return {
        "subject": {"S": subject},
        "version": {"N": str(version)},
        "schema_version": {"N": str(registered.version)},
        "fingerprint": {"S": registered.fingerprint.hex()},
        "schema": {"S": json.dumps(registered.schema.to_avro())},
        "created_at": {"S": datetime.now(UTC).isoformat(timespec="milliseconds")},
    }


def _registered(item: dict[str, Any]) -> Registered:
    return Registered(
        version=int(item["schema_version"]["N"]),
        fingerprint=bytes.fromhex(item["fingerprint"]["S"]),
        schema=TableSchema.from_avro(json.loads(item["schema"]["S"])),
    )
