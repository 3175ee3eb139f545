"""`python -m localaws --port PORT --state FOLDER`: run the laptop's AWS in the foreground."""

import argparse
import sys
from pathlib import Path

from .settings import Settings


def parse(arguments: list[str]) -> Settings:
    """Settings from the command line. Exits with a usage error that names every problem."""
    parser = argparse.ArgumentParser(prog="python -m localaws", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps all state over restarts")
    parser.add_argument("--auth", action="store_true", help="judge every request by the caller's IAM policies")
    parser.add_argument("--enforce-kinesis-limits", action="store_true", help="enforce the rates of a shard")
    parser.add_argument(
        "--seconds-per-minute", type=float, default=60.0, help="how long a minute of a schedule lasts (default 60)"
    )
    parser.add_argument("--log-level", default="WARNING", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    given = parser.parse_args(arguments)
    settings = Settings(
        port=given.port,
        state_folder=given.state.resolve(),
        auth=given.auth,
        enforce_kinesis_limits=given.enforce_kinesis_limits,
        seconds_per_minute=given.seconds_per_minute,
        log_level=given.log_level,
    )
    if problems := settings.problems():
        parser.error("; ".join(problems))
    return settings


def main() -> None:
    settings = parse(sys.argv[1:])
    from .server import run

    run(settings)


if __name__ == "__main__":
    main()
