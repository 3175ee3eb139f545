"""Many tables in one batch: what a commit asks of the catalog, and what a throttled catalog does to it."""

import io
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from glue_streaming.aws import Aws

TABLES = 12


class Body(io.BytesIO):
    """What botocore reads an answer from."""

    def stream(self, **_: Any) -> Any:
        yield self.getvalue()


class Meter:
    """Counts the catalog's requests, and answers as one that is throttled to a rate: every other request is refused."""

    def __init__(self, glue: Any, *, throttles: bool) -> None:
        self.asked: Counter[str] = Counter()
        self.refused = 0
        self._throttles, self._turn, self._lock = throttles, 0, threading.Lock()
        glue.meta.events.register("before-send.glue", self._answer)

    def _answer(self, request: Any, **_: Any) -> AWSResponse | None:
        with self._lock:
            self.asked[request.headers["X-Amz-Target"].decode().rpartition(".")[2]] += 1
            self._turn += 1
            if not self._throttles or self._turn % 2:
                return None
            self.refused += 1
        body = Body(b'{"__type":"ThrottlingException","message":"Rate exceeded"}')
        return AWSResponse(request.url, 400, {"content-type": "application/x-amz-json-1.1"}, body)


@pytest.fixture
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between retries are as many, and shorter."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff._BASE", 1.01)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)


def send_round(world: Any, schemas: list[Any], lsn: int) -> None:
    world.send(*[world.data(schema, lsn, [{"id": lsn}]) for schema in schemas], world.progress(lsn))


def test_a_commit_asks_the_catalog_twice(world: Any, make_job: Callable[..., Any]) -> None:
    """For the table's version, and to move it; a table without new rows is not asked for at all. The catalog's request
    rate is a limit of the account, and 200 tables are in a batch."""
    job = make_job(world)
    schemas = [world.schema(f"t{number:02}") for number in range(TABLES)]
    send_round(world, schemas, 10)
    job.run()
    meter = Meter(job.aws.client("glue"), throttles=False)
    send_round(world, schemas[: TABLES // 2], 20)
    report = job.run(1)
    assert report.commits == TABLES // 2
    for_the_watermark = 1
    assert meter.asked["UpdateTable"] == TABLES // 2 + for_the_watermark
    assert meter.asked["GetTable"] <= TABLES // 2 + 2
    assert set(meter.asked) == {"GetTable", "UpdateTable"}


@pytest.mark.usefixtures("quick_backoff")
def test_a_throttled_catalog_slows_the_commits_down_and_they_succeed(world: Any, make_job: Callable[..., Any]) -> None:
    """Half of all requests are refused: every table commits in the same batch, once, and the refusals are counted."""
    job = make_job(world)
    schemas = [world.schema(f"t{number:02}") for number in range(TABLES)]
    send_round(world, schemas, 10)
    job.run()
    meter = Meter(job.aws.client("glue"), throttles=True)
    send_round(world, schemas, 20)
    report = job.run(1)
    assert report.commits == TABLES
    assert meter.refused >= TABLES
    assert report.commit_failures == meter.refused
    assert all(job.ids(f"t{number:02}") == [10, 20] for number in range(TABLES))


def test_a_table_that_nothing_came_for_is_not_committed(world: Any, make_job: Callable[..., Any]) -> None:
    """Its metadata file stays the one it was."""
    job = make_job(world)
    schemas = [world.schema(name) for name in ("a", "b")]
    send_round(world, schemas, 10)
    job.run()
    before = {name: job.table(name).metadata_location for name in ("a", "b")}
    send_round(world, schemas[:1], 20)
    job.run(2)
    after = {name: job.table(name).metadata_location for name in ("a", "b")}
    assert (after["b"], after["a"] == before["a"]) == (before["b"], False)


def test_another_process_sees_what_was_committed(world: Any, make_job: Callable[..., Any]) -> None:
    """What a catalog remembers of metadata files is only what never changes: two of them never disagree."""
    job = make_job(world)
    orders = world.schema("orders")
    one, other = Aws().catalog, Aws().catalog
    name = f"{world.source}_lake.orders"
    for lsn in (10, 20, 30):
        world.send(world.data(orders, lsn, [{"id": lsn}]))
        job.run()
        seen = {catalog.load_table(name).metadata_location for catalog in (one, other, job.aws.catalog)}
        assert len(seen) == 1
        assert one.load_table(name).metadata == other.load_table(name).metadata == job.table().metadata
