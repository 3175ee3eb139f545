"""Where a source's columns go in the lake, and how the lake's columns follow: the decisions."""

from typing import Any

import pytest
from pyiceberg.schema import Schema

from glue_streaming.errors import TableRefused
from glue_streaming.evolution import HOLE, NEW_COLUMN, fit
from glue_streaming.lake_table import iceberg_schema
from schemas.change_record import Column, TableSchema, lake_column_names


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def table(**columns: Any) -> TableSchema:
    """A table whose columns the source calls as the lake does."""
    return TableSchema("shop", "t", tuple(Column(n, avro, n, str(avro)) for n, avro in columns.items()), ("id",))


def named(*source_names: str, avro: Any = "string") -> TableSchema:
    """A table without a key whose lake names are those that the agent derives."""
    names = lake_column_names(source_names)
    return TableSchema(
        "shop", "t", tuple(Column(n, avro, s, "x") for n, s in zip(names, source_names, strict=True)), ()
    )


def lake(schema: TableSchema) -> Schema:
    return iceberg_schema(schema)


def test_the_same_structure_fits_as_it_stands() -> None:
    """Nothing is to be done for rows of the table's own structure."""
    schema = table(id="long", a="string")
    found = fit(lake(schema), {}, schema)
    assert found.as_it_stands
    assert found.columns == {"id": "id", "a": "a"}


def test_columns_come_and_go() -> None:
    """A new column is added; one that the source dropped stays, and nothing is to be done for it."""
    found = fit(lake(table(id="long", gone="string")), {}, table(id="long", new="int"))
    assert (list(found.added), list(found.widened), found.retyped) == (["new"], [], {})


@pytest.mark.parametrize(
    ("old", "new"), [("int", "long"), ("float", "double"), (decimal(10, 2), decimal(12, 2))], ids=str
)
def test_types_widen_in_place_and_older_rows_still_fit(old: Any, new: Any) -> None:
    """What Iceberg promotes is widened, and the wide column takes what the narrow one wrote."""
    assert list(fit(lake(table(id="long", a=old)), {}, table(id="long", a=new)).widened) == ["a"]
    assert fit(lake(table(id="long", a=new)), {}, table(id="long", a=old)).as_it_stands


@pytest.mark.parametrize(
    ("old", "new"),
    [("int", "string"), ("string", "int"), (decimal(10, 2), decimal(10, 4)), ("long", "double"), ("bytes", "string")],
    ids=str,
)
def test_a_type_that_the_column_cannot_hold_goes_on_in_a_new_column(old: Any, new: Any) -> None:
    """Policy new_column: `a` keeps what it holds, the new values go to `a__2`, and older rows still go to `a`."""
    found = fit(lake(table(id="long", a=old)), {}, table(id="long", a=new))
    assert found.columns["a"] == "a__2"
    assert found.retyped == {"a__2": "a"}
    wider = lake(TableSchema("shop", "t", (*table(id="long", a=old).columns, Column("a__2", new, "a", "x")), ("id",)))
    origins = {"a__2": "a"}
    assert fit(wider, origins, table(id="long", a=old)).columns["a"] == "a"
    again = fit(wider, origins, table(id="long", a=new))
    assert (again.as_it_stands, again.columns["a"], again.lineage["a"]) == (True, "a__2", ("a__2", "a"))
    assert fit(wider, origins, table(id="long", a="boolean")).columns["a"] == "a__3"


def test_a_table_may_ask_for_a_hole_instead() -> None:
    """Policy hole: the change is refused, with column and both types; the policy that nobody knows is refused too."""
    with pytest.raises(TableRefused, match=r"column a is int in the lake and string at the source.*on_type_change"):
        fit(lake(table(id="long", a="int")), {}, table(id="long", a="string"), HOLE)
    with pytest.raises(TableRefused, match="expected new_column or hole"):
        fit(lake(table(id="long")), {}, table(id="long"), "shrug")


def test_a_keys_column_never_moves() -> None:
    """Rows of one key must stay rows of one key: its column widens, keeps its name, and is otherwise refused."""
    assert list(fit(lake(table(id="int")), {}, table(id="long")).widened) == ["id"]
    with pytest.raises(TableRefused, match="part of the key"):
        fit(lake(table(id="int")), {}, table(id="string"), NEW_COLUMN)
    renamed = TableSchema("shop", "t", (Column("id", "long", "ID", "bigint"),), ("id",))
    assert fit(lake(table(id="long")), {}, renamed).columns["id"] == "id"


def test_names_that_differ_by_case_stay_apart_also_when_one_of_them_goes() -> None:
    """`Id` and `ID` are `id` and `id__2`; when `Id` is dropped the agent calls `ID` `id`, and its values stay in
    `id__2`."""
    both, alone = named("Id", "ID"), named("ID")
    origins = {"id": "Id", "id__2": "ID"}
    assert fit(lake(both), origins, both).columns == {"id": "id", "id__2": "id__2"}
    assert fit(lake(both), origins, alone).columns == {"id": "id__2"}


def test_a_column_of_another_case_is_another_column() -> None:
    """`Note` dropped and `note` added is not the same column; the lake's name is taken, so it gets one of its own."""
    assert fit(lake(named("Note")), {"note": "Note"}, named("note")).added.keys() == {"note__2"}


def test_no_two_columns_share_one() -> None:
    """A new column never takes the name that another one of the same schema goes on in."""
    found = fit(lake(table(id="long", a="int")), {}, table(id="long", a="string", a__2="string"))
    assert found.columns == {"id": "id", "a": "a__3", "a__2": "a__2"}


def test_reserved_words_are_names_like_others() -> None:
    """A column may be called as SQL's words are; a metadata field's name gets a suffix."""
    schema = named("select", "Order", "_tier")
    assert list(fit(lake(schema), {"order": "Order", "_tier__2": "_tier"}, schema).columns.values()) == [
        "select",
        "order",
        "_tier__2",
    ]
