"""A stream in memory that keeps Kinesis' promises and no others: for tests of everything in front of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from threading import Lock

from producer.kinesis import Put, Record, Unanswered


class Outcome(StrEnum):
    """What becomes of one request."""

    ACCEPT = "accept"
    THROTTLE_SOME = "throttle some"
    FAIL = "fail"  # nothing was written
    LOSE_ANSWER = "lose the answer"  # everything was written
    LOSE_SOME = "lose the answer of some"  # half was written


THROTTLED = "ProvisionedThroughputExceededException"


class FakeStream:
    """Records in the order of acceptance. `fate` is asked for the outcome of every request, by its number from 0."""

    def __init__(self, fate: Callable[[int], Outcome] = lambda _: Outcome.ACCEPT) -> None:
        self.records: list[Record] = []
        self.requests: list[list[Record]] = []
        self._fate = fate
        self._lock = Lock()

    def put(self, records: Sequence[Record]) -> list[Put]:
        with self._lock:
            outcome = self._fate(len(self.requests))
            self.requests.append(list(records))
            if outcome is Outcome.FAIL:
                raise Unanswered("connection refused")
            taken = [self._takes(at, outcome) for at in range(len(records))]
            self.records += [record for record, take in zip(records, taken, strict=True) if take]
            if outcome in (Outcome.LOSE_ANSWER, Outcome.LOSE_SOME):
                raise Unanswered("connection reset while reading the answer")
            return [
                Put(shard=self.shard_of(r)) if take else Put(THROTTLED) for r, take in zip(records, taken, strict=True)
            ]

    def shard_of(self, record: Record) -> str | None:
        """The shard that an acceptance names; none here, so that each lane stands alone."""
        return None

    def _takes(self, at: int, outcome: Outcome) -> bool:
        return outcome in (Outcome.ACCEPT, Outcome.LOSE_ANSWER) or (at + len(self.requests)) % 2 == 0
