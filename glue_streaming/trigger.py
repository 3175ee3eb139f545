"""How long from one batch to the next: no longer than readers want to wait, no shorter than is worth a commit. Pure."""

from __future__ import annotations

from typing import Final

from glue_streaming.settings import BatchSettings

_FASTEST_CHANGE: Final = 2.0
"""From one batch to the next the interval grows or shrinks at most by this: a burst is no reason to forget the rest."""


def next_interval(interval: float, settings: BatchSettings, *, bytes_read: int, commits: int, caught_up: bool) -> float:
    """Seconds from the start of the batch that was just done to that of the next one.

    interval: seconds that it was for this batch. Behind the stream's tip, or with lanes to look after: the shortest
    one. Otherwise so long that a batch has about `commit_bytes` for each table that it commits to.
    """
    longest = max(settings.trigger_seconds, settings.freshness_seconds)
    if not caught_up:
        return settings.trigger_seconds
    if commits and bytes_read:
        wanted = interval * settings.commit_bytes * commits / bytes_read
    else:
        wanted = longest
    gradual = min(max(wanted, interval / _FASTEST_CHANGE), interval * _FASTEST_CHANGE)
    return min(max(gradual, settings.trigger_seconds), longest)
