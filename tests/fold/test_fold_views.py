"""The text of the views, and what the catalog refuses."""

from __future__ import annotations

import pytest
import sqlglot
from sqlglot import exp

from glue_streaming import view_sql
from glue_streaming.fold.errors import ViewRefused
from glue_streaming.fold.shape import METADATA_COLUMNS, Shape, ShapeColumn
from glue_streaming.views import View, table_input, views_of

TEXT = ShapeColumn("doc", "VARCHAR", "varchar", "string", toastable=True)
ODD = ShapeColumn("or der", "DECIMAL(12, 2)", "decimal(12, 2)", "decimal(12,2)", toastable=True)
ID = ShapeColumn("id", "BIGINT", "bigint", "bigint")
SHAPES = [Shape("shop", "t", (ID, TEXT, ODD), key, METADATA_COLUMNS) for key in ((), ("id",), ("id", "doc"))]


@pytest.mark.parametrize("dialect", ["trino", "athena"])
@pytest.mark.parametrize("shape", SHAPES, ids=["keyless", "keyed", "two keys"])
def test_every_view_parses_in_the_dialects_that_read_it(shape: Shape, dialect: str) -> None:
    """All views are one statement that Trino's and Athena's grammars read, casting each of its columns."""
    for view in views_of(shape):
        (tree,) = sqlglot.parse(view.sql, dialect=dialect)
        assert tree is not None
        for select in [tree.left, tree.right] if isinstance(tree, exp.Union) else [tree]:
            query = select if isinstance(select, exp.Select) else next(select.find_all(exp.Select))
            assert [item.alias for item in query.expressions] == [column.name for column in view.columns]
            assert all(isinstance(item.this, exp.Cast) for item in query.expressions)


def test_a_cut_view_names_the_watermark_before_the_table() -> None:
    """The first relation in document order is the watermark: the table is loaded after it."""
    for shape in SHAPES:
        sql = view_sql.cut(shape)
        assert sql.index('"shop_cut"."watermark"') < sql.index('"shop_lake"."t"')
        assert '"watermark"' not in view_sql.current(shape)


def test_views_beyond_the_catalogs_limits_are_refused() -> None:
    """Too long a text or comment: the error names the view or the column, and what is left to do."""
    with pytest.raises(ViewRefused, match=r"s\.t: its text has \d+ characters"):
        table_input(View("s", "t", "x" * 400_000, (ID,)), {})
    with pytest.raises(ViewRefused, match="comments of id exceed 255"):
        table_input(View("s", "t", "SELECT 1", (ID,)), {"id": "c" * 256})


def test_a_wide_table_fits() -> None:
    """Fifty columns that may be left out of an update still make views that the catalog can hold."""
    columns = tuple(
        ShapeColumn(f"column_number_{n}", "VARCHAR", "varchar", "string", toastable=True) for n in range(50)
    )
    for view in views_of(Shape("shop", "wide", (ID, *columns), ("id",), METADATA_COLUMNS)):
        table_input(view, {})
