"""How far the source is spooled, and how the spool's file says it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from producer.continuity import Known


@dataclass(frozen=True, slots=True)
class DurableEnd:
    """Up to where the source is spooled in whole transactions.

    lsn: every transaction that commits at or below it is spooled. flushed: what the source may be told.
    at: the source's clock there, microseconds since 1970. last: the last transaction with changes, None before the
    era's first.
    """

    era: int
    lsn: int
    flushed: int
    at: int
    last: Known | None = None

    def to_json(self) -> str:
        return json.dumps([self.era, self.lsn, self.flushed, self.at, self.last])

    @classmethod
    def from_json(cls, text: str) -> DurableEnd:
        era, lsn, flushed, at, last = json.loads(text)
        return cls(era, lsn, flushed, at, None if last is None else Known(*last))
