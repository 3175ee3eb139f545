"""The text of the views of current rows, fresh or at the source's watermark: Trino SQL, from a table's shape. Pure.

Every view lists its columns and casts each one, so that a widened type in the lake never makes a view stale.
A query loads each table once, however often its views name it, so all parts of a view see one snapshot of the table.
A cut view names the watermark before the table, so the table is loaded after it and holds all that it covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from glue_streaming import view_content
from glue_streaming.fold.shape import Shape, ShapeColumn
from glue_streaming.view_lineage import HOPS, WHOLE_WINDOW, carried, left_out, lineages, pair
from glue_streaming.view_text import (
    METADATA,
    NOWHERE,
    POSITION,
    behind,
    casts,
    kept_apart,
    lake,
    listed,
    names,
    newest_first,
    physical,
    quoted,
    same_key,
    text,
)

_TRAILING: Final = (METADATA["_committed_at"], METADATA["_raw"])
_CLEARED: Final = " CROSS JOIN cleared AS c"


def state_columns(shape: Shape) -> tuple[ShapeColumn, ...]:
    """The columns of a current or cut view: the table's, then when the row's last change was committed, then `_raw`."""
    return (*shape.columns, *_TRAILING)


def current(shape: Shape) -> str:
    """Current rows, as fresh as the last micro-batch, exact for one snapshot of the table."""
    return _state(shape, [], "TRUE")


def cut(shape: Shape) -> str:
    """Current rows at the source's watermark: whole transactions, across all cut views of one query."""
    watermark = f"w AS (SELECT era, lsn FROM {quoted(shape.source + '_cut')}.{quoted('watermark')})"
    return _state(shape, [watermark], "(l._era < w.era OR (l._era = w.era AND l._lsn <= w.lsn))")


def _state(shape: Shape, first: Sequence[str], within: str) -> str:
    return kept_apart(_keyed(shape, first, within) if shape.key else _keyless(shape, first, within))


def _keyed(shape: Shape, first: Sequence[str], within: str) -> str:
    """The log's newest row of each key, delta's rows that the log says nothing of, base's that neither does.

    Delta and base hold a key once, delta is newer than base and the log than both: only the log is ranked. Relations
    that a condition on the key should reach stand where they are read: a named one that is read twice is computed once
    by some engines (DuckDB), and whole. No part of a key is ever null.
    """
    columns = state_columns(shape)
    whole = " AND coalesce(cardinality(l._unchanged), 0) = 0" if shape.torn else ""
    ranked = _tiers(
        shape, first, within, ("log",), f"{names(physical(shape), 'l.')}, {_nth(shape)}",
        f"l._op <> 't' AND {behind('l', 'c')}", joined=_CLEARED,
    )  # fmt: skip
    parts = [*first, _cleared(shape, first, within)]
    states = [f"SELECT {casts(columns, 'l.')} FROM ({ranked}) AS l WHERE l.nth = 1 AND l._op <> 'd'{whole}"]
    if shape.torn:
        parts += [*_moved(shape, first, within)]
        states += [f"SELECT {casts(columns)} FROM {rows}" for rows in (_stayed(shape, first, within), "arrived")]
    for tier, above, kept in (("delta", ("log",), f" AND l._op <> 'd'{whole}"), ("base", ("log", "delta"), "")):
        newer = _tiers(shape, first, within, above, names(shape.key, "l."), "l._op <> 't'")
        states.append(
            f"SELECT {casts(columns, 'l.')} FROM {lake(shape)} AS l CROSS JOIN cleared AS c "
            f"LEFT JOIN ({newer}) AS n ON {same_key(shape, 'l', 'n')} "
            f"WHERE l._tier = '{tier}' AND c._era < 0 AND n.{quoted(shape.key[0])} IS NULL{kept}"
        )
    return f"WITH {listed(parts)} {' UNION ALL '.join(states)}"


