"""The demo's result: figures with what each was measured from, and the verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

LEAST_CHECKS: Final = 10
LEAST_FOLDS: Final = 2


@dataclass(frozen=True)
class Figure:
    """A number (or a truth) and where it comes from."""

    value: Any
    measured_from: str


@dataclass(frozen=True)
class Summary:
    """All figures by name, and the sentences that say what is not as it must be."""

    figures: dict[str, Figure]
    problems: tuple[str, ...]

    @property
    def verified(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        values = {name: figure.value for name, figure in self.figures.items()}
        sources = {name: figure.measured_from for name, figure in self.figures.items()}
        return {**values, "verified": self.verified, "problems": list(self.problems), "measured_from": sources}

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n")


def problems_of(figures: dict[str, Figure]) -> tuple[str, ...]:
    """What keeps the demo from being verified. Pure."""
    value = {name: figure.value for name, figure in figures.items()}
    rules = (
        (value["changes_committed"] == 0, "no change was committed"),
        (value["lost"] != 0, f"{value['lost']} changes were lost"),
        (value["duplicated"] != 0, f"{value['duplicated']} rows are there twice"),
        (value["unexpected"] != 0, f"{value['unexpected']} changes in the lake were never committed"),
        (value["invariant_failures"] != 0, f"the invariant failed {value['invariant_failures']} times"),
        (value["invariant_checks"] < LEAST_CHECKS, f"only {value['invariant_checks']} checks of the invariant"),
        (value["folds"] < LEAST_FOLDS, f"only {value['folds']} folds"),
        (value["tables_equal"] != value["tables"], f"{value['tables_equal']} of {value['tables']} tables are equal"),
    )
    return tuple(sentence for broken, sentence in rules if broken)


def show(summary: Summary, console: Console) -> None:
    """A table for a person: figure, value, source."""
    view = Table(title="summary", title_justify="left", show_edge=False, pad_edge=False)
    view.add_column("figure")
    view.add_column("value", justify="right")
    view.add_column("measured from", style="dim")
    for name, figure in summary.figures.items():
        view.add_row(name, _text(figure.value), figure.measured_from)
    console.print(view)
    for problem in summary.problems:
        console.print(f"NOT VERIFIED: {problem}", style="bold red", markup=False)
    if summary.verified:
        console.print("verified: the lake equals the source", style="bold green")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
