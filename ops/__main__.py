"""The `headrace` command: parses the words and calls the verb."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from ops import cost_verb, cut_verb, erase, fold, holes_verb, parts, query, stack, status, up, verify
from ops.athena import Athena
from ops.aws import Aws
from ops.demo import run as demo
from ops.errors import OpsError
from ops.names import Names
from ops.postgres_server import PostgresFailed
from producer import __main__ as agent

_DEFAULT_STACK = "local"
_WIDE = 200
_TERRAFORM = "everything made by terraform/, IAM enforced, each process in its own role"


def main(words: Sequence[str] | None = None) -> int:
    """Runs one verb; an error that a user can act on is printed as one message, without a trace."""
    arguments = _parser().parse_args(words)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headrace", description="Carries a database's changes into a data lake.")
    parser.add_argument("--stack", help="which stack on this machine; needed only where several run")
    verbs = parser.add_subparsers(required=True, metavar="verb")

    verb = verbs.add_parser("demo", help="real changes from PostgreSQL to Athena, proven equal to the source")
    verb.add_argument("--seconds", type=float, default=demo.LOAD_SECONDS, help="how long the load runs")
    verb.add_argument("--rate", type=float, default=demo.RATE, help="pgbench's transactions a second")
    verb.add_argument("--keep", action="store_true", help="leave the stack running at the end")
    verb.add_argument("--json", action="store_true", help="print the summary as JSON")
    verb.add_argument("--terraform", action="store_true", help=_TERRAFORM)
    verb.set_defaults(verb=_demo)

    verb = verbs.add_parser("up", help="start the whole path on this machine and leave it running")
    verb.add_argument("--terraform", action="store_true", help=_TERRAFORM)
    verb.set_defaults(verb=_up)

    verb = verbs.add_parser("down", help="stop all stacks, or the one that --stack names; no process and no port stays")
    verb.add_argument("--remove", action="store_true", help="delete what they kept as well, of stopped ones too")
    verb.set_defaults(verb=_down)

    verb = verbs.add_parser("query", help="run a statement through Athena")
    verb.add_argument("sql")
    verb.add_argument("--aws", action="store_true", help="the AWS account of the environment, not a stack here")
    verb.add_argument("--database", help="where names without a database are looked up")
    verb.add_argument("--workgroup", default=Names().workgroup)
    form = verb.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--csv", action="store_true")
    verb.set_defaults(verb=_query)

    verb = verbs.add_parser("status", help="where the changes are on their path; or every part of a deployment")
    verb.add_argument("--deployment", help="the parts of this deployment, by its Terraform variable `name`")
    verb.add_argument("--endpoint-url", help="with --deployment: the laptop's AWS, not the environment's account")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(verb=_status)

    verb = verbs.add_parser("cost", help="the monthly bill by component, for a load that you state")
    cost_verb.add_options(verb)
    verb.set_defaults(verb=cost_verb.run)

    verb = verbs.add_parser("agent", help="the agent itself, in this process; --check says whether it could run")
    verb.add_argument("--config", type=Path, help="its TOML file; without one, that of the stack")
    verb.add_argument("--check", action="store_true", help="say of every part whether it is ready; change nothing")
    verb.set_defaults(verb=_agent)

    verb = verbs.add_parser("verify", help="compare every table with the source, row by row and value by value")
    verb.add_argument("tables", nargs="*", help="lake tables; all without one")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(verb=_verify)

    holes_verb.add_words(verbs)
    erase.add_words(verbs)
    fold.add_words(verbs)
    cut_verb.add_words(verbs)
    return parser


def _demo(arguments: argparse.Namespace, console: Console) -> int:
    options = demo.Options(arguments.seconds, arguments.rate, arguments.keep, arguments.json, arguments.terraform)
    return demo.run(arguments.stack or "demo", options, console)


def _up(arguments: argparse.Namespace, console: Console) -> int:
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
        f"       tables: those that {found.agent_config} names; add yours, then kill -HUP the agent (pids.json)\n"
        f"       AWS:    export AWS_ENDPOINT_URL={found.facts.endpoint}\n"
        "       stop:   headrace down",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _down(arguments: argparse.Namespace, console: Console) -> int:
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
    aws = Aws(arguments.endpoint_url)
    found = parts.look(aws, parts.wanted(parts.read_deployment(aws, arguments.deployment)))
    if arguments.json:
        print(json.dumps([vars(part) for part in found], indent=1))
    else:
        console.print(parts.shown(found, arguments.deployment))
        console.print(parts.summary(found), markup=False, soft_wrap=True)
    return 0 if all(part.in_place for part in found) else 1


def _agent(arguments: argparse.Namespace, _console: Console) -> int:
    config, words = arguments.config, ["--check"] if arguments.check else []
    if config is None:
        found = stack.find(arguments.stack)
        config = found.agent_config
        os.environ.update(found.agent_environment())
    return agent.main(["--config", str(config), *words])


def _verify(arguments: argparse.Namespace, console: Console) -> int:
    found = stack.find(arguments.stack)
    result = verify.of(found).run(arguments.tables)
    if arguments.json:
        print(json.dumps(verify.to_json(result), indent=1, ensure_ascii=False))
    else:
        verify.show(result, console)
    return 0 if result.equal else 1


if __name__ == "__main__":
    sys.exit(main())
