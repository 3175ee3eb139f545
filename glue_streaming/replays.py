"""Replays: stored raw bytes, put in where they belong, one stretch of one shard a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from glue_streaming.errors import TableRefused
from glue_streaming.holes import Hole
from glue_streaming.lake import Lake
from glue_streaming.raw import RawRange, ranges
from glue_streaming.requests import Request
from glue_streaming.task import Outcome, Replay
from schemas.errors import UnknownFingerprint


@dataclass
class _Running:
    """A replay on its way. filled: rows loaded so far. prepared: fingerprints that the table was made to take."""

    request: Request
    waiting: list[RawRange]
    filled: int = 0
    prepared: set[bytes] = field(default_factory=set)


class Replays:
    """The requests to replay, one after the other. Only the chain decides what a block may fill.

    F stays below an open hole, and so below every row that comes in here, however late: a fold orders them by
    position, behind or before newer changes of their keys.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._queue: list[_Running] = []

    def take(self, request: Request, hole: Hole) -> str | None:
        """Queues a replay of the hole; returns why it is refused, where it is."""
        if self.has(request):
            return None
        found = ranges(hole.where)
        if not found:
            return "there are no raw bytes of this hole: it never came. Ask for a resend or a re-snapshot"
        self._queue.append(_Running(request, found))
        return None

    def has(self, request: Request) -> bool:
        return any(running.request.item == request.item for running in self._queue)

    @property
    def current(self) -> Request:
        return self._queue[0].request

    @property
    def due(self) -> Replay | None:
        """What the next batch is to replay, and nothing else."""
        if not self._queue:
            return None
        running = self._queue[0]
        return Replay(running.request.key, running.waiting[0])

    def settle(self, outcomes: Sequence[Outcome], holes: Iterable[Hole]) -> tuple[Request, str, str] | None:
        """After the commit of a batch that replayed: the request with its answer, once there is one.

        holes: those of the request's table that are open now.
        """
        running = self._queue[0]
        request = running.request
        running.filled += sum(outcome.rows for outcome in outcomes)
        refusal = self._prepared(running, outcomes)
        if refusal is None and not any(outcome.obstacles for outcome in outcomes):
            running.waiting[:1] = [running.waiting[0].behind(o.last_sequence) for o in outcomes if o.last_sequence]
        left = [hole for hole in holes if hole.lane == request.key.lane and _within(hole, request)]
        if left and refusal is None and running.waiting:
            return None
        self._queue.pop(0)
        if not left:
            return request, "done", f"{running.filled} rows were loaded, and the hole is closed"
        rest = "; ".join(f"({hole.after or 'the beginning'}, {hole.last}]: {hole.reason}" for hole in left)
        unread = "; ".join(item.error for outcome in outcomes for item in outcome.unreadable)
        why = refusal or unread or "the stored bytes do not begin where the hole begins, or do not load"
        return request, "refused", f"{running.filled} rows were loaded, and still open is {rest}: {why}"

    def _prepared(self, running: _Running, outcomes: Sequence[Outcome]) -> str | None:
        """Makes the table take the fingerprints that were in the way; returns why it cannot."""
        for outcome in outcomes:
            for key, obstacle in outcome.obstacles.items():
                if obstacle.reason != "schema" or obstacle.fingerprint in running.prepared:
                    return f"the lane waits for something else ({obstacle.reason}); replay again afterwards"
                try:
                    self._lake.prepare(key, obstacle.fingerprint)
                except (UnknownFingerprint, TableRefused) as error:
                    return str(error)
                running.prepared.add(obstacle.fingerprint)
        return None


def _within(hole: Hole, request: Request) -> bool:
    return hole.last <= request.last and (request.after is None or hole.last > request.after)