def _keyless(shape: Shape, first: Sequence[str], within: str) -> str:
    columns = casts(state_columns(shape), "l.")
    parts = [*first, _cleared(shape, first, within)]
    inserted = f"l._op IN ('c', 'r') AND {behind('l', 'c')}"
    if shape.whole_rows:
        return f"WITH {listed([*parts, _cancelled(shape, first, within)])} " + _tiers(
            shape, first, within, ("log", "base"), columns, f"{inserted} AND g._era IS NULL",
            joined=f"{_CLEARED} LEFT JOIN cancelled AS g ON " + " AND ".join(f"g.{c} = l.{c}" for c in POSITION),
        )  # fmt: skip
    return (
        f"WITH {listed(parts)} {_tiers(shape, first, within, ('log',), columns, inserted, joined=_CLEARED)} "
        f"UNION ALL SELECT {columns} FROM {lake(shape)} AS l CROSS JOIN cleared AS c "
        "WHERE l._tier = 'base' AND c._era < 0"
    )


def _tiers(
    shape: Shape, first: Sequence[str], within: str, tiers: Sequence[str], what: str, where: str, joined: str = ""
) -> str:
    """A query of the log and maybe other tiers, called `l`: of the log, only what the view looks at."""
    joined += " CROSS JOIN w" if first else ""
    kept = f"l._tier IN ({listed(text(tier) for tier in tiers)})" if len(tiers) > 1 else "l._tier = 'log'"
    if first:
        kept += f" AND {within}" if len(tiers) == 1 else f" AND (l._tier <> 'log' OR {within})"
    return f"SELECT {what} FROM {lake(shape)} AS l{joined} WHERE {kept} AND {where}"


def _nth(shape: Shape) -> str:
    return f"row_number() OVER (PARTITION BY {names(shape.key, 'l.')} ORDER BY {newest_first('l.')}) AS nth"


def _cleared(shape: Shape, first: Sequence[str], within: str) -> str:
    """One row: the position of the last truncate, or one below every position. It hides what is before it.

    A truncate in sight is newer than base and delta, so its position hides their rows as it does the log's.
    """
    truncates = _tiers(shape, first, within, ("log",), "l._era, l._lsn, l._idx", "l._op = 't'")
    return (
        f"cleared AS (SELECT * FROM ({truncates} UNION ALL SELECT {NOWHERE}) AS truncates "
        f"ORDER BY {newest_first()} LIMIT 1)"
    )


def _cancelled(shape: Shape, first: Sequence[str], within: str) -> str:
    """The positions of rows that were deleted: as many of equal ones as there are deletes, the oldest first.

    Where nothing is deleted, the join has nothing on one side: no row of base is compared.
    """
    position, content = "l._era, l._lsn, l._idx", view_content.named(shape, "l")
    contents, seen = view_content.names(shape), behind("l", "c")
    deletes = _tiers(
        shape, first, within, ("log", "delta"), content, f"l._op = 'd' AND {seen}", joined=_CLEARED
    )  # fmt: skip
    rows = _tiers(
        shape, first, within, ("log", "base"), f"{position}, {content}", f"l._op IN ('c', 'r') AND {seen}",
        joined=_CLEARED,
    )  # fmt: skip
    gone = (
        f"SELECT {contents}, count(*) AS deletes, row_number() OVER () AS content FROM ({deletes}) AS l "
        f"GROUP BY {contents}"
    )
    ranked = (
        f"SELECT {position}, g.deletes, row_number() OVER (PARTITION BY g.content ORDER BY {position}) AS nth "
        f"FROM ({rows}) AS l JOIN ({gone}) AS g ON {view_content.equal(shape, 'l', 'g')}"
    )
    return f"cancelled AS (SELECT _era, _lsn, _idx FROM ({ranked}) AS ranked WHERE nth <= deletes)"


