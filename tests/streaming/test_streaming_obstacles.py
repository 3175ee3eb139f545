"""What stands in a lane's way: it waits, becomes a hole with a reason, and never stops the other lanes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from glue_streaming import decode
from glue_streaming.errors import DecoderHangs
from schemas.change_record import Column, TableSchema
from schemas.control import SnapshotEnd, snapshot_lane
from schemas.position import Position


def test_a_reject_inside_a_hole_leaves_the_rest_of_it_fillable(world: Any, job: Any) -> None:
    """A gap of three blocks is resent, the middle one is a reject: only its own position stays a hole."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    before = world.data(orders, 20, [{"id": 2}])
    reject = world.reject("orders", Position(1, 30, 0), "numeric out of range")
    after = world.data(orders, 40, [{"id": 4}])
    world.send(world.data(orders, 50, [{"id": 5}]))
    job.run()
    assert [(hole.after, hole.last) for hole in job.state().holes] == [(Position(1, 10, 0), Position(1, 40, 0))]
    world.send(before, reject, after)
    job.run()
    assert job.ids() == [1, 2, 4, 5]
    (hole,) = job.state().holes
    assert (hole.after, hole.last) == (Position(1, 20, 0), Position(1, 30, 0))
    assert "numeric out of range" in hole.reason


def test_a_missing_claim_is_a_hole_and_its_resend_heals_it(world: Any, job: Any) -> None:
    """A block whose payload is not on S3 does not stop the job; sent again in full, its rows arrive."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    whole = world.data(orders, 20, [{"id": 2}])
    world.send(replace(whole, records=b"", claim=f"s3://{world.bucket}/claims/gone"))
    world.send(world.data(orders, 30, [{"id": 3}]))
    job.run()
    assert job.ids() == [1, 3]
    (hole,) = job.state().holes
    assert f"s3://{world.bucket}/claims/gone" in hole.reason
    world.send(whole)
    job.run()
    assert job.ids() == [1, 2, 3]
    assert job.state().holes == ()


def test_a_claimed_payload_is_read_from_s3(world: Any, job: Any) -> None:
    """A block above the record limit travels as a claim; its rows load as any others."""
    orders = world.schema("orders")
    whole = world.data(orders, 10, [{"id": 1}])
    world.server.client("s3").put_object(Bucket=world.bucket, Key="claims/1", Body=whole.records)
    world.send(replace(whole, records=b"", claim=f"s3://{world.bucket}/claims/1"))
    job.run()
    assert job.ids() == [1]


def test_a_paused_table_waits_and_others_flow(world: Any, job: Any) -> None:
    """While `tables` pauses a table nothing of it loads, also across a restart; afterwards nothing is missing."""
    orders, items = world.schema("orders"), world.schema("items")
    job.pause("orders", True)
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]))
    job.run()
    assert job.ids("items") == [7]
    assert (world.source, "orders") not in job.driver.lake.tables
    assert job.run(1).caught_up
    job.restart()
    world.send(world.data(orders, 20, [{"id": 2}]), world.data(items, 20, [{"id": 8}]))
    job.run()
    assert job.ids("items") == [7, 8]
    job.pause("orders", False)
    job.run()
    assert job.ids() == [1, 2]
    assert job.state().holes == ()


def test_a_saved_position_stays_before_a_parked_block(world: Any, job: Any) -> None:
    """What waits is read again after a restart: the shard's position is not saved while a lane is parked in it."""
    orders, items = world.schema("orders"), world.schema("items")
    world.send(world.data(items, 10, [{"id": 7}]))
    job.run()
    before = job.saved()
    assert before
    job.pause("orders", True)
    world.send(world.data(orders, 10, [{"id": 1}]), world.data(items, 20, [{"id": 8}]))
    job.run()
    assert job.ids("items") == [7, 8]
    assert job.saved() == before


def test_an_unknown_fingerprint_waits_for_its_schema(world: Any, job: Any) -> None:
    """A block may overtake its schema: its lane waits, others flow, and it loads when the schema is there."""
    items = world.schema("items")
    late = TableSchema(world.source, "orders", (Column("id", "long", "id", "bigint"),), ("id",))
    world.send(world.data(late, 10, [{"id": 1}]), world.data(items, 10, [{"id": 7}]))
    job.run()
    assert job.ids("items") == [7]
    world.registry.register(late)
    job.run()
    assert job.ids() == [1]


