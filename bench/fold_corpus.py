"""The fold benchmark's table: orders of 14 columns, made by DuckDB, the same rows for the same numbers."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
from pyiceberg.schema import Schema

from bench.change_rows import table_schema
from glue_streaming.fold.shape import Shape, shape_of
from glue_streaming.lake_table import iceberg_schema

TABLE = table_schema()
_ROW = """
    {n} AS id, (h % 250000)::BIGINT AS customer_id, ((h >> 3) % 20000)::INTEGER AS product_id,
    (1 + (h >> 5) % 9)::INTEGER AS quantity, (((h >> 7) % 250000) / 100.0)::DECIMAL(12, 2) AS price,
    ((h >> 9) % 40000) / 1000.0 AS weight, ['new', 'paid', 'packed', 'shipped'][1 + (h >> 11) % 4] AS status,
    ['EUR', 'USD', 'GBP'][1 + (h >> 13) % 3] AS currency, ['DE', 'FR', 'IT', 'ES'][1 + (h >> 15) % 4] AS country,
    'customer' || (h % 250000) || '@example.com' AS email,
    'order ' || (h >> 20) % 100000 || ' was asked about ' || (h >> 30) % 1000 || ' times, and answered' AS note,
    h % 10 = 0 AS gift, TIMESTAMP '2026-01-01' + to_microseconds(({n} * 1000003)::BIGINT) AS ordered_at,
    CASE WHEN h % 2 = 0 THEN TIMESTAMP '2026-01-02' + to_microseconds(({n} * 1000003)::BIGINT) END AS shipped_at"""


def schema_and_shape() -> tuple[Schema, Shape]:
    schema = iceberg_schema(TABLE)
    return schema, shape_of(TABLE.source, TABLE.table, schema, {"headrace.key": '["id"]'})


def base(rows: int, first: int = 0, tier: str = "base") -> Iterator[pa.RecordBatch]:
    """Current rows first, first + 1, ... by key, as a major fold leaves them; positions have the same order."""
    return _batches(
        f"SELECT n AS n, (hash(n) >> 1)::BIGINT AS h, n + 1 AS lsn, 0 AS idx "
        f"FROM range({first}, {first + rows}) AS r (n)",
        "'c'",
        tier,
    )


def changes(rows: int, base_rows: int, lsn: int, seed: int = 1, new_part: float = 0.1) -> Iterator[pa.RecordBatch]:
    """Changes behind a position, in the order of theirs: of any row of the base, or (a tenth) of a new one."""
    picked = f"(hash(i + {seed} * 1000003) % {max(1, base_rows)})::BIGINT"
    new = f"hash(i * 7 + {seed}) % 1000 < {int(new_part * 1000)}"
    deleted = f"CASE WHEN {new} THEN 'c' WHEN hash(i * 3 + {seed}) % 100 < 5 THEN 'd' ELSE 'u' END"
    return _batches(
        f"SELECT CASE WHEN {new} THEN {base_rows} + i + {seed} * 10000000 ELSE {picked} END AS n, "
        f"(hash(i * 11 + {seed}) >> 1)::BIGINT AS h, {lsn} + i // 50 AS lsn, (i % 50)::INTEGER AS idx, "
        f"{deleted} AS op FROM range({rows}) AS r (i)",
        "op",
        "log",
    )


def _batches(numbers: str, op: str, tier: str) -> Iterator[pa.RecordBatch]:
    metadata = f"""{op} AS _op, 1 AS _era, lsn AS _lsn, idx AS _idx, TIMESTAMP '2026-01-03' AS _committed_at,
        CAST(NULL AS VARCHAR[]) AS _unchanged, CAST(NULL AS VARCHAR) AS _old_key,
        CAST(NULL AS MAP(VARCHAR, VARCHAR)) AS _raw"""
    sql = f"SELECT {metadata}, {_ROW.format(n='n')}, 1 AS _batch, '{tier}' AS _tier FROM ({numbers})"
    connection = duckdb.connect(config={"threads": 1})
    yield from connection.sql(sql).to_arrow_reader(65_536)


def conformed(batch: pa.RecordBatch, schema: pa.Schema) -> list[pa.RecordBatch]:
    """The batch in a lake table's Arrow types."""
    batches: list[pa.RecordBatch] = pa.Table.from_batches([batch]).select(schema.names).cast(schema).to_batches()
    return batches
