"""What the summary is made of, measured at the source, in the stream and in the lake; never asked of the sender.

The source's side is read with a logical slot of our own and a reader of a few lines that shares no code with the
agent: it names the transaction of every change, so that loaded and committed are compared as sets, not as sums.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from ops import shop
from ops.athena import Athena
from schemas.block import Kind, decode
from schemas.change_record import lake_table_name

SLOT: Final = "demo_measure"
PUBLICATION: Final = "demo_measure"
_HEAD_BYTES: Final = 64
_MESSAGES: Final = (
    "SELECT CASE WHEN get_byte(data, 0) = 82 THEN data ELSE substring(data FOR %s) END "
    "FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1', 'publication_names', %s)"
)

Changes = Counter[tuple[str, int]]
"""How many changes a transaction made to a table: by table and commit position."""


def open_slot(dsn: str) -> None:
    """From now on the source keeps every change of the demo's tables for our own count."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        listed = ", ".join(f"public.{table}" for table in shop.TABLES)
        connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE {listed}".encode())
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [SLOT])


def committed(dsn: str) -> Changes:
    """Every change that was committed since `open_slot`."""
    with psycopg.connect(dsn, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(_MESSAGES, [_HEAD_BYTES, SLOT, PUBLICATION])
        return count(bytes(data) for (data,) in cursor)


def count(messages: Iterable[bytes]) -> Changes:
    """Changes by table and transaction. An update that changes the key is a delete and an insert."""
    found: Changes = Counter()
    names: dict[int, str] = {}
    lsn = 0
    for data in messages:
        kind = chr(data[0])
        if kind == "B":
            (lsn,) = struct.unpack_from(">Q", data, 1)
        elif kind == "R":
            (oid,) = struct.unpack_from(">I", data, 1)
            schema, table = data[5:].split(b"\0", 2)[:2]
            names[oid] = lake_table_name(schema.decode(), table.decode())
        elif kind in "IUD":
            (oid,) = struct.unpack_from(">I", data, 1)
            found[names[oid], lsn] += 2 if kind == "U" and data[5:6] == b"K" else 1
        elif kind == "T":
            (relations,) = struct.unpack_from(">I", data, 1)
            for oid in struct.unpack_from(f">{relations}I", data, 6):
                found[names[oid], lsn] += 1
    return found


@dataclass(frozen=True)
class Loaded:
    """What the lake holds of the changes: every position once, and how many rows are there beyond that."""

    changes: Changes
    duplicated: int


def loaded(athena: Athena, source: str, table_names: Iterable[str], since: int) -> Loaded:
    """The changes of the lake's history and log from a commit position on, snapshot rows left out."""
    changes: Changes = Counter()
    duplicated = 0
    for table in table_names:
        answer = athena.run(
            "SELECT _lsn, count(*), count(DISTINCT CAST(_era AS varchar) || '/' || CAST(_idx AS varchar)) "
            f"FROM \"{source}_lake\".\"{table}\" WHERE _tier IN ('history', 'log') AND _op <> 'r' "
            f"AND _lsn >= {since} GROUP BY _lsn"
        )
        for lsn, rows, distinct in answer.rows:
            changes[table, int(lsn or 0)] += int(distinct or 0)
            duplicated += int(rows or 0) - int(distinct or 0)
    return Loaded(changes, duplicated)


def lost(expected: Changes, found: Changes) -> int:
    """Changes that were committed and are not in the lake, transaction by transaction."""
    return sum((expected - found).values())


def unexpected(expected: Changes, found: Changes) -> int:
    """Changes in the lake that were never committed."""
    return sum((found - expected).values())


@dataclass(frozen=True)
class Wire:
    """What lies in the stream: bytes of the records and their keys, and the distinct changes in them."""

    data_bytes: int
    changes: int
    all_bytes: int
    records: int

    @property
    def bytes_per_change(self) -> float | None:
        return self.data_bytes / self.changes if self.changes else None


def wire(kinesis: Any, stream: str) -> Wire:
    """Every record of the stream, read from its start. Resent blocks cost bytes and bring no changes."""
    data_bytes = all_bytes = records = 0
    blocks: dict[tuple[str, str, Any], int] = {}
    for record in _records(kinesis, stream):
        size = len(record["Data"]) + len(record["PartitionKey"].encode())
        all_bytes += size
        records += 1
        block = decode(record["Data"])
        if block.kind is Kind.DATA:
            data_bytes += size
            blocks[block.table, block.lane, block.last] = block.count
    return Wire(data_bytes, sum(blocks.values()), all_bytes, records)


def _records(kinesis: Any, stream: str) -> Iterator[Mapping[str, Any]]:
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            page = kinesis.get_records(ShardIterator=iterator)
            yield from page["Records"]
            if not page["Records"] and page["MillisBehindLatest"] == 0:
                break
            iterator = page.get("NextShardIterator")
