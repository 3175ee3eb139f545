"""Files that nothing reaches, removed by Iceberg's own Spark procedure: what is said to Spark. Pure.

A file is an orphan where no snapshot and no metadata file that the table keeps names it: expired data, what killed
writers left behind, old metadata. The procedure judges by a file's age, so a writer has that long to commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

CATALOG: Final = "lake"
LEAST_DAYS: Final = 3.0
"""No writer takes so long from a file to its commit, and no query from its plan to its last file."""

LAPTOP_PACKAGES: Final = (
    "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0",
    "org.apache.iceberg:iceberg-aws-bundle:1.11.0",
)
"""What Glue brings by itself with `--datalake-formats iceberg`; elsewhere `spark.jars.packages` names them."""


def spark_settings(lake_bucket: str, region: str, endpoint: str | None) -> dict[str, str]:
    """A session whose catalog `lake` is Glue's, with S3FileIO. endpoint: the laptop's AWS, which is asked over HTTP."""
    catalog = {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".type": "glue",
        ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        ".warehouse": f"s3://{lake_bucket}/lake",
        ".client.region": region,
        ".cache-enabled": "false",
    }
    if endpoint:
        catalog |= {".s3.endpoint": endpoint, ".glue.endpoint": endpoint, ".s3.path-style-access": "true"}
    return {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        **{f"spark.sql.catalog.{CATALOG}{name}": value for name, value in catalog.items()},
    }


def removal(database: str, table: str, before: datetime) -> str:
    """The procedure's call. It lists by prefix, which S3 does in pages, and not folder by folder."""
    name = f"`{database}`.`{table}`"
    return (
        f"CALL {CATALOG}.system.remove_orphan_files(table => '{name}', "
        f"older_than => TIMESTAMP '{before:%Y-%m-%d %H:%M:%S}', prefix_listing => true)"
    )


def problems(arguments: Mapping[str, str]) -> list[str]:
    """What is wrong with the job's arguments."""
    found = [f"--{name} is missing" for name in ("source", "lake_bucket") if not arguments.get(name)]
    days = arguments.get("orphan_days", str(LEAST_DAYS))
    try:
        if float(days) < LEAST_DAYS:
            found.append(f"--orphan_days is {days}; younger than {LEAST_DAYS:g} days a file may still be committed")
    except ValueError:
        found.append(f"--orphan_days is {days!r}, not a number")
    return found
