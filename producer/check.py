"""Whether the agent could run: every part that it needs, tried without changing anything."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from producer.errors import ProducerError, SpoolBroken, StreamRefused
from producer.kinesis import KinesisStream, Unanswered
from producer.settings import Settings, SpoolSettings
from producer.source import Source
from producer.spool_file import in_use


@dataclass(frozen=True)
class Part:
    """A part of what the agent needs; error is None where it is ready."""

    name: str
    said: str
    error: ProducerError | None = None

    def __str__(self) -> str:
        return f"ok      {self.name}: {self.said}" if self.error is None else f"failed  {self.name}: {self.error}"


def look(settings: Settings, source: Source, kinesis: Any, dynamodb: Any) -> Iterator[Part]:
    """Each part as soon as it is known. What only a write could show (claims on S3, registering a schema) is not
    tried."""
    name, prefix = settings.source.name, settings.aws.dynamodb_prefix
    runs = in_use(settings.spool.path)
    if runs:
        yield Part("agent", "it runs: spool, slot and stream are in its use")
    yield _part("spool", lambda: _spool(settings.spool))
    yield _part("source", lambda: _source(source, runs))
    yield _part(f"stream {settings.aws.stream}", lambda: KinesisStream(kinesis, settings.aws.stream).identity().arn)
    for table, key in (
        (f"{prefix}-sources", {"source": {"S": name}, "item": {"S": "agent"}}),
        (f"{prefix}-schemas", {"subject": {"S": f"{name}.-"}, "version": {"N": "1"}}),
    ):
        yield _part(f"table {table}", lambda table=table, key=key: _readable(dynamodb, table, key))  # type: ignore[misc]


def _part(name: str, work: Callable[[], str]) -> Part:
    try:
        return Part(name, work())
    except ProducerError as error:
        return Part(name, "", error)
    except (Unanswered, BotoCoreError, ClientError, OSError) as error:
        return Part(name, "", StreamRefused(f"{error}; see that the endpoint is reached and that the role may do this"))


def _source(source: Source, runs: bool) -> str:
    source.check(beside_agent=runs)
    said = f"ready, {len(source.tables())} tables: {', '.join(source.tables())}"
    return "\n        left out: ".join((said, *source.remarks().warnings))


def _spool(settings: SpoolSettings) -> str:
    """The folder may be written, and its disk holds what the configuration promises of it."""
    folder = settings.path.parent
    if not folder.is_dir():
        raise SpoolBroken(f"folder {folder} is not there: mkdir -p {folder}, and give it to the agent's user")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpoolBroken(f"folder {folder} may not be written by {_user()}: chown {_user()} {folder}")
    room = shutil.disk_usage(folder).free + (settings.path.stat().st_size if settings.path.exists() else 0)
    if room < settings.max_bytes:
        raise SpoolBroken(
            f"{folder} has room for {_mib(room)}, spool.max_bytes promises {_mib(settings.max_bytes)}: make room, or"
            " lower it"
        )
    return f"{folder} has room for {_mib(room)}"


def _readable(dynamodb: Any, table: str, key: dict[str, Any]) -> str:
    dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True)
    return "can be read"


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _mib(count: int) -> str:
    return f"{count // 2**20:,} MiB"
