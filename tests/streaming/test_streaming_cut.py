"""The cut stays right: tables that nobody mends leave it, eras enter it together, snapshots without an end go."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from glue_streaming import departures, views
from glue_streaming.aws import Aws
from glue_streaming.cut_requests import carry_out, refused
from glue_streaming.fold.line import CloseCut, Closure, together
from glue_streaming.fold.plan import FoldSettings, cut_view
from glue_streaming.fold.run import fold_table
from glue_streaming.holes import Hole
from glue_streaming.lake import Moves
from glue_streaming.parking import Parking
from glue_streaming.plan_lambda import read_cut
from glue_streaming.requests import CutRequest
from glue_streaming.state import Accepted, FoldState, Mark, StreamState
from glue_streaming.tails import Tails
from glue_streaming.watermark_view import Entry
from schemas.control import Announcement, LaneEnd, Progress, SnapshotEnd, snapshot_lane
from schemas.position import Line, Position

SETTINGS = FoldSettings(horizon_seconds=5.0)


def activate(world: Any, job: Any, *tables: str, point: int = 5) -> None:
    """A first snapshot of each table, activated, with its views."""
    make_databases(world)
    snapshot(world, tables, point)
    job.run(8)
    fold(world, *tables)
    job.run(4)
    fold(world, *tables)


def make_databases(world: Any) -> None:
    for database in ("", "_history"):
        world.server.client("glue").create_database(DatabaseInput={"Name": f"{world.source}{database}"})


def snapshot(world: Any, tables: Sequence[str], point: int) -> None:
    """Announces a snapshot of each table, sends it with one row, and says that it is through."""
    numbers = {table: world.era * 1_000_000 + n for n, table in enumerate(tables, start=1)}
    announced = [Announcement(number, table, point - 2, abandoned=False) for table, number in numbers.items()]
    world.send(world.progress(point - 2, announced=announced))
    for table, number in numbers.items():
        lane, schema = snapshot_lane(number, 0, 1), world.schema(table)
        world.send(
            world.snapshot(schema, point, [{"id": world.era * 100}], lane=lane),
            world.snapshot_end(table, SnapshotEnd(number, 0, 1, 1, point, None, None, 1)),
        )
    world.send(world.progress(point + 1, announced=announced))


def fold(world: Any, *tables: str) -> None:
    """What the fold job does: folds, then brings the views in line."""
    aws = Aws()
    for table in tables:
        cut = read_cut(aws.client("glue"), world.source)
        fold_table(aws.catalog, world.source, table, cut, "major", SETTINGS, datetime.now(UTC))
        properties = aws.catalog.load_table(f"{world.source}_lake.{table}").properties
        in_cut = cut_view(table, properties, read_cut(aws.client("glue"), world.source), SETTINGS)
        views.update(aws.client("glue"), aws.catalog, world.source, table, in_cut=in_cut)


def query(world: Any, sql: str) -> list[list[str | None]]:
    """The rows of a query; an AssertionError with its words where it fails."""
    client = world.server.client("athena")
    place = {"OutputLocation": f"s3://{world.bucket}/results/"}
    started = client.start_query_execution(QueryString=sql, ResultConfiguration=place)["QueryExecutionId"]
    while True:
        status = client.get_query_execution(QueryExecutionId=started)["QueryExecution"]["Status"]
        if status["State"] not in ("QUEUED", "RUNNING"):
            break
    assert status["State"] == "SUCCEEDED", status.get("StateChangeReason")
    rows = client.get_query_results(QueryExecutionId=started)["ResultSet"]["Rows"][1:]
    return [[item.get("VarCharValue") for item in row["Data"]] for row in rows]


def ids(world: Any, table: str) -> list[str | None]:
    return [row[0] for row in query(world, f"SELECT id FROM {world.source}_cut.{table} ORDER BY id")]


def test_a_table_leaves_the_cut_at_its_deadline_and_comes_back_mended(world: Any, job: Any) -> None:
    """At the deadline its cut view raises and says why; a horizon later the others go on; mended, it is there again,
    at a watermark that it covers."""
    orders, items = world.schema("orders"), world.schema("items")
    activate(world, job, "orders", "items")
    assert (ids(world, "orders"), ids(world, "items")) == (["100"], ["100"])
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]), world.progress(15))
    job.run()
    lost = world.data(orders, 20, [{"id": 2}])
    world.send(world.data(orders, 30, [{"id": 3}]), world.data(items, 30, [{"id": 8}]), world.progress(35))
    job.set("hole_deadline_seconds", "120")
    job.run()
    assert (job.watermark(), job.entry().left) == (Line(1, 15), {})
    assert ids(world, "items") == ["7", "100"]

    job.clock.now += 120
    job.run(1, seconds=3)
    assert set(job.entry().left) == {"orders"}
    assert job.watermark() == Line(1, 15)
    with pytest.raises(AssertionError, match=r"orders has left the cut \(changes of it are missing: gap\)"):
        ids(world, "orders")
    fold(world, "orders", "items")
    with pytest.raises(AssertionError, match="has left the cut"):
        query(world, f"SELECT count(*) FROM {world.source}_cut.orders")

    job.run(3)
    assert (job.watermark(), job.entry().frozen_by) == (Line(1, 35), {})
    assert job.entry().missing == {"orders": "changes of it are missing: gap"}
    assert ids(world, "items") == ["7", "8", "100"]

    world.send(lost, world.progress(45))
    job.run(6)
    assert (job.entry().left, job.entry().missing) == ({}, {})
    assert job.watermark() == Line(1, 45)
    assert ids(world, "orders") == ["1", "2", "3", "100"]


def test_a_table_that_left_stays_out_across_a_restart(world: Any, job: Any) -> None:
    """A new driver knows it from the catalog alone, and keeps its view raising whatever wrote it meanwhile."""
    orders, items = world.schema("orders"), world.schema("items")
    activate(world, job, "orders", "items")
    world.data(orders, 20, [{"id": 2}])
    world.send(world.data(orders, 30, [{"id": 3}]), world.data(items, 30, [{"id": 8}]), world.progress(35))
    job.set("hole_deadline_seconds", "60")
    job.run()
    job.clock.now += 60
    job.run(1)
    aws = job.aws
    views.update(aws.client("glue"), aws.catalog, world.source, "orders", in_cut=True)  # a fold that began before
    assert ids(world, "orders")
    job.restart()
    world.send(world.progress(36))
    job.run(3)
    assert job.watermark() == Line(1, 36)
    with pytest.raises(AssertionError, match="has left the cut"):
        ids(world, "orders")


def ask(world: Any, kind: str, table: str, item: str = "lake-request:1") -> None:
    """What `headrace cut` leaves in DynamoDB."""
    fields = {"source": world.source, "item": item, "kind": kind, "table": table, "by": "anna", "status": "open"}
    fields["because"] = "its hole takes a day to mend"
    items = {name: {"S": value} for name, value in fields.items()}
    world.server.client("dynamodb").put_item(TableName=f"{world.prefix}-sources", Item=items)


def answered(world: Any, item: str = "lake-request:1") -> tuple[str, str]:
    key = {"source": {"S": world.source}, "item": {"S": item}}
    found = world.server.client("dynamodb").get_item(TableName=f"{world.prefix}-sources", Key=key)["Item"]
    return found["status"]["S"], found.get("detail", {}).get("S", "")


def test_an_operator_takes_a_table_out_of_the_cut_and_lets_it_in_again(world: Any, job: Any) -> None:
    """Out: its view raises and says who and why, the others go on a horizon later, and a restart or a mended hole
    changes nothing. In: the table is there again at the first watermark that it covers, and not before."""
    orders, items = world.schema("orders"), world.schema("items")
    activate(world, job, "orders", "items")
    lost = world.data(orders, 20, [{"id": 2}])
    world.send(world.data(orders, 30, [{"id": 3}]), world.data(items, 30, [{"id": 8}]), world.progress(35))
    job.run()
    stuck = job.watermark()
    ask(world, "exclude", "orders")
    job.run(1)
    assert (answered(world)[0], job.watermark()) == ("done", stuck)
    with pytest.raises(AssertionError, match=r"has left the cut \(anna took it out: its hole takes a day to mend\)"):
        ids(world, "orders")
    job.restart()
    world.send(world.progress(36))
    job.run(3)
    assert (job.watermark(), ids(world, "items")) == (Line(1, 36), ["8", "100"])
    fold(world, "orders", "items")
    world.send(lost, world.progress(45))
    job.run(6)
    assert (job.watermark(), set(job.entry().left)) == (Line(1, 45), {"orders"})
    with pytest.raises(AssertionError, match="has left the cut"):
        ids(world, "orders")

    world.data(orders, 50, [{"id": 4}])
    world.send(world.data(orders, 60, [{"id": 5}]), world.data(items, 60, [{"id": 9}]), world.progress(65))
    job.run()
    ask(world, "include", "orders", "lake-request:2")
    job.run()
    assert (answered(world, "lake-request:2")[0], job.watermark()) == ("done", Line(1, 65))
    with pytest.raises(AssertionError, match="changes of it are missing: gap"):
        ids(world, "orders")
    ask(world, "exclude", "nothing", "lake-request:3")
    ask(world, "include", "items", "lake-request:4")
    job.run(1)
    assert answered(world, "lake-request:3") == ("refused", f"there is no table nothing in {world.source}")
    assert answered(world, "lake-request:4") == ("refused", "it is in the cut")
    for hole in job.state().holes:
        job.driver.lake.tables[world.source, "orders"].state = job.state().accept(Accepted(hole, "anna", "", ""))
    job.run()
    assert (job.entry().left, job.entry().by_operator, ids(world, "orders")) == ({}, {}, ["2", "3", "5", "100"])


def test_the_view_raises_before_the_entry_says_so(world: Any, job: Any) -> None:
    """The horizon counts from the entry: a driver that is lost between the two has taken the view away already."""
    activate(world, job, "orders", "items")
    seen = []

    class Views:
        def take_away(self, table: str, why: str) -> bool:
            seen.append((table, why, dict(job.entry().left)))
            return True

    request = CutRequest("lake-request:1", "exclude", world.source, "orders", "anna")
    ((_, status, _),) = carry_out(job.aws.client("glue"), Views(), [request], 7.0)
    assert (status, seen) == ("done", [("orders", "anna took it out", {})])
    assert job.entry().left == {"orders": 7.0}


def test_a_table_that_the_cut_is_closed_for_stays_in_it() -> None:
    """Its fold may be on its way to a line above any watermark: taking it out would open the cut too early."""
    entry = Entry(line=Line(1, 5), lines={"t": Line(1, 5)}, closure=Closure(0.0, {"t": 3}))
    request = CutRequest("lake-request:1", "exclude", "s", "t", "anna")
    assert "the cut is closed for its repair" in (refused(entry, request) or "")
    assert refused(replace(entry, closure=None), request) is None


def test_an_era_is_entered_by_all_tables_together(world: Any, job: Any) -> None:
    """The agent raises the era: the cut stands still at the old one, and right, until every table's snapshot is there;
    then it closes, all are activated, and it opens in the new era."""
    tables = ("orders", "items")
    schemas = {table: world.schema(table) for table in tables}
    activate(world, job, *tables)
    world.send(*(world.data(schema, 10, [{"id": 1}]) for schema in schemas.values()), world.progress(15))
    job.run()
    assert (job.watermark(), ids(world, "orders")) == (Line(1, 15), ["1", "100"])

    world.raise_era()
    world.send(world.progress(3))
    job.run()
    fold(world, *tables)
    assert job.watermark() == Line(1, 15)
    snapshot(world, ["orders"], 5)
    world.send(world.data(schemas["orders"], 10, [{"id": 2}]), world.progress(15))
    job.run(6)
    fold(world, *tables)
    assert (job.watermark(), job.entry().closure) == (Line(1, 15), None)
    assert job.entry().frozen_by["items"] == "era 2 waits for a snapshot of it"
    assert ids(world, "orders") == ["1", "100"]

    announced = [Announcement(2_000_002, "items", 18, abandoned=False)]
    lane = snapshot_lane(2_000_002, 0, 1)
    world.send(
        world.progress(18, announced=announced),
        world.snapshot(schemas["items"], 20, [{"id": 200}], lane=lane),
        world.snapshot_end("items", SnapshotEnd(2_000_002, 0, 1, 1, 20, None, None, 1)),
        world.progress(25, announced=announced),
    )
    job.run(2)
    closed = job.entry()
    assert (closed.line, set(closed.closure.waits_for)) == (Line(1, 15), set(tables))
    with pytest.raises(AssertionError, match="is closed while"):
        ids(world, "orders")
    job.run(4)
    fold(world, "orders")
    job.run(2)
    assert job.entry().closure is not None
    fold(world, "items")
    job.run(4)
    assert (job.entry().closure, job.watermark(), job.entry().frozen_by) == (None, Line(2, 25), {})
    assert (ids(world, "orders"), ids(world, "items")) == (["2", "200"], ["200"])


@pytest.mark.parametrize("together", [False, True], ids=["apart", "in-one-batch"])
def test_the_lost_end_of_an_era_is_a_hole_although_the_next_one_began(world: Any, job: Any, together: bool) -> None:
    """The lane goes on in the new era; what the old one's progress named and never came is told, and can be resent."""
    orders, items = world.schema("orders"), world.schema("items")
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]))
    if not together:
        job.run()
    lost = world.data(orders, 20, [{"id": 2}])
    world.send(world.data(items, 20, [{"id": 8}]), world.progress(25))
    if not together:
        job.run(1)
    world.raise_era()
    world.send(world.data(orders, 5, [{"id": 3}]), world.data(items, 5, [{"id": 9}]), world.progress(6))
    job.run()
    (hole,) = job.state().holes
    assert (hole.after, hole.last) == (Position(1, 10, 0), Position(1, 20, 0))
    assert hole.reason.startswith("lost tail of era 1")
    assert (job.ids(), job.ids("items"), job.state("items").holes) == ([1, 3], [7, 8, 9], ())
    world.send(lost)
    job.run(3)
    assert (job.ids(), job.state().holes) == ([1, 2, 3], ())


