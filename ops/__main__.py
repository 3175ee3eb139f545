"""The `headrace` command: parses the words and calls the verb."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from ops.errors import OpsError, PostgresFailed

# A verb's modules (Spark's, Arrow's, boto3's among them) are imported by that verb only: `headrace --help` would
# need seconds of CPU otherwise.

_DEFAULT_STACK = "local"
_WIDE = 200
_TERRAFORM = "everything made by terraform/, IAM enforced, each process in its own role"


def main(words: Sequence[str] | None = None) -> int:
    """Runs one verb; an error that a user can act on is printed as one message, without a trace."""
    words = sys.argv[1:] if words is None else words
    arguments = _parser(words).parse_args(words)
    console = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, _interrupted)  # so that a demo that is told to stop stops what it started
    try:
        return int(arguments.verb(arguments, _console()))
    except OpsError as error:
        console.print(f"headrace: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    except PostgresFailed as error:
        console.print(f"headrace: PostgreSQL: {error}", markup=False, soft_wrap=True)
        return OpsError.exit_code
    except BrokenPipeError:  # whoever read the answer has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says so once more at its end
        return 1
    except KeyboardInterrupt:
        console.print("headrace: interrupted")
        return 130


def _console() -> Console:
    """As wide as the terminal; wide enough for every table where nobody looks at a screen."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Only the verbs that are among the words get words of their own."""
    parser = argparse.ArgumentParser(prog="headrace", description="Carries a database's changes into a data lake.")
    parser.add_argument("--stack", help="which stack on this machine; needed only where several run")
    verbs = parser.add_subparsers(required=True, metavar="verb")
    for name, (text, add_words) in _VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        if name in words:
            add_words(verb)
    return parser


AddWords = Callable[[argparse.ArgumentParser], None]


def _words_of(module: str) -> AddWords:
    return lambda verb: importlib.import_module(module).add_words(verb)


def _demo_words(verb: argparse.ArgumentParser) -> None:
    from ops.demo import run as demo

    verb.add_argument("--seconds", type=float, default=demo.LOAD_SECONDS, help="how long the load runs")
    verb.add_argument("--rate", type=float, default=demo.RATE, help="pgbench's transactions a second")
    verb.add_argument("--keep", action="store_true", help="leave the stack running at the end")
    verb.add_argument("--json", action="store_true", help="print the summary as JSON")
    verb.add_argument("--terraform", action="store_true", help=_TERRAFORM)
    verb.set_defaults(verb=_demo)


