"""python -m producer --config agent.toml: run the agent of one source."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final

from producer import check, logs, settings
from producer.agent import Agent
from producer.clouds import Clouds
from producer.errors import ProducerError
from producer.postgres_source import PostgresTables
from producer.settings import Settings
from producer.source import Source
from producer.supervisor import Supervisor

_COLLECT_AFTER: Final = 100_000
"""Objects that may come to be before Python looks for garbage in cycles. A message from the source is two; with
Python's 700 that search was about a quarter of all CPU."""


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 after an orderly stop, else as producer.errors says."""
    options = _options(arguments)
    usual = logging.ERROR if options.check else logging.INFO  # what is checked is said, not logged
    logs.configure(logging.DEBUG if options.verbose else usual)
    try:
        configured = settings.load(options.config)
        source = _source(configured)
        if options.check:
            return _check(options.config, configured, source)
        if options.drop_slot:
            dropped = "dropped: the next start needs --new-era" if source.drop_slot() else "not there"
            print(f"the replication slot of {configured.source.name} is {dropped}")
            return 0
        supervisor = Supervisor.of(os.environ)
        agent = Agent(
            configured,
            source,
            Clouds.of(configured),
            new_era=options.new_era,
            prove_continuity=options.prove_continuity,
            supervisor=supervisor,
            configured_anew=lambda: settings.load(options.config),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.stop())
        signal.signal(signal.SIGHUP, lambda *_: agent.reload())
        gc.freeze()  # what was imported stays
        gc.set_threshold(_COLLECT_AFTER)
        agent.run()
    except ProducerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _check(path: Path, configured: Settings, source: Source) -> int:
    """Says of every part whether it is ready; the status is that of the first one that is not."""
    print(f"ok      {path}: the configuration is valid")
    clouds = Clouds.of(configured)
    parts = []
    for part in check.look(configured, source, clouds.kinesis_admin, clouds.dynamodb):
        print(part, flush=True)
        parts.append(part)
    return next((part.error.exit_code for part in parts if part.error is not None), 0)


def _source(configured: Settings) -> Source:
    if configured.files is None:
        return PostgresTables(configured)
    from producer.files.source import FolderTables  # its readers are large, and most agents have a database

    return FolderTables(configured)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m producer", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the agent's TOML file")
    parser.add_argument(
        "--check",
        action="store_true",
        help="say of every part whether it is ready; change nothing",
    )
    parser.add_argument(
        "--new-era", action="store_true", help="accept that continuity broke: raise the era and snapshot all tables"
    )
    parser.add_argument(
        "--prove-continuity",
        action="store_true",
        help="after a standby was promoted: go on in the era where the source's history shows that nothing is lost",
    )
    parser.add_argument(
        "--drop-slot",
        action="store_true",
        help="drop the replication slot, so that the source keeps nothing for this agent any more, and end",
    )
    parser.add_argument("--verbose", action="store_true", help="log more")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
