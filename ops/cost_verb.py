"""The words of `headrace cost`: an option for every figure of the load."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import Field
from pathlib import Path
from typing import Any

from rich.console import Console

from ops import bill as view
from ops import cost, load

_TYPES = {"int": int, "float": float, "str": str}


def add_words(verb: argparse.ArgumentParser) -> None:
    """The options; a figure that is not given is Terraform's, or else the default."""
    verb.add_argument("--json", action="store_true")
    verb.add_argument("--compare", action="store_true", help="the same load with typical choices made otherwise")
    verb.add_argument("--prices", type=Path, default=cost.PRICE_FILE, help="another file of prices, of the same form")
    verb.add_argument(
        "--from-terraform",
        metavar="FILE",
        help="figures of a deployment: `terraform output -json cost_inputs` (- reads standard input)",
    )
    figures = verb.add_argument_group("figures of the load")
    for option in load.options():
        figures.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=_TYPES[str(option.type)],
            choices=option.metadata["choices"] or None,
            metavar=None if option.metadata["choices"] else "N",
            help=f"{option.metadata['help']} ({_told(option)})",
        )
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace, console: Console) -> int:
    prices = cost.read_prices(arguments.prices)
    stated = load.changed(load.Load(), figures(arguments))
    if arguments.compare:
        bills = {choice: cost.bill(each, prices) for choice, each in cost.choices(stated).items()}
        if arguments.json:
            print(json.dumps({choice: view.to_json(found, prices) for choice, found in bills.items()}, indent=1))
        else:
            console.print(view.compared(bills, prices))
    else:
        found = cost.bill(stated, prices)
        if arguments.json:
            print(json.dumps(view.to_json(found, prices), indent=1))
            return 0
        console.print(view.shown(found, prices))
        for note in found.notes:
            console.print(note, markup=False, soft_wrap=True)
    if not arguments.json:
        console.print(
            f"prices: {prices.source}, as of {prices.read_on} ({arguments.prices.name})", markup=False, soft_wrap=True
        )
    return 0


def figures(arguments: argparse.Namespace) -> dict[str, Any]:
    """What Terraform says, and over it what was given as options."""
    found: dict[str, Any] = {}
    if arguments.from_terraform:
        text = sys.stdin.read() if arguments.from_terraform == "-" else None
        found = load.read_terraform(Path(arguments.from_terraform), text)
    given = {option.name: getattr(arguments, option.name) for option in load.options()}
    return found | {name: value for name, value in given.items() if value is not None}


def _told(option: Field[Any]) -> str:
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)
