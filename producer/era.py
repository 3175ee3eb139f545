"""Eras and the lease: which agent speaks for a source, and whether it continues what was said before."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from producer import failpoints
from producer.errors import AnotherAgent, ContinuityBroken

LEASE_SECONDS: Final = 30.0
_AGENT: Final = "agent"
_REMEDY: Final = "start once with --new-era: it raises the era and begins again with snapshots of all tables"


@dataclass(frozen=True)
class Holding:
    """The lease as DynamoDB has it. epoch: raised at every start, so that a displaced agent notices."""

    era: int
    epoch: int
    holder: str
    seen_at: float
    where: str


class Lease:
    """The source's item `agent`. Every write is conditional on the epoch that was read."""

    def __init__(
        self, dynamodb: Any, table_name: str, source: str, holder: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._dynamodb = dynamodb
        self._table_name = table_name
        self._key = {"source": {"S": source}, "item": {"S": _AGENT}}
        self._source = source
        self._holder = holder
        self._clock = clock
        self._held: Holding | None = None

    def claim(self, spool_era: int, new_era: bool) -> Holding:
        """Take the lease; the era in it is the one to work in.

        spool_era: the era the spool is in, 0 for an empty spool. Raises AnotherAgent while another one lives, and
        ContinuityBroken when the spool is not the one that the era was filled from.
        """
        found = self._read()
        era = next_era(found, self._source, self._holder, spool_era, new_era, self._clock())
        held = self._write(found, era)
        failpoints.reach("era.claimed")
        return held

    def renew(self) -> None:
        """Say that this agent lives. Raises AnotherAgent when the lease was taken over."""
        if self._held is not None:
            self._write(self._held, self._held.era, raises_epoch=False)

    def release(self) -> None:
        """Let another agent start at once."""
        if self._held is not None:
            self._write(self._held, self._held.era, raises_epoch=False, seen_at=0.0)

    def _read(self) -> Holding | None:
        item = self._dynamodb.get_item(TableName=self._table_name, Key=self._key, ConsistentRead=True).get("Item")
        if item is None:
            return None
        return Holding(
            era=int(item["era"]["N"]),
            epoch=int(item["epoch"]["N"]),
            holder=item["holder"]["S"],
            seen_at=float(item["seen_at"]["N"]),
            where=item.get("where", {"S": "unknown"})["S"],
        )

    def _write(
        self, known: Holding | None, era: int, *, raises_epoch: bool = True, seen_at: float | None = None
    ) -> Holding:
        before = 0 if known is None else known.epoch
        now = round(self._clock(), 3) if seen_at is None else seen_at
        where = f"{socket.gethostname()} pid {os.getpid()}"
        held = Holding(era, before + 1 if raises_epoch else before, self._holder, now, where)
        condition = "attribute_not_exists(epoch)" if known is None else "epoch = :before"
        values = {
            ":era": {"N": str(held.era)},
            ":epoch": {"N": str(held.epoch)},
            ":holder": {"S": held.holder},
            ":seen": {"N": f"{held.seen_at:.3f}"},
            ":where": {"S": held.where},
        }
        if known is not None:
            values[":before"] = {"N": str(before)}
        try:
            self._dynamodb.update_item(
                TableName=self._table_name,
                Key=self._key,
                UpdateExpression="SET era = :era, epoch = :epoch, holder = :holder, seen_at = :seen, #w = :where",
                ExpressionAttributeNames={"#w": "where"},
                ExpressionAttributeValues=values,
                ConditionExpression=condition,
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            if self._read() == held:  # the client repeated a write whose answer was lost
                self._held = held
                return held
            raise AnotherAgent(
                f"source {self._source}: another agent took the lease; this one stops, so that only one speaks for it"
            ) from error
        self._held = held
        return held


def next_era(found: Holding | None, source: str, holder: str, spool_era: int, new_era: bool, now: float) -> int:
    """The era to work in, from what the lease and the spool know. Raises as Lease.claim says. Pure."""
    if found is None:
        return spool_era + 1 if new_era or spool_era == 0 else spool_era
    if found.holder != holder:
        age = now - found.seen_at
        if age < LEASE_SECONDS:
            raise AnotherAgent(
                f"source {source}: another agent lives ({found.where}, seen {age:.0f} s ago); stop it first"
            )
        if not new_era:
            raise ContinuityBroken(
                f"source {source}: era {found.era} was filled from another spool ({found.where}); this one does not"
                f" continue it. Bring that spool back, or {_REMEDY}"
            )
        return found.era + 1
    if found.era > spool_era:
        return found.era  # this spool claimed it, and was stopped before it could take note
    return found.era + 1 if new_era else found.era


@dataclass(frozen=True)
class Continuity:
    """What the spool's positions are worth: the source they belong to, and how far the source was told."""

    system_id: str
    timeline: int
    flushed: int


@dataclass(frozen=True)
class Found:
    """What a connection finds: slot_flushed is None where the slot is missing."""

    system_id: str
    timeline: int
    slot: str
    slot_flushed: int | None


def check_continues(known: Continuity, found: Found) -> None:
    """Raises ContinuityBroken that names every break between what the spool holds and what the source offers."""
    breaks = []
    if found.system_id != known.system_id:
        breaks.append(f"the source is another database system ({found.system_id}, was {known.system_id})")
    if found.timeline != known.timeline:
        breaks.append(f"the source is on timeline {found.timeline}, was on {known.timeline}")
    if found.slot_flushed is None:
        breaks.append(f"replication slot {found.slot} is missing")
    elif found.slot_flushed > known.flushed:
        breaks.append(
            f"replication slot {found.slot} was confirmed up to {found.slot_flushed:X}, the spool ends at"
            f" {known.flushed:X}: what lies between is lost"
        )
    if breaks:
        raise ContinuityBroken("; ".join(breaks) + f". To go on, {_REMEDY}")
