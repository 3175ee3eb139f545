"""Holes are mended in place, once, or accepted on the record; SQL can ask for them."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from glue_streaming import lake_table
from glue_streaming.aws import Aws
from glue_streaming.fold.plan import FoldSettings
from glue_streaming.fold.run import fold_table
from glue_streaming.holes import MAX_WHERE, Hole
from glue_streaming.plan_lambda import read_cut
from glue_streaming.requests import Requests
from glue_streaming.state import MAX_ACCEPTED, Accepted, StreamState
from glue_streaming.task import MAX_HOLES
from ops import holes
from ops.holes import Place
from schemas.change_record import Column, TableSchema
from schemas.control import Announcement, SnapshotEnd, snapshot_lane
from schemas.position import Line, Position

FIRST = 1_000_001


def place(world: Any) -> Place:
    client = world.server.client
    return Place(client("glue"), client("dynamodb"), world.source, f"{world.prefix}-sources")


def ask(world: Any, job: Any, verb: str, number: int = 0, **more: str) -> tuple[str, str]:
    """Asks for it as the command does, lets the job answer, and returns the answer."""
    there = place(world)
    hole = holes.read(there).open[number]
    item = holes._put(there, verb, hole.table, "ann", more.get("because", ""), hole.hole)
    job.run(4)
    return holes.await_answer(there, item, 1)


def bad_structure(world: Any, job: Any) -> TableSchema:
    """A block that the table's policy makes a hole: the column's type has changed. Newer changes of its key follow."""
    job.configure("orders", on_type_change={"S": "hole"})
    orders = world.schema("orders", "amount")
    changed = TableSchema(
        world.source, "orders", (orders.columns[0], Column("amount", "long", "amount", "int8")), ("id",)
    )
    world.registry.register(changed)
    world.send(world.data(orders, 10, [{"id": 1, "amount": "old"}]), world.progress(15))
    job.run()
    world.send(world.data(changed, 20, [{"id": 1, "amount": 5}, {"id": 2, "amount": 6}], op="u"))
    world.send(world.data(orders, 30, [{"id": 1, "amount": "new"}], op="u"), world.progress(35))
    job.run()
    return orders


def test_a_replay_puts_the_rows_where_they_belong_once(world: Any, job: Any) -> None:
    """Once the table can take the structure, the stored bytes load: at their positions, below newer changes."""
    bad_structure(world, job)
    (hole,) = job.state().holes
    assert (hole.after, hole.last) == (Position(1, 10, 0), Position(1, 20, 1))
    assert job.watermark() == Line(1, 15)
    job.configure("orders", on_type_change={"S": "new_column"})
    job.run(1)
    status, detail = ask(world, job, "replay")
    assert (status, job.state().holes) == ("done", ())
    assert detail.startswith("2 rows were loaded")
    assert [(row["_lsn"], row["_idx"], row["id"]) for row in job.rows()] == [
        (10, 0, 1),
        (20, 0, 1),
        (20, 1, 2),
        (30, 0, 1),
    ]
    assert job.watermark() == Line(1, 35)
    world.send(world.progress(36))
    job.restart()
    job.lose_positions()
    job.run(6)
    assert len(job.rows()) == 4


def test_a_replay_that_does_not_load_says_why_and_leaves_the_hole(world: Any, job: Any) -> None:
    """The table still cannot take the structure: refused with its words, nothing lost, nothing loaded."""
    bad_structure(world, job)
    before = job.state().holes
    status, detail = ask(world, job, "replay")
    assert status == "refused"
    assert "amount" in detail
    assert [(hole.after, hole.last, hole.opened_at) for hole in job.state().holes] == [
        (hole.after, hole.last, hole.opened_at) for hole in before
    ]
    assert len(job.rows()) == 2


def test_a_replay_goes_through_a_long_hole_in_stretches(world: Any, job: Any) -> None:
    """Many blocks in a row are one hole over one range of raw bytes; a batch's bounds hold for a replay too."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    odd = TableSchema(world.source, "orders", (*orders.columns, Column("odd", "long", "odd", "bigint")), ("id",))
    for n in range(6):
        world.send(world.data(odd, 20 + n, [{"id": 2 + n, "odd": n}]))
    world.send(world.data(orders, 30, [{"id": 9}]))
    job.run(2)
    job.clock.now += 181
    job.run()
    (hole,) = job.state().holes
    assert (hole.after, hole.last) == (Position(1, 10, 0), Position(1, 25, 0))
    assert ".." in hole.where
    world.registry.register(odd)
    job.set("bytes_per_shard", "1")
    there = place(world)
    item = holes.request(there, "replay", holes.read(there).open[0], by="ann")
    job.run(10)
    assert holes.await_answer(there, item, 1)[0] == "done"
    assert job.ids() == [1, 2, 3, 4, 5, 6, 7, 9]


