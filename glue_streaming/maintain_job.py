"""The daily maintenance: what Glue runs once a day.

Carries out erasures, expires snapshots, and lets Iceberg remove what nothing reaches. `--only erasures` does the first
alone, for `headrace erase`.

Each table for itself: one that fails leaves the others done, and is tried again the next day.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pyiceberg.exceptions import NoSuchNamespaceError
from pyspark.sql import SparkSession

from glue_streaming import erase as erasing
from glue_streaming.aws import Aws
from glue_streaming.erasure_records import Records
from glue_streaming.errors import BadSettings
from glue_streaming.fold import expiry, manifests, orphans, retention
from glue_streaming.fold.plan import FoldSettings, settings_from
from glue_streaming.fold.policy import TablePolicy, read_policies
from glue_streaming.lake_table import lake_database
from glue_streaming.plan_lambda import read_settings
from glue_streaming.settings import pairs
from glue_streaming.state import SOURCE, TABLE
from schemas.registry import Registry

Name = tuple[str, str]
"""A table of the catalog: (database, table)."""


def main(argv: Sequence[str], now: datetime | None = None) -> int:
    """Exit status: 0 all done, 1 at least one table was not (each is named in the log), 2 bad arguments."""
    arguments, aws, now = pairs(argv), Aws(), now or datetime.now(UTC)
    try:
        settings, policies = _checked(aws, arguments)
    except BadSettings as error:
        print(f"headrace maintenance: {error}", file=sys.stderr)
        return 2
    failed: dict[str, str] = {}
    for source in arguments["source"].split(","):
        _erase(aws, source, arguments, settings, failed)
    if arguments.get("only") != "erasures":
        _tidy(aws, arguments, settings, policies, failed, now)
    if failed:
        print("not maintained: " + "; ".join(f"{table}: {error}" for table, error in failed.items()), file=sys.stderr)
    return 1 if failed else 0


def _erase(aws: Aws, source: str, arguments: Mapping[str, str], settings: FoldSettings, failed: dict[str, str]) -> None:
    """The source's open erasures. A batch that knows nothing of one may still be on its way: it is let in first."""
    prefix = arguments.get("dynamodb_prefix", "headrace")
    records = Records(aws.client("dynamodb"), f"{prefix}-sources", source)
    registry = Registry(aws.client("dynamodb"), f"{prefix}-schemas")
    settle = float(arguments.get("settle_seconds", "30"))
    erasing.let_in(records, settle, time.time, time.sleep)
    _each(
        [(lake_database(source), table) for table in erasing.open_tables(records)],
        failed,
        "erased",
        lambda name: erasing.carry_out(aws, arguments["lake_bucket"], records, registry, name, settings.keep),
    )


def _tidy(
    aws: Aws,
    arguments: Mapping[str, str],
    settings: FoldSettings,
    policies: Mapping[str, TablePolicy],
    failed: dict[str, str],
    now: datetime,
) -> None:
    tables = [name for source in arguments["source"].split(",") for name in _tables(aws, source)]
    own = [name for name in tables if TABLE in aws.catalog.load_table(name).properties]
    _each(own, failed, "history", lambda name: _tidy_history(aws, name, settings, policies, now))
    _each(own, failed, "manifests", lambda name: _merge_manifests(aws, name, settings, policies, now))
    _each(tables, failed, "expired", lambda name: _expire(aws, name, settings, policies, now))
    spark = _session(aws, arguments["lake_bucket"])
    try:
        before = now - timedelta(days=float(arguments.get("orphan_days", orphans.LEAST_DAYS)))
        _each(tables, failed, "removed", lambda name: _remove(spark, name, before))
    finally:
        spark.stop()


def _each(tables: Sequence[Name], failed: dict[str, str], event: str, do: Callable[[Name], Mapping[str, Any]]) -> None:
    for name in tables:
        table = ".".join(name)
        try:
            _log(event, table=table, **do(name))
        except Exception as error:
            failed[table] = f"{type(error).__name__}: {error}"
            _log("maintenance_failed", table=table, error=failed[table])
            traceback.print_exc()


def _expire(
    aws: Aws, name: Name, settings: FoldSettings, policies: Mapping[str, TablePolicy], now: datetime
) -> dict[str, Any]:
    """Also where nothing was folded for days: tags age all the same."""
    table = aws.catalog.load_table(name)
    properties = table.properties
    if TABLE not in properties:
        return {"snapshots": expiry.expire_older(table, settings.keep, now)}
    return {"snapshots": expiry.expire(table, _own(settings, policies, properties).keep, now)}


def _merge_manifests(
    aws: Aws, name: Name, settings: FoldSettings, policies: Mapping[str, TablePolicy], now: datetime
) -> dict[str, Any]:
    own = _own(settings, policies, aws.catalog.load_table(name).properties)
    return {"fewer": manifests.merge(aws.catalog, name, own.keep, now)}


def _tidy_history(
    aws: Aws, name: Name, settings: FoldSettings, policies: Mapping[str, TablePolicy], now: datetime
) -> dict[str, Any]:
    own = _own(settings, policies, aws.catalog.load_table(name).properties)
    return vars(retention.tidy(aws.catalog, name, own, now))


def _own(settings: FoldSettings, policies: Mapping[str, TablePolicy], properties: Mapping[str, str]) -> FoldSettings:
    """The settings with the table's own policy over them."""
    return policies.get(f"{properties[SOURCE]}.{properties[TABLE]}", TablePolicy()).over(settings)


def _remove(spark: SparkSession, name: Name, before: datetime) -> dict[str, Any]:
    removed = [row[0] for row in spark.sql(orphans.removal(*name, before)).collect()]
    return {"files": len(removed), "first": sorted(removed)[:10]}


def _tables(aws: Aws, source: str) -> list[Name]:
    try:
        return [(str(name[0]), str(name[1])) for name in sorted(aws.catalog.list_tables(lake_database(source)))]
    except NoSuchNamespaceError:
        return []


def _session(aws: Aws, lake_bucket: str) -> SparkSession:
    builder = SparkSession.builder.appName("headrace-maintain")
    for name, value in orphans.spark_settings(lake_bucket, aws.region, aws.endpoint).items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _checked(aws: Aws, arguments: Mapping[str, str]) -> tuple[FoldSettings, dict[str, TablePolicy]]:
    """The fold's settings, which say what stays readable, and the tables' policies. All problems in one BadSettings."""
    problems = orphans.problems(arguments)
    prefix, settings, policies = arguments.get("dynamodb_prefix", "headrace"), FoldSettings(), {}
    try:
        job = arguments.get("fold_job", f"{prefix}-fold")
        settings = settings_from(read_settings(aws.client("dynamodb"), f"{prefix}-settings", job), None)
        policies = read_policies(aws.client("dynamodb"), f"{prefix}-tables")
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise BadSettings("; ".join(problems))
    return settings, policies


def _log(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, "at": datetime.now(UTC).isoformat(), **fields}), flush=True)


if __name__ == "__main__" and (status := main(sys.argv[1:])):
    sys.exit(status)
