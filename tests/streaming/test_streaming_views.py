"""Views follow a table's structure while it streams: no query fails, finds a view missing, or sees an old type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from glue_streaming import views
from glue_streaming.fold_job import view_facts
from glue_streaming.plan_lambda import read_cut
from glue_streaming.state import fold_state
from schemas.change_record import Column, TableSchema
from tests.streaming.test_streaming_cut import SETTINGS, activate, ask, fold, query


def orders(world: Any, comment: str | None = None, **types: Any) -> TableSchema:
    """The table `orders`; a type may be a pair of type and comment. Registered, as the agent does it."""
    pairs = {name: kind if isinstance(kind, tuple) else (kind, None) for name, kind in {"id": "long", **types}.items()}
    columns = tuple(Column(name, avro, name, str(avro), about) for name, (avro, about) in pairs.items())
    found: TableSchema = world.registry.register(TableSchema(world.source, "orders", columns, ("id",), comment)).schema
    return found


def every_view(world: Any) -> tuple[str, ...]:
    source = world.source
    return tuple(
        f"{source}{place}" for place in (".orders", "_cut.orders", "_history.orders", "_history.orders_versions")
    )


def entry(world: Any, view: str) -> dict[str, Any]:
    database, name = view.split(".")
    found: dict[str, Any] = world.server.client("glue").get_table(DatabaseName=database, Name=name)["Table"]
    return found


def types(world: Any, view: str) -> dict[str, str]:
    return {column["Name"]: column["Type"] for column in entry(world, view)["StorageDescriptor"]["Columns"]}


@pytest.fixture
def standing(world: Any, job: Any) -> TableSchema:
    """The table with a narrow column `n`, two rows, and all its views."""
    schema = orders(world, n="int")
    activate(world, job, "orders")
    world.send(world.data(schema, 10, [{"id": 1, "n": 7}]), world.progress(15))
    job.run()
    fold(world, "orders")
    return schema


def before_each_write(job: Any, look: Callable[[str], None]) -> None:
    """Calls `look` before every request with which the job changes the catalog, and before every commit's data."""
    for operation in ("CreateTable", "UpdateTable", "DeleteTable"):
        job.aws.client("glue").meta.events.register(
            f"before-call.glue.{operation}", lambda operation=operation, **_: look(operation)
        )


@pytest.mark.usefixtures("standing")
def test_no_query_fails_while_a_column_widens_and_others_come(world: Any, job: Any) -> None:
    """Before every write to the catalog all views are queried: the narrow type never meets a wide value. Right behind
    the batch that brought it, and without a fold, they show it, in the wide type."""
    looked: list[str] = []

    def look(operation: str) -> None:
        looked.append(operation)
        for view in every_view(world):
            assert query(world, f"SELECT max(n) FROM {view}")

    before_each_write(job, look)
    wide = orders(world, n="long", new="string")
    world.send(world.data(wide, 20, [{"id": 2, "n": 2**40, "new": "x"}]), world.progress(25))
    job.run()
    assert len(looked) >= 6
    assert "DeleteTable" not in looked
    for view in every_view(world):
        assert types(world, view)["n"] == "bigint"
        assert query(world, f"SELECT n, new FROM {view} WHERE id = 2") == [[str(2**40), "x"]]


