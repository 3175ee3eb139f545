"""Many tables in one batch: what a commit asks of the catalog, and what a throttled catalog does to it."""

import io
import re
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
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


class Counting(socketserver.BaseRequestHandler):
    """Stands before the laptop's AWS, and counts by method what is asked of one bucket."""

    behind: tuple[str, int]
    bucket: str
    asked: Counter[str]

    def handle(self) -> None:
        with socket.create_connection(self.behind) as aws:
            back = threading.Thread(target=self._copy, args=(aws, self.request), daemon=True)
            back.start()
            self._copy(self.request, aws, re.compile(rb"(GET|HEAD|PUT|POST|DELETE) /" + self.bucket.encode()))
            back.join()

    def _copy(self, here: socket.socket, there: socket.socket, counted: re.Pattern[bytes] | None = None) -> None:
        with suppress(OSError):
            while data := here.recv(1 << 16):
                if counted is not None:
                    self.asked.update(method.decode() for method in counted.findall(data))
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)


@pytest.fixture
def s3_asked(world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the requests to S3, by method, of every client that is made from here on."""
    asked: Counter[str] = Counter()
    host, _, port = world.server.endpoint.removeprefix("http://").partition(":")
    handler = type("Handler", (Counting,), {"behind": (host, int(port)), "bucket": world.bucket, "asked": asked})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield asked
        server.shutdown()


def test_a_commit_puts_four_objects_and_reads_none(
    world: Any, make_job: Callable[..., Any], s3_asked: Counter[str]
) -> None:
    """Data, manifest, manifest list and metadata, with a request each: requests are a commit's time and its price."""
    job = make_job(world)
    schemas = [world.schema(name) for name in ("a", "b", "c")]
    for lsn in (10, 20):
        send_round(world, schemas, lsn)
        job.run()
    s3_asked.clear()
    send_round(world, schemas, 30)
    assert job.run(1).commits == 3
    assert s3_asked == {"PUT": 12}
    assert [job.ids(name) for name in ("a", "b", "c")] == [[10, 20, 30]] * 3


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
