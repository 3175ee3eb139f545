"""The fold job: what Glue runs. Folds the tables it is given, or all that are due, then writes their views.

It starts no Spark session. DuckDB merges within the driver, spilling to its disk, which for the sizes of one group
costs seconds; a session costs more than that before its first row. The workflow's Map is what runs groups side by side.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from glue_streaming import views
from glue_streaming.aws import Aws
from glue_streaming.errors import BadSettings
from glue_streaming.fold.plan import KINDS, FoldSettings, cut_view, settings_from, tables_of
from glue_streaming.fold.run import Folded, fold_table
from glue_streaming.lake_table import identifier
from glue_streaming.plan_lambda import lake_parameters, read_cut, read_settings
from glue_streaming.settings import pairs
from glue_streaming.state import fold_state


def main(argv: Sequence[str]) -> int:
    """Exit status: 0 all done, 1 at least one table was not folded (each is named in the log), 2 bad arguments."""
    arguments = pairs(argv)
    aws = Aws()
    try:
        kind, sources, settings = _checked(aws, arguments)
    except BadSettings as error:
        print(f"headrace fold: {error}", file=sys.stderr)
        return 2
    names = [name for name in arguments.get("tables", "").split(",") if name]
    failed: dict[str, str] = {}
    for source in sources or sorted({name.split(".")[0] for name in names}):
        tables = tables_of(names, source) if names else sorted(lake_parameters(aws.client("glue"), source))
        for table in tables:
            try:
                _fold(aws, source, table, kind, settings)
            except Exception as error:
                failed[f"{source}.{table}"] = f"{type(error).__name__}: {error}"
                _log("fold_failed", table=f"{source}.{table}", error=failed[f"{source}.{table}"])
                traceback.print_exc()
    if failed:
        print("not folded: " + "; ".join(f"{table}: {error}" for table, error in failed.items()), file=sys.stderr)
    return 1 if failed else 0


def _fold(aws: Aws, source: str, table: str, kind: str, settings: FoldSettings) -> None:
    """One table. The cut is read anew for each, so that the fold line is as far as it may be."""
    started = datetime.now(UTC)
    cut = read_cut(aws.client("glue"), source)
    folded = fold_table(aws.catalog, source, table, cut, kind, settings, started)
    properties = aws.catalog.load_table(identifier(source, table)).properties
    written: list[str] = []
    if fold_state(properties).activated_through > 0:
        in_cut = cut_view(table, properties, read_cut(aws.client("glue"), source), settings)
        written = views.update(aws.client("glue"), aws.catalog, source, table, in_cut=in_cut)
    seconds = (datetime.now(UTC) - started).total_seconds()
    if folded is None:
        _log("not_due", table=f"{source}.{table}", views=written, seconds=seconds)
    else:
        _log("folded", seconds=seconds, views=written, **_facts(folded))


def _facts(folded: Folded) -> dict[str, Any]:
    return {
        "table": folded.table,
        "kind": folded.work.kind,
        "reason": folded.work.reason,
        "line": str(folded.work.line),
        "snapshot": folded.work.snapshot,
        "taken_rows": folded.taken_rows,
        "removed_files": folded.removed_files,
        "rows": folded.rows,
        "bytes": folded.bytes,
    }


def _checked(aws: Aws, arguments: Mapping[str, str]) -> tuple[str, list[str], FoldSettings]:
    """The arguments that must be right; all problems in one BadSettings."""
    problems: list[str] = []
    kind = arguments.get("kind", "auto")
    if kind not in KINDS:
        problems.append(f"--kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    sources = [name for name in arguments.get("source", "").split(",") if name]
    if not sources and not arguments.get("tables"):
        problems.append("neither --source nor --tables is given")
    settings = FoldSettings()
    try:
        horizon = arguments.get("fold_horizon_seconds")
        table = f"{arguments.get('dynamodb_prefix', 'headrace')}-settings"
        found = read_settings(aws.client("dynamodb"), table, arguments.get("job", "headrace-fold"))
        settings = settings_from(found, float(horizon) if horizon else None)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise BadSettings("; ".join(problems))
    return kind, sources, settings


def _log(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, "at": datetime.now(UTC).isoformat(), **fields}), flush=True)


if __name__ == "__main__" and (status := main(sys.argv[1:])):
    sys.exit(status)
