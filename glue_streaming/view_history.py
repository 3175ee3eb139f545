"""The text of the views of what was: every change, and every version of every row with its times. Pure."""

from __future__ import annotations

from typing import Final

from glue_streaming import view_content
from glue_streaming.fold.shape import METADATA_COLUMNS, Shape, ShapeColumn
from glue_streaming.view_lineage import left_out, lineages
from glue_streaming.view_text import (
    METADATA,
    NOWHERE,
    OLDEST_FIRST,
    POSITION,
    before,
    behind,
    casts,
    kept_apart,
    lake,
    listed,
    names,
    physical,
    quoted,
    text,
)

_BOUNDS: Final = ("valid_from", "valid_to")
_SEEN: Final = "(valid_to IS NULL OR valid_to <> valid_from)"
"""What a transaction changed again itself was valid at no time: its times are half-open, and equal."""


def change_columns(shape: Shape) -> tuple[ShapeColumn, ...]:
    """The columns of the view of changes."""
    return (*METADATA_COLUMNS, *shape.columns)


def version_columns(shape: Shape) -> tuple[ShapeColumn, ...]:
    """The columns of the type-2 view. Where the table has a `valid_from` of its own, the view's is `valid_from__2`."""
    bounds = (ShapeColumn(_free(name, shape), "TIMESTAMP", "timestamp(6)", "timestamp") for name in _BOUNDS)
    return (*bounds, *shape.columns, METADATA["_unchanged"], METADATA["_raw"])


def changes(shape: Shape) -> str:
    """Every change with its time, as the source sent it."""
    return f"SELECT {casts(change_columns(shape))} FROM {lake(shape)} WHERE _tier IN ('history', 'log')"


def versions(shape: Shape) -> str:
    """Every version of every row, with the time from which and, but for the current one, to which it was valid."""
    return _keyed(shape) if shape.key else _keyless(shape)


def _keyed(shape: Shape) -> str:
    span = "span_era, span_lsn, span_idx"
    parts = [
        _every(shape),
        *_spans(""),
        f"spanned AS (SELECT {names(physical(shape), 'e.')}, t._era AS span_era, t._lsn AS span_lsn, "
        f"t._idx AS span_idx, t.end_committed_at AS span_end FROM every AS e JOIN spans AS t ON {_in_span()} "
        "WHERE e._op <> 't')",
    ]
    source = "spanned"
    if shape.torn:
        kept = (*physical(shape), "$span_era", "$span_lsn", "$span_idx", "$span_end")
        parts += lineages(shape, "spanned", kept, span)
        source = "traced"
    following = f"OVER (PARTITION BY {names(shape.key)}, {span} ORDER BY {OLDEST_FIRST})"
    parts.append(
        f"ended AS (SELECT _op, _committed_at AS valid_from, coalesce(lead(_committed_at) {following}, span_end) "
        f"AS valid_to, {_filled(shape)} FROM {source})"
    )
    return kept_apart(f"WITH {listed(parts)} SELECT {_casts(shape)} FROM ended WHERE _op <> 'd' AND {_SEEN}")


