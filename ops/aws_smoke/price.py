"""What a smoke run costs, said before it starts. US dollars in us-east-1, as of 2026-11; other regions differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Item:
    """Something that runs for an hour of a smoke run."""

    name: str
    quantity: float
    unit: str
    price: float

    @property
    def dollars(self) -> float:
        return self.quantity * self.price


HOUR: Final = (
    Item("streaming job, 2 workers of G.025X", 0.5, "DPU hours", 0.44),
    Item("fold job, 12 runs of 3 minutes on 2 workers of G.1X", 1.2, "DPU hours", 0.44),
    Item("Kinesis, 1 shard", 1.0, "shard hours", 0.015),
    Item("KMS key, S3, DynamoDB, Athena, logs, alarms", 1.0, "hours", 0.05),
)
NETWORK: Final = (
    Item("interface endpoints, 6 services in 2 zones", 12.0, "endpoint hours", 0.01),
    Item("site-to-site VPN", 1.0, "connection hours", 0.05),
)


def statement(rehearsal: bool) -> str:
    """What an hour costs, and what a var file can add to it."""
    if rehearsal:
        return "a rehearsal on the laptop's AWS costs nothing"
    hour, network = (sum(item.dollars for item in items) for items in (HOUR, NETWORK))
    parts = "; ".join(f"{item.name} {item.dollars:.2f}" for item in HOUR)
    return (
        f"a run takes about an hour and costs about {hour:.2f} US dollars ({parts}), "
        f"and {network:.2f} more where the var file makes VPN and endpoints"
    )