def _stayed(shape: Shape, first: Sequence[str], within: str) -> str:
    """Current rows that left values out and whose lineage is of one key: a condition on the key reaches all of it.

    Where there are none, the join has nothing on one side: no row of delta or base is read for them.
    """
    window = f"OVER (PARTITION BY {names(shape.key)} ORDER BY {newest_first()} {WHOLE_WINDOW})"
    known = listed(f"first_value({value}) IGNORE NULLS {window} AS known_{n}" for n, value in enumerate(carried(shape)))
    deletes = (
        f"sum(CASE WHEN l._op = 'd' THEN 1 ELSE 0 END) OVER (PARTITION BY {names(shape.key, 'l.')} "
        f"ORDER BY {newest_first('l.')} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS deletes"
    )
    suspects = _tiers(
        shape, first, within, ("log", "delta"), f"DISTINCT {names(shape.key, 'l.')}", "cardinality(l._unchanged) > 0"
    )  # fmt: skip
    segment = (
        f"SELECT {names(physical(shape))}, nth, {known}, last_value(_old_key) {window} IS NOT NULL AS came "
        f"FROM ({_kin(shape, first, within, f'({suspects})', f'{_nth(shape)}, {deletes}')}) AS l WHERE deletes = 0"
    )
    columns = listed(_filled(shape, "element_at({known}, 1)"))
    return (
        f"(SELECT {columns} FROM ({segment}) AS l WHERE nth = 1 AND cardinality(_unchanged) > 0 AND NOT came) AS stayed"
    )


def _moved(shape: Shape, first: Sequence[str], within: str) -> list[str]:
    """Relations up to `arrived`: current rows that left values out and came by a key change since the last fold.

    Where no key changed, the join has nothing on one side, as above.
    """
    moves = _tiers(
        shape, first, within, ("log",),
        f"{names(shape.key, 'l.')}, l._old_key, lead(l._old_key) {pair('l.')} AS moved",
        "(l._op = 'd' OR l._old_key IS NOT NULL)",
    )  # fmt: skip
    suspects = (
        f"(SELECT DISTINCT {names(shape.key)} FROM ({moves}) AS l WHERE _old_key IS NOT NULL OR moved IS NOT NULL)"
    )
    message = text(
        f"{shape.source}.{shape.table}: a row changed its key more than {HOPS} times since the last fold, key "
    )
    raises = f"CAST({message} || CAST({quoted(shape.key[0])} AS varchar) AS integer)"
    columns = listed(
        _filled(
            shape,
            f"CASE WHEN lost AND {{known}} IS NULL THEN element_at(ARRAY[{{column}}], {raises}) "
            "ELSE element_at({known}, 1) END",
        )
    )
    return [
        f"kin AS ({_kin(shape, first, within, suspects, _nth(shape))})",
        *lineages(shape, "kin", (*physical(shape), "$nth")),
        f"arrived AS (SELECT {columns} FROM traced "
        "WHERE nth = 1 AND _op <> 'd' AND cardinality(_unchanged) > 0 AND came)",
    ]


def _kin(shape: Shape, first: Sequence[str], within: str, suspects: str, more: str) -> str:
    """All rows of some keys. The keys are joined first, so that an engine may let them choose what is read of base."""
    return _tiers(
        shape, first, within, ("log", "delta", "base"), f"{names(physical(shape), 'l.')}, {more}",
        f"l._op <> 't' AND {behind('l', 'c')}",
        joined=f" JOIN {suspects} AS s ON {same_key(shape, 'l', 's')}{_CLEARED}",
    )  # fmt: skip


def _filled(shape: Shape, value: str) -> list[str]:
    """The columns of the view; where the row left one out, `value`: of its {known} array and its {column}."""
    numbers = {c.name: n for n, c in enumerate(shape.torn)}
    return [
        f"CASE WHEN {left_out(c.name)} "
        f"THEN {value.replace('{known}', f'known_{numbers[c.name]}').replace('{column}', quoted(c.name))} "
        f"ELSE {quoted(c.name)} END AS {quoted(c.name)}"
        if c.name in numbers
        else quoted(c.name)
        for c in state_columns(shape)
    ]