def _keyless(shape: Shape) -> str:
    """Rows of a table without a key: each is valid from its insert to its delete, the next truncate or snapshot.

    Of equal rows the nth delete ends the nth one.
    """
    snapshots = (
        "SELECT _era, _lsn, CAST(-1 AS integer), min(_committed_at) FROM every WHERE _op = 'r' GROUP BY _era, _lsn "
    )
    kept = names((*(c.name for c in shape.columns), "_unchanged", "_raw"), "e.")
    parts = [_every(shape), *_spans(f"UNION ALL {snapshots}")]
    if shape.whole_rows:
        span, position = "t._era AS span_era, t._lsn AS span_lsn, t._idx AS span_idx", "e._era, e._lsn, e._idx"
        spanned = (
            f"SELECT {position}, e._op, e._committed_at, {span}, t.end_committed_at AS span_end, {kept}, "
            f"{view_content.named(shape, 'e')} FROM every AS e JOIN spans AS t ON {_in_span()} WHERE e._op <> 't'"
        )
        nth = (
            f"row_number() OVER (PARTITION BY e._op = 'd', span_era, span_lsn, span_idx, "
            f"{view_content.names(shape, 'e.')} ORDER BY {position}) AS nth"
        )
        parts.append(f"numbered_rows AS (SELECT e.*, {nth} FROM ({spanned}) AS e)")
        same = " AND ".join(f"d.span{c} = e.span{c}" for c in POSITION)
        parts.append(
            f"ended AS (SELECT e._committed_at AS valid_from, coalesce(d._committed_at, e.span_end) AS valid_to, {kept}"
            " FROM numbered_rows AS e LEFT JOIN numbered_rows AS d ON d._op = 'd' AND d.nth = e.nth AND "
            f"{same} AND {view_content.equal(shape, 'd', 'e')} WHERE e._op <> 'd')"
        )
    else:
        parts.append(
            f"ended AS (SELECT e._committed_at AS valid_from, t.end_committed_at AS valid_to, {kept} FROM every AS e "
            f"JOIN spans AS t ON {_in_span()} WHERE e._op IN ('c', 'r'))"
        )
    return kept_apart(f"WITH {listed(parts)} SELECT {_casts(shape)} FROM ended WHERE {_SEEN}")


def _every(shape: Shape) -> str:
    return f"every AS (SELECT {names(physical(shape))} FROM {lake(shape)} WHERE _tier IN ('history', 'log'))"


def _spans(more: str) -> list[str]:
    """The spans between truncates (and `more`), which end every version there is."""
    ends = listed(f"lead({c}) OVER (ORDER BY {OLDEST_FIRST}) AS end{c}" for c in (*POSITION, "_committed_at"))
    return [
        f"bounds AS (SELECT _era, _lsn, _idx, _committed_at FROM every WHERE _op = 't' {more}"
        f"UNION ALL SELECT {NOWHERE}, CAST(NULL AS timestamp(6)))",
        f"spans AS (SELECT _era, _lsn, _idx, {ends} FROM bounds)",
    ]


def _in_span() -> str:
    return f"{behind('e', 't')} AND (t.end_era IS NULL OR {before('e', 't', 'end')})"


def _filled(shape: Shape) -> str:
    """The columns of `ended`, with what the lineage knows; `_unchanged` then names the rest."""
    if not shape.torn:
        return names((*(c.name for c in shape.columns), "_unchanged", "_raw"))
    numbers = {c.name: n for n, c in enumerate(shape.torn)}
    columns = [
        f"CASE WHEN {left_out(c.name)} AND known_{numbers[c.name]} IS NOT NULL "
        f"THEN element_at(known_{numbers[c.name]}, 1) ELSE {quoted(c.name)} END AS {quoted(c.name)}"
        if c.name in numbers
        else quoted(c.name)
        for c in shape.columns
    ]
    left = " || ".join(
        f"(CASE WHEN {left_out(name)} AND known_{n} IS NULL THEN ARRAY[{text(name)}] "
        "ELSE CAST(ARRAY[] AS array(varchar)) END)"
        for name, n in numbers.items()
    )
    return listed([*columns, f"CASE WHEN cardinality(_unchanged) > 0 THEN {left} END AS _unchanged", "_raw"])


def _casts(shape: Shape) -> str:
    columns = version_columns(shape)
    bounds = [
        f"CAST({own} AS {c.trino}) AS {quoted(c.name)}" for own, c in zip(_BOUNDS, columns[: len(_BOUNDS)], strict=True)
    ]
    return listed([*bounds, casts(columns[len(_BOUNDS) :])])


def _free(name: str, shape: Shape) -> str:
    taken = {column.name for column in shape.columns}
    candidate, suffix = name, 2
    while candidate in taken:
        candidate, suffix = f"{name}__{suffix}", suffix + 1
    return candidate
