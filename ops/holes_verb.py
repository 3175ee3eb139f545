"""The words of `headrace holes`, and what each does."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from ops import holes, stack
from ops.aws import Aws
from ops.errors import OpsError
from ops.holes import Place
from ops.names import Names


def add_words(verbs: Any) -> None:
    """Adds `holes` and its own verbs to the command's parser."""
    group = verbs.add_parser("holes", help="what is missing from which table, and what mends it")
    words = group.add_subparsers(required=True, metavar="list | show | resend | replay | resnapshot | accept")

    word = _word(words, "list", "every open hole, with what can mend it")
    word.set_defaults(verb=_list)

    word = _word(words, "show", "one hole: positions, reason, raw bytes, and what each verb would do")
    word.add_argument("hole", help="its id in the list, or the beginning of it")
    word.set_defaults(verb=_show)

    for verb in ("resend", "replay"):
        word = _asking(words, verb, holes.EFFECTS[verb])
        word.add_argument("hole", help="its id in the list")
        word.set_defaults(verb=_mend, asks=verb, because="")

    word = _asking(words, "resnapshot", holes.EFFECTS["resnapshot"])
    word.add_argument("what", help="a table, or the id of a hole in it")
    word.set_defaults(verb=_resnapshot)

    word = _asking(words, "accept", holes.EFFECTS["accept"])
    word.add_argument("hole", help="its id in the list")
    word.add_argument("--because", required=True, help="why; kept with the hole for good")
    word.set_defaults(verb=_mend, asks="accept")


def _word(words: Any, name: str, text: str) -> argparse.ArgumentParser:
    word: argparse.ArgumentParser = words.add_parser(name, help=text)
    word.add_argument("--json", action="store_true")
    word.add_argument("--aws", action="store_true", help="the AWS account of the environment, not a stack here")
    word.add_argument("--source", help="the source; needed with --aws")
    word.add_argument("--prefix", default=Names().prefix, help="the deployment's name")
    return word


def _asking(words: Any, name: str, text: str) -> argparse.ArgumentParser:
    word = _word(words, name, text)
    word.add_argument("--by", default=holes.whoever(), help="who asks; this user's name otherwise")
    word.add_argument("--wait", type=float, default=holes.WAIT_SECONDS, help="seconds to wait for the answer; 0: none")
    return word


def _place(arguments: argparse.Namespace) -> Place:
    if arguments.aws:
        if not arguments.source:
            raise OpsError("--aws needs --source: an account may hold several")
        aws, source = Aws(None), arguments.source
    else:
        found = stack.find(arguments.stack)
        aws, source = found.aws, arguments.source or found.source
    names = Names(arguments.prefix)
    return Place(aws.client("glue"), aws.client("dynamodb"), source, names.dynamodb("sources"))


def _list(arguments: argparse.Namespace, console: Console) -> int:
    found = holes.read(_place(arguments))
    if arguments.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        holes.show_list(found, console, datetime.now(UTC))
    return 0


def _show(arguments: argparse.Namespace, console: Console) -> int:
    item = holes.find(holes.read(_place(arguments)), arguments.hole)
    if arguments.json:
        print(json.dumps({**item.to_json(), "refusals": item.refusals()}, indent=1))
    else:
        holes.show_one(item, console, datetime.now(UTC))
    return 0


def _mend(arguments: argparse.Namespace, console: Console) -> int:
    place = _place(arguments)
    item = holes.find(holes.read(place), arguments.hole)
    name = holes.request(place, arguments.asks, item, by=arguments.by, because=arguments.because)
    return _answer(place, name, arguments, console)


def _resnapshot(arguments: argparse.Namespace, console: Console) -> int:
    place = _place(arguments)
    found = holes.read(place)
    name = holes.request_snapshot(place, holes.table_of(found, arguments.what), by=arguments.by)
    return _answer(place, name, arguments, console)


def _answer(place: Place, name: str, arguments: argparse.Namespace, console: Console) -> int:
    """Exit status 0 where it was done, or nobody waits for it; 1 where it was refused."""
    status, detail = "asked", "nobody waits for the answer"
    if arguments.wait > 0:
        status, detail = holes.await_answer(place, name, arguments.wait)
    if arguments.json:
        print(json.dumps({"request": name, "status": status, "detail": detail}))
    else:
        console.print(f"{status}: {detail}", markup=False, soft_wrap=True)
    return 0 if status in ("done", "asked") else 1
