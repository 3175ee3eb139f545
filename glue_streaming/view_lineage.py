"""What rows that left values out had in them: each row's lineage, in Trino SQL. Pure.

A segment is the versions of a key between two deletes. A key change (a delete and, right behind it, an insert with
`_old_key`) carries it on under another key: a lineage is a segment and those that led to it. The value that a row left
out is the newest older one of its lineage.

known_N is an array of one value, or null where no version at hand carries the Nth torn column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from glue_streaming.fold.shape import Shape
from glue_streaming.view_text import OLDEST_FIRST, listed, names, quoted, text

HOPS: Final = 3
"""How many key changes of one row, between two folds, a fresh view follows to a value that they left out.

Beyond it the view raises where the value is asked for, and says so: a fold resolves any number of them.
"""
WHOLE_WINDOW: Final = "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"


def left_out(column: str) -> str:
    return f"contains(_unchanged, {text(column)})"


def carried(shape: Shape) -> list[str]:
    """By torn column: the row's own value in an array, or null where it is no version or left the value out."""
    return [
        f"CASE WHEN _op <> 'd' AND NOT coalesce({left_out(c.name)}, FALSE) THEN ARRAY[{quoted(c.name)}] END"
        for c in shape.torn
    ]


def lineages(shape: Shape, relation: str, kept: Sequence[str], span: str = "") -> list[str]:
    """Relations up to `traced`: the rows of `relation` (of one span: between two truncates), with known_N.

    lost: the lineage at hand begins with a key change, whose old row is not in it. came: the row's own segment does.
    A segment takes its lineage from the one that it led to, one hop a key change: so the newest segment's is whole.
    """
    key = names(shape.key) + (f", {span}" if span else "")
    columns = names(kept)
    segment = f"PARTITION BY {key}, deletes ORDER BY {OLDEST_FIRST}"
    line = f"PARTITION BY lineage ORDER BY {OLDEST_FIRST}"
    known = listed(
        f"last_value({value}) IGNORE NULLS OVER ({line} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS known_{n}"
        for n, value in enumerate(carried(shape))
    )
    led_to = f"lead(CASE WHEN _old_key IS NOT NULL THEN lineage END) {pair()}"
    parts = [
        f"numbered_rows AS (SELECT {columns}, coalesce(sum(CASE WHEN _op = 'd' THEN 1 ELSE 0 END) OVER ("
        f"PARTITION BY {key} ORDER BY {OLDEST_FIRST} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS deletes "
        f"FROM {relation})",
        f"hop_0 AS (SELECT {columns}, deletes, ROW({key}, deletes) AS lineage FROM numbered_rows)",
    ]
    for hop in range(1, HOPS + 1):
        parts += [
            f"pair_{hop} AS (SELECT {columns}, deletes, lineage, {led_to} AS next_lineage FROM hop_{hop - 1})",
            f"hop_{hop} AS (SELECT {columns}, deletes, coalesce(last_value(next_lineage) OVER ({segment} "
            f"{WHOLE_WINDOW}), lineage) AS lineage FROM pair_{hop})",
        ]
    return [
        *parts,
        f"traced AS (SELECT {columns}, {known}, first_value(_old_key) OVER ({line}) IS NOT NULL AS lost, "
        f"first_value(_old_key) OVER ({segment}) IS NOT NULL AS came FROM hop_{HOPS})",
    ]


def pair(alias: str = "") -> str:
    """A window of a row and the delete right before it, if there is one: of a key change both parts."""
    place = f"CASE WHEN {alias}_op = 'd' THEN {alias}_idx + 1 ELSE {alias}_idx END"
    return f"OVER (PARTITION BY {alias}_era, {alias}_lsn, {place} ORDER BY {alias}_idx)"
