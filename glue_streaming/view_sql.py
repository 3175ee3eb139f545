"""The text of the views that analysts query: Trino SQL, generated from a table's shape. Pure.

Every view lists its columns and casts each one, so that a widened type in the lake never makes a view stale.
A query loads each table once, however often its views name it, so all parts of a view see one snapshot of the table.
A cut view names the watermark before the table, so the table is loaded after it and holds all that it covers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from glue_streaming import view_content
from glue_streaming.fold.shape import METADATA_COLUMNS, Shape, ShapeColumn

HOPS: Final = 3
"""How many key changes of one row, between two folds, a fresh view follows to a value that they left out.

Beyond it the view raises, and says so: a fold resolves any number of them.
"""
NEWEST_FIRST: Final = "_era DESC, _lsn DESC, _idx DESC"
OLDEST_FIRST: Final = "_era, _lsn, _idx"
_BY_NAME: Final = {column.name: column for column in METADATA_COLUMNS}
_TRAILING: Final = (_BY_NAME["_committed_at"], _BY_NAME["_raw"])


_BOUNDS: Final = ("valid_from", "valid_to")
_OWN: Final = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | \b(?P<own>nth|deletes|moved|(?:old_)?(?:known_\d+|lost)
    |valid_(?:from|to)|span_(?:era|lsn|idx|end)|end_(?:era|lsn|idx|committed_at))\b""",
    re.VERBOSE,
)
"""The columns that the views' queries make for themselves; texts and quoted names are passed by."""


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def state_columns(shape: Shape) -> tuple[ShapeColumn, ...]:
    """The columns of a current or cut view: the table's, then when the row's last change was committed, then `_raw`."""
    return (*shape.columns, *_TRAILING)


def change_columns(shape: Shape) -> tuple[ShapeColumn, ...]:
    """The columns of the view of changes."""
    return (*METADATA_COLUMNS, *shape.columns)


def version_columns(shape: Shape) -> tuple[ShapeColumn, ...]:
    """The columns of the type-2 view. Where the table has a `valid_from` of its own, the view's is `valid_from__2`."""
    bounds = (ShapeColumn(_free(name, shape), "TIMESTAMP", "timestamp(6)", "timestamp") for name in _BOUNDS)
    return (*bounds, *shape.columns, _BY_NAME["_unchanged"], _BY_NAME["_raw"])


def current(shape: Shape) -> str:
    """Current rows, as fresh as the last micro-batch, exact for one snapshot of the table."""
    return _kept_apart(_state(shape, [], "TRUE"))


def cut(shape: Shape) -> str:
    """Current rows at the source's watermark: whole transactions, across all cut views of one query."""
    watermark = f"w AS (SELECT era, lsn FROM {quoted(shape.source + '_cut')}.{quoted('watermark')})"
    within = "(_era < w.era OR (_era = w.era AND _lsn <= w.lsn))"
    return _kept_apart(_state(shape, [watermark], within))


def changes(shape: Shape) -> str:
    """Every change with its time, as the source sent it."""
    columns = change_columns(shape)
    return f"SELECT {_casts(columns)} FROM {_lake(shape)} WHERE _tier IN ('history', 'log')"


