"""A peer's process: Spark decodes one record a change and appends to an Iceberg table on local files.

Started by bench.contender, which measures it from outside. The session is local[1] with a heap of 1 GiB; the payloads
are read from a Parquet file of one binary column. JSON is parsed with the schema given, and of an envelope only what
the rows need is asked for.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.avro.functions import from_avro

from bench.change_rows import ENVELOPES, Envelope, peers_avro_schema, table_schema
from bench.contender import serve

PACKAGES: Final = "org.apache.spark:spark-avro_2.13:4.1.1,org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0"
_FLAT: Final = (
    "_op STRING, _lsn BIGINT, _idx INT, _committed_at TIMESTAMP, "
    "id BIGINT, customer_id BIGINT, product_id INT, quantity INT, price DECIMAL(12,2), weight DOUBLE, status STRING, "
    "currency STRING, country STRING, email STRING, note STRING, gift BOOLEAN, ordered_at TIMESTAMP, "
    "shipped_at TIMESTAMP"
)
_IN_ENVELOPE: Final = {
    "bigint": "BIGINT",
    "integer": "INT",
    "double precision": "DOUBLE",
    "boolean": "BOOLEAN",
}


def main(form: str, folder: Path, warehouse: Path) -> None:
    spark = _session(warehouse)
    spark.sql(f"CREATE NAMESPACE IF NOT EXISTS lake.`{form}`")
    rows = {"avro": _from_avro, "flat": _from_flat_json}.get(form) or partial(_from_debezium, ENVELOPES[form])
    table = f"lake.`{form}`.orders"
    loaded = 0

    def run(size: str) -> int:
        nonlocal loaded
        path = folder / size / f"{form}.parquet"
        writer = rows(spark.read.parquet(str(path))).writeTo(table)
        if loaded:
            writer.append()
        else:
            writer.tableProperty("format-version", "2").create()
        count = int(pq.read_metadata(path).num_rows)
        loaded += count
        return count

    def command(word: str) -> int:
        return run(word) if word != "check" else _checked(spark, table, loaded)

    serve(command)


def _checked(spark: SparkSession, table: str, loaded: int) -> int:
    """What cannot be parsed becomes null: a peer that is quick because it read nothing would be no peer."""
    sql = f"SELECT count(*), count(id), count(_lsn), count(price), count(ordered_at), count(_committed_at) FROM {table}"
    whole, ids, lsns, prices, times, commits = spark.sql(sql).collect()[0]
    if {whole, ids, lsns, commits} != {loaded} or prices != times or not 0.9 * loaded < prices < loaded:
        raise RuntimeError(f"{table} holds {whole} rows, {ids} ids, {prices} prices, {times} times; {loaded} were read")
    return int(whole)


def _session(warehouse: Path) -> SparkSession:
    settings = {
        "spark.master": "local[1]",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
        "spark.jars.packages": PACKAGES,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
        "spark.sql.catalog.lake.warehouse": str(warehouse),
        "spark.sql.warehouse.dir": str(warehouse / "spark"),
    }
    builder = SparkSession.builder.appName("headrace-bench-peer")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _from_avro(payloads: DataFrame) -> DataFrame:
    schema = json.dumps(peers_avro_schema(table_schema()))
    return payloads.select(from_avro(f.col("value"), schema).alias("change")).select("change.*")


def _from_flat_json(payloads: DataFrame) -> DataFrame:
    text = f.col("value").cast("string")
    return payloads.select(f.from_json(text, _FLAT).alias("change")).select("change.*")


def _from_debezium(envelope: Envelope, payloads: DataFrame) -> DataFrame:
    columns = table_schema().columns
    times = "TIMESTAMP" if envelope.zoned else "BIGINT"
    kinds = {**_IN_ENVELOPE, "timestamp with time zone": times}
    image = ", ".join(f"{column.name}: {kinds.get(column.source_type, 'STRING')}" for column in columns)
    schema = f"op: STRING, source: STRUCT<lsn: BIGINT, ts_us: BIGINT>, before: STRUCT<{image}>, after: STRUCT<{image}>"
    whole = f"STRUCT<payload: STRUCT<{schema}>>" if envelope.schema else f"STRUCT<{schema}>"
    parsed = f.from_json(f.col("value").cast("string"), whole)
    change = payloads.select(parsed.alias("change")).select("change.payload.*" if envelope.schema else "change.*")
    row = change.select("op", "source", f.coalesce("after", "before").alias("row"))
    return row.select(
        f.col("op").alias("_op"),
        f.col("source.lsn").alias("_lsn"),
        f.timestamp_micros("source.ts_us").alias("_committed_at"),
        *(_debezium_column(column.name, column.source_type, envelope) for column in columns),
    )


def _debezium_column(name: str, source_type: str, envelope: Envelope) -> Column:
    value = f.col(f"row.{name}")
    if source_type == "timestamp with time zone" and not envelope.zoned:
        value = f.timestamp_micros(value)
    elif source_type == "numeric(12,2)":
        value = value.cast("decimal(12,2)")
    return value.alias(name)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
