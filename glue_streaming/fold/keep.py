"""How long the states of a table stay readable."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Keep:
    """longest_query_seconds: for so long what a fold replaced. time_travel_days: the last state of each day (UTC)."""

    longest_query_seconds: float = 7_200.0
    time_travel_days: int = 0
