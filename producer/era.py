"""Eras and the lease: which agent speaks for a source, and whether it continues what was said before."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from producer import failpoints
from producer.continuity import NEW_ERA
from producer.errors import AnotherAgent, ContinuityBroken
from schemas.position import Line

LEASE_SECONDS: Final = 60.0
"""Without a sign of life for so long, an agent counts as gone: another one may take the lease."""

SPEAK_SECONDS: Final = 35.0
"""So long after a sign of life an agent may begin a request: the longest one ends well within LEASE_SECONDS."""

_AGENT: Final = "agent"


@dataclass(frozen=True)
class Holding:
    """The lease as DynamoDB has it. epoch: raised at every start, so that a displaced agent notices.

    spooled: up to where its spool had got then, in whole transactions.
    """

    era: int
    epoch: int
    holder: str
    seen_at: float
    where: str
    spooled: Line | None = None


class Lease:
    """The source's item `agent`. Every write is conditional on the epoch that was read."""

    def __init__(
        self,
        dynamodb: Any,
        table_name: str,
        source: str,
        holder: str,
        spooled: Callable[[], Line | None] = lambda: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dynamodb = dynamodb
        self._table_name = table_name
        self._key = {"source": {"S": source}, "item": {"S": _AGENT}}
        self._source = source
        self._holder = holder
        self._spooled = spooled
        self._clock = clock
        self._monotonic = monotonic
        self._held: Holding | None = None
        self._alive_at = float("-inf")

    def claim(self, spool_era: int, new_era: bool) -> Holding:
        """Take the lease; the era in it is the one to work in.

        spool_era: the era the spool is in, 0 for an empty spool. Raises AnotherAgent while another one lives, and
        ContinuityBroken when the spool is not the one that the era was filled from, or an older state of it.
        """
        found = self._read()
        if found is not None and not new_era:
            check_spool_is_whole(found, self._holder, self._spooled())
        era = next_era(found, self._source, self._holder, spool_era, new_era, self._clock())
        held = self._write(found, era)
        failpoints.reach("era.claimed")
        return held

    def renew(self) -> None:
        """Say that this agent lives. Raises AnotherAgent when the lease was taken over."""
        if self._held is not None:
            self._write(self._held, self._held.era, raises_epoch=False)

    def speaks(self) -> bool:
        """Whether this agent may send: nobody can have taken the lease yet."""
        return self._monotonic() - self._alive_at < SPEAK_SECONDS

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
            spooled=Line(int(item["era"]["N"]), int(item["spooled"]["N"])) if "spooled" in item else None,
        )

    def _write(
        self, known: Holding | None, era: int, *, raises_epoch: bool = True, seen_at: float | None = None
    ) -> Holding:
        began = self._monotonic()
        before = 0 if known is None else known.epoch
        now = round(self._clock(), 3) if seen_at is None else seen_at
        where = f"{socket.gethostname()} pid {os.getpid()}"
        spooled = self._spooled()
        if spooled is not None and spooled.era != era:
            spooled = None
        held = Holding(era, before + 1 if raises_epoch else before, self._holder, now, where, spooled)
        condition = "attribute_not_exists(epoch)" if known is None else "epoch = :before"
        values = {
            ":era": {"N": str(held.era)},
            ":epoch": {"N": str(held.epoch)},
            ":holder": {"S": held.holder},
            ":seen": {"N": f"{held.seen_at:.3f}"},
            ":where": {"S": held.where},
        }
        spoken = "" if spooled is None else ", spooled = :spooled"
        if spooled is not None:
            values[":spooled"] = {"N": str(spooled.lsn)}
        if known is not None:
            values[":before"] = {"N": str(before)}
        try:
            self._dynamodb.update_item(
                TableName=self._table_name,
                Key=self._key,
                UpdateExpression="SET era = :era, epoch = :epoch, holder = :holder, seen_at = :seen, #w = :where"
                + (spoken or " REMOVE spooled"),
                ExpressionAttributeNames={"#w": "where"},
                ExpressionAttributeValues=values,
                ConditionExpression=condition,
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            if self._read() == held:  # the client repeated a write whose answer was lost
                return self._hold(held, began)
            raise AnotherAgent(
                f"source {self._source}: another agent took the lease; this one stops, so that only one speaks for it"
            ) from error
        return self._hold(held, began)

    def _hold(self, held: Holding, began: float) -> Holding:
        self._held, self._alive_at = held, began
        return held


def check_spool_is_whole(found: Holding, holder: str, spooled: Line | None) -> None:
    """Raises ContinuityBroken where the spool had got further once than it has now. Pure."""
    if found.holder == holder and found.spooled is not None and (spooled is None or spooled < found.spooled):
        raise ContinuityBroken(
            f"the spool ends at {spooled}, and had got to {found.spooled}: it was restored from a backup, or its disk"
            f" lost writes. Bring the newer one back, or {NEW_ERA}"
        )


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
                f" continue it. Bring that spool back, or {NEW_ERA}"
            )
        return found.era + 1
    if found.era > spool_era:
        return found.era  # this spool claimed it, and was stopped before it could take note
    return found.era + 1 if new_era else found.era
