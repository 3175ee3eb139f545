"""Tables without a key: DuckDB SQL, generated from a table's shape; `scratch` runs it, `layout` says over which rows.

Their rows are a multiset. A delete names a row by all that it holds, and takes away one that is
equal: the oldest, and the nth delete of equal rows the nth of them. Between two truncates the order does not matter.
What was matched is known by its positions afterwards, so that the parts of a fold need not compare rows again.

Relations that it reads: `changes`, and those that `found` is given; that it makes, in order: contents, ends, found,
cancelled.
"""

from __future__ import annotations

from typing import Final

from glue_streaming.fold.merge import BY_POSITION, NEWEST_FIRST, above, as_tier, every, quoted
from glue_streaming.fold.shape import Shape, ShapeColumn
from schemas.position import Position

_UNEQUAL: Final = ("FLOAT", "DOUBLE")
"""Types whose values are not equal as the source's are: 0 and -0 would be, NaN is itself."""


def contents(shape: Shape) -> str:
    """What was deleted, each once."""
    return (
        f"SELECT row_number() OVER () AS id, * FROM (SELECT DISTINCT {_content(shape)} FROM changes WHERE {_DELETES})"
    )


def ends(shape: Shape) -> str:
    """The deletes, numbered among those of equal rows."""
    return f"SELECT {BY_POSITION}, id, {_nth('id')} FROM ({_of_contents(shape, 'changes', _DELETES)})"


def found(shape: Shape, relation: str) -> str:
    """The rows of a relation that equal something deleted."""
    return _of_contents(shape, relation, "_op <> 'd' AND _op <> 't'")


def cancelled() -> str:
    """The positions of the deletes that found their rows, and of these rows."""
    both = f"""
        SELECT ends._era AS ended_era, ends._lsn AS ended_lsn, ends._idx AS ended_idx, rows.* EXCLUDE (id, nth)
        FROM (SELECT *, {_nth("id")} FROM found) AS rows JOIN ends ON rows.id = ends.id AND rows.nth = ends.nth"""
    return f"""
        WITH pairs AS ({both}) SELECT {BY_POSITION} FROM pairs
        UNION ALL SELECT ended_era, ended_lsn, ended_idx FROM pairs"""


def unmatched() -> str:
    """The deletes that found no row, oldest first."""
    return f"SELECT {BY_POSITION} FROM ends {without_cancelled('ends')} ORDER BY {BY_POSITION}"


def without_cancelled(rows: str) -> str:
    """The join that leaves out of `rows` what `cancelled` names."""
    same = " AND ".join(f"{rows}.{c} = cancelled.{c}" for c in ("_era", "_lsn", "_idx"))
    return f"ANTI JOIN cancelled ON {same}"


def merged(shape: Shape, tier: str, truncate: Position | None) -> str:
    """The rows that base or delta gained, and those of its files that are read, without what cancelled each other."""
    rows = f"SELECT {every(shape)} FROM taken WHERE {_OPS[tier]} AND {above(truncate)}"
    if truncate is None:
        rows = f"{rows} UNION ALL SELECT {every(shape)} FROM {tier}"
    return _left(shape, tier, f"({rows})")


def activated(shape: Shape, tier: str) -> str:
    """Base out of a snapshot's rows and the changes behind it, and delta, where deletes of these found no row."""
    return _left(shape, tier, f"(SELECT * FROM changes WHERE {_OPS[tier]})")


def beginning() -> str:
    """Behind which position the rows taken count: the last truncate's, or the one before the last snapshot's rows."""
    return f"""
        SELECT {BY_POSITION} FROM taken WHERE _op = 't' UNION ALL
        SELECT DISTINCT _era, _lsn, -1 FROM taken WHERE _op = 'r' ORDER BY {NEWEST_FIRST} LIMIT 1"""


def carried(shape: Shape) -> str:
    """What of old history goes on: the rows that nothing took away."""
    return _left(shape, "history", f"(SELECT * FROM changes WHERE {_OPS['base']})")


_DELETES: Final = "_op = 'd'"
_OPS: Final = {"base": "_op IN ('c', 'r')", "delta": _DELETES}


def _left(shape: Shape, tier: str, rows: str) -> str:
    return f"SELECT {as_tier(shape, tier)} FROM {rows} AS rows {without_cancelled('rows')} ORDER BY {BY_POSITION}"


def _nth(group: str) -> str:
    return f"row_number() OVER (PARTITION BY {group} ORDER BY {BY_POSITION}) AS nth"


def _of_contents(shape: Shape, relation: str, where: str) -> str:
    count = len(shape.columns) + 1
    same = " AND ".join(f"rows.{_same(n)} IS NOT DISTINCT FROM contents.{_same(n)}" for n in range(count))
    return f"""
        SELECT {", ".join(f"rows.{c}" for c in ("_era", "_lsn", "_idx"))}, contents.id
        FROM (SELECT {BY_POSITION}, {_content(shape)} FROM {relation} WHERE {where}) AS rows JOIN contents ON {same}"""


def _content(shape: Shape) -> str:
    """All that a row holds: its columns, and the texts of values that these cannot hold."""
    values = [*map(_value, shape.columns), "list_sort(map_entries(_raw))"]
    return ", ".join(f"{value} AS {_same(n)}" for n, value in enumerate(values))


def _value(column: ShapeColumn) -> str:
    if not column.duckdb.startswith(_UNEQUAL):
        return quoted(column.name)
    return f"CAST({quoted(column.name)} AS VARCHAR{'[]' if column.duckdb.endswith('[]') else ''})"


def _same(number: int) -> str:
    return f"same_{number}"
