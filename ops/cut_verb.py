"""The words of `headrace cut`: take a table out of a source's cut, let it in again, and what is out of it."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from ops import asking, holes, tables
from ops.holes import Place


def add_words(group: argparse.ArgumentParser) -> None:
    """Adds the verbs of `cut`."""
    words = group.add_subparsers(required=True, metavar="show | exclude | include")

    word = asking.plain(words, "show", "how far the cut is, what holds it back, and which tables are out of it")
    word.set_defaults(verb=_show)

    word = asking.request(words, "exclude", "the table's cut view raises and says why; the other tables go on")
    word.add_argument("table", help="a lake table")
    word.add_argument("--because", default="", help="why; whoever queries the view is told")
    word.set_defaults(verb=_ask, asks="exclude")

    word = asking.request(words, "include", "the table comes back at the first watermark that it covers")
    word.add_argument("table", help="a lake table")
    word.set_defaults(verb=_ask, asks="include", because="")


def _ask(arguments: argparse.Namespace, console: Console) -> int:
    place = asking.place(arguments)
    name = holes.request_cut(place, arguments.asks, arguments.table, by=arguments.by, because=arguments.because)
    return asking.answer(place, name, arguments, console)


def _show(arguments: argparse.Namespace, console: Console) -> int:
    place = asking.place(arguments)
    found = cut(place, datetime.now(UTC))
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        closed = "; closed for a repair" if found["closed"] else ""
        console.print(f"complete up to {found['complete_until'] or 'nothing yet'}{closed}", markup=False)
        for title, listed in (("holds it back", found["frozen_by"]), ("is out of it", found["out"])):
            for table, why in listed.items():
                console.print(f"{table} {title}: {why}", markup=False, soft_wrap=True)
    return 0


def cut(place: Place, now: datetime) -> dict[str, Any]:
    """What the catalog says of the cut. seconds_behind: how old the newest commit is that every cut view shows."""
    watermark = tables.watermark(place.glue, place.source)
    until = watermark.committed_at
    return {
        "complete_until": None if until is None else until.isoformat(),
        "seconds_behind": None if until is None else round((now - until).total_seconds(), 1),
        "closed": bool(watermark.status.get("closed")),
        "frozen_by": watermark.status.get("frozen_by", {}),
        "out": watermark.status.get("missing", {}),
    }
