"""Kinesis on the laptop: the service behind ministack's handler seam, and its control over HTTP.

All operations run on one thread of their own: the service needs no locks, and a 10 MiB request does not hold the
event loop.
"""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import orjson

from .kinesis_calls import Call
from .kinesis_errors import KinesisError
from .kinesis_faults import Fault
from .kinesis_service import Kinesis

Response = tuple[int, dict[str, str], bytes]
_CONTENT_TYPE = "application/x-amz-json-1.1"


class KinesisEndpoint:
    """Kinesis as ministack calls a service, and as tests disturb it."""

    def __init__(self, folder: Path, clock: Callable[[], float], *, enforce_limits: bool) -> None:
        self._kinesis = Kinesis(folder, enforce_limits=enforce_limits, dice=random.Random())
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kinesis")

    async def handle(self, headers: dict[str, str], body: bytes, account: str, region: str) -> Response:
        """Answer one request; faults strike before the work, in it, or after it."""
        operation = headers.get("x-amz-target", "").rpartition(".")[2]
        loop = asyncio.get_running_loop()
        try:
            request = await loop.run_in_executor(self._thread, _parse, body)
            fault = self._kinesis.faults.strike(operation, self._kinesis.stream_name(request))
            if fault and fault.delay_seconds:
                await asyncio.sleep(fault.delay_seconds)
            if fault and fault.refuses:
                return _refused(fault.error())
            call = Call(account, region, self._clock(), fault)
            reply = await loop.run_in_executor(self._thread, self._answer, operation, request, call)
            return _refused(fault.error()) if fault and fault.after else reply
        except KinesisError as error:
            return _refused(error)

    def _answer(self, operation: str, request: dict[str, object], call: Call) -> Response:
        try:
            reply = self._kinesis.call(operation, request, call)
        except KeyError as error:
            return _refused(KinesisError("ValidationException", f"The member {error} is missing"))
        return 200, {"Content-Type": _CONTENT_TYPE}, orjson.dumps(reply)

    def key_of(self, stream_arn: str) -> str | None:
        """The KMS key that encrypts a stream; None for one without, and for a stream that is not there."""
        return self._kinesis.key_of(stream_arn)

    def control(self, method: str, path: str, body: bytes) -> Response:
        """`faults`: GET shows and POST replaces the rules; `enforce`: POST true or false switches the shard rates."""
        try:
            if path == "enforce" and method == "POST":
                self._kinesis.enforce_limits = orjson.loads(body) is True
            elif path == "faults" and method == "POST":
                self._kinesis.faults.replace([Fault.parse(rule) for rule in orjson.loads(body or b"[]")])
            elif path != "faults":
                return 404, {"Content-Type": "application/json"}, b'{"message": "expected faults or enforce"}'
        except (ValueError, TypeError) as error:
            return 400, {"Content-Type": "application/json"}, orjson.dumps({"message": str(error)})
        shown = {
            "enforce": self._kinesis.enforce_limits,
            "faults": [asdict(rule) for rule in self._kinesis.faults.rules()],
        }
        return 200, {"Content-Type": "application/json"}, orjson.dumps(shown)

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        self._kinesis.close()


def _parse(body: bytes) -> dict[str, object]:
    try:
        request = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise KinesisError("SerializationException", f"The request is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise KinesisError("SerializationException", "The request is not a JSON object")
    return request


def _refused(error: KinesisError) -> Response:
    body = orjson.dumps({"__type": error.code, "message": error.message})
    return error.status, {"Content-Type": _CONTENT_TYPE, "x-amzn-ErrorType": error.code}, body
