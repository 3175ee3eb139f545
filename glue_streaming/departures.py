"""Tables that leave the cut: a hole that nobody mends must not hold the other tables back for ever.

First the table's cut view raises, in place; a horizon later, when no query can still be planned with the view as it
was, the watermark goes on without the table. Mended, it comes back at a watermark that it covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from glue_streaming import view_current, view_text, views
from glue_streaming.fold.shape import Shape, shape_of
from glue_streaming.holes import Hole
from glue_streaming.lake import Lake
from glue_streaming.state import FoldState, StreamState
from schemas.position import Line


def overdue(holes: Iterable[Hole], now: float, deadline_seconds: float) -> Hole | None:
    """The oldest hole that is open for longer than the deadline. Pure."""
    old = [hole for hole in holes if now - datetime.fromisoformat(hole.opened_at).timestamp() >= deadline_seconds]
    return min(old, key=lambda hole: hole.opened_at, default=None)


def gone(left: Mapping[str, float], now: float, horizon_seconds: float) -> set[str]:
    """The tables that the watermark need not wait for any more. Pure."""
    return {table for table, at in left.items() if now - at >= horizon_seconds}


def mended(stream: StreamState, fold: FoldState, line: Line | None, watermark: Line, aged: Line | None) -> bool:
    """Whether a table that left may come back at the watermark: no hole, L >= W, and the aged W at its F. Pure."""
    if stream.data_holes or line is None or line < watermark:
        return False
    return fold.activated_through == 0 or (aged is not None and aged >= fold.line)


class CutViews:
    """The cut views of a source's tables, where they have one yet."""

    def __init__(self, glue: Any, lake: Lake, source: str) -> None:
        self._glue = glue
        self._lake = lake
        self._source = source

    def take_away(self, table: str, why: str) -> bool:
        """Makes the table's cut view raise, and say why; False where it does so already, or has none. Idempotent."""
        if (self._source, table) not in self._lake.tables:
            return False
        shape = self._shape(table)
        return self._put(table, views.OUT_OF_CUT, raising(shape, why), shape)

    def bring_back(self, table: str) -> bool:
        """Gives the table its cut view again; False where it stands already, or has none. Idempotent."""
        if (self._source, table) not in self._lake.tables:
            return False
        shape = self._shape(table)
        return self._put(table, "cut", view_current.cut(shape), shape)

    def _shape(self, table: str) -> Shape:
        lake = self._lake.tables[self._source, table].table
        return shape_of(self._source, table, lake.schema(), lake.properties)

    def _put(self, table: str, kind: str, sql: str, shape: Shape) -> bool:
        database = f"{self._source}_cut"
        try:
            self._glue.get_table(DatabaseName=database, Name=table)
        except self._glue.exceptions.EntityNotFoundException:
            return False
        view = views.View(database, table, kind, sql, view_current.state_columns(shape))
        return views.put(self._glue, views.annotated(view, self._lake.tables[self._source, table].table))


def raising(shape: Shape, why: str) -> str:
    """The text of a view with the table's columns that raises with a sentence, whatever is asked of it."""
    nulls = ", ".join(
        f"CAST(NULL AS {column.trino}) AS {view_text.quoted(column.name)}"
        for column in view_current.state_columns(shape)
    )
    sentence = (
        f"{shape.source}_cut.{shape.table} has left the cut ({why}); {shape.source}.{shape.table} shows what there is"
    )
    return f"SELECT {nulls} FROM (VALUES (CAST({view_text.text(sentence)} AS integer))) AS t (why) WHERE why = 0"
