"""`headrace cost`: the monthly bill by component for a load that the user states. Pure, but for reading the price file.

Free allowances, discounts and taxes are left out; so is what costs cents: queues, notifications, parameters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ops.errors import OpsError
from ops.load import WORKER_DPUS, Load

PRICE_FILE: Final = Path(__file__).with_name("prices.json")

_HOURS: Final = 730.0
_DAYS: Final = _HOURS / 24
_SECONDS: Final = _HOURS * 3600
_GB: Final = 1024.0**3
_MILLION: Final = 1e6

# What this code does, counted in it or measured on a laptop.
_BLOCKS_PER_LANE_SECOND: Final = 20.0  # a block waits at most 50 ms for company
_PAYLOAD_UNIT_BYTES: Final = 25 * 1024
_BASE64: Final = 4 / 3  # records travel to an endpoint in JSON
_COMMIT_WRITES: Final = 4.0  # data file, manifest, manifest list, metadata
_COMMIT_READS: Final = 3.0
_COMMIT_CATALOG_REQUESTS: Final = 2.0
_CATALOG_REQUESTS_PER_FOLD_PLAN: Final = 1.0
_FOLD_WRITES_PER_TABLE: Final = 12.0
_FOLD_READS_PER_TABLE: Final = 60.0
_READS_PER_QUERY: Final = 400.0
_CHANGES_PER_CORE_SECOND: Final = 50_000.0
_CORES_PER_DPU: Final = 4.0
_LEAST_CORES: Final = 2.0  # of the smallest worker
_DRAIN_START_MINUTES: Final = 1.0  # from the run's start to the first batch
_INGEST_TRANSITIONS: Final = {"continuous": 6.0, "drain": 5.0}
_FOLD_TRANSITIONS: Final = 4.0
_TRANSITIONS_PER_FOLD_RUN: Final = 3.0
_PLAN_GB_SECONDS: Final = 0.25 * 2.0
_METRICS_PER_SOURCE: Final = 10.0
_KEY_USES_PER_MONTH: Final = 200_000.0  # each service asks anew about every five minutes
_NONCURRENT_DAYS: Final = 7.0
_ACKNOWLEDGED: Final = 0.05  # bytes back to the site for each byte that came


@dataclass(frozen=True)
class Prices:
    region: str
    currency: str
    read_on: str
    source: str
    prices: Mapping[str, float]
    units: Mapping[str, str]

    def of(self, name: str, quantity: float) -> float:
        return self.prices[name] * quantity


@dataclass(frozen=True)
class Line:
    """One line of the bill: what of a component, how much, in the price's unit."""

    component: str
    what: str
    quantity: float
    price: str
    amount: float


