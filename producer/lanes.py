"""Lanes: which ordered substream of its table a change belongs to. Pure."""

from __future__ import annotations

import zlib
from typing import Protocol

import numpy as np

from producer.change import Run


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


def split(run: Run, lanes: int) -> list[tuple[str, Run]]:
    """The same for every change of a run: its part on each lane, in order."""
    if lanes == 1 or run.hashes is None:
        return [("0", run)]
    numbers = run.hashes % lanes
    order = np.argsort(numbers, kind="stable")
    edges = np.flatnonzero(np.diff(numbers[order])) + 1
    return [(str(numbers[rows[0]]), run.chosen(rows)) for rows in np.split(order, edges)]
