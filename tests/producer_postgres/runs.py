"""Runs of changes, one by one, for tests that look at each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from producer.change import Change, Run
from schemas.change_record import OPS


def singly(events: Iterable[Any]) -> Iterator[Any]:
    """The events with each run's changes in its place; a run does not know their keys."""
    for event in events:
        if not isinstance(event, Run):
            yield event
            continue
        start = 0
        for place, end in enumerate(event.ends.tolist()):
            datum = event.datums[start:end]
            at = int(event.times[place])
            yield Change(event.table, event.schema, OPS[datum[0] >> 1], b"", event.position(place), at, datum)
            start = end
        assert start == len(event.datums)
