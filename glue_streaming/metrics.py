"""The job's metrics in CloudWatch (docs/metrics.md): gathered for a minute, then one PutMetricData call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

NAMESPACE: Final = "Headrace"
FLUSH_SECONDS: Final = 60.0
_MAX_DATA: Final = 1_000

UNITS: Final[Mapping[str, str]] = {
    "LagSeconds": "Seconds",
    "FreshnessSeconds": "Seconds",
    "OpenHoles": "Count",
    "UnmatchedDeletes": "Count",
    "ParkedLanes": "Count",
    "BatchSeconds": "Seconds",
    "RowsLoaded": "Count",
    "BytesRead": "Bytes",
    "CommitFailures": "Count",
    "BadSettings": "Count",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Statistic:
    """What several values come to, as CloudWatch takes them."""

    count: int
    total: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, value: float) -> Statistic:
        return cls(1, value, value, value)

    def plus(self, value: float) -> Statistic:
        return Statistic(self.count + 1, self.total + value, min(self.lowest, value), max(self.highest, value))


class Metrics:
    """Values by source and metric, sent once a minute. A call that fails loses its minute, and never stops the job."""

    def __init__(self, cloudwatch: Any, clock: Callable[[], float]) -> None:
        self._cloudwatch, self._clock = cloudwatch, clock
        self._gathered: dict[tuple[str, str], Statistic] = {}
        self._since: float | None = None
        self._refused = ""

    def add(self, source: str, values: Mapping[str, float]) -> None:
        """One batch's values of a source, by the metrics' names."""
        if self._since is None:
            self._since = self._clock()
        for name, value in values.items():
            known = self._gathered.get((source, name))
            self._gathered[source, name] = known.plus(value) if known else Statistic.of(value)

    def send_when_due(self) -> None:
        if self._since is not None and self._clock() - self._since >= FLUSH_SECONDS:
            self.send()

    def send(self) -> None:
        """Everything gathered so far; at the job's end as well."""
        stamp = datetime.fromtimestamp(self._clock(), UTC)
        data = [_datum(source, name, value, stamp) for (source, name), value in self._gathered.items()]
        self._gathered, self._since = {}, None
        for start in range(0, len(data), _MAX_DATA):
            try:
                self._cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data[start : start + _MAX_DATA])
                self._refused = ""
            except (BotoCoreError, ClientError) as error:
                if str(error) != self._refused:
                    log.warning("metrics cannot be sent", extra={"cause": str(error)})
                self._refused = str(error)


def _datum(source: str, name: str, value: Statistic, stamp: datetime) -> dict[str, Any]:
    return {
        "MetricName": name,
        "Dimensions": [{"Name": "source", "Value": source}],
        "Timestamp": stamp,
        "Unit": UNITS[name],
        "StatisticValues": {
            "SampleCount": value.count,
            "Sum": value.total,
            "Minimum": value.lowest,
            "Maximum": value.highest,
        },
    }
