"""What a shard task is given, and what it returns: small, picklable, and nothing of a change's content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pyiceberg.schema import Schema

from glue_streaming.chain import Lane
from glue_streaming.data_files import WrittenFile
from glue_streaming.erasures import Erasures
from glue_streaming.raw import RawRange
from glue_streaming.shards import Start
from schemas.control import Progress, SnapshotEnd
from schemas.position import Position

MAX_HOLES: Final = 300
"""Open holes of one table: they all stand in one property, which the catalog bounds."""


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, order=True)
class LaneKey:
    source: str
    table: str
    lane: str


@dataclass(frozen=True)
class TableTask:
    """What a task must know of a table: how its files look, and which writer schemas it takes (by fingerprint)."""

    schema: Schema
    location: str
    writers: Mapping[bytes, dict[str, Any]]
    lanes: Mapping[str, Lane]
    activated_through: int
    erasures: Erasures | None = None


@dataclass(frozen=True)
class Replay:
    """Stored raw bytes that are to fill holes of a lane."""

    key: LaneKey
    range: RawRange


@dataclass(frozen=True)
class Task:
    """One shard's part of a batch.

    parked: lanes to leave alone. paused: tables whose lanes are to be parked. give_up: lanes whose obstacle becomes a
    hole now, with the obstacle that was tried in vain: any other one on the way is news, and parks the lane.
    hopeless: fingerprints that a table cannot take, with the reason: their blocks become holes at once.
    replay: read these raw bytes, which came from the shard once, in the place of the shard. at: ISO time of the batch.
    """

    batch: int
    stream: str
    shard: str
    start: Start
    max_bytes: int
    max_seconds: float
    lake_bucket: str
    sources: frozenset[str]
    tables: Mapping[tuple[str, str], TableTask]
    parked: frozenset[LaneKey] = frozenset()
    paused: frozenset[tuple[str, str]] = frozenset()
    give_up: Mapping[LaneKey, tuple[GivenUp, ...]] = field(default_factory=dict)
    hopeless: Mapping[tuple[str, str], Mapping[bytes, str]] = field(default_factory=dict)
    replay: Replay | None = None
    at: str = field(default_factory=now_text)


@dataclass(frozen=True)
class Obstacle:
    """Why a lane stopped, and at which block (its sequence number).

    reason: `schema` (the fingerprint is not one of the table's), `gap` (positions up to `upto` are missing), `paused`,
    `full` (the table has MAX_HOLES open holes, and the lane's next block would open another one).
    """

    reason: str
    sequence: str
    fingerprint: bytes = b""
    upto: Position | None = None


@dataclass(frozen=True)
class GivenUp:
    """An obstacle that did not go away, and why, for the hole that it becomes. where: raw bytes that lie in it."""

    obstacle: Obstacle
    why: str
    where: str | None = None


@dataclass(frozen=True)
class Unreadable:
    """A record that is no block: of which lane it is, only its partition key may tell."""

    partition_key: str
    shard: str
    sequence: str
    where: str
    error: str


@dataclass
class Outcome:
    """What a task did. Nothing of it counts before the driver has committed it.

    first_sequence, last_sequence: of the records read. refused: the stream did not know where the task was to start.
    skipped: parked lanes that were met, with the first record of each that was left alone. crossed: lanes that went
    into a new era, with their last position in the one before. voids: snapshot lanes whose
    end came although something of them is missing.
    stuck: a thread of the process that ran the task hangs for good; start again once the outcome is committed.
    """

    shard: str
    first_sequence: str | None = None
    last_sequence: str | None = None
    refused: bool = False
    at_tip: bool = False
    closed: bool = False
    behind_seconds: float = 0.0
    files: list[tuple[tuple[str, str], WrittenFile]] = field(default_factory=list)
    lanes: dict[LaneKey, tuple[Lane, str]] = field(default_factory=dict)
    ends: list[tuple[LaneKey, int, SnapshotEnd]] = field(default_factory=list)
    progresses: list[tuple[str, Progress]] = field(default_factory=list)
    obstacles: dict[LaneKey, Obstacle] = field(default_factory=dict)
    skipped: dict[LaneKey, str] = field(default_factory=dict)
    voids: dict[LaneKey, str] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    blocks: int = 0
    bytes: int = 0
    source_bytes: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    duplicates: int = 0
    malformed: int = 0
    stuck: bool = False