def versions(shape: Shape) -> str:
    """Every version of every row, with the time from which and, but for the current one, to which it was valid."""
    key = _names(shape.key)
    era = "t._era AS span_era, t._lsn AS span_lsn, t._idx AS span_idx"
    parts = [
        f"every AS (SELECT {_names(_physical(shape))} FROM {_lake(shape)} WHERE _tier IN ('history', 'log'))",
        # The spans between truncates, which end every version there is.
        "bounds AS (SELECT _era, _lsn, _idx, _committed_at FROM every WHERE _op = 't' "
        f"UNION ALL SELECT {_NOWHERE}, CAST(NULL AS timestamp(6)))",
        "spans AS (SELECT _era, _lsn, _idx, "
        + ", ".join(f"lead({c}) OVER (ORDER BY {OLDEST_FIRST}) AS end{c}" for c in (*_POSITION, "_committed_at"))
        + " FROM bounds)",
        f"spanned AS (SELECT {_names(_physical(shape), 'e.')}, {era}, t.end_committed_at AS span_end FROM every AS e "
        f"JOIN spans AS t ON {_behind('e', 't')} AND (t.end_era IS NULL OR {_before('e', 't', 'end')}) "
        "WHERE e._op <> 't')",
    ]
    span = "span_era, span_lsn, span_idx"
    kept = (*_physical(shape), "$span_era", "$span_lsn", "$span_idx", "$span_end")
    source = "spanned"
    if shape.torn:
        parts += _lineage(shape, "spanned", kept, span)
        source = "hopped"
    filled = _filled(shape, source == "hopped")
    behind = f"OVER (PARTITION BY {key}, {span} ORDER BY {OLDEST_FIRST})"
    parts.append(
        f"ended AS (SELECT _op, _committed_at AS valid_from, coalesce(lead(_committed_at) {behind}, span_end) "
        f"AS valid_to, {filled} FROM {source})"
    )
    return _kept_apart(f"WITH {_list(parts)} SELECT {_version_casts(shape)} FROM ended WHERE _op <> 'd' AND {_SEEN}")


def keyless_versions(shape: Shape) -> str:
    """Rows of a table without a key: each is valid from its insert to its delete, the next truncate or snapshot.

    Of equal rows the nth delete ends the nth one.
    """
    bounds = (
        "SELECT _era, _lsn, _idx, _committed_at FROM every WHERE _op = 't' UNION ALL "
        "SELECT _era, _lsn, CAST(-1 AS integer), min(_committed_at) FROM every WHERE _op = 'r' GROUP BY _era, _lsn "
    )
    kept = _names((*(c.name for c in shape.columns), "_unchanged", "_raw"), "e.")
    within = f"{_behind('e', 't')} AND (t.end_era IS NULL OR {_before('e', 't', 'end')})"
    parts = [
        f"every AS (SELECT {_names(_physical(shape))} FROM {_lake(shape)} WHERE _tier IN ('history', 'log'))",
        f"bounds AS ({bounds}UNION ALL SELECT {_NOWHERE}, CAST(NULL AS timestamp(6)))",
        "spans AS (SELECT _era, _lsn, _idx, "
        + ", ".join(f"lead({c}) OVER (ORDER BY {OLDEST_FIRST}) AS end{c}" for c in (*_POSITION, "_committed_at"))
        + " FROM bounds)",
    ]
    if shape.whole_rows:
        span, position = "t._era AS span_era, t._lsn AS span_lsn, t._idx AS span_idx", "e._era, e._lsn, e._idx"
        spanned = (
            f"SELECT {position}, e._op, e._committed_at, {span}, t.end_committed_at AS span_end, {kept}, "
            f"{view_content.named(shape, 'e')} FROM every AS e JOIN spans AS t ON {within} WHERE e._op <> 't'"
        )
        nth = (
            f"row_number() OVER (PARTITION BY e._op = 'd', span_era, span_lsn, span_idx, "
            f"{view_content.names(shape, 'e.')} ORDER BY {position}) AS nth"
        )
        parts.append(f"numbered_rows AS (SELECT e.*, {nth} FROM ({spanned}) AS e)")
        same = " AND ".join(f"d.span{c} = e.span{c}" for c in _POSITION)
        parts.append(
            f"ended AS (SELECT e._committed_at AS valid_from, coalesce(d._committed_at, e.span_end) AS valid_to, {kept}"
            " FROM numbered_rows AS e LEFT JOIN numbered_rows AS d ON d._op = 'd' AND d.nth = e.nth AND "
            f"{same} AND {view_content.equal(shape, 'd', 'e')} WHERE e._op <> 'd')"
        )
    else:
        parts.append(
            f"ended AS (SELECT e._committed_at AS valid_from, t.end_committed_at AS valid_to, {kept} FROM every AS e "
            f"JOIN spans AS t ON {within} WHERE e._op IN ('c', 'r'))"
        )
    return _kept_apart(f"WITH {_list(parts)} SELECT {_version_casts(shape)} FROM ended WHERE {_SEEN}")