@pytest.mark.parametrize(("line", "opened"), [(Line(1, 5), True), (Line(2, 5), False)])
def test_the_lost_end_of_an_era_is_no_hole_once_the_next_ones_snapshot_stands(line: Line, opened: bool) -> None:
    """The snapshot has repaired the table; rows that filled the hole now would lie below the fold line."""
    moves: dict[tuple[str, str], Moves] = defaultdict(Moves)
    state = StreamState(marks={"0": Mark(Position(2, 5, 0), "shard", "9", before=Position(1, 10, 0))})
    table = SimpleNamespace(fold_state=FoldState(line, 7), state=state)
    tails = Tails(SimpleNamespace(tables={("s", "t"): table}), Parking(), None)  # type: ignore[arg-type]
    named = Progress(1, 25, datetime(2026, 1, 1, tzinfo=UTC), (LaneEnd("t", "0", Position(1, 20, 0)),), ())
    tails.look_behind([("s", named)], moves, 0.0)
    assert [hole.last for move in moves.values() for hole in move.lanes["0"][0].holes] == (
        [Position(1, 20, 0)] if opened else []
    )


def test_a_snapshot_that_ends_with_a_hole_is_void_and_asked_for_again(world: Any, job: Any) -> None:
    """A block of it was lost: it holds F no more, status shows it, and the agent finds a request for another one."""
    orders = world.schema("orders")
    lane = snapshot_lane(1_000_001, 0, 1)
    announced = [Announcement(1_000_001, "orders", 3, abandoned=False)]
    world.send(world.progress(3, announced=announced), world.snapshot(orders, 5, [{"id": 1}], lane=lane))
    world.snapshot(orders, 5, [{"id": 2}], lane=lane, first=1)
    world.send(world.snapshot_end("orders", SnapshotEnd(1_000_001, 0, 1, 1, 5, None, None, 2)))
    world.send(world.progress(10, announced=announced))
    job.run(6)
    state = job.state().snapshots[1_000_001]
    assert state.abandoned
    assert state.void == "lane s1000001.0.1 ended with a hole: gap"
    assert asked(world) == [("resnapshot", "orders", "open")]
    job.restart()
    job.run(3)
    assert job.state().snapshots[1_000_001].void is not None
    announced = [Announcement(1_000_002, "orders", 12, abandoned=False)]
    lane = snapshot_lane(1_000_002, 0, 1)
    world.send(
        world.progress(12, announced=announced),
        world.snapshot(orders, 15, [{"id": 1}], lane=lane),
        world.snapshot_end("orders", SnapshotEnd(1_000_002, 0, 1, 1, 15, None, None, 1)),
        world.progress(20, announced=announced),
    )
    job.run(6)
    make_databases(world)
    fold(world, "orders")
    assert job.table().properties["headrace.fold.activated_through"] == "1000002"
    assert asked(world) == [("resnapshot", "orders", "open")]