def test_an_unknown_fingerprint_is_given_up_after_its_time(world: Any, job: Any) -> None:
    """After unknown_fingerprint_seconds the block is a hole that names the fingerprint; the next block loads."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    odd = TableSchema(world.source, "orders", (*orders.columns, Column("odd", "long", "odd", "bigint")), ("id",))
    world.send(world.data(odd, 20, [{"id": 2, "odd": 1}]), world.data(orders, 30, [{"id": 3}]))
    job.run()
    assert job.ids() == [1]
    job.clock.now += 181
    job.run()
    assert job.ids() == [1, 3]
    (hole,) = job.state().holes
    assert odd.fingerprint().hex() in hole.reason


def test_a_structure_the_lake_cannot_follow_is_a_hole_in_that_table(world: Any, job: Any) -> None:
    """A changed type opens a hole that names column and types, where the table's policy says so; others go on."""
    job.configure("orders", on_type_change={"S": "hole"})
    orders, items = world.schema("orders", "amount"), world.schema("items")
    world.send(world.data(orders, 10, [{"id": 1, "amount": "a"}]))
    job.run()
    columns = (orders.columns[0], Column("amount", "long", "amount", "int8"))
    changed = TableSchema(world.source, "orders", columns, ("id",))
    world.registry.register(changed)
    world.send(world.data(changed, 20, [{"id": 2, "amount": 5}]), world.data(items, 10, [{"id": 7}]))
    job.run()
    assert (job.ids(), job.ids("items")) == ([1], [7])
    (hole,) = job.state().holes
    assert "amount" in hole.reason


def test_a_gap_before_an_unknown_schema_costs_both_and_ends(world: Any, job: Any) -> None:
    """Two obstacles at one block are both given up in the end; the lane does not wait for ever."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    world.data(orders, 20, [{"id": 2}])
    odd = TableSchema(world.source, "orders", (*orders.columns, Column("odd", "long", "odd", "bigint")), ("id",))
    world.send(world.data(odd, 30, [{"id": 3, "odd": 1}]), world.data(orders, 40, [{"id": 4}]))
    job.run()
    job.clock.now += 181
    job.run(8)
    assert job.ids() == [1, 4]
    (hole,) = job.state().holes
    assert (hole.after, hole.last) == (Position(1, 10, 0), Position(1, 30, 0))


def test_garbage_in_the_stream_is_kept_and_passed(world: Any, job: Any) -> None:
    """A record that is no block is stored under (shard, sequence number); its neighbours load."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]))
    world.send_bytes(b"not a block", "orders", "0")
    world.send(world.data(orders, 20, [{"id": 2}]))
    job.run()
    assert job.ids() == [1, 2]
    kept = world.server.client("s3").list_objects_v2(Bucket=world.bucket, Prefix="raw/")["Contents"]
    assert len(kept) == 1


def test_a_damaged_snapshot_block_voids_the_attempt(world: Any, job: Any) -> None:
    """A group whose lane has a hole does not end, so that its rows never become the table's state."""
    orders = world.schema("orders")
    lane = snapshot_lane(1_000_001, 0, 1)
    good = world.snapshot(orders, 10, [{"id": 1}], lane=lane)
    bad = replace(world.snapshot(orders, 10, [{"id": 2}], lane=lane, first=1), count=9)
    end = world.snapshot_end("orders", SnapshotEnd(1_000_001, 0, 1, 1, 10, None, None, 2))
    world.send(good, bad, end)
    job.run()
    assert job.state().holes
    assert not any(snapshot.complete for snapshot in job.state().snapshots.values())


def test_a_block_the_reader_hangs_on_is_a_hole_and_the_job_starts_again(
    world: Any, job: Any, monkeypatch: pytest.MonkeyPatch
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
    with pytest.raises(DecoderHangs):
        job.run()
    job.restart()
    job.run()
    assert job.ids() == [1, 4]
    (hole,) = job.state().holes
    assert (hole.after, hole.last) == (Position(1, 10, 0), Position(1, 20, 1))
    assert "follow the 1 records" in hole.reason


def test_blocks_of_a_table_called_as_one_of_ours_make_no_lake_table(world: Any, job: Any) -> None:
    """Whoever sent them: their bytes are kept, the source's own table of holes is not touched, others flow."""
    orders = world.schema("orders")
    ours = replace(orders, table="holes")
    world.send(world.data(ours, 10, [{"id": 1}]), world.data(orders, 10, [{"id": 2}]), world.progress(15))
    assert job.run(1).malformed == 1
    job.run(3)
    assert job.ids() == [2]
    assert [name for _, name in job.driver.lake.tables] == ["orders"]
