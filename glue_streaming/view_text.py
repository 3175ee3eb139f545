"""Words of Trino SQL that the views share: names, casts, positions, windows. Pure.

A column of a table is always quoted; what a view's query makes for itself stands bare here, and `kept_apart` gives it a
name that no table's column has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from glue_streaming.fold.shape import METADATA_COLUMNS, Shape, ShapeColumn

POSITION: Final = ("_era", "_lsn", "_idx")
OLDEST_FIRST: Final = "_era, _lsn, _idx"
NOWHERE: Final = "CAST(-1 AS integer), CAST(-1 AS bigint), CAST(-1 AS integer)"
"""A position below all others."""
METADATA: Final = {column.name: column for column in METADATA_COLUMNS}
_OWN: Final = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | \b(?P<own>nth|deletes|moved|came|known_\d+|same_\d+|lost|(?:next_)?lineage
    |valid_(?:from|to)|span_(?:era|lsn|idx|end)|end_(?:era|lsn|idx|committed_at))\b""",
    re.VERBOSE,
)
"""The columns that the views' queries make for themselves; texts and quoted names are passed by."""


def kept_apart(sql: str) -> str:
    """The query with its own columns' names as no table's column is called: `nth` becomes `"$nth"`."""
    return _OWN.sub(lambda found: f'"${found["own"]}"' if found["own"] else found[0], sql)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def listed(items: Iterable[str]) -> str:
    return ", ".join(items)


def names(columns: Iterable[str], prefix: str = "") -> str:
    return listed(f"{prefix}{quoted(column)}" for column in columns)


def casts(columns: Iterable[ShapeColumn], prefix: str = "") -> str:
    return listed(f"CAST({prefix}{quoted(c.name)} AS {c.trino}) AS {quoted(c.name)}" for c in columns)


def lake(shape: Shape) -> str:
    return f"{quoted(shape.source + '_lake')}.{quoted(shape.table)}"


def physical(shape: Shape) -> tuple[str, ...]:
    """The columns that a view may need of a row: its metadata and the table's own."""
    return (*METADATA, *(c.name for c in shape.columns))


def newest_first(alias: str = "") -> str:
    return listed(f"{alias}{column} DESC" for column in POSITION)


def same_key(shape: Shape, left: str, right: str) -> str:
    """No part of a key is ever null."""
    return " AND ".join(f"{left}.{quoted(key)} = {right}.{quoted(key)}" for key in shape.key)


def behind(row: str, bound: str) -> str:
    """row's position is above bound's."""
    return (
        f"({row}._era > {bound}._era OR ({row}._era = {bound}._era AND ({row}._lsn > {bound}._lsn "
        f"OR ({row}._lsn = {bound}._lsn AND {row}._idx > {bound}._idx))))"
    )


def before(row: str, bound: str, prefix: str) -> str:
    """row's position is below bound's, whose columns carry a prefix."""
    era, lsn, idx = (f"{bound}.{prefix}{column}" for column in POSITION)
    return (
        f"({row}._era < {era} OR ({row}._era = {era} AND ({row}._lsn < {lsn} "
        f"OR ({row}._lsn = {lsn} AND {row}._idx < {idx}))))"
    )