_CLEARED: Final = " CROSS JOIN cleared AS c"
_POSITION: Final = ("_era", "_lsn", "_idx")
_SEEN: Final = "(valid_to IS NULL OR valid_to <> valid_from)"
"""What a transaction changed again itself was valid at no time: its times are half-open, and equal."""
_NOWHERE: Final = "CAST(-1 AS integer), CAST(-1 AS bigint), CAST(-1 AS integer)"


def _kept_apart(sql: str) -> str:
    """The query with its own columns' names as no table's column is called: `nth` becomes `"$nth"`.

    In this module they stand bare, while every column of a table is quoted.
    """
    return _OWN.sub(lambda found: f'"${found["own"]}"' if found["own"] else found[0], sql)


def _free(name: str, shape: Shape) -> str:
    taken = {column.name for column in shape.columns}
    candidate, suffix = name, 2
    while candidate in taken:
        candidate, suffix = f"{name}__{suffix}", suffix + 1
    return candidate


def _version_casts(shape: Shape) -> str:
    columns = version_columns(shape)
    bounds = [
        f"CAST({own} AS {c.trino}) AS {quoted(c.name)}" for own, c in zip(_BOUNDS, columns[: len(_BOUNDS)], strict=True)
    ]
    return _list([*bounds, _casts(columns[len(_BOUNDS) :])])


def _state(shape: Shape, first: Sequence[str], within: str) -> str:
    return _keyed(shape, first, within) if shape.key else _keyless(shape, first, within)


def _keyed(shape: Shape, first: Sequence[str], within: str) -> str:
    """The log's newest row of each key, delta's rows that the log says nothing of, base's that neither does.

    Delta and base hold a key once, delta is newer than base and the log than both: only the log is ranked. Relations
    that a condition on the key should reach stand where they are read: a named one that is read twice is computed once
    by some engines (DuckDB), and whole. No part of a key is ever null.
    """
    columns = state_columns(shape)
    whole = " AND coalesce(cardinality(l._unchanged), 0) = 0" if shape.torn else ""
    ranked = _tiers(
        shape, first, within, ("log",),
        f"{_names(_physical(shape), 'l.')}, "
        f"row_number() OVER (PARTITION BY {_names(shape.key, 'l.')} ORDER BY {_newest('l')}) AS nth",
        f"l._op <> 't' AND {_behind('l', 'c')}", joined=_CLEARED,
    )  # fmt: skip
    parts = [*first, _cleared(_tiers(shape, first, within, ("log",), "l._era, l._lsn, l._idx", "l._op = 't'"))]
    states = [f"SELECT {_casts(columns, 'l.')} FROM ({ranked}) AS l WHERE l.nth = 1 AND l._op <> 'd'{whole}"]
    if shape.torn:
        parts += _suspects(shape, first, within)
        parts += _lineage(shape, "kin", (*_physical(shape), "$nth"), None)
        parts.append(_torn(shape))
        states.append(f"SELECT {_casts(columns)} FROM torn")
    for tier, above, kept in (("delta", ("log",), f" AND l._op <> 'd'{whole}"), ("base", ("log", "delta"), "")):
        newer = _tiers(shape, first, within, above, _names(shape.key, "l."), "l._op <> 't'")
        states.append(
            f"SELECT {_casts(columns, 'l.')} FROM {_lake(shape)} AS l CROSS JOIN cleared AS c "
            f"LEFT JOIN ({newer}) AS n ON {_same(shape, 'l', 'n')} "
            f"WHERE l._tier = '{tier}' AND c._era < 0 AND n.{quoted(shape.key[0])} IS NULL{kept}"
        )
    return f"WITH {_list(parts)} {' UNION ALL '.join(states)}"


