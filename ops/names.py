"""The names of everything in AWS, derived from one prefix, as Terraform derives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DYNAMODB_KEYS: Final = {
    "schemas": (("subject", "S"), ("version", "N")),
    "tables": (("table", "S"),),
    "settings": (("job", "S"), ("name", "S")),
    "shards": (("job", "S"), ("shard", "S")),
    "sources": (("source", "S"), ("item", "S")),
}


@dataclass(frozen=True)
class Names:
    prefix: str = "headrace"

    @property
    def stream(self) -> str:
        return self.prefix

    @property
    def bucket(self) -> str:
        return f"{self.prefix}-lake"

    @property
    def workgroup(self) -> str:
        return self.prefix

    @property
    def stream_job(self) -> str:
        return f"{self.prefix}-stream"

    @property
    def fold_job(self) -> str:
        return f"{self.prefix}-fold"

    @property
    def maintain_job(self) -> str:
        return f"{self.prefix}-maintain"

    @property
    def plan_function(self) -> str:
        return f"{self.prefix}-plan"

    @property
    def ingest_workflow(self) -> str:
        return f"{self.prefix}-ingest"

    @property
    def fold_workflow(self) -> str:
        return f"{self.prefix}-fold"

    @property
    def topic(self) -> str:
        return f"{self.prefix}-alarms"

    def dynamodb(self, table: str) -> str:
        return f"{self.prefix}-{table}"

    def role(self, part: str) -> str:
        return f"{self.prefix}-{part}"


def databases(source: str) -> tuple[str, ...]:
    """A source's Glue databases: current rows, the cut, history, and the lake tables."""
    return (source, f"{source}_cut", f"{source}_history", f"{source}_lake")
