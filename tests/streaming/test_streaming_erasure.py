"""Erased keys do not come in any more: not by load, not by replay, and not from claims or raw bytes."""

from datetime import UTC, datetime
from typing import Any

import pytest

from glue_streaming import erase as erasing
from glue_streaming.erasure_records import Records
from glue_streaming.fold.keep import Keep
from glue_streaming.raw import ranges
from ops import erase, holes
from ops.errors import NotApplicable
from ops.names import Names
from schemas import block as blocks
from schemas.change_record import Column, TableSchema
from schemas.position import Line, Position


def place(world: Any) -> erase.Place:
    return erase.Place(world.server.client, world.source, Names(world.prefix))


def records(world: Any) -> Records:
    return Records(world.server.client("dynamodb"), f"{world.prefix}-sources", world.source)


def carry_out(world: Any, job: Any) -> dict[str, int]:
    name = (f"{world.source}_lake", "orders")
    return erasing.carry_out(job.aws, world.bucket, records(world), world.registry, name, Keep(0))


def raw_bytes(world: Any) -> bytes:
    """What the raw blocks of the source hold, unpacked."""
    s3, found = world.server.client("s3"), b""
    for item in s3.list_objects_v2(Bucket=world.bucket, Prefix="raw/").get("Contents", []):
        block = blocks.decode(s3.get_object(Bucket=world.bucket, Key=item["Key"])["Body"].read())
        found += blocks.datums(block)
    return found


def test_what_still_arrives_up_to_the_line_is_dropped(world: Any, job: Any) -> None:
    """Up to the line the key's changes go nowhere, also where they are read again; behind it they are loaded."""
    orders = world.schema("orders", "amount")
    world.send(world.data(orders, 10, [{"id": 1, "amount": "a"}, {"id": 2, "amount": "b"}]), world.progress(15))
    job.run(2)
    record = erase.request(place(world), "orders", ["id=01"], "1:20", "ann")
    assert (record.erasure.columns, record.erasure.through) == (("id",), Line(1, 20))
    assert carry_out(world, job) == {"log_files": 1, "log_rows": 1}
    world.send(
        world.data(orders, 20, [{"id": 1, "amount": "late"}, {"id": 2, "amount": "c"}], op="u"),
        world.data(orders, 30, [{"id": 1, "amount": "back"}]),
        world.progress(35),
    )
    job.run(2)
    assert [(row["id"], row["amount"]) for row in job.rows()] == [(2, "b"), (2, "c"), (1, "back")]
    assert job.watermark() == Line(1, 35)
    (asked,) = records(world).all()
    assert asked.done_at is not None and asked.report == {"log_files": 1, "log_rows": 1}
    assert erase.request(place(world), "orders", ["1"], None, "ann") == asked


def test_raw_bytes_of_a_hole_are_rewritten_and_still_replay(world: Any, job: Any) -> None:
    """The erased row is gone from the stored bytes; the hole's other rows come in, at their positions."""
    job.configure("orders", on_type_change={"S": "hole"})
    orders = world.schema("orders", "amount")
    changed = TableSchema(
        world.source, "orders", (orders.columns[0], Column("amount", "string", "amount", "text"),
                                 Column("note", "long", "note", "int8")), ("id",)
    )  # fmt: skip
    other = TableSchema(
        world.source, "orders", (orders.columns[0], Column("amount", "long", "amount", "int8"), changed.columns[2]),
        ("id",),
    )  # fmt: skip
    world.registry.register(other)
    world.send(world.data(orders, 10, [{"id": 1, "amount": "old"}]), world.progress(15))
    job.run()
    world.send(world.data(other, 20, [{"id": 1, "amount": 5, "note": 777001}, {"id": 2, "amount": 6, "note": 888}]))
    world.send(world.data(orders, 30, [{"id": 3, "amount": "x"}]), world.progress(35))
    job.run()
    (hole,) = job.state().holes
    first, second = b"\xd2\xec\x5e", b"\xf0\x0d"  # 777001 and 888, as Avro writes them
    assert first in raw_bytes(world)
    erase.request(place(world), "orders", ["id=1"], None, "ann")
    done = carry_out(world, job)
    assert done == {"log_files": 1, "log_rows": 1, "raw_rewritten": 1}
    assert first not in raw_bytes(world) and second in raw_bytes(world)
    job.configure("orders", on_type_change={"S": "new_column"})
    job.run(1)
    client = world.server.client
    there = holes.Place(client("glue"), client("dynamodb"), world.source, f"{world.prefix}-sources")
    item = holes._put(there, "replay", "orders", "ann", "", hole)
    job.run(4)
    status, detail = holes.await_answer(there, item, 1)
    assert (status, job.state().holes) == ("done", ()), detail
    assert [(row["_lsn"], row["id"]) for row in job.rows()] == [(20, 2), (30, 3)]


