"""The fold workflow's first step: reads freshness from the Glue catalog and says which tables are due, and why.

Everything it needs stands in table parameters, so it runs with nothing but boto3. Environment: SOURCES (comma list),
JOB (the name whose settings count), DYNAMODB_PREFIX, FOLD_HORIZON_SECONDS (optional).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import boto3

from glue_streaming.fold.cut import Cut, cut_of
from glue_streaming.fold.plan import KINDS, FoldSettings, Work, cut_view, groups, settings_from, work
from glue_streaming.state import fold_state


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """event: {"sources": [...], "kind": "auto"}, both optional. Returns what the workflow's Map goes through."""
    sources = event.get("sources") or [name for name in os.environ.get("SOURCES", "").split(",") if name]
    kind = event.get("kind") or "auto"
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    glue, horizon = boto3.client("glue"), os.environ.get("FOLD_HORIZON_SECONDS")
    table, job = f"{os.environ.get('DYNAMODB_PREFIX', 'headrace')}-settings", os.environ.get("JOB", "headrace-fold")
    found = read_settings(boto3.client("dynamodb"), table, job)
    settings = settings_from(found, float(horizon) if horizon else None)
    due: dict[str, Work] = {}
    for source in sources:
        tables, cut = lake_parameters(glue, source), read_cut(glue, source)
        views = {entry["Name"] for entry in _tables(glue, f"{source}_cut")}
        due |= due_tables(source, tables, cut, kind, settings)
        due |= due_views(source, tables, cut, views, settings, due)
    return answer(due, kind, settings)


def due_tables(
    source: str, tables: Mapping[str, Mapping[str, str]], cut: Cut, kind: str, settings: FoldSettings
) -> dict[str, Work]:
    """The work due, by `source.table`."""
    now = datetime.now(UTC)
    found = {table: work(table, parameters, cut, kind, settings, now) for table, parameters in tables.items()}
    return {f"{source}.{table}": item for table, item in found.items() if item is not None}


def due_views(
    source: str,
    tables: Mapping[str, Mapping[str, str]],
    cut: Cut,
    views: Set[str],
    settings: FoldSettings,
    due: Mapping[str, Work],
) -> dict[str, Work]:
    """The tables that are not to be folded but may have their cut view now, and have none."""
    return {
        f"{source}.{table}": Work("views", fold_state(parameters).line, "its cut view may appear", 0)
        for table, parameters in tables.items()
        if table not in views and f"{source}.{table}" not in due and cut_view(table, parameters, cut, settings)
    }


def answer(due: Mapping[str, Work], kind: str, settings: FoldSettings) -> dict[str, Any]:
    """The Lambda's answer: groups for the Map state, how many tables are due, and why each is."""
    return {
        "groups": [{"tables": ",".join(group), "kind": kind} for group in groups(due, settings)],
        "due": len(due),
        "reasons": {table: {**asdict(item), "line": list(item.line)} for table, item in due.items()},
    }


def lake_parameters(glue: Any, source: str) -> dict[str, dict[str, str]]:
    """The parameters of every lake table of a source: of the tables that Headrace made, not of its own records."""
    return {
        table["Name"]: table["Parameters"]
        for table in _tables(glue, f"{source}_lake")
        if "headrace.table" in table.get("Parameters", {})
    }


def read_cut(glue: Any, source: str) -> Cut:
    """The cut as the catalog holds it now; an empty one where nothing was published yet."""
    try:
        entry = glue.get_table(DatabaseName=f"{source}_cut", Name="watermark")["Table"]
    except glue.exceptions.EntityNotFoundException:
        return Cut()
    return cut_of(entry.get("Parameters", {}))


def _tables(glue: Any, database: str) -> Iterator[dict[str, Any]]:
    try:
        for page in glue.get_paginator("get_tables").paginate(DatabaseName=database):
            yield from page["TableList"]
    except glue.exceptions.EntityNotFoundException:
        return


def read_settings(dynamodb: Any, table: str, job: str) -> dict[str, str]:
    """The settings of a job, by name."""
    pages = dynamodb.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="#job = :job",
        ExpressionAttributeNames={"#job": "job"},
        ExpressionAttributeValues={":job": {"S": job}},
    )
    return {item["name"]["S"]: item["value"]["S"] for page in pages for item in page["Items"]}