def test_a_snapshot_with_a_block_that_does_not_load_is_void_and_not_asked_for_again(world: Any, job: Any) -> None:
    """Another one would bring the same block: somebody has to look."""
    orders = world.schema("orders")
    lane = snapshot_lane(1_000_001, 0, 1)
    bad = world.snapshot(orders, 5, [{"id": 1}], lane=lane)
    object.__setattr__(bad, "checksum", 7)
    world.send(bad, world.snapshot_end("orders", SnapshotEnd(1_000_001, 0, 1, 1, 5, None, None, 1)))
    job.run(6)
    assert "CRC-32" in (job.state().snapshots[1_000_001].void or "")
    assert asked(world) == []


def test_a_snapshot_whose_end_is_lost_is_given_up(world: Any, job: Any) -> None:
    """Rows came, the end did not, and the agent goes on: after its time it is void, and no later than F is let go."""
    orders = world.schema("orders")
    announced = [Announcement(1_000_001, "orders", 3, abandoned=False)]
    world.send(world.progress(3, announced=announced))
    world.send(world.snapshot(orders, 5, [{"id": 1}], lane=snapshot_lane(1_000_001, 0, 1)))
    job.set("snapshot_stall_seconds", "300")
    for n in range(7):
        world.send(world.progress(10 + n, announced=announced))
        job.run(1, seconds=50)
    assert job.state().snapshots[1_000_001].void is None
    world.send(world.progress(30, announced=announced))
    job.run(2, seconds=50)
    assert job.state().snapshots[1_000_001].void == "its end never came"
    assert asked(world) == [("resnapshot", "orders", "open")]


