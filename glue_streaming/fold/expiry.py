"""Snapshots of a lake table: which ones go when a fold is done. Metadata only; data files go as orphans, days later.

The current snapshot stays, and what a tag holds. A fold tags the state it replaces, for the longest query's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

PREFIX: Final = "headrace-replaced-"


def replaced_tag(now: datetime) -> str:
    return f"{PREFIX}{int(now.timestamp() * 1000)}"


def aged_tags(tags: Iterable[str], longest_query_seconds: float, now: datetime) -> list[str]:
    """Tags of ours whose time is over."""
    before = (now.timestamp() - longest_query_seconds) * 1000
    return [tag for tag in tags if tag.startswith(PREFIX) and int(tag.removeprefix(PREFIX)) < before]


def expirable(snapshot_ids: Iterable[int], refs: Mapping[str, int], dropped: Iterable[str]) -> list[int]:
    """Snapshots that no ref will name any more."""
    gone = set(dropped)
    kept = {snapshot for name, snapshot in refs.items() if name not in gone}
    return [snapshot for snapshot in snapshot_ids if snapshot not in kept]


def expire(table: Table, longest_query_seconds: float, now: datetime) -> int:
    """Drops aged tags and expires what nothing names. A race with an append is left to the next fold."""
    table.refresh()
    refs = {name: ref.snapshot_id for name, ref in table.metadata.refs.items()}
    tags = aged_tags(refs, longest_query_seconds, now)
    expired = expirable((s.snapshot_id for s in table.metadata.snapshots), refs, tags)
    try:
        if tags:
            with table.manage_snapshots() as snapshots:
                for tag in tags:
                    snapshots.remove_tag(tag)
        if expired:
            table.maintenance.expire_snapshots().by_ids(expired).commit()
    except CommitFailedException:
        return 0
    return len(expired)
