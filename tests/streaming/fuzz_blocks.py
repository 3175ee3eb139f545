"""Damages blocks at random and checks what a task makes of them. A process of its own, for a reader that hangs cannot
be stopped: it ends with the first one. Prints a JSON line a seed: `stuck`, and `wrong`, where the promise was broken.

    python fuzz_blocks.py FOLDER FIRST_SEED LAST_SEED
"""

import io
import json
import os
import random
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import PyArrowFileIO

from glue_streaming import decode, evolution
from glue_streaming.lake_table import iceberg_schema
from glue_streaming.load import load_shard
from glue_streaming.shards import Start
from glue_streaming.task import LaneKey, Outcome, TableTask, Task
from schemas import block as blocks
from schemas import control
from schemas.block import Block, Codec, Kind
from schemas.change_record import Column, TableSchema
from schemas.position import Position

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
ORDERS = TableSchema(
    "shop",
    "orders",
    (
        Column("id", "long", "id", "bigint"),
        Column("note", "string", "note", "text"),
        Column("price", DECIMAL, "price", "numeric(12,2)"),
        Column("tags", {"type": "array", "items": ["null", "string"]}, "tags", "text[]"),
    ),
    ("id",),
)
AVRO = ORDERS.to_avro()
PARSED = fastavro.parse_schema(AVRO)
FINGERPRINT = ORDERS.fingerprint()


@dataclass
class Stream:
    """A shard with these records, and a bucket that keeps what is put."""

    records: list[bytes]
    kept: dict[str, bytes] = field(default_factory=dict)

    def get_shard_iterator(self, **_: Any) -> dict[str, str]:
        return {"ShardIterator": "0"}

    def get_records(self, **_: Any) -> dict[str, Any]:
        key = control.partition_key("shop", "orders", "0")
        found = [
            {"SequenceNumber": str(number), "Data": data, "PartitionKey": key}
            for number, data in enumerate(self.records, 1)
        ]
        return {"Records": found, "MillisBehindLatest": 0, "NextShardIterator": "1"}

    def put_object(self, **request: Any) -> None:
        self.kept[request["Key"]] = request["Body"]


def change(number: int) -> dict[str, Any]:
    return {
        "_op": "u",
        "_era": 1,
        "_lsn": number // 4 + 1,
        "_idx": number % 4,
        "_committed_at": NOW,
        "_unchanged": None,
        "_old_key": None,
        "_raw": {"price": "NaN"} if number % 7 == 0 else None,
        "id": number,
        "note": f"note {number} " * (number % 5),
        "price": None,
        "tags": [None, "x", str(number)] if number % 3 else [],
    }