def test_a_replay_fills_the_hole_that_was_meant_and_no_other(world: Any, job: Any) -> None:
    """Another lane's bytes lie between this one's: they are left to their own request."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(orders, 10, [{"id": 101}], lane="1"))
    odd = TableSchema(world.source, "orders", (*orders.columns, Column("odd", "long", "odd", "bigint")), ("id",))
    for n, lane in enumerate(["0", "1", "0"], start=2):
        world.send(world.data(odd, 10 * n, [{"id": n, "odd": n}], lane=lane))
    job.run(2)
    job.clock.now += 181
    job.run()
    assert {hole.lane: hole.last.lsn for hole in job.state().holes} == {"0": 40, "1": 30}
    world.registry.register(odd)
    number = [hole.lane for hole in job.state().holes].index("0")
    assert ask(world, job, "replay", number)[0] == "done"
    assert [(hole.lane, hole.last.lsn) for hole in job.state().holes] == [("1", 30)]
    assert sorted(job.ids()) == [1, 2, 4, 101]


def test_a_replay_with_its_bytes_gone_is_refused(world: Any, job: Any) -> None:
    """A lost object does not stop the job."""
    bad_structure(world, job)
    (hole,) = job.state().holes
    bucket, key = hole.where.removeprefix("s3://").split("/", 1)
    world.server.client("s3").delete_object(Bucket=bucket, Key=key)
    assert ask(world, job, "replay")[0] == "refused"
    assert len(job.state().holes) == 1


def test_replayed_rows_are_above_the_fold_line_and_a_newer_change_stays_the_newest(world: Any, job: Any) -> None:
    """F stays below an open hole, however often the table is folded; after the replay the fold orders by position."""
    job.configure("orders", on_type_change={"S": "hole"})
    orders = world.schema("orders", "amount")
    lane, end = snapshot_lane(FIRST, 0, 1), SnapshotEnd(FIRST, 0, 1, 1, 5, None, None, 1)
    world.send(
        world.progress(3, announced=[Announcement(FIRST, "orders", 3, abandoned=False)]),
        world.snapshot(orders, 5, [{"id": 1, "amount": "first"}], lane=lane),
        world.snapshot_end("orders", end),
        world.progress(6),
    )
    job.run()
    fold(world)
    bad_structure_after(world, job, orders)
    fold(world)
    assert job.driver.lake.tables[world.source, "orders"].fold_state.line < Line(1, 20)
    job.configure("orders", on_type_change={"S": "new_column"})
    job.run(2)
    assert ask(world, job, "replay")[0] == "done"
    job.run(3)
    fold(world)
    newest = {row["id"]: row for row in job.rows() if row["_tier"] in ("delta", "base")}
    assert (newest[1]["_lsn"], newest[1]["amount"]) == (30, "new")
    assert newest[2]["_lsn"] == 20


def bad_structure_after(world: Any, job: Any, orders: TableSchema) -> None:
    changed = TableSchema(
        world.source, "orders", (orders.columns[0], Column("amount", "long", "amount", "int8")), ("id",)
    )
    world.registry.register(changed)
    world.send(world.data(orders, 10, [{"id": 1, "amount": "old"}]), world.progress(15))
    job.run()
    world.send(world.data(changed, 20, [{"id": 1, "amount": 5}, {"id": 2, "amount": 6}], op="u"))
    world.send(world.data(orders, 30, [{"id": 1, "amount": "new"}], op="u"), world.progress(35))
    job.run()


def fold(world: Any, table: str = "orders") -> None:
    """A fold as far as the catalog allows."""
    aws = Aws()
    settings = FoldSettings(horizon_seconds=5.0)
    cut = read_cut(aws.client("glue"), world.source)
    fold_table(aws.catalog, world.source, table, cut, "major", settings, datetime.now(UTC))


def test_an_accepted_hole_is_closed_for_good_and_on_record(world: Any, job: Any) -> None:
    """The cut goes on; who, why and when stay in the table's property and in the table `holes`; a resend comes late."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    lost = world.data(orders, 20, [{"id": 2}])
    world.send(world.data(orders, 30, [{"id": 3}]), world.progress(35))
    job.run()
    assert job.watermark() is None
    assert ask(world, job, "accept", because="a test row")[0] == "done"
    assert job.state().holes == ()
    (accepted,) = job.state().accepted
    assert (accepted.by, accepted.because, accepted.hole.last) == ("ann", "a test row", Position(1, 20, 0))
    assert job.watermark() == Line(1, 35)
    world.send(lost)
    job.restart()
    job.run()
    assert job.ids() == [1, 3]
    assert [(item.by, item.at) for item in job.state().accepted] == [("ann", accepted.at)]
    (row,) = in_sql(job)
    assert (row["status"], row["accepted_by"], row["last_lsn"]) == ("accepted", "ann", 20)


