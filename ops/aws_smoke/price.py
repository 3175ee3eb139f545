"""What a smoke run costs, said before it starts: the hour's share of the bill that `headrace cost` draws up."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ops.cost import bill, read_prices
from ops.load import Load

_MONTH_HOURS: Final = 730.0
_HOURS_A_DAY: Final = 24

# An hour of a smoke run: pgbench for some minutes, folds every five, and queries as fast as they are answered.
SMOKE: Final = Load(
    changes_per_second=10.0,
    tables=5,
    base_gib=0.1,
    history_days=1,
    shards=1,
    retention_hours=24,
    fold_runs_per_day=12.0 * _HOURS_A_DAY,
    fold_run_minutes=3.0,
    queries_per_day=200.0 * _HOURS_A_DAY,
    gib_per_query=0.05,
)
_NETWORKED: Final = replace(SMOKE, vpn_connections=1, endpoints=8)


def statement(rehearsal: bool) -> str:
    """What an hour costs, by component, and what a var file can add to it."""
    if rehearsal:
        return "a rehearsal on the laptop's AWS costs nothing"
    prices = read_prices()
    plain, networked = bill(SMOKE, prices), bill(_NETWORKED, prices)
    dearest = sorted(plain.by_component().items(), key=lambda item: -item[1])[:3]
    parts = ", ".join(f"{component} {_hour(amount):.2f}" for component, amount in dearest)
    return (
        f"a run takes about an hour and costs about {_hour(plain.total):.2f} {prices.currency} (most of it: {parts}); "
        f"with VPN and endpoints {_hour(networked.total):.2f}. "
        f"Prices of {prices.region}, read on {prices.read_on}; free allowances and taxes are left out"
    )


def _hour(amount: float) -> float:
    return amount / _MONTH_HOURS