@dataclass(frozen=True)
class Bill:
    load: Load
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> float:
        return sum(line.amount for line in self.lines)

    def by_component(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        for line in self.lines:
            sums[line.component] = sums.get(line.component, 0.0) + line.amount
        return sums


def read_prices(path: Path = PRICE_FILE) -> Prices:
    """The price file. Raises OpsError where it is none."""
    try:
        document = json.loads(path.read_text())
        prices = {name: float(entry["price"]) for name, entry in document["prices"].items()}
        units = {name: str(entry["unit"]) for name, entry in document["prices"].items()}
        region, currency, read_on, source = (document[name] for name in ("region", "currency", "read_on", "source"))
        return Prices(region, currency, read_on, source, prices, units)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise OpsError(f"{path}: no price file ({error}); {PRICE_FILE.name} shows the form") from error


def bill(load: Load, prices: Prices) -> Bill:
    """The month's bill, lines of nothing left out."""
    lines = [
        Line(component, what, quantity, price, prices.of(price, quantity))
        for component, what, price, quantity in _quantities(load)
        if quantity > 0
    ]
    return Bill(load, tuple(lines), tuple(_notes(load)))


def choices(load: Load) -> dict[str, Load]:
    """The load as stated, and with one choice made otherwise each time."""
    return {
        "as stated": load,
        "continuous, smallest workers": replace(load, mode="continuous", worker_type="G.025X"),
        "continuous, G.1X": replace(load, mode="continuous", worker_type="G.1X"),
        "drain every 15 min": _drained(load, 15.0),
        "drain every hour": _drained(load, 60.0),
        "stream on demand": replace(load, stream_mode="ON_DEMAND"),
        "stream provisioned": replace(load, stream_mode="PROVISIONED", shards=needed_shards(load)),
        "stream kept for a day": replace(load, retention_hours=24),
        "a VPN and the site's endpoints": replace(load, vpn_connections=1, endpoints=max(load.endpoints, 7)),
        "and the jobs in the VPC": replace(load, vpn_connections=1, endpoints=max(load.endpoints, 9)),
    }


def needed_shards(load: Load) -> float:
    """Shards for three times the average load, one being 1 MiB/s."""
    return float(max(1, math.ceil(3 * load.stream_bytes_per_second / 1024**2)))


def _drained(load: Load, minutes: float) -> Load:
    runs = min(load.fold_runs_per_day, 24 * 60 / minutes)
    return replace(load, mode="drain", ingest_minutes=minutes, fold_minutes=minutes, fold_runs_per_day=runs)


Quantity = tuple[str, str, str, float]  # component, what, name of the price, quantity in the price's unit


def _quantities(load: Load) -> Iterator[Quantity]:
    for part in (_stream, _streaming_job, _fold_job, _lake, _registry, _queries, _workflows, _operations, _network):
        yield from part(load)


def _records(load: Load) -> tuple[float, float]:
    """Records a month (progress records among them), and bytes of one block."""
    blocks = min(load.changes_per_second, max(1, load.tables) * _BLOCKS_PER_LANE_SECOND)
    size = load.stream_bytes_per_second / blocks if blocks else 0.0
    return blocks * _SECONDS, size


def _stream(load: Load) -> Iterator[Quantity]:
    blocks, size = _records(load)
    progress = load.sources * _SECONDS
    if load.stream_mode == "PROVISIONED":
        yield "stream", "shards", "kinesis_shard_hour", load.shards * _HOURS
        units = blocks * max(1, math.ceil(size / _PAYLOAD_UNIT_BYTES)) + progress
        yield "stream", "records written", "kinesis_put_units", units / _MILLION
        if load.retention_hours > 24:
            yield "stream", "retention up to 7 days", "kinesis_extended_retention", load.shards * _HOURS
    else:
        written = (blocks * math.ceil(size / 1024) + progress) * 1024 / _GB
        yield "stream", "the stream", "kinesis_on_demand_stream_hour", _HOURS
        yield "stream", "written", "kinesis_on_demand_in", written
        yield "stream", "read", "kinesis_on_demand_out", written
        kept = load.stream_bytes_per_second * 3600 * max(0, min(load.retention_hours, 168) - 24) / _GB
        yield "stream", "retention up to 7 days", "kinesis_on_demand_extended_retention", kept
    kept = load.stream_bytes_per_second * 3600 * max(0, load.retention_hours - 168) / _GB
    yield "stream", "retention beyond 7 days", "kinesis_long_retention", kept


def drain_run_minutes(load: Load) -> float:
    """How long a draining run takes: it starts, and reads what has come since the last."""
    cores = max(_LEAST_CORES, WORKER_DPUS[load.worker_type] * _CORES_PER_DPU) * (load.workers - 1)
    changes = load.changes_per_second * load.ingest_minutes * 60
    return _DRAIN_START_MINUTES + changes / (cores * _CHANGES_PER_CORE_SECOND) / 60


def _streaming_job(load: Load) -> Iterator[Quantity]:
    dpus = load.workers * WORKER_DPUS[load.worker_type]
    share = 1.0 if load.mode == "continuous" else min(1.0, drain_run_minutes(load) / load.ingest_minutes)
    yield (
        "streaming job",
        f"{load.workers} {load.worker_type}, {share:.0%} of the time",
        "glue_dpu_hour",
        dpus * _HOURS * share,
    )


def _fold_job(load: Load) -> Iterator[Quantity]:
    hours = load.fold_runs_per_day * _DAYS * load.fold_run_minutes / 60
    dpus = load.fold_workers * WORKER_DPUS[load.fold_worker_type]
    yield "fold job", f"{load.fold_workers} {load.fold_worker_type}, {hours:.0f} hours", "glue_dpu_hour", dpus * hours


def _commits(load: Load) -> float:
    """Table commits a month: a table that changes is committed every freshness_seconds, or once a draining run."""
    period = load.freshness_seconds if load.mode == "continuous" else load.ingest_minutes * 60
    return load.tables * min(load.changes_per_second / max(1, load.tables), 1 / period) * _SECONDS


def _lake(load: Load) -> Iterator[Quantity]:
    stored_a_day = load.changes_per_second * 86_400 * load.stored_bytes_per_change / _GB
    commits = _commits(load)
    folds = load.fold_runs_per_day * _DAYS * load.tables
    yield "lake", "current rows", "s3_storage", load.base_gib
    yield "lake", "history", "s3_storage", stored_a_day * load.history_days
    yield "lake", "replaced files, a week", "s3_storage", stored_a_day * 2 * _NONCURRENT_DAYS
    writes = commits * _COMMIT_WRITES + folds * _FOLD_WRITES_PER_TABLE
    reads = commits * _COMMIT_READS + folds * _FOLD_READS_PER_TABLE + load.queries_per_day * _DAYS * _READS_PER_QUERY
    yield "lake", "writes", "s3_writes", writes / _MILLION
    yield "lake", "reads", "s3_reads", reads / _MILLION
    plans = _HOURS * 60 / load.fold_minutes * load.tables
    requests = commits * _COMMIT_CATALOG_REQUESTS + plans * _CATALOG_REQUESTS_PER_FOLD_PLAN
    yield "lake", "catalog requests", "glue_catalog_requests", requests / _MILLION


def _registry(load: Load) -> Iterator[Quantity]:
    batches = _SECONDS / load.freshness_seconds if load.mode == "continuous" else _HOURS * 60 / load.ingest_minutes
    shards = load.shards if load.stream_mode == "PROVISIONED" else 4
    leases = load.sources * _SECONDS / 10
    yield "registry", "writes", "dynamodb_writes", (batches * shards + leases) / _MILLION
    yield "registry", "reads", "dynamodb_reads", (batches * 3 + leases) / _MILLION


def _queries(load: Load) -> Iterator[Quantity]:
    yield "queries", "scanned", "athena_scanned", load.queries_per_day * _DAYS * load.gib_per_query / 1024


def _workflows(load: Load) -> Iterator[Quantity]:
    ingests, folds = _HOURS * 60 / load.ingest_minutes, _HOURS * 60 / load.fold_minutes
    runs = load.fold_runs_per_day * _DAYS
    transitions = (
        ingests * _INGEST_TRANSITIONS[load.mode] + folds * _FOLD_TRANSITIONS + runs * _TRANSITIONS_PER_FOLD_RUN
    )
    yield "workflows", "state transitions", "step_functions_transitions", transitions / _MILLION
    yield "workflows", "planning function", "lambda_gb_second", folds * _PLAN_GB_SECONDS
    yield "workflows", "its calls", "lambda_requests", folds / _MILLION
    yield "workflows", "schedules", "scheduler_invocations", (ingests + folds) / _MILLION


def _operations(load: Load) -> Iterator[Quantity]:
    yield "operations", "metrics of the streaming job", "cloudwatch_metric", _METRICS_PER_SOURCE * load.sources
    yield "operations", "sending them", "cloudwatch_calls", load.sources * _HOURS * 60 / _MILLION
    yield "operations", "alarms", "cloudwatch_alarm_metric", float(load.alarm_metrics)
    yield "operations", "composite alarms", "cloudwatch_composite_alarm", float(load.composite_alarms)
    yield "operations", "dashboard", "cloudwatch_dashboard", float(load.dashboards)
    yield "operations", "logs written", "logs_written", load.log_gib
    yield "operations", "logs kept", "logs_kept", load.log_gib * load.log_days / _DAYS
    yield "operations", "keys", "kms_key", float(load.keys)
    yield "operations", "uses of the key", "kms_requests", _KEY_USES_PER_MONTH / _MILLION
    yield "operations", "secrets", "secret", float(load.secrets)


def _network(load: Load) -> Iterator[Quantity]:
    carried = load.stream_bytes_per_second * _SECONDS / _GB
    yield "network", "VPN connections", "vpn_connection_hour", load.vpn_connections * _HOURS
    yield "network", "interface endpoints", "interface_endpoint_hour", load.endpoints * load.zones * _HOURS
    if load.endpoints:
        yield "network", "through the endpoints", "interface_endpoint_data", carried * _BASE64
    yield "network", "resolver", "resolver_address_hour", load.resolver_addresses * _HOURS
    yield "network", "answers to the site", "data_out", carried * _ACKNOWLEDGED


def _notes(load: Load) -> Iterator[str]:
    if load.stream_mode == "PROVISIONED" and load.shards * 1024**2 < load.stream_bytes_per_second:
        yield (
            f"shards: {load.shards:g} take {load.shards:g} MiB/s, and the load is "
            f"{load.stream_bytes_per_second / 1024**2:.1f} MiB/s on average: name at least {needed_shards(load):g}"
        )
    minutes = drain_run_minutes(load)
    if load.mode == "drain" and minutes > load.ingest_minutes:
        yield f"a draining run takes {minutes:.0f} minutes, longer than its period: more workers, or continuous"
