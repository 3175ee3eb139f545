"""The text of the views, and what the catalog refuses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

import boto3
import pytest
import sqlglot
from moto import mock_aws
from sqlglot import exp

from glue_streaming import view_current, view_history
from glue_streaming.fold.errors import ViewRefused
from glue_streaming.fold.shape import METADATA_COLUMNS, Shape, ShapeColumn
from glue_streaming.views import KIND, View, put, table_input, views_of
from ops import named_queries
from ops.named_queries import NamedQuery

BYTES = ShapeColumn("data", "BLOB", "varbinary", "binary", toastable=True)
TAGS = ShapeColumn("tags", "VARCHAR[]", "array(varchar)", "array<string>", toastable=True)
TEXT = ShapeColumn("doc", "VARCHAR", "varchar", "string", toastable=True)
ODD = ShapeColumn("or der", "DECIMAL(12, 2)", "decimal(12, 2)", "decimal(12,2)", toastable=True)
ID = ShapeColumn("id", "BIGINT", "bigint", "bigint")
SHAPES = [Shape("shop", "t", (ID, TEXT, ODD), key, METADATA_COLUMNS) for key in ((), ("id",), ("id", "doc"))]
SHAPES.append(Shape("shop", "t", (ID, TEXT, ODD, BYTES, TAGS), (), METADATA_COLUMNS, whole_rows=True))


@pytest.mark.parametrize("dialect", ["trino", "athena"])
@pytest.mark.parametrize("shape", SHAPES, ids=["append-only", "keyed", "two keys", "whole rows"])
def test_every_view_parses_in_the_dialects_that_read_it(shape: Shape, dialect: str) -> None:
    """All views are one statement that Trino's and Athena's grammars read, casting each of its columns."""
    for view in views_of(shape):
        (tree,) = sqlglot.parse(view.sql, dialect=dialect)
        assert tree is not None
        for select in [tree.left, tree.right] if isinstance(tree, exp.Union) else [tree]:
            query = select if isinstance(select, exp.Select) else next(select.find_all(exp.Select))
            assert [item.alias for item in query.expressions] == [column.name for column in view.columns]
            assert all(isinstance(item.this, exp.Cast) for item in query.expressions)


CALLS: Final = re.compile(r"([a-z_]+)\(")
LEFT_OUT: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*")
NO_FUNCTIONS: Final = {"array", "row", "decimal", "varchar", "timestamp", "map"}
"""Types, and the constructors of an array and of a row."""
FUNCTIONS: Final = {
    "cast": "every column, to its declared type",
    "coalesce": "null arrays of unchanged columns",
    "cardinality": "whether a row leaves values out",
    "contains": "which values it leaves out",
    "element_at": "the one value of an array of one",
    "row_number": "the newest change of a key",
    "lead": "when a version ends, and what a deleted row became by a key change",
    "min": "when a snapshot was read",
    "transform": "items of an array as texts, to compare rows without a key",
    "to_hex": "bytes as text, to compare rows without a key",
    "first_value": "how a lineage begins",
    "last_value": "the last known value of a column",
    "sum": "deletes so far; sizes",
    "count": "named queries",
    "max": "named queries",
    "date_diff": "named queries: seconds since a commit",
    "date_trunc": "named queries: changes by hour",
}
"""What views and named queries may call, each for a reason. Trino documents all of them under Functions and operators;
Athena's engine version 3 documents its functions as those of Trino, with a list of exceptions that names none of them.
"""


def test_only_functions_that_trino_and_athena_both_document_are_called() -> None:
    """A function that one of them lacks would fail where no laptop can show it."""
    texts = [view.sql for shape in SHAPES for view in views_of(shape)]
    texts += [query.sql for query in named_queries.of_source("shop")]
    called = {name for text in texts for name in CALLS.findall(LEFT_OUT.sub("''", text.lower()).replace(" (", " "))}
    assert called - NO_FUNCTIONS == set(FUNCTIONS)


@pytest.mark.parametrize("dialect", ["trino", "athena"])
@pytest.mark.parametrize("query", list(named_queries.of_source("shop")), ids=lambda query: query.name)
def test_every_named_query_parses_in_both_dialects(query: NamedQuery, dialect: str) -> None:
    """And has a name and a description within what Athena takes."""
    (tree,) = sqlglot.parse(query.sql, dialect=dialect)
    assert isinstance(tree, exp.Select)
    assert len(query.name) <= 128 and 20 < len(query.description) <= 1024
    assert "${" not in query.sql


def test_a_cut_view_names_the_watermark_before_the_table() -> None:
    """The first relation in document order is the watermark: the table is loaded after it."""
    for shape in SHAPES:
        sql = view_current.cut(shape)
        assert sql.index('"shop_cut"."watermark"') < sql.index('"shop_lake"."t"')
        assert '"watermark"' not in view_current.current(shape)


@pytest.mark.parametrize("view", [view_current.current, view_current.cut, view_history.versions])
def test_what_reads_base_or_history_is_named_once(view: Callable[[Shape], str]) -> None:
    """Trino computes a named relation wherever it is named: but for the last truncate's, each is read by one other."""
    tree = sqlglot.parse_one(view(SHAPES[1]), dialect="athena")
    named = Counter(table.name for table in tree.find_all(exp.Table) if not table.db)
    expected = {"cleared": 5, "w": named["w"], "every": 2}
    assert named == {name: expected.get(name, 1) for name in named}


