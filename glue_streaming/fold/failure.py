"""What becomes of a run of the fold job that failed: which of its tables are tried again, and when, or what people are
told. Pure.

The job's last words name the tables that it did not fold and why; a run that was killed has none, and all of its
tables are tried again: those that are done are not due, and cost nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

ATTEMPTS: Final = 3
FIRST_WAIT_SECONDS: Final = 30
BACKOFF: Final = 4
MAX_WORDS: Final = 1_800
"""Characters of a run's last words: Glue keeps no more of an error's message than it likes."""
MAX_MESSAGE: Final = 20_000
_WORDS: Final = re.compile(r"not folded: (?P<names>[a-z0-9_., ]+) \| (?P<errors>.*)", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """tables: those that are not folded, and error why. wait_seconds: until they are tried again in this execution;
    None where they are not."""

    tables: tuple[str, ...]
    attempt: int
    wait_seconds: int | None
    error: str
    message: str


def last_words(failed: Mapping[str, str]) -> str:
    """What the job says at its end of the tables that it did not fold: their names, and as much of why as fits."""
    text = f"not folded: {', '.join(sorted(failed))} | " + "; ".join(
        f"{table}: {' '.join(error.split())}" for table, error in sorted(failed.items())
    )
    return text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS - 1]}…"


def verdict(
    tables: Sequence[str], attempt: int, error: str, cause: str, execution: str, region: str, log_group: str
) -> Verdict:
    """error, cause: what Step Functions caught. attempt: how often these tables were tried by now, from 1."""
    run = _run(cause)
    words = str(run.get("ErrorMessage") or "")
    named = _named(words, tables)
    again = attempt < ATTEMPTS
    why = _errors(words) or words or cause or error
    lines = [
        f"Not folded: {', '.join(named)}",
        f"Error: {why}",
        *([f"Job run: {run['Id']} ({run.get('JobRunState', 'state unknown')})"] if "Id" in run else []),
        *([f"Log: {log_link(region, log_group, run['Id'])}"] if "Id" in run and log_group else []),
        f"Execution: {execution}",
        "They are tried again later, after a longer pause each time (`headrace fold --plan` says when), or at once "
        "with `headrace fold TABLE`; all other tables are folded as they are due.",
    ]
    wait = FIRST_WAIT_SECONDS * BACKOFF ** (attempt - 1) if again else None
    return Verdict(named, attempt + 1, wait, why, "\n".join(lines)[:MAX_MESSAGE])


def log_link(region: str, group: str, stream: str) -> str:
    """Where the console shows a log stream."""
    place = quote(quote(group, safe=""), safe="").replace("%", "$")
    console = f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
    return f"{console}#logsV2:log-groups/log-group/{place}/log-events/{stream}"


def _run(cause: str) -> dict[str, Any]:
    """The job run that a `.sync` task fails with; empty where the cause is something else."""
    try:
        found = json.loads(cause)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _named(words: str, tables: Sequence[str]) -> tuple[str, ...]:
    found = _WORDS.search(words)
    named = set(found["names"].split(", ")) if found else set()
    return tuple(table for table in tables if table in named) or tuple(tables)


def _errors(words: str) -> str:
    found = _WORDS.search(words)
    return found["errors"].strip() if found else ""