def _tiers(
    shape: Shape, first: Sequence[str], within: str, tiers: Sequence[str], what: str, where: str, joined: str = ""
) -> str:
    """A query of the log and maybe other tiers, called `l`: of the log, only what the view looks at."""
    joined += " CROSS JOIN w" if first else ""
    kept = f"l._tier IN ({_list(text(tier) for tier in tiers)})" if len(tiers) > 1 else "l._tier = 'log'"
    if first:
        kept += f" AND {_of('l', within)}" if len(tiers) == 1 else f" AND (l._tier <> 'log' OR {_of('l', within)})"
    return f"SELECT {what} FROM {_lake(shape)} AS l{joined} WHERE {kept} AND {where}"


def _keyless(shape: Shape, first: Sequence[str], within: str) -> str:
    columns = _casts(state_columns(shape), "l.")
    parts = [*first, _cleared(_tiers(shape, first, within, ("log",), "l._era, l._lsn, l._idx", "l._op = 't'"))]
    inserted = f"l._op IN ('c', 'r') AND {_behind('l', 'c')}"
    if shape.whole_rows:
        return f"WITH {_list([*parts, _cancelled(shape, first, within)])} " + _tiers(
            shape, first, within, ("log", "base"), columns, f"{inserted} AND g._era IS NULL",
            joined=f"{_CLEARED} LEFT JOIN cancelled AS g ON " + " AND ".join(f"g.{c} = l.{c}" for c in _POSITION),
        )  # fmt: skip
    return (
        f"WITH {_list(parts)} {_tiers(shape, first, within, ('log',), columns, inserted, joined=_CLEARED)} "
        f"UNION ALL SELECT {columns} FROM {_lake(shape)} AS l CROSS JOIN cleared AS c "
        "WHERE l._tier = 'base' AND c._era < 0"
    )


def _cancelled(shape: Shape, first: Sequence[str], within: str) -> str:
    """The positions of rows that were deleted: as many of equal ones as there are deletes, the oldest first.

    Where nothing is deleted, the join has nothing on one side: no row of base is compared. A truncate in sight is newer
    than base and delta, so its position hides their rows as it does the log's.
    """
    position, content = "l._era, l._lsn, l._idx", view_content.named(shape, "l")
    names, behind = view_content.names(shape), _behind("l", "c")
    deletes = _tiers(
        shape, first, within, ("log", "delta"), content, f"l._op = 'd' AND {behind}", joined=_CLEARED
    )  # fmt: skip
    rows = _tiers(
        shape, first, within, ("log", "base"), f"{position}, {content}", f"l._op IN ('c', 'r') AND {behind}",
        joined=_CLEARED,
    )  # fmt: skip
    gone = (
        f"SELECT {names}, count(*) AS deletes, row_number() OVER () AS content FROM ({deletes}) AS l GROUP BY {names}"
    )
    ranked = (
        f"SELECT {position}, g.deletes, row_number() OVER (PARTITION BY g.content ORDER BY {position}) AS nth "
        f"FROM ({rows}) AS l JOIN ({gone}) AS g ON {view_content.equal(shape, 'l', 'g')}"
    )
    return f"cancelled AS (SELECT _era, _lsn, _idx FROM ({ranked}) AS ranked WHERE nth <= deletes)"


def _cleared(truncates: str) -> str:
    """One row: the position of the last truncate, or one below every position. It hides what is before it."""
    return (
        f"cleared AS (SELECT * FROM ({truncates} UNION ALL SELECT {_NOWHERE}) AS truncates "
        f"ORDER BY {NEWEST_FIRST} LIMIT 1)"
    )


