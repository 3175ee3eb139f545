"""The watermark in the catalog: one view, rewritten in place after the commits of a batch."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from glue_streaming.fold.cut import CLOSURE, EXCLUDED, LINES, REPAIR_LINES, RING, cut_of
from glue_streaming.fold.line import Closure
from glue_streaming.watermark import Published
from schemas.position import Line

VIEW: Final = "watermark"
WATERMARK: Final = "headrace.watermark"
COMMITTED_AT: Final = "headrace.committed_at"
STATUS: Final = "headrace.status"
LEFT: Final = "headrace.left"
BY_OPERATOR: Final = "headrace.left.by_operator"
_COLUMNS: Final = (
    ("era", "integer", "int"),
    ("lsn", "bigint", "bigint"),
    ("committed_at", "timestamp(6)", "timestamp"),
)


@dataclass(frozen=True)
class Entry:
    """What the catalog holds of a source's watermark. line None: nothing was published yet.

    committed_at: the source's time at the line. ring: oldest first. lines: L of every table, in the cut or not.
    repair_lines: L for the activation of a table's complete snapshot, where there is one. left: the tables that are out
    of the cut, and since when (epoch seconds). by_operator: those that somebody took out, with who and why; they come
    back only when they are asked to. frozen_by: table to reason, where a hole or a pause holds the watermark back.
    missing: table to reason, of those that left. closure: set while the cut is closed, and every query over it raises.
    version: the catalog's, None where there is no entry yet.
    """

    line: Line | None = None
    committed_at: datetime | None = None
    ring: tuple[Published, ...] = ()
    lines: Mapping[str, Line] = field(default_factory=dict)
    repair_lines: Mapping[str, Line] = field(default_factory=dict)
    left: Mapping[str, float] = field(default_factory=dict)
    by_operator: Mapping[str, str] = field(default_factory=dict)
    frozen_by: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    closure: Closure | None = None
    version: str | None = None


def read(glue: Any, source: str) -> Entry:
    """The entry as the catalog has it now."""
    try:
        table = glue.get_table(DatabaseName=database(source), Name=VIEW)["Table"]
    except glue.exceptions.EntityNotFoundException:
        return Entry()
    parameters = table["Parameters"]
    line = parameters.get(WATERMARK)
    committed_at = parameters.get(COMMITTED_AT)
    cut = cut_of(parameters)
    status = json.loads(parameters.get(STATUS, "{}"))
    return Entry(
        line=Line(*(int(part) for part in line.split(","))) if line else None,
        committed_at=datetime.fromisoformat(committed_at) if committed_at else None,
        ring=cut.ring,
        lines=cut.lines,
        repair_lines=cut.repair_lines,
        left=json.loads(parameters.get(LEFT, "{}")),
        by_operator=json.loads(parameters.get(BY_OPERATOR, "{}")),
        frozen_by=status.get("frozen_by", {}),
        missing=status.get("missing", {}),
        closure=cut.closure,
        version=table.get("VersionId", "0"),
    )


def write(glue: Any, source: str, entry: Entry) -> bool:
    """Rewrites the entry by the version that was read. False: another writer was first, and it was left as it was."""
    if entry.line is None or entry.committed_at is None:
        raise ValueError(f"the watermark of {source} has no line to publish")
    closure = entry.closure
    parameters = {
        "presto_view": "true",
        "comment": "Presto View",
        RING: json.dumps([[*item.line, item.at] for item in entry.ring]),
        WATERMARK: f"{entry.line.era},{entry.line.lsn}",
        COMMITTED_AT: entry.committed_at.isoformat(),
        LINES: json.dumps({table: list(item) for table, item in entry.lines.items()}),
        REPAIR_LINES: json.dumps({table: list(item) for table, item in entry.repair_lines.items()}),
        CLOSURE: json.dumps(None if closure is None else {"at": closure.at, "waits_for": dict(closure.waits_for)}),
        STATUS: json.dumps(
            {"frozen_by": dict(entry.frozen_by), "missing": dict(entry.missing), "closed": closure is not None}
        ),
        LEFT: json.dumps(dict(entry.left)),
        BY_OPERATOR: json.dumps(dict(entry.by_operator)),
        EXCLUDED: json.dumps(sorted(entry.left)),
    }
    table_input = _table_input(database(source), _sql(source, entry.line, entry.committed_at, closure), parameters)
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


def _sql(source: str, line: Line, committed_at: datetime, closure: Closure | None) -> str:
    """The view's text. While the cut is closed its era is a sentence cast to a number: a query raises, and says why."""
    stamp = committed_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    era = str(line.era)
    if closure is not None:
        tables = " and ".join(sorted(closure.waits_for)) or "a table"
        era = f"'{source}_cut is closed while {tables} is repaired from a snapshot; try again in a few minutes'"
    values = f"CAST({era} AS integer), CAST({line.lsn} AS bigint), CAST(TIMESTAMP '{stamp}' AS timestamp(6))"
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
