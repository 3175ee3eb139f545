"""The words of `headrace holes`, and what each does."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime

from rich.console import Console

from ops import asking, holes


def add_words(group: argparse.ArgumentParser) -> None:
    """Adds the verbs of `holes`."""
    words = group.add_subparsers(required=True, metavar="list | show | resend | replay | resnapshot | accept")

    word = asking.plain(words, "list", "every open hole, with what can mend it")
    word.set_defaults(verb=_list)

    word = asking.plain(words, "show", "one hole: positions, reason, raw bytes, and what each verb would do")
    word.add_argument("hole", help="its id in the list, or the beginning of it")
    word.set_defaults(verb=_show)

    for verb in ("resend", "replay"):
        word = asking.request(words, verb, holes.EFFECTS[verb])
        word.add_argument("hole", help="its id in the list")
        word.set_defaults(verb=_mend, asks=verb, because="")

    word = asking.request(words, "resnapshot", holes.EFFECTS["resnapshot"])
    word.add_argument("what", help="a table, or the id of a hole in it")
    word.set_defaults(verb=_resnapshot)

    word = asking.request(words, "accept", holes.EFFECTS["accept"])
    word.add_argument("hole", help="its id in the list")
    word.add_argument("--because", required=True, help="why; kept with the hole for good")
    word.set_defaults(verb=_mend, asks="accept")


def _list(arguments: argparse.Namespace, console: Console) -> int:
    found = holes.read(asking.place(arguments))
    if arguments.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        holes.show_list(found, console, datetime.now(UTC))
    return 0


def _show(arguments: argparse.Namespace, console: Console) -> int:
    item = holes.find(holes.read(asking.place(arguments)), arguments.hole)
    if arguments.json:
        print(json.dumps({**item.to_json(), "refusals": item.refusals()}, indent=1))
    else:
        holes.show_one(item, console, datetime.now(UTC))
    return 0


def _mend(arguments: argparse.Namespace, console: Console) -> int:
    place = asking.place(arguments)
    item = holes.find(holes.read(place), arguments.hole)
    name = holes.request(place, arguments.asks, item, by=arguments.by, because=arguments.because)
    return asking.answer(place, name, arguments, console)


def _resnapshot(arguments: argparse.Namespace, console: Console) -> int:
    place = asking.place(arguments)
    found = holes.read(place)
    name = holes.request_snapshot(place, holes.table_of(found, arguments.what), by=arguments.by)
    return asking.answer(place, name, arguments, console)
