"""The text of the views that analysts query: Trino SQL, generated from a table's shape. Pure.

Every view lists its columns and casts each one, so that a widened type in the lake never makes a view stale.
A query loads each table once, however often its views name it, so all parts of a view see one snapshot of the table.
A cut view names the watermark before the table, so the table is loaded after it and holds all that it covers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

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
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | \b(?P<own>nth|deletes|known_\d+|root_\d+|head_(?:era|lsn|idx|old_key)
    |old_(?:\d+|deletes|known_\d+|head_(?:era|lsn|idx|old_key))|at_(?:era|lsn|idx)|valid_(?:from|to)
    |span_(?:era|lsn|idx|end)|end_(?:era|lsn|idx|committed_at))\b""",
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
    ends = f"lead(_committed_at) OVER (PARTITION BY {key}, {span} ORDER BY {OLDEST_FIRST})"
    parts.append(
        f"ended AS (SELECT _op, _committed_at AS valid_from, coalesce({ends}, span_end) AS valid_to, {filled} "
        f"FROM {source})"
    )
    return _kept_apart(f"WITH {_list(parts)} SELECT {_version_casts(shape)} FROM ended WHERE _op <> 'd'")


def keyless_versions(shape: Shape) -> str:
    """Rows of a table without a key: each is valid from its insert to the next truncate."""
    bounds = "SELECT _era, _lsn, _idx, _committed_at FROM every WHERE _op = 't' "
    parts = [
        f"every AS (SELECT {_names(_physical(shape))} FROM {_lake(shape)} WHERE _tier IN ('history', 'log'))",
        f"bounds AS ({bounds}UNION ALL SELECT {_NOWHERE}, CAST(NULL AS timestamp(6)))",
        "spans AS (SELECT _era, _lsn, _idx, "
        + ", ".join(f"lead({c}) OVER (ORDER BY {OLDEST_FIRST}) AS end{c}" for c in (*_POSITION, "_committed_at"))
        + " FROM bounds)",
        f"ended AS (SELECT e._committed_at AS valid_from, t.end_committed_at AS valid_to, "
        f"{_names((*(c.name for c in shape.columns), '_unchanged', '_raw'), 'e.')} FROM every AS e "
        f"JOIN spans AS t ON {_behind('e', 't')} AND (t.end_era IS NULL OR {_before('e', 't', 'end')}) "
        "WHERE e._op IN ('c', 'r'))",
    ]
    return _kept_apart(f"WITH {_list(parts)} SELECT {_version_casts(shape)} FROM ended")


_POSITION: Final = ("_era", "_lsn", "_idx")
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
    lake, physical, key = _lake(shape), _physical(shape), _names(shape.key)
    source = f"{lake} AS l CROSS JOIN w" if first else f"{lake} AS l"
    parts = [
        *first,
        f"tail AS (SELECT {_names(physical, 'l.')} FROM {source} WHERE l._tier = 'log' AND {_of('l', within)})",
        _cleared("tail"),
        "live AS ("
        f"SELECT {_names(physical, 't.')} FROM tail AS t CROSS JOIN cleared AS c "
        f"WHERE t._op <> 't' AND {_behind('t', 'c')} "
        f"UNION ALL SELECT {_names(physical, 'l.')} FROM {lake} AS l CROSS JOIN cleared AS c "
        "WHERE l._tier = 'delta' AND c._era < 0)",
        f"ranked AS (SELECT {_names(physical)}, "
        f"row_number() OVER (PARTITION BY {key} ORDER BY {NEWEST_FIRST}) AS nth FROM live)",
        f"chg AS (SELECT {_names(physical)} FROM ranked WHERE nth = 1)",
    ]
    columns = state_columns(shape)
    whole = f"SELECT {_casts(columns)} FROM chg WHERE _op <> 'd'"
    untouched = (
        f"SELECT {_casts(columns, 'b.')} FROM {lake} AS b CROSS JOIN cleared AS c "
        f"LEFT JOIN chg ON {_same(shape, 'b', 'chg')} "
        f"WHERE b._tier = 'base' AND c._era < 0 AND chg.{quoted(shape.key[0])} IS NULL"
    )
    if not shape.torn:
        return f"WITH {_list(parts)} {whole} UNION ALL {untouched}"
    parts += _suspects(shape)
    parts += _lineage(shape, "kin", physical, None)
    parts.append(_torn(shape))
    filled = f"SELECT {_casts(columns)} FROM torn"
    whole = f"{whole} AND coalesce(cardinality(_unchanged), 0) = 0"
    return f"WITH {_list(parts)} {whole} UNION ALL {filled} UNION ALL {untouched}"


