"""What comes with every call of the laptop's Kinesis."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .kinesis_faults import Fault

Request = Mapping[str, Any]
Reply = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One operation's circumstances."""

    account: str
    region: str
    now: float  # seconds since 1970
    fault: Fault | None = None

    @property
    def now_millis(self) -> int:
        return int(self.now * 1000)
