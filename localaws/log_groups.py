"""Writing to CloudWatch Logs from inside the server, off its event loop."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_MAX_EVENTS = 5_000
_MAX_READ_BYTES = 2**20


def call(action: str, request: dict[str, Any]) -> dict[str, Any]:
    """One call of the logs service in the caller's account and region; for worker threads only."""
    from ministack import app

    headers = {"x-amz-target": f"Logs_20140328.{action}", "content-type": "application/x-amz-json-1.1"}
    handler = app.SERVICE_HANDLERS["logs"]
    _, _, body = app.call_service_handler_sync(handler, "POST", "/", headers, json.dumps(request).encode(), {})
    return dict(json.loads(body or b"{}"))


def create_stream(group: str, stream: str) -> None:
    """Make the group and the stream, where they are missing."""
    call("CreateLogGroup", {"logGroupName": group})
    call("CreateLogStream", {"logGroupName": group, "logStreamName": stream})


def put(group: str, stream: str, lines: Sequence[str]) -> None:
    now_millis = int(time.time() * 1000)
    for start in range(0, len(lines), _MAX_EVENTS):
        events = [{"timestamp": now_millis, "message": line} for line in lines[start : start + _MAX_EVENTS]]
        call("PutLogEvents", {"logGroupName": group, "logStreamName": stream, "logEvents": events})


RoleMay = Callable[[str, str, str], bool]  # role, action, resource


def role_may_write(
    role_may: RoleMay, role: str, group: str, stream: str, region: str, account: str, *, makes_group: bool = False
) -> bool:
    """Whether a role may write to a log stream, as the services do with the role that they run code in.

    Glue asks to make the group first, whether or not it is there.
    """
    from ministack.services import cloudwatch_logs

    arn = f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:"
    if makes_group and not role_may(role, "logs:CreateLogGroup", arn) and group not in cloudwatch_logs._log_groups:
        return False
    return role_may(role, "logs:CreateLogStream", arn) and role_may(role, "logs:PutLogEvents", f"{arn}{stream}")


class FileTail:
    """Copies what a growing file holds to a log stream, whole lines at a time; nothing where it is not allowed."""

    def __init__(self, path: Path, group: str, stream: str, allowed: Callable[[str, str], bool]) -> None:
        self._path, self._group, self._stream = path, group, stream
        self._allowed = allowed
        self._offset = 0
        self._created = False

    def copy(self, *, to_the_end: bool = False) -> None:
        """Copy the whole lines written since the last time; at the end also a last line without its newline."""
        while self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_MAX_READ_BYTES)
            end = len(data) if to_the_end or len(data) == _MAX_READ_BYTES else data.rfind(b"\n") + 1
            if not end:
                return
            self._offset += end
            if not self._created:
                if not self._allowed(self._group, self._stream):
                    raise PermissionError(f"the role may not write to {self._group}: its output is not kept there")
                create_stream(self._group, self._stream)
                self._created = True
            put(self._group, self._stream, data[:end].decode(errors="replace").splitlines())