def _keyless(shape: Shape, first: Sequence[str], within: str) -> str:
    lake, physical = _lake(shape), _physical(shape)
    source = f"{lake} AS l CROSS JOIN w" if first else f"{lake} AS l"
    parts = [
        *first,
        f"tail AS (SELECT {_names(physical, 'l.')} FROM {source} WHERE l._tier = 'log' AND {_of('l', within)})",
        _cleared("tail"),
    ]
    columns = state_columns(shape)
    return (
        f"WITH {_list(parts)} SELECT {_casts(columns, 't.')} FROM tail AS t CROSS JOIN cleared AS c "
        f"WHERE t._op IN ('c', 'r') AND {_behind('t', 'c')} "
        f"UNION ALL SELECT {_casts(columns, 'b.')} FROM {lake} AS b CROSS JOIN cleared AS c "
        "WHERE b._tier = 'base' AND c._era < 0"
    )


def _cleared(relation: str) -> str:
    """One row: the position of the last truncate, or one below every position. It hides what is before it."""
    position = "_era, _lsn, _idx"
    truncates = f"SELECT {position} FROM {relation} WHERE _op = 't' UNION ALL SELECT {_NOWHERE}"
    ranked = f"SELECT {position}, row_number() OVER (ORDER BY {NEWEST_FIRST}) AS nth FROM ({truncates}) AS truncates"
    return f"cleared AS (SELECT {position} FROM ({ranked}) AS numbered WHERE nth = 1)"


def _suspects(shape: Shape) -> list[str]:
    """The keys whose rows left values out, with the old keys they may have come from, and all their versions at hand.

    Where there are none, the join has nothing on one side and the windows behind it nothing to do.
    """
    key = _names(shape.key)
    adjacent = "i._era = d._era AND i._lsn = d._lsn AND i._idx = d._idx + 1"
    return [
        f"suspects AS (SELECT {key} FROM live WHERE cardinality(_unchanged) > 0 UNION "
        f"SELECT {_names(shape.key, 'd.')} FROM live AS i JOIN live AS d ON {adjacent} "
        "WHERE i._old_key IS NOT NULL AND d._op = 'd')",
        f"kin AS (SELECT {_names(_physical(shape), 'l.')} FROM live AS l "
        f"JOIN suspects AS s ON {_same(shape, 'l', 's')})",
    ]