def test_a_snapshot_is_not_given_up_while_the_agent_is_away(world: Any, job: Any) -> None:
    """Without progress records nobody knows whether it goes on: the time does not run."""
    orders = world.schema("orders")
    announced = [Announcement(1_000_001, "orders", 3, abandoned=False)]
    world.send(world.progress(3, announced=announced))
    world.send(world.snapshot(orders, 5, [{"id": 1}], lane=snapshot_lane(1_000_001, 0, 1)))
    job.set("snapshot_stall_seconds", "300")
    job.run(20, seconds=70)
    assert job.state().snapshots[1_000_001].void is None


def test_a_snapshot_of_a_paused_table_is_not_given_up(world: Any, job: Any) -> None:
    """Its rows wait in the stream; the end comes when the table goes on."""
    orders = world.schema("orders")
    announced = [Announcement(1_000_001, "orders", 3, abandoned=False)]
    lane = snapshot_lane(1_000_001, 0, 1)
    world.send(world.progress(3, announced=announced), world.snapshot(orders, 5, [{"id": 1}], lane=lane))
    job.set("snapshot_stall_seconds", "100")
    job.run(4)
    job.pause("orders", True)
    job.run(1)
    world.send(world.snapshot_end("orders", SnapshotEnd(1_000_001, 0, 1, 1, 5, None, None, 1)))
    for n in range(5):
        world.send(world.progress(10 + n, announced=announced))
        job.run(1, seconds=50)
    job.pause("orders", False)
    job.run(3)
    snapshot = job.state().snapshots[1_000_001]
    assert (snapshot.void, snapshot.complete) == (None, True)