def test_views_beyond_the_catalogs_limits_are_refused() -> None:
    """Too long a text: the error names the view, both sizes, and what is left to do."""
    said = r"s\.t: its text has \d+ characters, the catalog holds 409600\. Query the lake table"
    with pytest.raises(ViewRefused, match=said):
        table_input(View("s", "t", "current", "x" * 400_000, (ID,)))


@pytest.mark.parametrize("first", ["orders", "orders_versions"])
def test_no_table_takes_the_name_of_the_view_of_anothers_versions(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view that stands stays; the error names the view, both tables, and what to do. Its other views are made."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)  # other tests' AWS may be in the environment
    with mock_aws():
        glue = boto3.client("glue", region_name="eu-west-1")
        for database in ("shop", "shop_cut", "shop_history"):
            glue.create_database(DatabaseInput={"Name": database})
        made = {}
        for table in sorted(("orders", "orders_versions"), key=lambda name: name != first):
            for view in views_of(Shape("shop", table, (ID, TEXT), ("id",), METADATA_COLUMNS)):
                try:
                    made[view.database, view.name, table] = put(glue, view)
                except ViewRefused as error:
                    assert view.name == "orders_versions" and table != first
                    assert "of the changes of orders_versions, and of the versions of orders" in str(error)
                    assert "(rename)" in str(error)
        assert len(made) == 7
        standing = glue.get_table(DatabaseName="shop_history", Name="orders_versions")["Table"]
        assert standing["Parameters"][KIND] == ("versions" if first == "orders" else "changes")


def test_comments_fit_the_catalog_whatever_the_source_says() -> None:
    """One line of at most 255 bytes of UTF-8 for each column and for the view; what is cut off is seen to be."""
    long = "größe\n in\t mm \x07" + "ö" * 300
    entry = table_input(View("s", "t", "current", "SELECT 1", (ID,), {"id": long}, about=long))
    for text in (entry["StorageDescriptor"]["Columns"][0]["Comment"], entry["Description"]):
        assert len(text.encode()) <= 255
        assert "größe in mm öö" in text and text.endswith("…")
        assert text.isprintable()
    assert entry["Description"].startswith("Current rows, as fresh as the last batch. größe")


def test_a_wide_table_fits() -> None:
    """Fifty columns that may be left out of an update still make views that the catalog can hold."""
    columns = tuple(
        ShapeColumn(f"column_number_{n}", "VARCHAR", "varchar", "string", toastable=True) for n in range(50)
    )
    for view in views_of(Shape("shop", "wide", (ID, *columns), ("id",), METADATA_COLUMNS)):
        table_input(view)
