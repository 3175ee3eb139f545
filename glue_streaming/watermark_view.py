"""The watermark in the catalog: one view, rewritten in place after the commits of a batch."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from glue_streaming.watermark import Published, ring_with
from schemas.position import Line

VIEW: Final = "watermark"
RING: Final = "headrace.ring"
WATERMARK: Final = "headrace.watermark"
LINES: Final = "headrace.lines"
STATUS: Final = "headrace.status"
EXCLUDED: Final = "headrace.excluded"
_COLUMNS: Final = (
    ("era", "integer", "int"),
    ("lsn", "bigint", "bigint"),
    ("committed_at", "timestamp(6)", "timestamp"),
)


@dataclass(frozen=True)
class Entry:
    """What the catalog holds of a source's watermark. line None: nothing was published yet, or the cut is closed.

    ring: oldest first. lines: L of every table, in the cut or not. version: the catalog's, None where there is no
    entry yet.
    """

    line: Line | None = None
    ring: tuple[Published, ...] = ()
    lines: Mapping[str, Line] = field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    closed: bool = False
    version: str | None = None


def read(glue: Any, source: str) -> Entry:
    """The entry as the catalog has it now."""
    try:
        table = glue.get_table(DatabaseName=database(source), Name=VIEW)["Table"]
    except glue.exceptions.EntityNotFoundException:
        return Entry()
    parameters = table["Parameters"]
    ring = tuple(Published(Line(era, lsn), at) for era, lsn, at in json.loads(parameters.get(RING, "[]")))
    lines = {table: Line(*line) for table, line in json.loads(parameters.get(LINES, "{}")).items()}
    status = json.loads(parameters.get(STATUS, "{}"))
    line = parameters.get(WATERMARK)
    return Entry(
        line=Line(*(int(part) for part in line.split(","))) if line else None,
        ring=ring,
        lines=lines,
        excluded=frozenset(json.loads(parameters.get(EXCLUDED, "[]"))),
        closed=bool(status.get("closed")),
        version=table.get("VersionId", "0"),
    )


def publish(
    glue: Any,
    source: str,
    entry: Entry,
    *,
    line: Line,
    committed_at: datetime,
    lines: Mapping[str, Line],
    frozen_by: Mapping[str, str],
    now: float,
    horizon_seconds: float,
) -> bool:
    """Rewrites the entry by the version that was read, never backwards. False: it was left as it was.

    now: epoch seconds. frozen_by: table to reason, where a hole or a pause holds the watermark back.
    """
    if entry.line is not None and line < entry.line:
        return False
    parameters = {
        "presto_view": "true",
        "comment": "Presto View",
        RING: json.dumps([[*item.line, item.at] for item in ring_with(entry.ring, line, now, horizon_seconds)]),
        WATERMARK: f"{line.era},{line.lsn}",
        LINES: json.dumps({table: list(item) for table, item in lines.items()}),
        STATUS: json.dumps({"frozen_by": dict(frozen_by), "closed": entry.closed}),
        EXCLUDED: json.dumps(sorted(entry.excluded)),
    }
    table_input = _table_input(database(source), _sql(line, committed_at), parameters)
    try:
        if entry.version is None:
            glue.create_table(DatabaseName=database(source), TableInput=table_input)
        else:
            glue.update_table(
                DatabaseName=database(source), TableInput=table_input, SkipArchive=True, VersionId=entry.version
            )
    except (glue.exceptions.ConcurrentModificationException, glue.exceptions.AlreadyExistsException):
        return False
    return True


def database(source: str) -> str:
    return f"{source}_cut"


def _sql(line: Line, committed_at: datetime) -> str:
    stamp = committed_at.strftime("%Y-%m-%d %H:%M:%S.%f")
    values = f"CAST({line.era} AS integer), CAST({line.lsn} AS bigint), CAST(TIMESTAMP '{stamp}' AS timestamp(6))"
    return f"SELECT * FROM (VALUES ({values})) AS t (era, lsn, committed_at)"


def _table_input(schema: str, sql: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    view = {
        "originalSql": sql,
        "catalog": "awsdatacatalog",
        "schema": schema,
        "columns": [{"name": name, "type": trino} for name, trino, _ in _COLUMNS],
        "runAsInvoker": True,
    }
    encoded = base64.b64encode(json.dumps(view).encode()).decode()
    return {
        "Name": VIEW,
        "TableType": "VIRTUAL_VIEW",
        "Parameters": dict(parameters),
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": [{"Name": name, "Type": hive} for name, _, hive in _COLUMNS],
            "SerdeInfo": {},
        },
        "ViewOriginalText": f"/* Presto View: {encoded} */",
        "ViewExpandedText": "/* Presto View */",
    }
