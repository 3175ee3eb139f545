"""What a deployment is and what it carries, in the terms of its bill. Each field is an option of `headrace cost`.

The fields that Terraform knows are its output `cost_inputs`; the rest only the user can tell. Figures about this code
are measured or counted, and named where they are used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from ops.errors import OpsError

WORKER_DPUS: Final = {"G.025X": 0.25, "G.1X": 1.0, "G.2X": 2.0, "G.4X": 4.0, "G.8X": 8.0}
MODES: Final = ("continuous", "drain")
STREAM_MODES: Final = ("PROVISIONED", "ON_DEMAND")


def _asked(default: Any, text: str, *, choices: tuple[str, ...] = (), least: float = 0) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices, "least": least})


@dataclass(frozen=True)
class Load:
    """A month of it is 730 hours."""

    changes_per_second: float = _asked(100.0, "changes a second, on average over the month")
    bytes_per_change: float = _asked(60.0, "bytes of a change in the stream, encoded and compressed")
    stored_bytes_per_change: float = _asked(40.0, "bytes of a change in the lake, as Parquet")
    tables: int = _asked(20, "tables that change")
    sources: int = _asked(1, "upstream databases", least=1)
    base_gib: float = _asked(10.0, "current rows of all tables as Parquet, GiB")
    history_days: int = _asked(365, "how long history is kept, days")

    stream_mode: str = _asked("PROVISIONED", "the stream's mode", choices=STREAM_MODES)
    shards: float = _asked(2, "shards, on average over the day", least=1)
    retention_hours: int = _asked(168, "retention of the stream, hours", least=24)

    mode: str = _asked("continuous", "the streaming job: standing, or draining the stream by schedule", choices=MODES)
    worker_type: str = _asked("G.025X", "workers of the streaming job", choices=tuple(WORKER_DPUS))
    workers: int = _asked(2, "how many of them", least=2)
    ingest_minutes: float = _asked(1.0, "period of the ingest workflow, minutes", least=1)
    freshness_seconds: float = _asked(10.0, "setting of the streaming job: a table is committed so often", least=0.1)

    fold_worker_type: str = _asked("G.1X", "workers of the fold job", choices=tuple(WORKER_DPUS))
    fold_workers: int = _asked(2, "how many of them", least=2)
    fold_minutes: float = _asked(5.0, "period of the fold workflow, minutes", least=1)
    fold_runs_per_day: float = _asked(48.0, "runs of the fold job that its plan finds due, a day")
    fold_run_minutes: float = _asked(2.0, "length of such a run, minutes", least=1)

    queries_per_day: float = _asked(200.0, "queries a day")
    gib_per_query: float = _asked(0.5, "what one scans, GiB")

    vpn_connections: int = _asked(0, "site-to-site VPN connections")
    endpoints: int = _asked(0, "interface endpoints, the jobs' included")
    zones: int = _asked(2, "zones that each endpoint is in", least=1)
    resolver_addresses: int = _asked(0, "addresses of a Route 53 resolver endpoint")

    alarm_metrics: int = _asked(38, "metrics that alarms watch")
    composite_alarms: int = _asked(1, "composite alarms")
    dashboards: int = _asked(1, "dashboards")
    log_gib: float = _asked(2.0, "logs written a month, GiB")
    log_days: int = _asked(30, "retention of logs, days", least=1)
    keys: int = _asked(1, "KMS keys made by this deployment")
    secrets: int = _asked(1, "secrets")

    @property
    def stream_bytes_per_second(self) -> float:
        return self.changes_per_second * self.bytes_per_change


def options() -> tuple[Field[Any], ...]:
    """The fields in their order, with help, choices and least value in their metadata."""
    return fields(Load)


def changed(load: Load, values: Mapping[str, Any]) -> Load:
    """The load with other values. Raises OpsError with every value that cannot be."""
    known = {option.name: option for option in options()}
    problems = [f"{name}: no such figure" for name in values if name not in known]
    for name, value in values.items():
        if option := known.get(name):
            problems += _problems(option, value)
    if problems:
        raise OpsError("cost: " + "; ".join(problems))
    return replace(load, **values)


def from_terraform(text: str, where: str) -> dict[str, Any]:
    """What `terraform output -json` says of a deployment: its output cost_inputs, alone or among the others."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise OpsError(f"{where}: not JSON ({error}); make it with: terraform output -json cost_inputs") from error
    found = document.get("cost_inputs", document) if isinstance(document, dict) else None
    if isinstance(found, dict) and set(found) >= {"value", "type"}:
        found = found["value"]
    if not isinstance(found, dict) or not found:
        raise OpsError(f"{where}: holds no output cost_inputs; make it with: terraform output -json cost_inputs")
    return found


def read_terraform(path: Path, standard_input: str | None = None) -> dict[str, Any]:
    """The same from a file."""
    if standard_input is not None:
        return from_terraform(standard_input, "standard input")
    try:
        return from_terraform(path.read_text(), str(path))
    except OSError as error:
        raise OpsError(f"{path}: cannot be read: {error.strerror}") from error


def _problems(option: Field[Any], value: Any) -> list[str]:
    choices, least = option.metadata["choices"], option.metadata["least"]
    if choices:
        return [] if value in choices else [f"{option.name}: {value!r} is none of {', '.join(choices)}"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [f"{option.name}: {value!r} is no number"]
    return [] if value >= least else [f"{option.name}: {value:g} is below {least:g}"]
