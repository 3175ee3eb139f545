"""A source's tables change their structure while the job runs: every row arrives, in a column that holds it."""

import logging
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from glue_streaming import views
from schemas.change_record import Column, TableSchema, lake_column_names

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
FINER = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 4}


def orders(world: Any, **types: Any) -> TableSchema:
    """The table `orders` with an id and these columns, registered as the agent does it."""
    columns = tuple(Column(name, avro, name, str(avro)) for name, avro in {"id": "long", **types}.items())
    schema: TableSchema = world.registry.register(TableSchema(world.source, "orders", columns, ("id",))).schema
    return schema


def changes_told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The sentences of the log about changes of structure."""
    return [said for record in caplog.records if record.message == "structure changed" for said in record.changes]


def columns_of(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row.get(name) for name in names) for row in rows]


def test_old_and_new_structures_in_one_batch(world: Any, job: Any) -> None:
    """A column comes, another goes, a third widens: rows under either structure stand side by side, in order."""
    old = orders(world, gone="string", n="int")
    world.send(world.data(old, 10, [{"id": 1, "gone": "a", "n": 1}]))
    job.run()
    new = orders(world, n="long", price=DECIMAL)
    world.send(
        world.data(old, 20, [{"id": 2, "gone": "b", "n": 2}]),
        world.data(new, 30, [{"id": 3, "n": 2**40, "price": Decimal("1.50")}]),
        world.data(old, 40, [{"id": 4, "gone": None, "n": 4}]),
        world.data(new, 50, [{"id": 5, "n": 5, "price": None}]),
    )
    job.run()
    assert columns_of(job.rows(), "id", "gone", "n", "price") == [
        (1, "a", 1, None),
        (2, "b", 2, None),
        (3, None, 2**40, Decimal("1.50")),
        (4, None, 4, None),
        (5, None, 5, None),
    ]
    assert job.state().holes == ()


def test_a_changed_default_changes_nothing(world: Any, job: Any) -> None:
    """Defaults are no part of the structure: the same fingerprint, the same columns, no commit of its own."""
    world.send(world.data(orders(world, a="string"), 10, [{"id": 1, "a": "x"}]))
    job.run()
    before = job.table().metadata.last_column_id
    world.send(world.data(orders(world, a="string"), 20, [{"id": 2, "a": "y"}]))
    job.run(1)
    assert job.ids() == [1, 2]
    assert job.table().metadata.last_column_id == before


def test_a_renamed_column_is_a_new_one_and_said_so(world: Any, job: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The old one keeps its values and is null from then on; the log names both."""
    world.send(world.data(orders(world, a="string"), 10, [{"id": 1, "a": "x"}]))
    job.run()
    with caplog.at_level(logging.WARNING):
        world.send(world.data(orders(world, b="string"), 20, [{"id": 2, "b": "y"}]))
        job.run()
    assert columns_of(job.rows(), "a", "b") == [("x", None), (None, "y")]
    assert any("a is gone" in said and "renamed to b" in said for said in changes_told(caplog))


@pytest.mark.parametrize(
    ("old", "new", "values"),
    [
        ("int", "string", (7, "seven")),
        (DECIMAL, FINER, (Decimal("1.50"), Decimal("1.2345"))),
        ("string", "long", ("x", 8)),
    ],
    ids=["int to text", "scale", "text to bigint"],
)
def test_a_type_that_does_not_fit_goes_on_in_a_new_column(
    world: Any, job: Any, caplog: pytest.LogCaptureFixture, old: Any, new: Any, values: tuple[Any, Any]
) -> None:
    """By default: a row has its value in one of the two, rows under the old structure still go to the old one, and a
    restart knows which is which."""
    before, after = orders(world, a=old), orders(world, a=new)
    world.send(world.data(before, 10, [{"id": 1, "a": values[0]}]))
    job.run()
    with caplog.at_level(logging.WARNING):
        world.send(
            world.data(after, 20, [{"id": 2, "a": values[1]}]), world.data(before, 30, [{"id": 3, "a": values[0]}])
        )
        job.run()
    job.restart()
    world.send(world.data(after, 40, [{"id": 4, "a": values[1]}]), world.data(before, 50, [{"id": 5, "a": values[0]}]))
    job.run()
    old_value, new_value = values
    assert columns_of(job.rows(), "a", "a__2") == [
        (old_value, None),
        (None, new_value),
        (old_value, None),
        (None, new_value),
        (old_value, None),
    ]
    assert any("a goes on in a__2" in said for said in changes_told(caplog))
    assert job.state().holes == ()


def test_a_table_may_refuse_a_new_type(world: Any, job: Any) -> None:
    """on_type_change = hole: the change is a hole that names column and types, and rows under the old one flow on."""
    job.configure("orders", on_type_change={"S": "hole"})
    before, after = orders(world, a="int"), orders(world, a="string")
    world.send(world.data(before, 10, [{"id": 1, "a": 7}]))
    job.run()
    world.send(world.data(after, 20, [{"id": 2, "a": "seven"}]), world.data(before, 30, [{"id": 3, "a": 9}]))
    job.run(6)
    assert columns_of(job.rows(), "id", "a") == [(1, 7), (3, 9)]
    (hole,) = job.state().holes
    assert "column a is int in the lake and string at the source" in hole.reason


