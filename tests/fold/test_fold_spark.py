"""Large folds: cut by key ranges, each part a task of a real Spark, one commit."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from glue_streaming import fold_job
from glue_streaming.fold import packing
from glue_streaming.fold.lake_files import written_file
from glue_streaming.fold.spark_parts import SparkParts
from schemas.change_record import Column
from schemas.position import Line
from tests.fold.local_lake import IO, MANY_PARTS, LocalLake, lake_row, schema_of
from tests.fold.test_fold_packing import history, local

START = datetime(2026, 1, 1)
ID, TENANT, CODE, N = (
    Column("id", "long", "id", "bigint"),
    Column("tenant", "int", "tenant", "integer"),
    Column("code", "string", "code", "text"),
    Column("n", "long", "n", "bigint"),
)
KEYS: dict[str, tuple[tuple[Column, ...], Any]] = {
    "whole number": ((ID,), lambda n: {"id": n}),
    "composite": ((TENANT, ID), lambda n: {"tenant": n % 3, "id": n // 3}),
    "text": ((CODE,), lambda n: {"code": f"k-{n * 7919 % 1000:03d}-é"}),
}


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkParts]:
    with pytest.MonkeyPatch.context() as patch, SparkParts() as parts:
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_SUBMIT_ARGS", "--master local[2] --driver-memory 512m pyspark-shell")
        yield parts


@pytest.mark.parametrize("name", KEYS)
def test_a_table_is_folded_by_key_ranges_in_spark(name: str, spark: SparkParts, tmp_path: Path) -> None:
    """Each key range is a task; together they leave exactly the newest row of every key, sorted and apart."""
    columns, key_of = KEYS[name]
    schema, shape = schema_of((*columns, N), tuple(column.name for column in columns))
    lake = LocalLake(schema, shape, tmp_path, replace(MANY_PARTS, target_file_bytes=800), spread=spark)
    rng, model, lsn = random.Random(7), dict[int, int](), 0
    parts = []
    for turn in range(3):
        rows = []
        for _ in range(400):
            lsn, number = lsn + 1, rng.randrange(300)
            op = "d" if number in model and rng.random() < 0.2 else "u" if number in model else "c"
            model = {k: v for k, v in model.items() if k != number} | ({number: lsn} if op != "d" else {})
            values = key_of(number) | ({"n": lsn} if op != "d" else {})
            rows.append(lake_row(1, lsn, 0, op, values, START + timedelta(seconds=lsn)))
        lake.append("log", rows)
        parts.append(len(lake.fold(Line(1, lsn), major=turn < 2).parts))
    assert max(parts) >= 4
    ranges = sorted((min(keys), max(keys)) for keys in _keys_of_files(lake, "base"))
    assert all(left[1] < right[0] for left, right in pairwise(ranges))
    state = {_key(row, lake): row["n"] for row in lake.rows("base")}
    for row in lake.rows("delta"):
        state |= {_key(row, lake): row["n"]}
    live = {_key(key_of(number), lake): n for number, n in model.items()}
    assert {key: n for key, n in state.items() if n is not None} == live


def test_spark_reads_files_whose_row_groups_were_copied(spark: SparkParts, tmp_path: Path) -> None:
    """Whole, split between tasks, and by bounds that leave row groups out; in both of its readers."""
    schema, _ = schema_of((ID, CODE), ("id",))
    files = [history(tmp_path, schema, 20_000 * n, 20_000, "code") for n in range(6)]
    (written,) = packing.write([files], schema, f"file://{tmp_path}", IO, ["id"])
    path = local(written_file(written, schema))
    assert pq.read_metadata(path).num_row_groups == 6
    session = SparkSession.builder.getOrCreate()
    for reader in ("true", "false"):
        session.conf.set("spark.sql.parquet.enableVectorizedReader", reader)
        session.conf.set("spark.sql.files.maxPartitionBytes", str(Path(path).stat().st_size // 4))
        rows = session.read.parquet(path)
        assert rows.rdd.getNumPartitions() >= 4
        assert rows.selectExpr("count(*)", "sum(id)", "count(distinct code)").first() == (
            120_000, 120_000 * 119_999 // 2, 120_000
        )  # fmt: skip
        assert [row.id for row in rows.where("id between 39998 and 40001").collect()] == [39998, 39999, 40000, 40001]


def test_the_job_folds_a_large_table_in_spark_and_a_small_one_without(
    make_table: Any, complete_snapshot: Any, spark: SparkParts, capsys: pytest.CaptureFixture[str]
) -> None:
    """`fold_spark_bytes` decides; the job's log says into how many parts the work was cut."""
    lake = make_table()
    for first in (0, 100, 200, 300):
        rows = [lake.row("r", 9, first + n, "staged", id=first + n, name="a") for n in range(100)]
        lake.append(rows)
    lake.append([], {1: complete_snapshot(8, (10, 400))})
    lake.publish(20, 100.0)
    dynamodb = lake.aws.client("dynamodb")
    for name, value in (("fold_spark_bytes", "1"), ("fold_part_bytes", "1")):
        item = {"job": lake.source, "name": name, "value": value}
        dynamodb.put_item(TableName="headrace-settings", Item={key: {"S": text} for key, text in item.items()})
    words = ["--source", lake.source, "--fold_horizon_seconds", "5", "--job", lake.source]
    assert fold_job.main(words) is None
    (told,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"folded"' in line]
    assert told["parts"] == 4 and len(lake.rows("base")) == 400
    assert sorted(row["id"] for row in lake.rows("base")) == list(range(400))


def _key(row: dict[str, Any], lake: LocalLake) -> tuple[Any, ...]:
    return tuple(row[name] for name in lake.shape.key)


def _keys_of_files(lake: LocalLake, tier: str) -> list[list[tuple[Any, ...]]]:
    found = []
    for path in lake.paths(tier):
        keys = [_key(row, lake) for row in pq.read_table(path).to_pylist()]
        assert keys == sorted(keys)
        found.append(keys)
    return found
