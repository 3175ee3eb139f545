"""What stands in a lane's way: it waits, becomes a hole with a reason, and never stops the other lanes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from glue_streaming import decode
from glue_streaming.aws import Aws
from glue_streaming.batch import Driver
from glue_streaming.errors import DecoderHangs
from glue_streaming.load import Outcome, Task, load_shard
from glue_streaming.settings import parse_arguments
from glue_streaming.state import StreamState
from schemas.change_record import Column, TableSchema
from schemas.control import SnapshotEnd, snapshot_lane
from schemas.position import Position


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def start(world: Any, clock: Clock | None = None) -> Driver:
    aws = Aws()

    def run(tasks: Sequence[Task]) -> list[Outcome]:
        return [load_shard(task, aws.client("kinesis"), aws.client("s3"), aws.io) for task in tasks]

    return Driver(aws, parse_arguments(world.arguments()), run, clock or Clock())


def run(driver: Driver, times: int = 4) -> None:
    for _ in range(times):
        driver.run_batch()


def ids(world: Any, table: str = "orders") -> list[int]:
    found = Aws().catalog.load_table(f"{world.source}_lake.{table}").scan().to_arrow().to_pylist()
    return [row["id"] for row in sorted(found, key=lambda row: (row["_era"], row["_lsn"], row["_idx"]))]


def state(driver: Driver, world: Any, table: str = "orders") -> StreamState:
    return driver.lake.tables[world.source, table].state


def test_a_reject_inside_a_hole_leaves_the_rest_of_it_fillable(world: Any) -> None:
    """A gap of three blocks is resent, the middle one is a reject: only its own position stays a hole."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    before = world.data(orders, 20, [{"id": 2}])
    reject = world.reject("orders", Position(1, 30, 0), "numeric out of range")
    after = world.data(orders, 40, [{"id": 4}])
    world.send(world.data(orders, 50, [{"id": 5}]))
    driver = start(world)
    run(driver)
    assert [(hole.after, hole.last) for hole in state(driver, world).holes] == [
        (Position(1, 10, 0), Position(1, 40, 0))
    ]
    world.send(before, reject, after)
    run(driver)
    assert ids(world) == [1, 2, 4, 5]
    (hole,) = state(driver, world).holes
    assert (hole.after, hole.last) == (Position(1, 20, 0), Position(1, 30, 0))
    assert "numeric out of range" in hole.reason


def test_a_missing_claim_is_a_hole_and_its_resend_heals_it(world: Any) -> None:
    """A block whose payload is not on S3 does not stop the job; sent again in full, its rows arrive."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    whole = world.data(orders, 20, [{"id": 2}])
    world.send(replace(whole, records=b"", claim=f"s3://{world.bucket}/claims/gone"))
    world.send(world.data(orders, 30, [{"id": 3}]))
    driver = start(world)
    run(driver)
    assert ids(world) == [1, 3]
    (hole,) = state(driver, world).holes
    assert f"s3://{world.bucket}/claims/gone" in hole.reason
    world.send(whole)
    run(driver)
    assert ids(world) == [1, 2, 3]
    assert state(driver, world).holes == ()


def test_a_claimed_payload_is_read_from_s3(world: Any) -> None:
    """A block above the record limit travels as a claim; its rows load as any others."""
    orders = world.schema("orders")
    whole = world.data(orders, 10, [{"id": 1}])
    world.server.client("s3").put_object(Bucket=world.bucket, Key="claims/1", Body=whole.records)
    world.send(replace(whole, records=b"", claim=f"s3://{world.bucket}/claims/1"))
    run(start(world))
    assert ids(world) == [1]


def test_a_paused_table_waits_and_others_flow(world: Any) -> None:
    """While `tables` pauses a table nothing of it loads, also across a restart; afterwards nothing is missing."""
    orders, items = world.schema("orders"), world.schema("items")
    pause(world, "orders", True)
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]))
    driver = start(world)
    run(driver)
    assert ids(world, "items") == [7]
    assert (world.source, "orders") not in driver.lake.tables
    assert driver.run_batch().caught_up
    driver = start(world)
    world.send(world.data(orders, 20, [{"id": 2}]), world.data(items, 20, [{"id": 8}]))
    run(driver)
    assert ids(world, "items") == [7, 8]
    pause(world, "orders", False)
    run(driver)
    assert ids(world) == [1, 2]
    assert state(driver, world).holes == ()


def test_a_saved_position_stays_before_a_parked_block(world: Any) -> None:
    """What waits is read again after a restart: the shard's position is not saved while a lane is parked in it."""
    orders, items = world.schema("orders"), world.schema("items")
    world.send(world.data(items, 10, [{"id": 7}]))
    driver = start(world)
    run(driver)
    before = saved(world)
    assert before
    pause(world, "orders", True)
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 20, [{"id": 8}]))
    run(driver)
    assert ids(world, "items") == [7, 8]
    assert saved(world) == before


def test_an_unknown_fingerprint_waits_for_its_schema(world: Any) -> None:
    """A block may overtake its schema: its lane waits, others flow, and it loads when the schema is there."""
    items = world.schema("items")
    late = TableSchema(world.source, "orders", (Column("id", "long", "id", "bigint"),), ("id",))
    world.send(world.data(late, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]))
    driver = start(world)
    run(driver)
    assert ids(world, "items") == [7]
    world.registry.register(late)
    run(driver)
    assert ids(world) == [1]