def _up_words(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--terraform", action="store_true", help=_TERRAFORM)
    verb.set_defaults(verb=_up)


def _down_words(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--remove", action="store_true", help="delete what they kept as well, of stopped ones too")
    verb.set_defaults(verb=_down)


def _query_words(verb: argparse.ArgumentParser) -> None:
    from ops.names import Names

    verb.add_argument("sql")
    verb.add_argument("--aws", action="store_true", help="the AWS account of the environment, not a stack here")
    verb.add_argument("--database", help="where names without a database are looked up")
    verb.add_argument("--workgroup", default=Names().workgroup)
    form = verb.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--csv", action="store_true")
    verb.set_defaults(verb=_query)


def _status_words(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--deployment", help="the parts of this deployment, by its Terraform variable `name`")
    verb.add_argument("--endpoint-url", help="with --deployment: the laptop's AWS, not the environment's account")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(verb=_status)


def _agent_words(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", type=Path, help="its TOML file; without one, that of the stack")
    verb.add_argument("--check", action="store_true", help="say of every part whether it is ready; change nothing")
    verb.set_defaults(verb=_agent)


def _verify_words(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("tables", nargs="*", help="lake tables; all without one")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(verb=_verify)


_VERBS: Final[Mapping[str, tuple[str, AddWords]]] = {
    "demo": ("real changes from PostgreSQL to Athena, proven equal to the source", _demo_words),
    "up": ("start the whole path on this machine and leave it running", _up_words),
    "down": ("stop all stacks, or the one that --stack names; no process and no port stays", _down_words),
    "query": ("run a statement through Athena", _query_words),
    "status": ("where the changes are on their path; or every part of a deployment", _status_words),
    "cost": ("the monthly bill by component, for a load that you state", _words_of("ops.cost_verb")),
    "agent": ("the agent itself, in this process; --check says whether it could run", _agent_words),
    "verify": ("compare every table with the source, row by row and value by value", _verify_words),
    "holes": ("what is missing from which table, and what mends it", _words_of("ops.holes_verb")),
    "erase": ("remove every version of a key from the lake (a data subject's request)", _words_of("ops.erase")),
    "fold": ("fold what is due; or, with --plan, say what is, why, its cost and its gain", _words_of("ops.fold")),
    "cut": ("the views of whole transactions: what holds them, and who is out of them", _words_of("ops.cut_verb")),
}


def _demo(arguments: argparse.Namespace, console: Console) -> int:
    from ops.demo import run as demo

    options = demo.Options(arguments.seconds, arguments.rate, arguments.keep, arguments.json, arguments.terraform)
    return demo.run(arguments.stack or "demo", options, console)


def _up(arguments: argparse.Namespace, console: Console) -> int:
    from ops import stack, up

    def tell(line: str) -> None:
        console.print(f"  {line}", markup=False, soft_wrap=True)

    found = stack.create(arguments.stack or _DEFAULT_STACK, terraform=arguments.terraform)
    up.start(found, tell)
    up.await_views(found, tell)
    psql = Path(found.postgres.bin("psql"))
    console.print(
        f'ready. Write:  {psql} "{found.facts.dsn}"\n'
        f'       read:   headrace query "SELECT count(*) FROM probes"   (databases: {found.source}, '
        f"{found.source}_cut, {found.source}_history)\n"
        f"       tables: those that {found.agent_config} names; add yours, then kill -HUP {found.agent_pid}\n"
        f"       AWS:    export AWS_ENDPOINT_URL={found.facts.endpoint}\n"
        "       stop:   headrace down",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _down(arguments: argparse.Namespace, console: Console) -> int:
    from ops import stack

    stacks = [found for found in stack.all_stacks() if arguments.stack in (None, found.facts.name)]
    for found in stacks:
        if found.running():
            found.stop()
            console.print(f"stopped {found.facts.name}")
        if arguments.remove:
            stack.remove(found.facts.name)
            console.print(f"removed {found.facts.name}")
    if not stacks:
        console.print("nothing is running")
    return 0


def _query(arguments: argparse.Namespace, console: Console) -> int:
    from ops import query, stack
    from ops.athena import Athena
    from ops.aws import Aws

    if arguments.aws:
        athena = Athena(Aws(None).client("athena"), arguments.workgroup, arguments.database)
    else:
        athena = stack.find(arguments.stack).athena(arguments.database, arguments.workgroup)
    answer = athena.run(arguments.sql)
    if arguments.json:
        print(query.as_json(answer))
    elif arguments.csv:
        print(query.as_csv(answer))
    else:
        query.show(answer, console)
    return 0


def _status(arguments: argparse.Namespace, console: Console) -> int:
    from ops import stack, status

    if arguments.deployment:
        return _deployment_status(arguments, console)
    found = stack.find(arguments.stack)
    path = status.read(found)
    if arguments.json:
        print(json.dumps(path.to_json(), indent=1))
    else:
        console.print(status.shown(path, found.facts.name))
        for sentence in status.said(path):
            console.print(sentence, markup=False, soft_wrap=True)
    return 0


def _deployment_status(arguments: argparse.Namespace, console: Console) -> int:
    from ops import parts
    from ops.aws import Aws

    aws = Aws(arguments.endpoint_url)
    found = parts.look(aws, parts.wanted(parts.read_deployment(aws, arguments.deployment)))
    if arguments.json:
        print(json.dumps([vars(part) for part in found], indent=1))
    else:
        console.print(parts.shown(found, arguments.deployment))
        console.print(parts.summary(found), markup=False, soft_wrap=True)
    return 0 if all(part.in_place for part in found) else 1


def _agent(arguments: argparse.Namespace, _console: Console) -> int:
    from ops import stack
    from producer import __main__ as agent

    config, words = arguments.config, ["--check"] if arguments.check else []
    if config is None:
        config = stack.find(arguments.stack).agent_config
    for found in stack.all_stacks():
        if found.agent_config == config.resolve():  # its AWS knows nobody else
            os.environ.update(found.agent_environment())
    return agent.main(["--config", str(config), *words])


def _verify(arguments: argparse.Namespace, console: Console) -> int:
    from ops import stack, verify

    found = stack.find(arguments.stack)
    result = verify.of(found).run(arguments.tables)
    if arguments.json:
        print(json.dumps(verify.to_json(result), indent=1, ensure_ascii=False))
    else:
        verify.show(result, console)
    return 0 if result.equal else 1


if __name__ == "__main__":
    sys.exit(main())
