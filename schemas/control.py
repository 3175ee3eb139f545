"""Control datums: what blocks of kind progress, snapshot_end and reject carry in place of change records."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from schemas.errors import MalformedBlock
from schemas.position import Line, Position

CONTROL_LANE: Final = "control"

_POSITION: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Position",
    "fields": [{"name": "era", "type": "int"}, {"name": "lsn", "type": "long"}, {"name": "idx", "type": "int"}],
}
_KEY_BOUND: Final[list[Any]] = ["null", {"type": "array", "items": "string"}]

PROGRESS_SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Progress",
    "namespace": "headrace",
    "fields": [
        {"name": "era", "type": "int"},
        {"name": "through", "type": "long"},
        {"name": "committed_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {
            "name": "vector",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "LaneEnd",
                    "fields": [
                        {"name": "table", "type": "string"},
                        {"name": "lane", "type": "string"},
                        {"name": "last", "type": _POSITION},
                    ],
                },
            },
        },
        {
            "name": "snapshots",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Announcement",
                    "fields": [
                        {"name": "snapshot", "type": "long"},
                        {"name": "table", "type": "string"},
                        {"name": "low", "type": "long"},
                        {"name": "abandoned", "type": "boolean"},
                    ],
                },
            },
        },
    ],
}
SNAPSHOT_END_SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "SnapshotEnd",
    "namespace": "headrace",
    "fields": [
        {"name": "snapshot", "type": "long"},
        {"name": "group", "type": "int"},
        {"name": "groups", "type": "int"},
        {"name": "attempt", "type": "int"},
        {"name": "consistent_point", "type": "long"},
        {"name": "key_from", "type": _KEY_BOUND},
        {"name": "key_to", "type": _KEY_BOUND},
        {"name": "count", "type": "long"},
    ],
}
REJECT_SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Reject",
    "namespace": "headrace",
    "fields": [
        {"name": "op", "type": "string"},
        {"name": "key", "type": ["null", "string"]},
        {"name": "reason", "type": "string"},
        {"name": "raw", "type": ["null", "bytes"]},
    ],
}


@dataclass(frozen=True, slots=True)
class LaneEnd:
    """The last data position of a lane that Kinesis has accepted."""

    table: str
    lane: str
    last: Position


@dataclass(frozen=True, slots=True)
class Announcement:
    """A snapshot that is to come, or was given up. `low` is a lower bound of its consistent points (an LSN)."""

    snapshot: int
    table: str
    low: int
    abandoned: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a source is complete, as far as Kinesis has accepted it.

    through: every change with (era, lsn) at or below it lies in accepted blocks.
    committed_at: the source's clock at `through`, UTC.
    vector: every data lane ever used in this era.
    """

    era: int
    through: int
    committed_at: datetime
    vector: tuple[LaneEnd, ...]
    snapshots: tuple[Announcement, ...]

    @property
    def line(self) -> Line:
        return Line(self.era, self.through)


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """Closes one group of a snapshot: read at consistent point C over keys in [key_from, key_to), None for infinity."""

    snapshot: int
    group: int
    groups: int
    attempt: int
    consistent_point: int
    key_from: tuple[str, ...] | None
    key_to: tuple[str, ...] | None
    count: int


@dataclass(frozen=True, slots=True)
class Reject:
    """A change that could not be encoded: op and key as text, the reason, the source's bytes where there are any."""

    op: str
    key: str | None
    reason: str
    raw: bytes | None


def encode_progress(progress: Progress) -> bytes:
    return _write(
        PROGRESS_SCHEMA,
        {
            "era": progress.era,
            "through": progress.through,
            "committed_at": progress.committed_at,
            "vector": [{"table": e.table, "lane": e.lane, "last": e.last._asdict()} for e in progress.vector],
            "snapshots": [
                {"snapshot": a.snapshot, "table": a.table, "low": a.low, "abandoned": a.abandoned}
                for a in progress.snapshots
            ],
        },
    )


def decode_progress(data: bytes) -> Progress:
    record = _read(PROGRESS_SCHEMA, data, "Progress")
    return Progress(
        era=record["era"],
        through=record["through"],
        committed_at=record["committed_at"].astimezone(UTC),
        vector=tuple(LaneEnd(e["table"], e["lane"], Position(**e["last"])) for e in record["vector"]),
        snapshots=tuple(Announcement(**a) for a in record["snapshots"]),
    )


def encode_snapshot_end(end: SnapshotEnd) -> bytes:
    return _write(
        SNAPSHOT_END_SCHEMA,
        {
            "snapshot": end.snapshot,
            "group": end.group,
            "groups": end.groups,
            "attempt": end.attempt,
            "consistent_point": end.consistent_point,
            "key_from": None if end.key_from is None else list(end.key_from),
            "key_to": None if end.key_to is None else list(end.key_to),
            "count": end.count,
        },
    )


def decode_snapshot_end(data: bytes) -> SnapshotEnd:
    record = _read(SNAPSHOT_END_SCHEMA, data, "SnapshotEnd")
    bounds = {name: None if record[name] is None else tuple(record[name]) for name in ("key_from", "key_to")}
    return SnapshotEnd(**{**record, **bounds})


def encode_reject(reject: Reject) -> bytes:
    return _write(REJECT_SCHEMA, {"op": reject.op, "key": reject.key, "reason": reject.reason, "raw": reject.raw})


def decode_reject(data: bytes) -> Reject:
    return Reject(**_read(REJECT_SCHEMA, data, "Reject"))


def snapshot_lane(snapshot: int, group: int, attempt: int) -> str:
    """The lane of one attempt at one group of a snapshot."""
    return f"s{snapshot}.{group}.{attempt}"


_SNAPSHOT_LANE: Final = re.compile(r"s(\d+)\.(\d+)\.(\d+)")


def parse_snapshot_lane(lane: str) -> tuple[int, int, int] | None:
    """(snapshot, group, attempt) of a snapshot's lane; None for any other lane."""
    match = _SNAPSHOT_LANE.fullmatch(lane)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def lane_hash_key(source: str, table: str, lane: str) -> int:
    """The ExplicitHashKey of a lane, 0 <= key < 2**128: fixed, so that a lane lies in one shard at a time."""
    name = "\x00".join((source, table, lane)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "big")


def partition_key(source: str, table: str, lane: str) -> str:
    """The partition key Kinesis demands beside the hash key: for people who read the stream, at most 256 characters."""
    return f"{source}/{table}/{lane}"[:256]


def _write(schema: dict[str, Any], record: dict[str, Any]) -> bytes:
    import fastavro  # here, since the planning Lambda imports this module and has no packages but boto3

    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def _read(schema: dict[str, Any], data: bytes, name: str) -> dict[str, Any]:
    import fastavro  # see _write

    stream = io.BytesIO(data)
    try:
        record: Any = fastavro.schemaless_reader(stream, schema, None)
    except Exception as error:  # hostile bytes can make the reader raise nearly anything
        raise MalformedBlock(f"no {name} datum: {error!r}") from error
    if stream.tell() != len(data):
        raise MalformedBlock(f"{len(data) - stream.tell()} bytes follow the {name} datum")
    return dict(record)
