"""Iceberg's own ways in Spark as a contender: MERGE INTO (copy-on-write, merge-on-read) and rewrite_data_files.

    python -m bench.fold_peers FOLDER BASE CHANGES      (globs of the same Parquet files that ours has)

Words: `reset`, `cow`, `mor`, `binpack`, `ours FACTS`, `query FORM WHICH`, `bytes FORM WHICH`, `facts`. local[1]; every
table is ordered by id.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil
import sqlglot
from pyspark.sql import SparkSession

from bench.contender import serve
from bench.fold_corpus import schema_and_shape
from bench.fold_ours import ANSWER, WHERE
from glue_streaming import view_current

RUNTIME: Final = "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0"
COLUMNS: Final = [column.name for column in schema_and_shape()[1].columns]
_NEWEST: Final = "row_number() OVER (PARTITION BY id ORDER BY _era DESC, _lsn DESC, _idx DESC)"


class Peers:
    """Three tables with the same rows: `cow`, `mor` and `small` (many files); each goes back to its first snapshot."""

    def __init__(self, folder: Path, base: str, changes: str) -> None:
        self._folder = folder
        self.spark = spark = _session(folder)
        spark.read.parquet(*base.split(",")).createOrReplaceTempView("base_files")
        spark.read.parquet(*changes.split(",")).createOrReplaceTempView("change_files")
        columns = ", ".join(COLUMNS)
        for name, mode in (("cow", "copy-on-write"), ("mor", "merge-on-read")):
            properties = ", ".join(f"'write.{verb}.mode'='{mode}'" for verb in ("merge", "update", "delete"))
            spark.sql(
                f"CREATE TABLE lake.b.{name} USING iceberg TBLPROPERTIES ({properties}, 'format-version'='2', "
                f"'write.parquet.compression-codec'='zstd', 'write.target-file-size-bytes'='134217728') "
                f"AS SELECT {columns} FROM base_files ORDER BY id"
            )
            spark.sql(f"ALTER TABLE lake.b.{name} WRITE ORDERED BY id")
        spark.sql(
            f"CREATE TABLE lake.b.small USING iceberg TBLPROPERTIES ('format-version'='2', "
            f"'write.parquet.compression-codec'='zstd') AS SELECT {columns} FROM base_files WHERE FALSE"
        )
        self._first: dict[str, int] = {}

    def scatter(self, words: list[str]) -> int:
        """Fills `small`: the rows in so many files, each a range of keys, as ours has them."""
        files = int(words[0])
        self.spark.conf.set("spark.sql.adaptive.enabled", "false")
        frame = self.spark.sql("SELECT " + ", ".join(COLUMNS) + " FROM base_files").repartitionByRange(files, "id")
        frame.sortWithinPartitions("id").writeTo("lake.b.small").option("distribution-mode", "none").append()
        self.spark.conf.set("spark.sql.adaptive.enabled", "true")
        self.remember("small")
        return files

    def remember(self, name: str) -> None:
        """The table's newest snapshot is what `reset` brings back; only to an ancestor can a table go back."""
        rows = self.spark.sql(f"SELECT snapshot_id FROM lake.b.{name}.snapshots ORDER BY committed_at DESC LIMIT 1")
        self._first[name] = rows.collect()[0][0]

    def reset(self, _: list[str]) -> int:
        for name, snapshot in self._first.items():
            self.spark.sql(f"CALL lake.system.rollback_to_snapshot('b.{name}', {snapshot})")
        return 0

    def merge(self, name: str) -> int:
        """As a change feed is merged: of each key the newest change, deletes as deletes."""
        self.spark.sql(
            f"MERGE INTO lake.b.{name} AS t USING (SELECT * FROM (SELECT *, {_NEWEST} AS nth FROM change_files) "
            "WHERE nth = 1) AS s ON t.id = s.id WHEN MATCHED AND s._op = 'd' THEN DELETE "
            f"WHEN MATCHED THEN UPDATE SET {', '.join(f't.{c} = s.{c}' for c in COLUMNS)} "
            f"WHEN NOT MATCHED AND s._op <> 'd' THEN INSERT ({', '.join(COLUMNS)}) "
            f"VALUES ({', '.join(f's.{c}' for c in COLUMNS)})"
        )
        return 0

    def binpack(self, _: list[str]) -> int:
        options = "map('min-input-files', '2', 'rewrite-all', 'true')"
        self.spark.sql(f"CALL lake.system.rewrite_data_files(table => 'b.small', options => {options})").collect()
        return 0

    def query(self, words: list[str]) -> int:
        form, which = words
        rows = {
            "mor": "SELECT * FROM lake.b.mor",
            "cow": "SELECT * FROM lake.b.cow",
            "plain": "SELECT * FROM lake.b.ours WHERE _tier = 'base'",
            "view": _view(),
        }[form]
        found = self.spark.sql(ANSWER.format(rows=rows, which=WHERE[which])).collect()
        return int(found[0][0])

    def read(self, words: list[str]) -> int:
        """Bytes that the JVM reads for a query: data, metadata, its own shuffles. Hadoop's counters miss the data."""
        java = psutil.Process(int(self.spark._jvm.java.lang.ProcessHandle.current().pid()))  # type: ignore[union-attr]
        before = java.io_counters().read_chars
        self.query(words)
        return int(java.io_counters().read_chars - before)

    def ours(self, words: list[str]) -> int:
        """Our table's present files as an Iceberg table of the same catalog, partitioned and bounded as ours is."""
        schema, shape = schema_and_shape()
        columns = ", ".join(
            f"`{c.name}` {c.hive.replace('timestamp', 'timestamp_ntz')}"
            f"{' NOT NULL' if schema.find_field(c.name).required else ''}"
            for c in shape.every
        )
        self.spark.sql("DROP TABLE IF EXISTS lake.b.ours")
        self.spark.sql(
            f"CREATE TABLE lake.b.ours ({columns}) USING iceberg PARTITIONED BY (_tier) "
            "TBLPROPERTIES ('format-version'='2', 'write.metadata.metrics.default'='full')"
        )
        iceberg = self.spark._jvm.org.apache.iceberg  # type: ignore[union-attr]
        table = iceberg.spark.Spark3Util.loadIcebergTable(self.spark._jsparkSession, "lake.b.ours")
        append, bounds = table.newAppend(), iceberg.MetricsConfig.forTable(table)
        files = json.loads(Path(words[0]).read_text())["files"]
        for tier, path in files:
            file = table.io().newInputFile(f"file://{path}")
            found = iceberg.DataFiles.builder(table.spec()).withInputFile(file).withFormat("parquet")
            found = found.withPartitionPath(f"_tier={tier}")
            append.appendFile(found.withMetrics(iceberg.parquet.ParquetUtil.fileMetrics(file, bounds)).build())
        append.commit()
        self.spark.sql("REFRESH TABLE lake.b.ours")
        return len(files)

    def facts(self, _: list[str]) -> int:
        found: dict[str, Any] = {}
        for name in ("cow", "mor", "small"):
            rows = self.spark.sql(f"SELECT summary FROM lake.b.{name}.snapshots ORDER BY committed_at DESC LIMIT 1")
            summary = dict(rows.collect()[0][0])
            found[name] = {key: int(summary.get(key, 0)) for key in ("added-files-size", "removed-files-size")}
            files = self.spark.sql(f"SELECT sum(file_size_in_bytes), count(*) FROM lake.b.{name}.files").collect()[0]
            found[name] |= {"bytes": files[0], "files": files[1]}
        (self._folder / "peers.json").write_text(json.dumps(found))
        return 0