@pytest.mark.usefixtures("standing")
def test_a_driver_lost_before_its_views_followed_mends_them_at_its_start(
    world: Any, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is wide already, so that nothing evolves any more: a new driver compares views with their tables."""
    monkeypatch.setattr(views, "follow", lambda *_: views.Updated([], {}))
    wide = orders(world, n="long")
    world.send(world.data(wide, 20, [{"id": 2, "n": 5}]), world.progress(25))
    job.run()
    assert types(world, every_view(world)[0])["n"] == "int"
    monkeypatch.undo()
    job.restart()
    assert {types(world, view)["n"] for view in every_view(world)} == {"bigint"}


@pytest.mark.usefixtures("standing")
def test_a_fold_that_began_before_brings_no_old_structure_back(world: Any, job: Any) -> None:
    """The fold has read the table; then the streaming job widens it and its views; then the fold writes its views."""
    wide = orders(world, n="long")
    catalog, glue = job.aws.catalog, job.aws.client("glue")

    class Late:
        """A catalog that answers, the first time that it matters, with the table as it was."""

        def __init__(self) -> None:
            self.calls = 0

        def load_table(self, name: str) -> Any:
            self.calls += 1
            table = catalog.load_table(name)
            if self.calls == 2:
                world.send(world.data(wide, 20, [{"id": 2, "n": 2**40}]), world.progress(25))
                job.run()
            return table

    late = Late()
    views.update(glue, late, world.source, "orders", facts={"headrace.fold.rows": "2"})  # type: ignore[arg-type]
    assert late.calls > 2
    assert {types(world, view)["n"] for view in every_view(world)} == {"bigint"}
    assert query(world, f"SELECT max(n) FROM {world.source}.orders") == [[str(2**40)]]


@pytest.mark.usefixtures("standing")
def test_a_view_that_left_the_cut_is_not_brought_back_by_a_new_structure(world: Any, job: Any) -> None:
    """It goes on raising; the other views of the table follow."""
    ask(world, "exclude", "orders")
    job.run(1)
    wide = orders(world, n="long")
    world.send(world.data(wide, 20, [{"id": 2, "n": 2**40}]), world.progress(25))
    job.run()
    with pytest.raises(AssertionError, match="has left the cut"):
        query(world, f"SELECT count(*) FROM {world.source}_cut.orders")
    assert types(world, f"{world.source}.orders")["n"] == "bigint"


@pytest.mark.usefixtures("standing")
def test_comments_of_the_source_reach_the_analyst_and_follow_it(world: Any, job: Any) -> None:
    """Those of columns and of the table, in the lake table and in every view. A comment that changes is no other
    structure for rows, one that goes is gone, and rows under the schema before do not bring it back."""
    first = orders(world, "What customers\nwant", n=("int", "How many"))
    world.send(world.data(first, 20, [{"id": 2, "n": 1}]), world.progress(25))
    job.run()

    def comments(view: str) -> dict[str, str]:
        columns = entry(world, view)["StorageDescriptor"]["Columns"]
        return {column["Name"]: column["Comment"] for column in columns if column.get("Comment")}

    for view in (*every_view(world), f"{world.source}_lake.orders"):
        assert comments(view) == {"n": "How many"}, view
        assert entry(world, view)["Description"].endswith("What customers want"), view
    changed = orders(world, "Their wishes", n="int")
    world.send(world.data(changed, 30, [{"id": 3, "n": 1}]), world.progress(35))
    job.run()
    world.send(world.data(first, 40, [{"id": 4, "n": 1}]), world.progress(45))
    job.run()
    for view in every_view(world):
        assert comments(view) == {}, view
        assert entry(world, view)["Description"].endswith("Their wishes"), view
    assert set(job.ids()) == {1, 2, 3, 4, 100}


@pytest.mark.usefixtures("standing")
def test_a_view_says_what_it_shows_and_how_far_it_is_folded(world: Any, job: Any) -> None:
    """For people, in the catalog; what the fold said stays when the streaming job changes the view."""
    glue = job.aws.client("glue")
    state = fold_state(job.table().properties)
    assert read_cut(glue, world.source).newest is not None
    views.update(glue, job.aws.catalog, world.source, "orders", facts=view_facts(state, SETTINGS))
    said = entry(world, f"{world.source}.orders")
    assert said["Description"] == "Current rows, as fresh as the last batch."
    parameters = said["Parameters"]
    assert parameters["headrace.fold.rows"] == "2 in base, 0 keys changed since, 2 changes in history"
    assert parameters["headrace.fold.policy"].startswith("when 1,000,000 rows, 32 MiB or 900 s of changes wait;")
    wide = orders(world, n="long")
    world.send(world.data(wide, 20, [{"id": 2, "n": 1}]), world.progress(25))
    job.run()
    followed = entry(world, f"{world.source}.orders")["Parameters"]
    assert followed == parameters
    assert types(world, f"{world.source}.orders")["n"] == "bigint"
