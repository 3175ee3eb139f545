"""Lanes: which ordered substream of its table a change belongs to. Pure."""

from __future__ import annotations

import zlib
from fnmatch import fnmatchcase
from typing import Protocol

from producer.settings import TableSettings


class Keyed(Protocol):
    """What decides about a lane: the operation and the canonical bytes of the key."""

    @property
    def op(self) -> str: ...

    @property
    def key(self) -> bytes: ...


def lane(change: Keyed, lanes: int) -> str:
    """The lane of a change among a table's `lanes`: one key always has one lane, a truncate goes on lane 0."""
    if lanes == 1 or change.op == "t" or not change.key:
        return "0"
    return str(zlib.crc32(change.key) % lanes)


def settings_of(name: str, tables: tuple[TableSettings, ...]) -> TableSettings | None:
    """The first entry whose name or pattern is that of a source table (`schema.table`)."""
    return next((entry for entry in tables if fnmatchcase(name, entry.name)), None)
