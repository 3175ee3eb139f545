"""Carries out what operators ask of the job: replays go into batches of their own, acceptances into the next commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from glue_streaming import requests
from glue_streaming.controls import ControlReader
from glue_streaming.lake import Lake, LakeTable
from glue_streaming.replays import Replays
from glue_streaming.requests import Request
from glue_streaming.state import Accepted
from glue_streaming.task import Outcome, Replay


class Mending:
    """Each request is answered once, when what it asked for is committed or refused."""

    def __init__(self, lake: Lake, controls: ControlReader) -> None:
        self._lake = lake
        self._controls = controls
        self._replays = Replays(lake)
        self._accepted: list[Request] = []

    @property
    def replay(self) -> Replay | None:
        """What the next batch is to replay, and nothing else."""
        return self._replays.due

    def take(self, waiting: Iterable[Request], now: float) -> None:
        """Before a batch: queues replays, and accepts holes in the tables' states, which the batch commits."""
        for request in list(waiting):
            table = self._lake.tables.get((request.key.source, request.key.table))
            if table is not None and requests.was_accepted(table.state, request):
                self._controls.answer(request, "done", requests.ACCEPTED, now)
            elif not self._replays.has(request) and (refusal := self._begin(request, table, now)) is not None:
                self._controls.answer(request, "refused", refusal, now)

    def answer(self, replayed: Sequence[Outcome], now: float) -> None:
        """After the commits. replayed: what the batch's replay brought."""
        for request in self._accepted:
            self._controls.answer(request, "done", requests.ACCEPTED, now)
        self._accepted = []
        if replayed:
            key = self._replays.current.key
            settled = self._replays.settle(replayed, self._lake.tables[key.source, key.table].state.holes)
            if settled is not None:
                self._controls.answer(*settled, now)

    def _begin(self, request: Request, table: LakeTable | None, now: float) -> str | None:
        """Why the request is refused; None where it was taken up."""
        hole = None if table is None else requests.find(table.state.holes, request)
        if table is None or hole is None:
            return "there is no such hole: it was mended, or has grown since. Look at the list again"
        if request.kind == "replay":
            return self._replays.take(request, hole)
        refusal = requests.unacceptable(table.state, hole)
        if refusal is None:
            at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
            table.state = table.state.accept(Accepted(hole, request.by, request.because, at))
            self._accepted.append(request)
        return refusal
