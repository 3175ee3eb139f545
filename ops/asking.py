"""What verbs that ask something of a part share: where the source is, who asks, and the wait for the answer."""

from __future__ import annotations

import argparse
import json
from typing import Any, Protocol

from rich.console import Console

from ops import holes, stack
from ops.aws import Aws
from ops.errors import OpsError
from ops.holes import Place
from ops.names import Names


class Clients(Protocol):
    """An account's AWS, or the laptop's."""

    def client(self, service: str) -> Any: ...


def plain(words: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A verb that looks at a source, here or on AWS."""
    word: argparse.ArgumentParser = words.add_parser(name, help=text)
    add_place(word)
    return word


def add_place(word: argparse.ArgumentParser) -> None:
    word.add_argument("--json", action="store_true")
    word.add_argument("--aws", action="store_true", help="the AWS account of the environment, not a stack here")
    word.add_argument("--source", help="the source; needed with --aws")
    word.add_argument("--prefix", default=Names().prefix, help="the deployment's name")


def request(words: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A verb that leaves a request and waits for its answer."""
    word = plain(words, name, text)
    word.add_argument("--by", default=holes.whoever(), help="who asks; this user's name otherwise")
    word.add_argument("--wait", type=float, default=holes.WAIT_SECONDS, help="seconds to wait for the answer; 0: none")
    return word


def where(arguments: argparse.Namespace) -> tuple[Clients, str]:
    """The AWS and the source that the words mean. Raises OpsError."""
    if arguments.aws:
        if not arguments.source:
            raise OpsError("--aws needs --source: an account may hold several")
        return Aws(None), arguments.source
    found = stack.find(arguments.stack)
    return found.aws, arguments.source or found.source


def place(arguments: argparse.Namespace) -> Place:
    """Where requests to that source are left."""
    aws, source = where(arguments)
    names = Names(arguments.prefix)
    return Place(aws.client("glue"), aws.client("dynamodb"), source, names.dynamodb("sources"))


def answer(place: Place, name: str, arguments: argparse.Namespace, console: Console) -> int:
    """Exit status 0 where it was done, or nobody waits for it; 1 where it was refused."""
    status, detail = "asked", "nobody waits for the answer"
    if arguments.wait > 0:
        status, detail = holes.await_answer(place, name, arguments.wait)
    if arguments.json:
        print(json.dumps({"request": name, "status": status, "detail": detail}))
    else:
        console.print(f"{status}: {detail}", markup=False, soft_wrap=True)
    return 0 if status in ("done", "asked") else 1
