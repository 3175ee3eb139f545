"""How the views compare rows of a table without a key: by texts that are equal exactly where the rows are. Pure.

Trino joins by equality with a hash, and by IS NOT DISTINCT FROM row by row; a null is equal to nothing, nor is NaN, and
0 equals -0. So each column becomes a text (an array one of texts) that is never null: `-` for a null (`?` for that of
an array), `+` before a value, `!` before the source's text of a value that the column cannot hold.
"""

from __future__ import annotations

from typing import Final

from glue_streaming.fold.merge import quoted, text
from glue_streaming.fold.shape import Shape, ShapeColumn

_ALWAYS_HOLDS: Final = ("boolean", "integer", "bigint", "varchar", "varbinary", "real", "double")
"""Types of which every value of the source is one."""


def named(shape: Shape, alias: str) -> str:
    """The content of a row `alias`, as columns `same_0`, `same_1` ..."""
    contents = [_content(column, alias) for column in shape.columns] or ["'-'"]
    return ", ".join(f"{content} AS same_{n}" for n, content in enumerate(contents))


def names(shape: Shape, alias: str = "") -> str:
    return ", ".join(_names(shape, alias))


def equal(shape: Shape, left: str, right: str) -> str:
    """Whether two relations with these columns have the same row."""
    pairs = zip(_names(shape, f"{left}."), _names(shape, f"{right}."), strict=True)
    return " AND ".join(f"{mine} = {other}" for mine, other in pairs)


def _names(shape: Shape, alias: str) -> list[str]:
    return [f"{alias}same_{n}" for n in range(max(1, len(shape.columns)))]


def _content(column: ShapeColumn, alias: str) -> str:
    value, raw = f"{alias}.{quoted(column.name)}", f"'!' || element_at({alias}._raw, {text(column.name)})"
    if column.trino.startswith("array("):
        item = _text("item", column.trino.removeprefix("array(").removesuffix(")"))
        return f"coalesce(transform({value}, item -> coalesce('+' || {item}, '-')), ARRAY[coalesce({raw}, '?')])"
    texts = [f"'+' || {_text(value, column.trino)}", *([] if column.trino in _ALWAYS_HOLDS else [raw]), "'-'"]
    return f"coalesce({', '.join(texts)})"


def _text(value: str, kind: str) -> str:
    if kind == "varbinary":
        return f"to_hex({value})"
    return value if kind == "varchar" else f"CAST({value} AS varchar)"
