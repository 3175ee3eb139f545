"""What the lake's tables say of themselves, read from the parameters in the Glue catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from glue_streaming.lake_table import origins_of
from glue_streaming.state import TABLE, FoldState, StreamState, fold_state, stream_state
from schemas.position import Line


@dataclass(frozen=True)
class LakeTable:
    """A lake table: its columns in order with their Glue types, and both writers' state.

    origins: the source's name of a column, where it is not the same.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    stream: StreamState
    fold: FoldState
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Watermark:
    """The source's watermark as the catalog publishes it. committed_at: the source's time at the line."""

    line: Line | None
    lines: Mapping[str, Line]
    published_at: datetime | None
    status: Mapping[str, Any]
    committed_at: datetime | None = None


def lake_tables(glue: Any, source: str) -> list[LakeTable]:
    """Every lake table that Headrace made for a source, by name."""
    return sorted((_table(entry) for entry in _entries(glue, f"{source}_lake")), key=lambda table: table.name)


def watermark(glue: Any, source: str) -> Watermark:
    """The watermark's entry; empty where none was published yet."""
    try:
        entry = glue.get_table(DatabaseName=f"{source}_cut", Name="watermark")["Table"]
    except glue.exceptions.EntityNotFoundException:
        return Watermark(None, {}, None, {})
    parameters = entry.get("Parameters", {})
    ring = json.loads(parameters.get("headrace.ring", "[]"))
    line = parameters.get("headrace.watermark")
    lines = json.loads(parameters.get("headrace.lines", "{}"))
    return Watermark(
        line=Line(*(int(part) for part in line.split(","))) if line else None,
        lines={table: Line(*found) for table, found in lines.items() if found},
        published_at=datetime.fromtimestamp(ring[-1][2], UTC) if ring else None,
        status=json.loads(parameters.get("headrace.status", "{}")),
        committed_at=_time(parameters.get("headrace.committed_at")),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _entries(glue: Any, database: str) -> Iterator[dict[str, Any]]:
    for page in glue.get_paginator("get_tables").paginate(DatabaseName=database):
        for entry in page["TableList"]:
            if TABLE in entry.get("Parameters", {}):
                yield entry


def _table(entry: dict[str, Any]) -> LakeTable:
    parameters = entry["Parameters"]
    columns = entry.get("StorageDescriptor", {}).get("Columns", [])
    return LakeTable(
        name=entry["Name"],
        key=tuple(json.loads(parameters.get("headrace.key", "[]"))),
        columns=tuple((column["Name"], column["Type"]) for column in columns),
        stream=stream_state(parameters),
        fold=fold_state(parameters),
        origins=origins_of(parameters),
    )
