"""The example bills in docs/cost.md: `python -m ops.cost_document --write`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ops import bill as view
from ops import cost
from ops.load import Load, changed

DOCUMENT: Final = Path(__file__).resolve().parent.parent / "docs" / "cost.md"
_GENERATED: Final = re.compile(r"<!-- (bill|compare): ([a-z ]+) -->\n.*?<!-- end -->", re.DOTALL)

EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "a small shop": {
        "changes_per_second": 5.0,
        "tables": 10,
        "base_gib": 2.0,
        "shards": 1,
        "retention_hours": 24,
        "mode": "drain",
        "ingest_minutes": 15.0,
        "fold_minutes": 15.0,
        "fold_runs_per_day": 12.0,
        "queries_per_day": 20.0,
        "gib_per_query": 0.2,
        "secrets": 1,
    },
    "a busy site": {},
    "a large site over a private line": {
        "changes_per_second": 5000.0,
        "tables": 100,
        "base_gib": 500.0,
        "shards": 4,
        "retention_hours": 168,
        "worker_type": "G.1X",
        "workers": 3,
        "freshness_seconds": 30.0,
        "fold_runs_per_day": 144.0,
        "fold_run_minutes": 4.0,
        "queries_per_day": 2000.0,
        "gib_per_query": 2.0,
        "vpn_connections": 1,
        "endpoints": 10,
        "log_gib": 10.0,
        "alarm_metrics": 41,
    },
}


def load_of(example: str) -> Load:
    return changed(Load(), EXAMPLES[example])


def words(example: str) -> str:
    """The command that draws up an example's bill."""
    options = [f"--{name.replace('_', '-')} {_word(value)}" for name, value in EXAMPLES[example].items()]
    return " ".join(["headrace cost", *options])


def written(text: str, prices: cost.Prices) -> str:
    """The document with every bill in it drawn up anew."""

    def made(found: re.Match[str]) -> str:
        kind, example = found[1], found[2]
        stated = load_of(example)
        if kind == "bill":
            told = f"```\n{words(example)}\n```\n\n{view.markdown(cost.bill(stated, prices), prices)}"
        else:
            bills = {choice: cost.bill(each, prices) for choice, each in cost.choices(stated).items()}
            told = f"```\n{words(example)} --compare\n```\n\n{view.compared_markdown(bills)}"
        return f"<!-- {kind}: {example} -->\n{told}\n<!-- end -->"

    return _GENERATED.sub(made, text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks the example bills in docs/cost.md, or writes them.")
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args(arguments).write
    text = DOCUMENT.read_text()
    new = written(text, cost.read_prices())
    if write:
        DOCUMENT.write_text(new)
    elif new != text:
        print(f"{DOCUMENT.name}: its bills are not those of today's prices: python -m ops.cost_document --write")
        return 1
    return 0


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