def _view() -> str:
    """Our view's text in Spark's words."""
    shape = schema_and_shape()[1]
    text = sqlglot.transpile(view_current.current(shape), read="athena", write="spark")[0]
    text = text.replace("AS TIMESTAMP)", "AS TIMESTAMP_NTZ)")  # Trino's has no zone either
    return text.replace(f"`{shape.source}_lake`.`{shape.table}`", "lake.b.ours")


def _session(folder: Path) -> SparkSession:
    settings = {
        "spark.master": "local[1]",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": "3g",
        "spark.sql.shuffle.partitions": "4",
        "spark.jars.packages": RUNTIME,
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
        "spark.sql.catalog.lake.warehouse": f"file://{folder}/warehouse",
        "spark.sql.warehouse.dir": f"file://{folder}/spark",
        "spark.local.dir": f"{folder}/local",
    }
    builder = SparkSession.builder.appName("headrace-bench-fold")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def main(folder: Path, base: str, changes: str) -> None:
    peers = Peers(folder, base, changes)
    for name in ("cow", "mor"):
        peers.remember(name)
    verbs: dict[str, Callable[[list[str]], int]] = {
        "reset": peers.reset,
        "cow": lambda _: peers.merge("cow"),
        "mor": lambda _: peers.merge("mor"),
        "binpack": peers.binpack,
        "scatter": peers.scatter,
        "query": peers.query,
        "bytes": peers.read,
        "ours": peers.ours,
        "facts": peers.facts,
    }

    def run(words: str) -> int:
        verb, *rest = words.split()
        return verbs[verb](rest)

    serve(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
