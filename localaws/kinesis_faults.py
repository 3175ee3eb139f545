"""Faults that a test asks for: throttling, delay, partial failure, and a failure after the write was done."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from .kinesis_errors import KinesisError

THROTTLED = "ProvisionedThroughputExceededException"


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule. It strikes calls of `op` ("*" for all) on `stream` (None for all), `times` times (None: for ever)."""

    op: str
    stream: str | None = None
    code: str | None = None
    rate: float = 1.0  # probability that a call is struck
    times: int | None = None
    delay_seconds: float = 0.0
    fraction: float | None = None  # PutRecords only: the probability that an entry fails, instead of the whole call
    after: bool = False  # fail only after the work was done: the client cannot know
    empty: bool = False  # GetRecords only: a page without records that says it is behind

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> "Fault":
        """A rule from its JSON object. Raises ValueError that names the unknown or missing members."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown or "op" not in values:
            raise ValueError(f"a fault needs `op`, and knows no {sorted(unknown)}: {dict(values)}")
        return cls(**values)  # type: ignore[arg-type]

    def matches(self, op: str, stream: str | None) -> bool:
        return self.op in ("*", op) and self.stream in (None, stream) and self.times != 0

    @property
    def refuses(self) -> bool:
        """Whether a struck call is refused before any work is done."""
        return self.code is not None and self.fraction is None and not self.after

    def error(self) -> KinesisError:
        return KinesisError(self.code or ("InternalFailure" if self.after else THROTTLED), "injected fault")


class Faults:
    """The rules in force, and the dice."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._rules: list[Fault] = []

    def replace(self, rules: Iterable[Fault]) -> None:
        self._rules = list(rules)

    def rules(self) -> list[Fault]:
        return list(self._rules)

    def strike(self, op: str, stream: str | None) -> Fault | None:
        """The first rule that strikes this call, its count lowered by one."""
        for at, rule in enumerate(self._rules):
            if rule.matches(op, stream) and self._dice.random() < rule.rate:
                if rule.times is not None:
                    values = {field.name: getattr(rule, field.name) for field in fields(rule)}
                    self._rules[at] = Fault(**{**values, "times": rule.times - 1})
                return rule
        return None

    def entry_fails(self, fault: Fault) -> bool:
        return fault.fraction is not None and self._dice.random() < fault.fraction