def datums_of(changes: Sequence[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    for item in changes:
        fastavro.schemaless_writer(out, PARSED, item)
    return out.getvalue()


def position(item: dict[str, Any]) -> Position:
    return Position(item["_era"], item["_lsn"], item["_idx"])


def chained(count: int, changes_each: int = 8, codec: Codec = Codec.ZSTANDARD) -> list[Block]:
    """The lane's first blocks."""
    found = []
    prev = None
    for first in range(0, count * changes_each, changes_each):
        changes = [change(number) for number in range(first, first + changes_each)]
        block = built(changes, prev, codec)
        found.append(block)
        prev = block.last
    return found


def built(changes: Sequence[dict[str, Any]], prev: Position | None, codec: Codec = Codec.ZSTANDARD) -> Block:
    return blocks.build(
        Kind.DATA,
        "shop",
        "orders",
        "0",
        schema=FINGERPRINT,
        prev=prev,
        first=position(changes[0]),
        last=position(changes[-1]),
        count=len(changes),
        created_at=NOW,
        datums=datums_of(changes),
        codec=codec,
    )


def sealed(block: Block, datums: bytes) -> Block:
    """The block with other datums whose checksum is right: only reading them can tell."""
    packed = blocks.compress(block.codec, datums)
    return replace(block, records=packed, checksum=blocks.checksum(datums))


def loaded(records: list[bytes], folder: Path, **more: Any) -> tuple[Outcome, list[dict[str, Any]], Stream]:
    """What a task makes of the records, and the rows in the files that it wrote."""
    schema = iceberg_schema(ORDERS)
    writer = evolution.writer(ORDERS, evolution.fit(schema, {}, ORDERS))
    table = TableTask(schema, f"file://{folder}", {FINGERPRINT: writer}, {}, 0)
    task = Task(
        batch=1,
        stream="s",
        shard="shard",
        start=Start(),
        max_bytes=2**24,
        max_seconds=5,
        lake_bucket="lake",
        sources=frozenset({"shop"}),
        tables={("shop", "orders"): table},
        **more,
    )
    stream = Stream(records)
    outcome = load_shard(task, stream, stream, PyArrowFileIO())
    rows = [row for _, file in outcome.files for row in pq.read_table(file.path.removeprefix("file://")).to_pylist()]
    return outcome, rows, stream


def as_sent(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What may be compared of rows."""
    return [(r["_era"], r["_lsn"], r["_idx"], r["_op"], r["id"], r["note"], r["price"], r["tags"]) for r in rows]


def missing(outcome: Outcome, found: set[tuple[Any, ...]], count: int) -> list[Position]:
    """The changes at or below the lane's mark that are neither in a file nor in a hole."""
    lane = outcome.lanes.get(LaneKey("shop", "orders", "0"))
    if lane is None or lane[0].mark is None:
        return []
    positions = [position(change(number)) for number in range(count)]
    return [
        at
        for at in positions
        if at <= lane[0].mark
        and tuple(at) not in found
        and not any((hole.after is None or hole.after < at) and at <= hole.last for hole in lane[0].holes)
    ]


def damaged(seed: int) -> tuple[list[bytes], bool]:
    """Four blocks of a lane, one of them damaged; and whether its own rows may differ (its checksum is right)."""
    dice = random.Random(seed)
    codec = dice.choice(list(Codec))
    sent = chained(4, codec=codec)
    records = [blocks.encode(block) for block in sent]
    victim = dice.randrange(4)
    data = bytearray(records[victim])
    kind = seed % 4
    if kind == 0:  # bits, anywhere in header, lengths, checksum or payload
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind == 1:  # bits of the header: names, positions, count
        data[dice.randrange(10, 70)] ^= 1 << dice.randrange(8)
    elif kind == 2:  # cut, or going on in something else
        data = data[: dice.randrange(len(data))] + dice.randbytes(dice.randint(0, 16))
    else:  # hostile lengths and wrong counts behind a right checksum
        datums = bytearray(blocks.datums(sent[victim]))
        at = dice.randrange(len(datums))
        datums[at : at + dice.randint(0, 12)] = dice.choice([dice.randbytes(8), b"\xff" * 9 + b"\x01", b""])
        data = bytearray(
            blocks.encode(replace(sealed(sent[victim], bytes(datums)), count=dice.choice([8, 8, 7, 9, 0])))
        )
    records[victim] = bytes(data)
    return records, kind == 3


def wrong(records: list[bytes], own_rows: bool, folder: Path) -> tuple[bool, str | None]:
    """Whether a reader hangs, and how the promise was broken: every row is one that was sent, at most once, and what is
    missing below the mark is in a hole."""
    outcome, rows, _ = loaded(records, folder)
    truth = {row[:3]: row for row in as_sent([change(number) for number in range(32)])}
    found = as_sent(rows)
    there = Counter(row[:3] for row in found)
    if max(there.values(), default=0) > 1:
        return outcome.stuck, "a position was loaded twice"
    strange = [row for row in found if row[:3] not in truth or (not own_rows and truth[row[:3]] != row)]
    if strange:
        return outcome.stuck, f"a row that was not sent: {strange[0]}"
    lost = missing(outcome, set(there), 32)
    return outcome.stuck, f"neither loaded nor in a hole: {lost}" if lost else None


def main(folder: Path, first: int, last: int) -> None:
    loaded([blocks.encode(block) for block in chained(1)], folder)  # the reader's first use takes longer
    decode._BASE_SECONDS = 2.0  # type: ignore[misc]
    for seed in range(first, last + 1):
        try:
            stuck, said = wrong(*damaged(seed), folder)
        except Exception:
            stuck, said = False, traceback.format_exc()
        print(json.dumps({"seed": seed, "stuck": stuck, "wrong": said}), flush=True)
        if stuck:
            os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