def test_an_unknown_fingerprint_is_given_up_after_its_time(world: Any) -> None:
    """After unknown_fingerprint_seconds the block is a hole that names the fingerprint; the next block loads."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    odd = TableSchema(world.source, "orders", (*orders.columns, Column("odd", "long", "odd", "bigint")), ("id",))
    world.send(world.data(odd, 20, [{"id": 2, "odd": 1}]), world.data(orders, 30, [{"id": 3}]))
    clock = Clock()
    driver = start(world, clock)
    run(driver)
    assert ids(world) == [1]
    clock.now += 181
    run(driver)
    assert ids(world) == [1, 3]
    (hole,) = state(driver, world).holes
    assert odd.fingerprint().hex() in hole.reason


def test_a_structure_the_lake_cannot_follow_is_a_hole_in_that_table(world: Any) -> None:
    """A changed type opens a hole that names column and types; other tables go on."""
    orders, items = world.schema("orders", "note"), world.schema("items")
    world.send(world.data(orders, 10, [{"id": 1, "note": "a"}]))
    driver = start(world)
    run(driver)
    table = driver.lake.tables[world.source, "orders"].table
    with table.update_schema() as update:
        update.add_column("amount", table.schema().find_field("note").field_type)
    changed = TableSchema(
        world.source, "orders", (orders.columns[0], Column("amount", "long", "amount", "int8")), ("id",)
    )
    world.registry.register(changed)
    world.send(world.data(changed, 20, [{"id": 2, "amount": 5}]), world.data(items, 10, [{"id": 7}]))
    run(driver)
    assert (ids(world), ids(world, "items")) == ([1], [7])
    (hole,) = state(driver, world).holes
    assert "amount" in hole.reason


def test_a_gap_before_an_unknown_schema_costs_both_and_ends(world: Any) -> None:
    """Two obstacles at one block are both given up in the end; the lane does not wait for ever."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    world.data(orders, 20, [{"id": 2}])
    odd = TableSchema(world.source, "orders", (*orders.columns, Column("odd", "long", "odd", "bigint")), ("id",))
    world.send(world.data(odd, 30, [{"id": 3, "odd": 1}]), world.data(orders, 40, [{"id": 4}]))
    clock = Clock()
    driver = start(world, clock)
    run(driver)
    clock.now += 181
    run(driver, 8)
    assert ids(world) == [1, 4]
    (hole,) = state(driver, world).holes
    assert (hole.after, hole.last) == (Position(1, 10, 0), Position(1, 30, 0))


def test_garbage_in_the_stream_is_kept_and_passed(world: Any) -> None:
    """A record that is no block is stored under (shard, sequence number); its neighbours load."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    world.send_bytes(b"not a block", "orders", "0")
    world.send(world.data(orders, 20, [{"id": 2}]))
    run(start(world))
    assert ids(world) == [1, 2]
    kept = world.server.client("s3").list_objects_v2(Bucket=world.bucket, Prefix="raw/")["Contents"]
    assert len(kept) == 1


def test_a_damaged_snapshot_block_voids_the_attempt(world: Any) -> None:
    """A group whose lane has a hole does not end, so that its rows never become the table's state."""
    orders = world.schema("orders")
    lane = snapshot_lane(1_000_001, 0, 1)
    good = world.snapshot(orders, 10, [{"id": 1}], lane=lane)
    bad = replace(world.snapshot(orders, 10, [{"id": 2}], lane=lane, first=1), count=9)
    end = world.snapshot_end("orders", SnapshotEnd(1_000_001, 0, 1, 1, 10, None, None, 2))
    world.send(good, bad, end)
    driver = start(world)
    run(driver)
    assert state(driver, world).holes
    assert not any(snapshot.complete for snapshot in state(driver, world).snapshots.values())


def test_a_block_the_reader_hangs_on_is_a_hole_and_the_job_starts_again(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good blocks beside it load, the bad one is a hole, all of it is committed, and then the process asks to end."""
    hangs = decode.DecoderStuck("did not return")
    original = decode.to_arrow

    def reader(schema: dict[str, Any], blocks: Sequence[tuple[int, bytes]]) -> Any:
        if len(blocks) > 1:
            raise hangs
        return original(schema, blocks)

    monkeypatch.setattr(decode, "to_arrow", reader)
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    world.send(replace(world.data(orders, 20, [{"id": 2}, {"id": 3}]), count=1))
    world.send(world.data(orders, 30, [{"id": 4}]))
    driver = start(world)
    with pytest.raises(DecoderHangs):
        run(driver)
    driver = start(world)
    run(driver)
    assert ids(world) == [1, 4]
    (hole,) = state(driver, world).holes
    assert (hole.after, hole.last) == (Position(1, 10, 0), Position(1, 20, 1))
    assert "follow the 1 records" in hole.reason


def saved(world: Any) -> list[Any]:
    items = world.server.client("dynamodb").scan(TableName=f"{world.prefix}-shards")["Items"]
    return [(item["shard"]["S"], item["sequence"]["S"]) for item in items if "sequence" in item]


def pause(world: Any, table: str, paused: bool) -> None:
    world.server.client("dynamodb").put_item(
        TableName=f"{world.prefix}-tables",
        Item={"table": {"S": f"{world.source}.{table}"}, "paused": {"BOOL": paused}},
    )