def _suspects(shape: Shape, first: Sequence[str], within: str) -> list[str]:
    """The keys whose rows left values out, with the old keys they may have come from, and all their rows at hand.

    Where there are none, the join behind it has nothing on one side: no row of delta or base is read for them.
    A truncate in sight is newer than delta and base, so its position hides their rows as it does the log's.
    """
    key = _names(shape.key, "l.")
    torn = _tiers(shape, first, within, ("log", "delta"), key, "cardinality(l._unchanged) > 0")
    moves = _tiers(
        shape, first, within, ("log",), f"{key}, lead(l._old_key) {_pair('l.')} AS moved",
        "(l._op = 'd' OR l._old_key IS NOT NULL)",
    )  # fmt: skip
    # The keys are joined first, so that an engine may let them choose what is read of base.
    kin = _tiers(
        shape, first, within, ("log", "delta", "base"),
        f"{_names(_physical(shape), 'l.')}, row_number() OVER (PARTITION BY {key} ORDER BY {_newest('l')}) AS nth",
        f"l._op <> 't' AND {_behind('l', 'c')}", joined=f" JOIN suspects AS s ON {_same(shape, 'l', 's')}{_CLEARED}",
    )  # fmt: skip
    return [
        f"suspects AS ({torn} UNION SELECT {key} FROM ({moves}) AS l WHERE l.moved IS NOT NULL)",
        f"kin AS ({kin})",
    ]


def _lineage(shape: Shape, relation: str, kept: Sequence[str], span: str | None) -> list[str]:
    """Relations up to `hopped`: the rows of `relation`, each with what its lineage knows of every column.

    known_N is an array of one value, or null where no version at hand carries the column. A segment is the versions
    of a key between two deletes; a key change carries it on from the delete right before it, one hop a key change.
    lost: it came by a key change whose old row was not looked at.
    """
    key = _names(shape.key) + (f", {span}" if span else "")
    numbers = range(len(shape.torn))
    columns = _names(kept)
    segment = f"PARTITION BY {key}, deletes ORDER BY {OLDEST_FIRST}"
    known = _list(
        f"last_value(CASE WHEN _op <> 'd' AND NOT coalesce(contains(_unchanged, {text(c.name)}), FALSE) "
        f"THEN ARRAY[{quoted(c.name)}] END) IGNORE NULLS OVER ({segment} "
        f"ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS known_{n}"
        for n, c in enumerate(shape.torn)
    )
    parts = [
        f"numbered_rows AS (SELECT {columns}, coalesce(sum(CASE WHEN _op = 'd' THEN 1 ELSE 0 END) OVER ("
        f"PARTITION BY {key} ORDER BY {OLDEST_FIRST} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS deletes "
        f"FROM {relation})",
        f"hop_0 AS (SELECT {columns}, deletes, {known}, first_value(_old_key) OVER ({segment}) IS NOT NULL AS lost "
        "FROM numbered_rows)",
    ]
    carried = [*(f"known_{n}" for n in numbers), "lost"]
    for hop in range(1, HOPS + 1):
        old = _list(f"CASE WHEN _old_key IS NOT NULL THEN lag({c}) {_pair()} END AS old_{c}" for c in carried)
        merged = _list(
            [
                *(f"coalesce(known_{n}, first_value(old_known_{n}) OVER ({segment})) AS known_{n}" for n in numbers),
                f"coalesce(first_value(old_lost) OVER ({segment}), lost) AS lost",
            ]
        )
        parts += [
            f"pair_{hop} AS (SELECT {columns}, deletes, {_list(carried)}, {old} FROM hop_{hop - 1})",
            f"hop_{hop} AS (SELECT {columns}, deletes, {merged} FROM pair_{hop})",
        ]
    return [*parts, f"hopped AS (SELECT * FROM hop_{HOPS})"]


def _pair(alias: str = "") -> str:
    """A window of a row and the delete right before it, if there is one: of a key change both parts."""
    place = f"CASE WHEN {alias}_op = 'd' THEN {alias}_idx + 1 ELSE {alias}_idx END"
    return f"OVER (PARTITION BY {alias}_era, {alias}_lsn, {place} ORDER BY {alias}_idx)"


