"""Continuity: whether what the source offers continues what the spool holds. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from producer.errors import ContinuityBroken
from schemas.position import format_lsn

NEW_ERA: Final = "start once with --new-era: it raises the era and begins again with snapshots of all tables"
PROVE: Final = (
    "If a standby was promoted, start once with --prove-continuity: it goes on where the source's own history shows"
    " that nothing is missing"
)


class Known(NamedTuple):
    """A transaction: its position, and when it committed by the source's clock, in microseconds since 1970."""

    lsn: int
    committed_at: int


@dataclass(frozen=True)
class Continuity:
    """What the spool's positions are worth: the source they belong to, and how far the source was told."""

    system_id: str
    timeline: int
    flushed: int


@dataclass(frozen=True)
class Found:
    """What a connection finds.

    slot_flushed: None where the slot is missing or useless; slot_lost: why it is useless.
    current_lsn: where the source stands, None where that says nothing.
    ancestors: the timelines that it came from, each with the LSN at which it was left.
    """

    system_id: str
    timeline: int
    slot: str
    slot_flushed: int | None
    slot_lost: str | None = None
    current_lsn: int | None = None
    ancestors: Mapping[int, int] = field(default_factory=dict)


def check_continues(known: Continuity, found: Found) -> None:
    """Raises ContinuityBroken that names every break between what the spool holds and what the source offers."""
    breaks = list(_breaks(known, found))
    promoted = found.system_id == known.system_id and found.timeline != known.timeline
    if promoted:
        breaks.append(f"the source is on timeline {found.timeline}, was on {known.timeline}")
    if breaks:
        remedies = [PROVE] if promoted else []
        raise ContinuityBroken(". ".join(["; ".join(breaks), *remedies, f"To go on, {NEW_ERA}"]))


def check_proof(known: Continuity, found: Found) -> None:
    """Raises ContinuityBroken unless the source has every change that the spool has, and will send all others.

    A promoted standby has what the old primary wrote up to the LSN where it left that timeline.
    """
    breaks = list(_breaks(known, found))
    if found.timeline != known.timeline:
        left_at = found.ancestors.get(known.timeline)
        if left_at is None:
            breaks.append(f"timeline {found.timeline} does not come from timeline {known.timeline}")
        elif left_at < known.flushed:
            breaks.append(
                f"timeline {known.timeline} was left at {format_lsn(left_at)}, and the spool has changes up to"
                f" {format_lsn(known.flushed)} that the source never had"
            )
    if breaks:
        raise ContinuityBroken("; ".join(breaks) + f". That is no continuation: {NEW_ERA}")


def check_history(last: Known | None, confirmed: int, resent: Known | None) -> None:
    """Raises ContinuityBroken where the source's changes up to the spool's end are not those that the spool has.

    last: the last transaction spooled. resent: the last one up to the spool's end that the source would send again,
    where it was told of everything below `confirmed`. A source that was restored while nobody looked, and has written
    past the spool's end since, sends others at those positions.
    """
    expected = last if last is not None and last.lsn >= confirmed else None
    if resent != expected:
        raise ContinuityBroken(
            f"the source has another history than the spool: the last transaction that both should have is {expected},"
            f" and the source sends {resent}. It was restored from a backup. To go on, {NEW_ERA}"
        )


def _breaks(known: Continuity, found: Found) -> Iterator[str]:
    """What no timeline can mend."""
    if found.system_id != known.system_id:
        yield f"the source is another database system ({found.system_id}, was {known.system_id})"
    elif found.current_lsn is not None and found.current_lsn < known.flushed:
        yield (
            f"the source stands at {format_lsn(found.current_lsn)}, the spool ends at {format_lsn(known.flushed)}: the"
            " source was restored from a backup"
        )
    if found.slot_flushed is None:
        yield f"replication slot {found.slot} " + (
            f"is useless: {found.slot_lost}" if found.slot_lost else "is missing"
        )
    elif found.slot_flushed > known.flushed:
        yield (
            f"replication slot {found.slot} was confirmed up to {format_lsn(found.slot_flushed)}, the spool ends at"
            f" {format_lsn(known.flushed)}: what lies between is lost"
        )