def test_raw_bytes_that_nobody_can_read_are_deleted(world: Any, job: Any) -> None:
    """They may hold the key; the hole stays, for a resend or a snapshot."""
    orders = world.schema("orders", "amount")
    world.send(world.data(orders, 10, [{"id": 1, "amount": "a"}]))
    job.run(1)
    broken = blocks.encode(world.data(orders, 20, [{"id": 1, "amount": "b"}]))
    world.send_bytes(broken[:-3] + b"\x00\x00\x00", "orders", "0")
    world.send(world.data(orders, 30, [{"id": 3, "amount": "x"}]), world.progress(35))
    job.run()
    (hole,) = job.state().holes
    assert ranges(hole.where)
    erase.request(place(world), "orders", ["id=1"], None, "ann")
    assert carry_out(world, job)["raw_deleted"] == 1
    assert world.server.client("s3").list_objects_v2(Bucket=world.bucket, Prefix="raw/")["KeyCount"] == 0
    assert job.state().holes == (hole,)


def test_claims_that_were_loaded_go(world: Any, job: Any) -> None:
    """A payload that the table's mark has passed is read by nobody any more; one ahead of it stays."""
    orders = world.schema("orders", "amount")
    world.send(world.data(orders, 10, [{"id": 1, "amount": "a"}]), world.progress(15))
    job.run(2)
    s3 = world.server.client("s3")
    for at in (Position(1, 10, 0), Position(1, 99, 0)):
        key = f"claims/{world.source}/orders/0/{at.era}-{at.lsn:016x}-{at.idx}"
        s3.put_object(Bucket=world.bucket, Key=key, Body=b"payload")
    erase.request(place(world), "orders", ["id=1"], None, "ann")
    assert carry_out(world, job)["claims_deleted"] == 1
    left = s3.list_objects_v2(Bucket=world.bucket, Prefix="claims/")["Contents"]
    assert [item["Key"].rpartition("/")[2] for item in left] == ["1-0000000000000063-0"]


def test_the_report_says_when_the_last_copies_are_gone(world: Any, job: Any) -> None:
    """From the deployment's settings, stream and bucket; a wrong key is refused before anything is written."""
    orders = world.schema("orders", "amount")
    world.send(world.data(orders, 10, [{"id": 1, "amount": "a"}]), world.progress(15))
    job.run(2)
    there = erase.Place(world.server.client, world.source, Names(world.prefix))
    client = world.server.client
    client("kinesis").create_stream(StreamName=there.names.stream, ShardCount=1)
    client("s3").create_bucket(Bucket=there.names.bucket)
    rules = [
        {
            "ID": "v",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
        },
        {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "results/"}, "Expiration": {"Days": 14}},
    ]
    client("s3").put_bucket_lifecycle_configuration(Bucket=there.names.bucket, LifecycleConfiguration={"Rules": rules})
    with pytest.raises(NotApplicable, match=r"the key is to be given as --key id=\.\.\."):
        erase.request(there, "orders", ["amount=a"], None, "ann")
    with pytest.raises(NotApplicable, match="'one' is no value of id"):
        erase.request(there, "orders", ["one"], None, "ann")
    record = erase.request(there, "orders", ["1"], None, "ann")
    assert record.erasure.through == Line(1, 15)
    now = datetime(2030, 1, 1, tzinfo=UTC)
    dates = erase.to_json(record, erase.last_dates(there, record, now))["last_dates"]
    assert dates["snapshots"] == "2030-01-01T02:00+00:00"
    assert dates["files"] == "2030-01-05T02:00+00:00"
    assert dates["object_versions"] == "2030-01-12T02:00+00:00"
    assert dates["query_results"] == "2030-01-15T00:00+00:00"
    assert dates["stream"] > record.requested_at