def _torn(shape: Shape) -> str:
    """Current rows that left values out, with what their lineage knows."""
    numbers = {c.name: n for n, c in enumerate(shape.torn)}
    columns = _list(
        f"CASE WHEN contains(_unchanged, {text(c.name)}) THEN element_at(known_{numbers[c.name]}, 1) "
        f"ELSE {quoted(c.name)} END AS {quoted(c.name)}"
        if c.name in numbers
        else quoted(c.name)
        for c in state_columns(shape)
    )
    adrift = " OR ".join(f"(contains(_unchanged, {text(name)}) AND known_{n} IS NULL)" for name, n in numbers.items())
    message = text(
        f"{shape.source}.{shape.table}: a row changed its key more than {HOPS} times since the last fold, key "
    )
    shown = f"{message} || CAST({quoted(shape.key[0])} AS varchar)"
    return (
        f"torn AS (SELECT {columns} FROM hopped WHERE nth = 1 AND _op <> 'd' AND cardinality(_unchanged) > 0 "
        f"AND CASE WHEN lost AND ({adrift}) THEN CAST({shown} AS integer) = 0 ELSE TRUE END)"
    )


def _filled(shape: Shape, hopped: bool) -> str:
    """The columns of `ended`, with what the lineage knows; `_unchanged` then names the rest."""
    if not hopped:
        return _names((*(c.name for c in shape.columns), "_unchanged", "_raw"))
    columns = []
    numbers = {c.name: n for n, c in enumerate(shape.torn)}
    for c in shape.columns:
        if c.name in numbers:
            known = f"known_{numbers[c.name]}"
            columns.append(
                f"CASE WHEN contains(_unchanged, {text(c.name)}) AND {known} IS NOT NULL THEN element_at({known}, 1) "
                f"ELSE {quoted(c.name)} END AS {quoted(c.name)}"
            )
        else:
            columns.append(quoted(c.name))
    left = " || ".join(
        f"(CASE WHEN contains(_unchanged, {text(name)}) AND known_{n} IS NULL THEN ARRAY[{text(name)}] "
        "ELSE CAST(ARRAY[] AS array(varchar)) END)"
        for name, n in numbers.items()
    )
    return _list([*columns, f"CASE WHEN cardinality(_unchanged) > 0 THEN {left} END AS _unchanged", "_raw"])


def _lake(shape: Shape) -> str:
    return f"{quoted(shape.source + '_lake')}.{quoted(shape.table)}"


def _physical(shape: Shape) -> tuple[str, ...]:
    return (*(c.name for c in METADATA_COLUMNS), *(c.name for c in shape.columns))


def _casts(columns: Iterable[ShapeColumn], prefix: str = "") -> str:
    return _list(f"CAST({prefix}{quoted(c.name)} AS {c.trino}) AS {quoted(c.name)}" for c in columns)


def _names(columns: Iterable[str], prefix: str = "") -> str:
    return _list(f"{prefix}{quoted(column)}" for column in columns)


def _list(items: Iterable[str]) -> str:
    return ", ".join(items)


def _newest(alias: str) -> str:
    return _list(f"{alias}.{column} DESC" for column in _POSITION)


def _of(alias: str, condition: str) -> str:
    return condition.replace("_era", f"{alias}._era").replace("_lsn", f"{alias}._lsn")


def _same(shape: Shape, left: str, right: str) -> str:
    return " AND ".join(f"{left}.{quoted(key)} = {right}.{quoted(key)}" for key in shape.key)


def _behind(row: str, bound: str) -> str:
    """row's position is above bound's."""
    return (
        f"({row}._era > {bound}._era OR ({row}._era = {bound}._era AND ({row}._lsn > {bound}._lsn "
        f"OR ({row}._lsn = {bound}._lsn AND {row}._idx > {bound}._idx))))"
    )


def _before(row: str, bound: str, prefix: str) -> str:
    """row's position is below bound's, whose columns carry a prefix."""
    era, lsn, idx = (f"{bound}.{prefix}{column}" for column in _POSITION)
    return (
        f"({row}._era < {era} OR ({row}._era = {era} AND ({row}._lsn < {lsn} "
        f"OR ({row}._lsn = {lsn} AND {row}._idx < {idx}))))"
    )
