"""The fold job: what Glue runs. Folds the tables it is given, or all that are due, then writes their views.

A small fold starts no Spark session: DuckDB merges within the driver, spilling to its disk, which costs seconds, and a
session costs more than that before its first row. A table from `fold_spark_bytes` on is folded by key ranges, a Spark
task each. The workflow's Map is what runs groups side by side.
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
from glue_streaming.erasure_records import Records
from glue_streaming.erasures import Erasures
from glue_streaming.errors import BadSettings, StaleWriter
from glue_streaming.fold.failure import last_words
from glue_streaming.fold.plan import KINDS, FoldSettings, amplification, cut_view, settings_from, tables_of
from glue_streaming.fold.policy import TablePolicy, read_policies
from glue_streaming.fold.run import Folded, RunParts, fold_table
from glue_streaming.fold.spark_parts import SparkParts
from glue_streaming.lake_table import identifier
from glue_streaming.plan_lambda import lake_parameters, read_cut, read_paused, read_settings
from glue_streaming.settings import pairs
from glue_streaming.state import KEY, FoldState, fold_state, stream_state


def main(argv: Sequence[str]) -> str | None:
    """None where all is done; else what the run ends with: bad arguments, or the tables that were not folded, and why.

    A table that another fold took meanwhile is done, and one that is paused is left alone; the log says so.
    """
    arguments = pairs(argv)
    aws = Aws()
    try:
        kind, sources, settings = _checked(aws, arguments)
        policies = _policies(aws, arguments)
    except BadSettings as error:
        return f"headrace fold: {error}"
    names = [name for name in arguments.get("tables", "").split(",") if name]
    paused = read_paused(aws.client("dynamodb"), f"{arguments.get('dynamodb_prefix', 'headrace')}-tables")
    records = f"{arguments.get('dynamodb_prefix', 'headrace')}-sources"
    failed: dict[str, str] = {}
    with SparkParts() as spread:
        for source in sources or sorted({name.split(".")[0] for name in names}):
            erasures = Records(aws.client("dynamodb"), records, source).by_table()
            tables = tables_of(names, source) if names else sorted(lake_parameters(aws.client("glue"), source))
            for table in tables:
                if f"{source}.{table}" in paused:
                    _log("paused", table=f"{source}.{table}")
                    continue
                try:
                    own = policies.get(f"{source}.{table}", TablePolicy()).over(settings)
                    _fold(aws, source, table, kind, own, erasures.get(table), spread)
                except StaleWriter as error:
                    _log("taken_by_another_fold", table=f"{source}.{table}", found=str(error))
                except Exception as error:
                    failed[f"{source}.{table}"] = f"{type(error).__name__}: {error}"
                    _log("fold_failed", table=f"{source}.{table}", error=failed[f"{source}.{table}"])
                    traceback.print_exc()
    return last_words(failed) if failed else None


def _fold(
    aws: Aws,
    source: str,
    table: str,
    kind: str,
    settings: FoldSettings,
    erasures: Erasures | None,
    spread: RunParts,
) -> None:
    """One table. The cut is read anew for each, so that the fold line is as far as it may be."""
    started = datetime.now(UTC)
    cut = read_cut(aws.client("glue"), source)
    folded = fold_table(aws.catalog, source, table, cut, kind, settings, started, spread, erasures)
    properties = aws.catalog.load_table(identifier(source, table)).properties
    updated = views.Updated([], {})
    if fold_state(properties).activated_through > 0:
        in_cut = cut_view(table, properties, read_cut(aws.client("glue"), source), settings)
        keyed = json.loads(properties[KEY]) != []
        facts = None if folded is None else view_facts(fold_state(properties), settings, keyed=keyed)
        updated = views.update(aws.client("glue"), aws.catalog, source, table, in_cut=in_cut, facts=facts)
    told = {"views": updated.written, **({"views_refused": updated.refused} if updated.refused else {})}
    seconds = (datetime.now(UTC) - started).total_seconds()
    if folded is None:
        _log("not_due", table=f"{source}.{table}", **told, seconds=seconds)
    else:
        times = amplification(stream_state(properties), fold_state(properties))
        _log("folded", seconds=seconds, **told, **_facts(folded), amplification=vars(times))
        if folded.unmatched_rows:
            _log("deletes_without_a_row", **_unmatched(folded))


def view_facts(state: FoldState, settings: FoldSettings, *, keyed: bool = True) -> dict[str, str]:
    """What people look for on the view of current rows: how much there is, how far it is folded, and by what policy."""
    totals, changed = state.totals, "keys changed since" if keyed else "rows deleted since"
    mebibytes = (totals.base_bytes + totals.delta_bytes + totals.history_bytes) / (1 << 20)
    return {
        f"{views.FACTS}rows": f"{totals.base_rows:,} in base, {totals.delta_rows:,} {changed}, "
        f"{totals.history_rows:,} changes in history",
        f"{views.FACTS}size": f"{mebibytes:,.1f} MiB",
        f"{views.FACTS}at": state.folded_at or "",
        f"{views.FACTS}up_to": f"position {state.line} of the source",
        f"{views.FACTS}policy": f"when {settings.tail_rows:,} rows, {settings.tail_bytes >> 20} MiB or "
        f"{settings.max_age_seconds:g} s of changes wait; base is rewritten when changes are "
        f"{settings.delta_fraction:.0%} of it",
    }


def _unmatched(folded: Folded) -> dict[str, Any]:
    """What an operator needs to know of deletes of whole rows that the lake has no row for."""
    return {
        "table": folded.table,
        "count": folded.unmatched_rows,
        "first": [str(position) for position in folded.unmatched],
        "remedy": "the lake holds rows in another form than the source does, which it deleted: take a new snapshot "
        f"(headrace holes resnapshot {folded.table.split('.', 1)[1]})",
    }


def _facts(folded: Folded) -> dict[str, Any]:
    return {
        "table": folded.table,
        "kind": folded.work.kind,
        "reason": folded.work.reason,
        "line": str(folded.work.line),
        "snapshot": folded.work.snapshot,
        "parts": folded.parts,
        "taken_rows": folded.taken_rows,
        "read_bytes": folded.read_bytes,
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


def _policies(aws: Aws, arguments: Mapping[str, str]) -> dict[str, TablePolicy]:
    try:
        return read_policies(aws.client("dynamodb"), f"{arguments.get('dynamodb_prefix', 'headrace')}-tables")
    except ValueError as error:
        raise BadSettings(str(error)) from error


def _log(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, "at": datetime.now(UTC).isoformat(), **fields}), flush=True)


if __name__ == "__main__" and (words := main(sys.argv[1:])):
    sys.exit(words)  # Glue shows them as the run's error
