"""What stands in lanes' ways, and what is done about it: wait, prepare the table, read again, or give up as a hole."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from glue_streaming import holes
from glue_streaming.errors import TableRefused
from glue_streaming.lake import Lake, TableKey
from glue_streaming.parking import EXPIRED, RECREATED, Parked, Parking
from glue_streaming.reading import Reading
from glue_streaming.settings import BatchSettings
from glue_streaming.state import Mark
from glue_streaming.task import MAX_HOLES, LaneKey, Outcome
from schemas.errors import UnknownFingerprint

_RETRY_SECONDS: Final = 10.0


class Obstacles:
    """Parks lanes and takes them up again. Nothing here loads or commits: the next batch does.

    hopeless: by table, the fingerprints that it cannot take, with the reason. Their blocks become holes without waiting
    again; every while it is tried whether the table takes them after all.
    """

    def __init__(self, lake: Lake, reading: Reading, parking: Parking) -> None:
        self._lake = lake
        self._reading = reading
        self._parking = parking
        self._retried_at = float("-inf")
        self.hopeless: dict[TableKey, dict[bytes, str]] = {}

    def meet(self, outcomes: Sequence[Outcome], now: float) -> None:
        """Takes in where lanes stopped in a batch, and which records it could not read."""
        for key in list(self._parking.rereading):
            self._parking.look_for_mark(key, self._mark(key), outcomes)
        for outcome in outcomes:
            self._parking.meet(outcome, now)

    def deal(self, settings: BatchSettings, paused: Collection[TableKey], now: float) -> None:
        """Takes up again what can go on, also if only as a hole."""
        self._retry(now)
        for key, parked in list(self._parking.lanes.items()):
            match parked.obstacle.reason:
                case "gap":
                    self._gap(key, parked)
                case "paused":
                    if (key.source, key.table) not in paused:
                        self._resume(key)
                case "full":
                    if len(self._lake.tables[key.source, key.table].state.holes) < MAX_HOLES:
                        self._resume(key)
                case _:
                    self._schema(key, parked, settings.unknown_fingerprint_seconds, now)

    def read_again(self, key: LaneKey) -> None:
        """Reads a lane again from its mark, in every shard that it lies in since."""
        mark = self._mark(key)
        gone = mark is not None and mark.shard != "" and not self._reading.lists(mark.shard)
        self._parking.read_again(key, self._named(EXPIRED) if gone else None)
        self._reading.rewind(self._reading.from_mark(key, mark))

    def reason(self, key: LaneKey, what: str) -> tuple[str, str | None]:
        """Why positions of a lane are missing that were read again in vain, and the bytes that may have held them."""
        fate = self._parking.fate(key)
        words = [what] if fate is None else [self._named(fate) if what == "gap" else f"{what}; {self._named(fate)}"]
        where = None
        for item in self._parking.between(key, self._mark(key)):
            words.append(f"a record in it was not readable ({item.error})")
            where = holes.joined(where, item.where)
        return "; ".join(words), where

    def _gap(self, key: LaneKey, parked: Parked) -> None:
        if not parked.reread:
            self.read_again(key)
            return
        self._parking.abandon(key, *self.reason(key, "gap"))
        self._resume(key)

    def _schema(self, key: LaneKey, parked: Parked, patience_seconds: float, now: float) -> None:
        """A table that has no schema at all becomes one without columns, so that there is a place for the hole."""
        table = (key.source, key.table)
        try:
            self._lake.prepare(key, parked.obstacle.fingerprint)
        except (UnknownFingerprint, TableRefused) as error:
            waits = isinstance(error, UnknownFingerprint) or table not in self._lake.tables
            if waits and now - parked.since < patience_seconds:
                return
            if table not in self._lake.tables:
                self._lake.add_without_schema(table)
            self.hopeless.setdefault(table, {})[parked.obstacle.fingerprint] = str(error)
        self._resume(key)

    def _retry(self, now: float) -> None:
        if now - self._retried_at < _RETRY_SECONDS:
            return
        self._retried_at = now
        for (source, table), reasons in self.hopeless.items():
            for fingerprint in list(reasons):
                try:
                    self._lake.prepare(LaneKey(source, table, ""), fingerprint)
                except (UnknownFingerprint, TableRefused) as error:
                    reasons[fingerprint] = str(error)
                else:
                    del reasons[fingerprint]

    def _resume(self, key: LaneKey) -> None:
        self._reading.rewind(self._parking.resume(key))

    def _named(self, fate: str) -> str:
        return RECREATED if self._reading.recreated else fate

    def _mark(self, key: LaneKey) -> Mark | None:
        table = self._lake.tables.get((key.source, key.table))
        return None if table is None else table.state.marks.get(key.lane)