def test_a_hole_that_grew_is_not_accepted(world: Any, job: Any) -> None:
    """What is accepted is what was seen, and nothing that came since."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]), replace(world.data(orders, 20, [{"id": 2}]), count=7))
    job.run()
    there = place(world)
    (seen,) = holes.read(there).open
    world.send(replace(world.data(orders, 30, [{"id": 3}]), count=7))
    job.run()
    item = holes.request(there, "accept", seen, by="ann", because="seen")
    job.run()
    status, detail = holes.await_answer(there, item, 1)
    assert status == "refused"
    assert "has grown" in detail
    assert (len(job.state().holes), job.state().accepted) == (1, ())


def test_a_request_that_cannot_be_read_is_refused(world: Any, job: Any) -> None:
    """Nobody waits for ever, and the job goes on."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    item = {"source": world.source, "item": "lake-request:1", "kind": "repair", "table": "orders", "status": "open"}
    dynamodb = world.server.client("dynamodb")
    dynamodb.put_item(TableName=f"{world.prefix}-sources", Item={k: {"S": v} for k, v in item.items()})
    job.run()
    status, detail = holes.await_answer(place(world), "lake-request:1", 1)
    assert (status, job.ids()) == ("refused", [1])
    assert "expected replay, accept, exclude, include" in detail
    job.run(3, seconds=50_000)
    assert not dynamodb.query(
        TableName=f"{world.prefix}-sources",
        KeyConditionExpression="#s = :s",
        ExpressionAttributeNames={"#s": "source"},
        ExpressionAttributeValues={":s": {"S": world.source}},
    )["Items"]


def test_another_snapshot_is_asked_for_once(world: Any) -> None:
    """A driver that comes back to the same void snapshot does not wake the agent's answered request again."""
    dynamodb, name = world.server.client("dynamodb"), f"{world.prefix}-sources"
    requests = Requests(dynamodb, name)
    requests.ask_for_snapshot(world.source, "orders", 1_000_001, "a gap")
    (item,) = dynamodb.scan(TableName=name)["Items"]
    dynamodb.put_item(TableName=name, Item={**item, "status": {"S": "done"}})
    requests.ask_for_snapshot(world.source, "orders", 1_000_001, "a gap")
    (item,) = dynamodb.scan(TableName=name)["Items"]
    assert (item["status"]["S"], item["kind"]["S"], item["table"]["S"]) == ("done", "resnapshot", "orders")


def test_the_holes_table_follows_the_properties_and_can_be_made_again(world: Any, job: Any) -> None:
    """Open holes appear and go; a lost table comes back; an empty batch writes nothing; a failure stops no data."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    lost = world.data(orders, 20, [{"id": 2}])
    world.send(world.data(orders, 30, [{"id": 3}]))
    job.run()
    (row,) = in_sql(job)
    assert (row["table_name"], row["lane"], row["after_lsn"], row["last_lsn"]) == ("orders", "0", 10, 20)
    assert (row["reason"], row["status"], row["raw"]) == ("gap", "open", None)
    snapshot = holes_table(job).current_snapshot()
    job.run()
    assert holes_table(job).current_snapshot() == snapshot
    job.aws.catalog.drop_table(f"{world.source}_lake.holes")
    job.restart()
    job.run(1)
    assert [row["last_lsn"] for row in in_sql(job)] == [20]
    world.send(lost)
    job.run()
    assert in_sql(job) == []


def test_a_table_in_the_place_of_the_holes_is_left_alone(world: Any, job: Any) -> None:
    """Whoever made it: the report says that holes are not shown in SQL; the data flows."""
    orders = world.schema("orders")
    theirs = replace(orders, table="holes")
    lake_table.ensure(job.aws.catalog, theirs, world.bucket)
    world.send(world.data(orders, 10, [{"id": 1}]))
    world.data(orders, 20, [{"id": 2}])
    world.send(world.data(orders, 30, [{"id": 3}]))
    report = job.run()
    assert job.ids() == [1, 3]
    assert "is a table of the source" in report.holes_table_problems[world.source]


def holes_table(job: Any) -> Any:
    return job.aws.catalog.load_table(f"{job.world.source}_lake.holes")


def in_sql(job: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = holes_table(job).scan().to_arrow().to_pylist()
    return found


def test_what_a_table_keeps_of_its_holes_fits_the_catalog() -> None:
    """The catalog takes 512,000 characters in a property: with every bound reached they are not exceeded."""
    text, at = "x" * 10_000, "2026-01-01T00:00:00.000+00:00"
    worst = Hole("s1000001.0.1", Position(99, 2**63, 2**31), Position(99, 2**63, 2**31), text, at, "w" * MAX_WHERE)
    state = StreamState(holes=(worst,) * MAX_HOLES)
    for _ in range(MAX_ACCEPTED + 5):
        state = state.accept(Accepted(worst, "somebody" * 8, "because" * 40, at))
    state = replace(state, holes=(worst,) * MAX_HOLES)
    assert len(state.accepted) == MAX_ACCEPTED
    assert {name: len(value) for name, value in state.to_properties().items() if len(value) >= 512_000} == {}
