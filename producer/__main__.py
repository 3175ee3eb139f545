"""python -m producer --config agent.toml: run the agent, or with --check only see whether it could run."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from producer import logs, settings
from producer.agent import Agent, Clouds
from producer.errors import ProducerError
from producer.postgres_source import PostgresTables


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 after an orderly stop, else as producer.errors says."""
    options = _options(arguments)
    logs.configure(logging.DEBUG if options.verbose else logging.INFO)
    try:
        configured = settings.load(options.config)
        source = PostgresTables(configured)
        if options.check:
            source.check()
            print(f"{options.config}: the configuration is valid and the source is ready: {', '.join(source.tables())}")
            return 0
        agent = Agent(configured, source, Clouds.of(configured), new_era=options.new_era)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.stop())
        agent.run()
    except ProducerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m producer", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the agent's TOML file")
    parser.add_argument("--check", action="store_true", help="check the configuration and the source, change nothing")
    parser.add_argument(
        "--new-era", action="store_true", help="accept that continuity broke: raise the era and snapshot all tables"
    )
    parser.add_argument("--verbose", action="store_true", help="log more")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