def test_what_an_update_left_out_is_looked_for_in_every_column_that_it_may_lie_in(world: Any, job: Any) -> None:
    """`_unchanged` and `_raw` name the source's column; in the lake they name the columns it has had."""
    before, after = orders(world, a="string", n=DECIMAL), orders(world, a="long", n=FINER)
    world.send(world.data(before, 10, [{"id": 1, "a": "x", "n": None}]))
    job.run()
    world.send(
        world.data(after, 20, [{"id": 1, "a": None, "n": None, "_unchanged": ["a"], "_raw": {"n": "NaN"}}], op="u")
    )
    job.run()
    row = job.rows()[-1]
    assert sorted(row["_unchanged"]) == ["a", "a__2"]
    assert row["_raw"] == [("n__2", "NaN")]


def athena(world: Any, sql: str) -> list[list[str | None]]:
    """The rows of a query, without the header."""
    client = world.server.client("athena")
    where = {"OutputLocation": f"s3://{world.bucket}/results/"}
    query = client.start_query_execution(QueryString=sql, ResultConfiguration=where)["QueryExecutionId"]
    for _ in range(3_000):
        status = client.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]
        if status["State"] not in ("QUEUED", "RUNNING"):
            break
        time.sleep(0.05)
    assert status["State"] == "SUCCEEDED", status
    rows = client.get_query_results(QueryExecutionId=query)["ResultSet"]["Rows"]
    return [[cell.get("VarCharValue") for cell in row["Data"]] for row in rows[1:]]


def named(world: Any, *source_names: str, key: str = "id") -> TableSchema:
    """A table whose columns the source calls so, all text but the key; lake names as the agent derives them."""
    names = lake_column_names((key, *source_names))
    columns = [Column(names[0], "long", key, "bigint")]
    columns += [Column(name, "string", source, "text") for name, source in zip(names[1:], source_names, strict=True)]
    schema: TableSchema = world.registry.register(TableSchema(world.source, "orders", tuple(columns), (key,))).schema
    return schema


ODD = (
    "select",
    "Order",
    "ORDER",
    "user",
    "_tier",
    "größe",
    "1st",
    "nth",
    "deletes",
    "valid_from",
    "valid_to",
    "root_0",
)


def test_odd_names_reach_the_analyst(world: Any, job: Any) -> None:
    """Reserved words, names that differ by case, names of metadata and of the views' own columns: each has a column of
    its own in every view, under the lake's name."""
    schema = named(world, *ODD)
    row = {column.name: column.source_name for column in schema.columns[1:]}
    world.send(world.data(schema, 10, [{"id": 1, **row}]))
    job.run()
    glue = world.server.client("glue")
    for database in (world.source, f"{world.source}_history"):
        glue.create_database(DatabaseInput={"Name": database})
    views.update(glue, job.aws.catalog, world.source, "orders", in_cut=False)
    wanted = ", ".join(f'"{name}"' for name in row)
    for view in (f"{world.source}.orders", f"{world.source}_history.orders", f"{world.source}_history.orders_versions"):
        database, table = view.split(".")
        assert athena(world, f'SELECT {wanted} FROM "{database}"."{table}"') == [list(row.values())], view


@pytest.mark.slow
def test_a_table_of_1600_columns(world: Any, job: Any) -> None:
    """It loads and grows; where the catalog cannot hold a view of it, the view is refused by name and reason, and the
    lake table answers queries."""
    names = [f"column_{number:04}" for number in range(1_600)]
    columns = [
        Column("id", "long", "id", "bigint"),
        *(Column(n, "string" if n[-1] in "02468" else "long", n, "x") for n in names),
    ]
    wide: TableSchema = world.registry.register(TableSchema(world.source, "orders", tuple(columns), ("id",))).schema
    values: dict[str, Any] = {n: f"v{n}" if n[-1] in "02468" else int(n[-4:]) for n in names}
    world.send(world.data(wide, 10, [{"id": number, **values} for number in range(20)]))
    job.run()
    wider = replace(wide, columns=(*wide.columns, Column("one_more", "string", "one_more", "text")))
    world.registry.register(wider)
    world.send(world.data(wider, 20, [{"id": 20, **values, "one_more": "x"}]))
    job.run()
    rows = job.rows()
    assert [row["id"] for row in rows] == list(range(21))
    assert {name: rows[0][name] for name in values} == values
    found = athena(
        world, f'SELECT column_0007, column_1598, one_more FROM "{world.source}_lake"."orders" WHERE id = 20'
    )
    assert found == [["7", "vcolumn_1598", "x"]]
    glue = world.server.client("glue")
    for database in (world.source, f"{world.source}_history"):
        glue.create_database(DatabaseInput={"Name": database})
    why = r"orders: its text has \d+ characters, the catalog holds 409600\. Query the lake table"
    for _ in range(2):
        refused = views.update(glue, job.aws.catalog, world.source, "orders", in_cut=False).refused
        assert re.search(why, refused[f"{world.source}.orders"])
    with pytest.raises(AssertionError, match=rf"Cannot cast '{world.source}\.orders: its text has"):
        athena(world, f'SELECT * FROM "{world.source}"."orders"')


def test_when_a_column_came_is_told_with_its_type(world: Any, job: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The log says every change of structure once, when its first row arrives."""
    world.send(world.data(orders(world, a="int"), 10, [{"id": 1, "a": 1}]))
    job.run()
    with caplog.at_level(logging.WARNING):
        new = orders(world, a="long", at={"type": "long", "logicalType": "timestamp-micros"})
        world.send(world.data(new, 20, [{"id": 2, "a": 1, "at": datetime(2026, 1, 1, tzinfo=UTC)}]))
        job.run(6)
    assert changes_told(caplog) == ["column a was int and is long", "column at (timestamp-micros) is new"]
