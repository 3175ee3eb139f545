"""What the demo looks at while the load runs: pgbench's invariant, freshness, and the folds that happen."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from ops import tables
from ops.athena import Athena
from ops.demo.repeating import Repeating
from ops.errors import QueryFailed

INVARIANT: Final = """
SELECT (SELECT coalesce(sum(abalance), 0) FROM {cut}.pgbench_accounts),
       (SELECT coalesce(sum(tbalance), 0) FROM {cut}.pgbench_tellers),
       (SELECT coalesce(sum(bbalance), 0) FROM {cut}.pgbench_branches),
       (SELECT coalesce(sum(delta), 0) FROM {cut}.pgbench_history)
"""


@dataclass
class Invariant:
    """How often the four sums were asked for, and what was answered."""

    checks: int = 0
    values: set[str] = field(default_factory=set)
    failures: list[tuple[str | None, ...]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


class InvariantChecker(Repeating):
    """Every transaction of pgbench adds one delta to an account, a teller, a branch and the history.

    So the four sums are equal in whole transactions, and in nothing less. All four are read by one statement from the
    consistent views. A query that fails is no answer: it is kept as a refusal, with Athena's words.
    """

    def __init__(self, athena: Athena, source: str, every_seconds: float = 2.0) -> None:
        super().__init__("invariant", every_seconds)
        self._athena = athena
        self._sql = INVARIANT.format(cut=f'"{source}_cut"')
        self.seen = Invariant()

    def step(self) -> None:
        try:
            sums = self._athena.run(self._sql).rows[0]
        except QueryFailed as error:
            self.seen.refusals.append(str(error))
            return
        self.seen.checks += 1
        self.seen.values.add(str(sums[0]))
        if len(set(sums)) != 1:
            self.seen.failures.append(sums)


class FreshnessProbe(Repeating):
    """Commits a row, asks Athena until an answer holds it, and keeps the seconds between the two."""

    def __init__(self, dsn: str, athena: Athena, source: str, every_seconds: float = 1.0) -> None:
        super().__init__("freshness", every_seconds)
        self._dsn = dsn
        self._athena = athena
        self._sql = f'SELECT count(*) FROM "{source}".probes WHERE id = '
        self._next = 1
        self.seconds: list[float] = []

    def step(self) -> None:
        number = self._next
        self._next += 1
        committed_at = write_probe(self._dsn, number)
        while not self.stopping:
            if self._shows(number):
                self.seconds.append(time.monotonic() - committed_at)
                return
            self.pause(0.2)

    def _shows(self, number: int) -> bool:
        try:
            return self._athena.run(f"{self._sql}{number}").rows[0][0] == "1"
        except QueryFailed:
            return False


class FoldWatcher(Repeating):
    """Counts folds by what they leave in the lake: each sets its table's `headrace.fold.at`."""

    def __init__(self, glue: Any, source: str, every_seconds: float = 2.0) -> None:
        super().__init__("folds", every_seconds)
        self._glue = glue
        self._source = source
        self.folds: set[tuple[str, str]] = set()

    def step(self) -> None:
        for table in tables.lake_tables(self._glue, self._source):
            if table.fold.folded_at is not None:
                self.folds.add((table.name, table.fold.folded_at))


def write_probe(dsn: str, number: int) -> float:
    """Commits the probe of that number; returns the monotonic time just before its commit."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        before = time.monotonic()
        connection.execute("INSERT INTO probes (id) VALUES (%s)", [number])
    return before


def percentile(values: list[float], share: float) -> float | None:
    """The smallest value that at least that share of the values do not exceed; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
