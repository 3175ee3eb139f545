"""What became of every claim, and the exit status that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table


class Standing(StrEnum):
    PROVEN = "proven"
    REHEARSED = "rehearsed"
    """The check passed on the laptop's AWS: the script works, the claim about AWS is not proven."""
    NOT_PROVEN = "not proven"
    FAILED = "failed"


@dataclass(frozen=True)
class Result:
    """One claim. `evidence` is what was seen, or why nothing was."""

    check: str
    claim: str
    standing: Standing
    evidence: str


@dataclass(frozen=True)
class Report:
    """Every claim, in the order of the checks, and what went wrong around them (apply, destroy)."""

    deployment: str
    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """No check failed and nothing is left behind. What was not proven is counted, and fails nothing."""
        return not self.problems and all(result.standing is not Standing.FAILED for result in self.results)

    def count(self, standing: Standing) -> int:
        return sum(result.standing is standing for result in self.results)

    def to_json(self) -> dict[str, Any]:
        return {
            "deployment": self.deployment,
            "good": self.good,
            "counts": {standing.value: self.count(standing) for standing in Standing},
            "results": [asdict(result) for result in self.results],
            "problems": list(self.problems),
        }


def show(report: Report, console: Console) -> None:
    view = Table(title=f"claims, {report.deployment}", title_justify="left", show_edge=False, pad_edge=False)
    for name in ("claim", "standing", "evidence"):
        view.add_column(name, overflow="fold")
    for result in report.results:
        view.add_row(result.claim, result.standing.value, result.evidence)
    console.print(view)
    console.print(", ".join(f"{report.count(standing)} {standing.value}" for standing in Standing), markup=False)
    for problem in report.problems:
        console.print(problem, style="bold red", markup=False, soft_wrap=True)


def not_reached(names_and_claims: Sequence[tuple[str, str]], why: str) -> tuple[Result, ...]:
    """The checks that were never run, and why."""
    return tuple(Result(name, claim, Standing.NOT_PROVEN, why) for name, claim in names_and_claims)