def asked(world: Any) -> list[tuple[str, str, str]]:
    """The requests to the agent."""
    items = world.server.client("dynamodb").scan(TableName=f"{world.prefix}-sources")["Items"]
    found = [item for item in items if item["item"]["S"].startswith("request:")]
    return [(item["kind"]["S"], item["table"]["S"], item["status"]["S"]) for item in found]


def test_only_a_mended_table_that_covers_the_watermark_comes_back() -> None:
    """No hole, L >= W, and the aged W at its F; one without views needs only the first two."""
    hole = Hole("0", Position(1, 10, 0), Position(1, 20, 0), "gap", "2026-01-01T00:00:00+00:00")
    folded, line, low = FoldState(Line(1, 30), 7), Line(1, 50), Line(1, 40)
    assert departures.mended(StreamState(), folded, line, line, line)
    assert not departures.mended(StreamState(holes=(hole,)), folded, line, line, line)
    assert not departures.mended(StreamState(), folded, low, line, line)
    assert not departures.mended(StreamState(), folded, None, line, line)
    assert not departures.mended(StreamState(), folded, line, line, Line(1, 29))
    assert departures.mended(StreamState(), FoldState(), line, line, None)


def test_tables_enter_an_era_together() -> None:
    """One that is ready early does not close the cut; a repair within an era does not wait for the others."""
    repaired = CloseCut(11)
    assert together({"a": repaired}, {"a", "b"}) == {}
    assert together({"a": repaired, "b": repaired}, {"a", "b"}) == {"a": repaired, "b": repaired}
    assert together({"c": repaired, "a": repaired}, {"a", "b"}) == {"c": repaired}