def _lineage(shape: Shape, relation: str, kept: Sequence[str], span: str | None) -> list[str]:
    """Relations up to `hopped`: the rows of `relation`, each with what its lineage knows of every column.

    known_N is an array of one value, or null where no version at hand carries the column. A segment is the versions
    of a key between two deletes; a key change carries it on from the delete right before it, one hop a key change.
    """
    key = _names(shape.key) + (f", {span}" if span else "")
    numbers = range(len(shape.torn))
    window = (
        f"OVER (PARTITION BY {key}, deletes ORDER BY {OLDEST_FIRST} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    )
    known = ", ".join(
        f"last_value(CASE WHEN _op <> 'd' AND NOT coalesce(contains(_unchanged, {text(c.name)}), FALSE) "
        f"THEN ARRAY[{quoted(c.name)}] END) IGNORE NULLS {window} AS known_{n}"
        for n, c in enumerate(shape.torn)
    )
    head = ", ".join(
        f"first_value({column}) {window} AS head{column}" for column in ("_era", "_lsn", "_idx", "_old_key")
    )
    parts = [
        f"numbered_rows AS (SELECT {_names(kept)}, coalesce(sum(CASE WHEN _op = 'd' THEN 1 ELSE 0 END) OVER ("
        f"PARTITION BY {key} ORDER BY {OLDEST_FIRST} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS deletes "
        f"FROM {relation})",
        f"carried AS (SELECT {_names(kept)}, deletes, {known}, {head} FROM numbered_rows)",
    ]
    ends = _list(
        [
            *(f"{quoted(k)} AS old_{i}" for i, k in enumerate(shape.key)),
            "_era AS at_era, _lsn AS at_lsn, _idx AS at_idx, deletes AS old_deletes",
            *(f"known_{n} AS old_known_{n}" for n in numbers),
            *(f"head{c} AS old_head{c}" for c in ("_era", "_lsn", "_idx", "_old_key")),
        ]
    )
    parts.append(f"ends AS (SELECT {ends} FROM carried WHERE _op = 'd')")
    root = ", ".join(f"{quoted(k)} AS root_{i}" for i, k in enumerate(shape.key))
    known_now = _list(f"known_{n}" for n in numbers)
    parts.append(
        f"hop_0 AS (SELECT {_names(kept)}, {root}, deletes, {known_now}, "
        "head_era, head_lsn, head_idx, head_old_key FROM carried)"
    )
    for hop in range(1, HOPS + 1):
        columns = _list(
            [
                _names(kept, "h."),
                *(
                    f"CASE WHEN e.at_era IS NULL THEN h.root_{i} ELSE e.old_{i} END AS root_{i}"
                    for i in range(len(shape.key))
                ),
                "CASE WHEN e.at_era IS NULL THEN h.deletes ELSE e.old_deletes END AS deletes",
                *(f"coalesce(h.known_{n}, e.old_known_{n}) AS known_{n}" for n in numbers),
                *(
                    f"CASE WHEN e.at_era IS NULL THEN h.head{c} ELSE e.old_head{c} END AS head{c}"
                    for c in ("_era", "_lsn", "_idx", "_old_key")
                ),
            ]
        )
        parts.append(
            f"hop_{hop} AS (SELECT {columns} FROM hop_{hop - 1} AS h LEFT JOIN ends AS e ON h.head_old_key IS NOT NULL "
            "AND e.at_era = h.head_era AND e.at_lsn = h.head_lsn AND e.at_idx + 1 = h.head_idx)"
        )
    return [*parts, f"hopped AS (SELECT * FROM hop_{HOPS})"]


def _torn(shape: Shape) -> str:
    """Current rows that left values out: from their lineage, or else from base under the lineage's first key."""
    key = " AND ".join(f"b.{quoted(k)} = h.root_{i}" for i, k in enumerate(shape.key))
    columns = []
    for column in state_columns(shape):
        numbers = [n for n, c in enumerate(shape.torn) if c.name == column.name]
        if numbers:
            known = f"h.known_{numbers[0]}"
            columns.append(
                f"CASE WHEN NOT contains(h._unchanged, {text(column.name)}) THEN h.{quoted(column.name)} "
                f"WHEN {known} IS NOT NULL THEN element_at({known}, 1) "
                f"WHEN h.deletes = 0 THEN b.{quoted(column.name)} END AS {quoted(column.name)}"
            )
        else:
            columns.append(f"h.{quoted(column.name)}")
    adrift = " OR ".join(
        f"(contains(h._unchanged, {text(c.name)}) AND h.known_{n} IS NULL)" for n, c in enumerate(shape.torn)
    )
    message = text(
        f"{shape.source}.{shape.table}: a row changed its key more than {HOPS} times since the last fold, key "
    )
    shown = f"{message} || CAST(h.{quoted(shape.key[0])} AS varchar)"
    return (
        f"torn AS (SELECT {_list(columns)} FROM hopped AS h JOIN chg AS n ON {_same(shape, 'h', 'n')} "
        "AND h._era = n._era AND h._lsn = n._lsn AND h._idx = n._idx CROSS JOIN cleared AS c "
        f"LEFT JOIN (SELECT {_names(c.name for c in shape.columns)} FROM {_lake(shape)} WHERE _tier = 'base') AS b "
        f"ON {key} AND c._era < 0 "
        "WHERE n._op <> 'd' AND cardinality(n._unchanged) > 0 "
        f"AND CASE WHEN h.head_old_key IS NOT NULL AND ({adrift}) THEN CAST({shown} AS integer) = 0 ELSE TRUE END)"
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
