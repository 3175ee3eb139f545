"""A Kinesis that takes everything and keeps nothing, in a process of its own: what the agent and its peer send to.

`GET /counts` tells what has come since `GET /reset`; with `?keep=1` on reset, the records of this time are kept, and
`GET /records` hands them out with the moment of their arrival.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_TARGET: Final = re.compile(rb"(?i)\r\nx-amz-target: *Kinesis_20131202\.(\w+)")
_RESULT: Final = b'{"SequenceNumber":"1","ShardId":"shardId-000000000000"}'
_SUMMARY: Final = {
    "StreamDescriptionSummary": {
        "StreamName": "bench",
        "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/bench",
        "StreamStatus": "ACTIVE",
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 1_700_000_000,
        "EnhancedMonitoring": [],
        "OpenShardCount": 1,
    }
}


@dataclass
class _Counts:
    keep: bool = False
    requests: int = 0
    records: int = 0
    bytes: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    kept: list[tuple[float, str]] = field(default_factory=list)

    def take(self, records: list[dict[str, Any]]) -> None:
        now = time.time()
        self.requests += 1
        self.first_at = self.first_at or now
        self.last_at = now
        self.records += len(records)
        for record in records:
            data = record["Data"]
            self.bytes += len(data) * 3 // 4 - data.count("=", -2)
            if self.keep:
                self.kept.append((now, data))


class _Connection(asyncio.Protocol):
    counts = _Counts()

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end])
            found = _LENGTH.search(head)
            size = int(found[1]) if found else 0
            if b"100-continue" in head and len(self._buffer) == end + 4 and size:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if len(self._buffer) < end + 4 + size:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + size])
            del self._buffer[: end + 4 + size]
            answer = self._answer(head, body)
            self._write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nx-amzn-RequestId: 1\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(answer), answer)
            )

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if head.startswith(b"GET /reset"):
            type(self).counts = _Counts(keep=b"keep=1" in head)
            return b"{}"
        if head.startswith(b"GET /counts"):
            counts = vars(self.counts).copy()
            counts.pop("kept")
            return orjson.dumps(counts)
        if head.startswith(b"GET /records"):
            return orjson.dumps(self.counts.kept)
        action = _TARGET.search(head)
        if action is not None and action[1] == b"PutRecords":
            records = orjson.loads(body)["Records"]
            self.counts.take(records)
            return b'{"FailedRecordCount":0,"Records":[' + b",".join([_RESULT] * len(records)) + b"]}"
        return json.dumps(_SUMMARY).encode()


@dataclass(frozen=True)
class NullKinesis:
    """A running one."""

    port: int
    pid: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reset(self, *, keep: bool = False) -> None:
        self._get(f"/reset?keep={int(keep)}")

    def counts(self) -> dict[str, Any]:
        found: dict[str, Any] = self._get("/counts")
        return found

    def records(self) -> list[tuple[float, bytes]]:
        """When each kept record came, seconds since 1970, and its data."""
        return [(at, base64.b64decode(data)) for at, data in self._get("/records")]

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.endpoint + path, timeout=60) as answer:
            return json.loads(answer.read())


@contextmanager
def running() -> Iterator[NullKinesis]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench.null_kinesis", str(port)])
    kinesis = NullKinesis(port, process.pid)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                kinesis.counts()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield kinesis
    finally:
        process.terminate()
        process.wait()


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
