"""A burst through the streaming job: one transaction of many rows, and how much memory the job takes at most.

    python -m bench.burst --mib 2048

The stream holds the whole burst before the job starts, so that it reads as fast as it can. Memory is the sum of the
resident sets of the job's processes, JVM and Python: what they share is counted more than once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import fastavro
import psutil

from localaws.process import LocalAws, running
from schemas import block as blocks
from schemas.block import Kind
from schemas.change_record import Column, TableSchema
from schemas.control import lane_hash_key, partition_key
from schemas.position import Position
from schemas.registry import Registry

SOURCE: Final = "burst"
TEXT_CHARACTERS: Final = 2_048
ROWS_A_BLOCK: Final = 256
HEAP_MIB: Final = 512
TABLES: Final = (
    ("schemas", "subject", "version", "N"),
    ("tables", "table", None, "S"),
    ("settings", "job", "name", "S"),
    ("shards", "job", "shard", "S"),
    ("sources", "source", "item", "S"),
)


@dataclass(frozen=True)
class Measured:
    """Bytes as encoded and as they travelled, seconds of the job (its start included), MiB at the highest."""

    rows: int
    encoded_mib: float
    wire_mib: float
    seconds: float
    peak_mib: float
    peak_by_program: dict[str, float]
    batches: int


def measure(mib: int, shards: int, folder: Path) -> Measured:
    with running(folder / "aws") as aws:
        schema = _prepare(aws, shards)
        rows, encoded, wire = _send(aws, schema, mib, shards)
        environment = {
            **os.environ,
            **aws.environment(),
            "PYSPARK_SUBMIT_ARGS": f"--conf spark.driver.memory={HEAP_MIB}m pyspark-shell",
        }
        arguments = ["--source", SOURCE, "--stream_name", SOURCE, "--lake_bucket", SOURCE, "--mode", "drain"]
        started = time.monotonic()
        with (folder / "log").open("w") as log:
            command = [sys.executable, "-m", "glue_streaming.stream_job", *arguments]
            job = subprocess.Popen(command, env=environment, stdout=log)
            try:
                peak, by_program = _watch(job)
            finally:
                job.terminate()
        seconds = time.monotonic() - started
        told = [json.loads(line) for line in (folder / "log").read_text().splitlines() if line.startswith("{")]
        batches = [line for line in told if line["event"] == "batch"]
        loaded = sum(line["rows"] for line in batches)
        if job.returncode or loaded != rows:
            raise SystemExit(
                f"{loaded} of {rows} rows were loaded, and the job ended with {job.returncode}: {told[-1]}"
            )
        return Measured(rows, encoded / 2**20, wire / 2**20, seconds, peak, by_program, len(batches))


def _prepare(aws: LocalAws, shards: int) -> TableSchema:
    aws.client("s3").create_bucket(Bucket=SOURCE)
    kinesis = aws.client("kinesis")
    kinesis.create_stream(StreamName=SOURCE, ShardCount=shards)
    kinesis.get_waiter("stream_exists").wait(StreamName=SOURCE, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    dynamodb = aws.client("dynamodb")
    for table, partition, sort, kind in TABLES:
        keys = [(partition, "HASH", "S"), *([(sort, "RANGE", kind)] if sort else [])]
        dynamodb.create_table(
            TableName=f"headrace-{table}",
            KeySchema=[{"AttributeName": name, "KeyType": role} for name, role, _ in keys],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": scalar} for name, _, scalar in keys],
            BillingMode="PAY_PER_REQUEST",
        )
    columns = (Column("id", "long", "id", "bigint"), Column("body", "string", "body", "text"))
    schema = TableSchema(SOURCE, "bodies", columns, ("id",))
    return Registry(dynamodb, "headrace-schemas").register(schema).schema


def _send(aws: LocalAws, schema: TableSchema, mib: int, lanes: int) -> tuple[int, int, int]:
    """Puts the burst on the stream, a lane after the other in turns; rows, bytes encoded, bytes put."""
    kinesis = aws.client("kinesis")
    rows = encoded = wire = 0
    request: list[dict[str, Any]] = []
    for lane, block, size in _blocks(schema, mib * 2**20, lanes):
        data = blocks.encode(block)
        rows, encoded, wire = rows + block.count, encoded + size, wire + len(data)
        key = partition_key(SOURCE, schema.table, lane)
        hash_key = str(lane_hash_key(SOURCE, schema.table, lane))
        request.append({"Data": data, "PartitionKey": key, "ExplicitHashKey": hash_key})
        if len(request) == 8:
            kinesis.put_records(StreamName=SOURCE, Records=request)
            request = []
    if request:
        kinesis.put_records(StreamName=SOURCE, Records=request)
    return rows, encoded, wire


def _blocks(schema: TableSchema, total: int, lanes: int) -> Iterator[tuple[str, blocks.Block, int]]:
    """One transaction, chained lane by lane: its positions share one lsn."""
    parsed = fastavro.parse_schema(schema.to_avro())
    dice = random.Random(1)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    text = dice.randbytes(TEXT_CHARACTERS * 4).hex()
    last: dict[str, Position] = {}
    sent = number = 0
    while sent < total:
        lane = str((number // ROWS_A_BLOCK) % lanes)
        out = io.BytesIO()
        first = Position(1, 10, number)
        for _ in range(ROWS_A_BLOCK):
            at = dice.randrange(len(text) - TEXT_CHARACTERS)
            change = {
                "_op": "c",
                "_era": 1,
                "_lsn": 10,
                "_idx": number,
                "_committed_at": now,
                "_unchanged": None,
                "_old_key": None,
                "_raw": None,
                "id": number,
                "body": dice.randbytes(TEXT_CHARACTERS // 4).hex() + text[at : at + TEXT_CHARACTERS // 2],
            }
            fastavro.schemaless_writer(out, parsed, change)
            number += 1
        datums = out.getvalue()
        end = Position(1, 10, number - 1)
        block = blocks.build(
            Kind.DATA,
            SOURCE,
            schema.table,
            lane,
            schema=schema.fingerprint(),
            prev=last.get(lane),
            first=first,
            last=end,
            count=ROWS_A_BLOCK,
            created_at=now,
            datums=datums,
        )
        last[lane] = end
        sent += len(datums)
        yield lane, block, len(datums)


def _watch(job: subprocess.Popen[bytes]) -> tuple[float, dict[str, float]]:
    """The highest sum of resident sets, and what each program had of it, in MiB, until the job ends."""
    process = psutil.Process(job.pid)
    peak, at_peak = 0.0, {}
    while job.poll() is None:
        by_program: dict[str, float] = defaultdict(float)
        for one in (process, *_children(process)):
            try:
                by_program[one.name().split(".")[0].rstrip("0123456789")] += one.memory_info().rss / 2**20
            except psutil.Error:
                continue
        total = sum(by_program.values())
        if total > peak:
            peak, at_peak = total, dict(by_program)
        time.sleep(0.2)
    return peak, at_peak


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=2_048, help="MiB of changes, as encoded")
    parser.add_argument("--shards", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.mib, arguments.shards, Path(folder))
    print(json.dumps({name: round(v, 1) if isinstance(v, float) else v for name, v in vars(found).items()}))


if __name__ == "__main__":
    main()
