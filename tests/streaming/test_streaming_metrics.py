"""Metrics leave the job once a minute, whole, and can be alarmed on."""

import io
import json
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from glue_streaming import log_lines, metrics
from glue_streaming.aws import Aws
from glue_streaming.metrics import Metrics


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """A CloudWatch that keeps the calls, or refuses them."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.refuses = False

    def put_metric_data(self, **request: Any) -> None:
        if self.refuses:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutMetricData")
        self.calls.append(request)


def test_a_minute_of_batches_is_one_call() -> None:
    """Sum, count, minimum and maximum of every metric and source; nothing before the minute is over."""
    cloudwatch, clock = Recorder(), Clock()
    gathered = Metrics(cloudwatch, clock)
    for second in range(61):
        clock.now += 1
        gathered.add("shop", {"RowsLoaded": second})
        gathered.add("bank", {"OpenHoles": 2})
        gathered.send_when_due()
    (call,) = cloudwatch.calls
    rows, holes = call["MetricData"]
    assert (call["Namespace"], rows["Dimensions"]) == ("Headrace", [{"Name": "source", "Value": "shop"}])
    assert rows["StatisticValues"] == {"SampleCount": 61, "Sum": 1830, "Minimum": 0, "Maximum": 60}
    assert (holes["MetricName"], holes["Unit"], holes["StatisticValues"]["Maximum"]) == ("OpenHoles", "Count", 2)


def test_the_end_of_the_job_sends_what_is_left() -> None:
    """And nothing is sent twice, nor an empty call made."""
    cloudwatch = Recorder()
    gathered = Metrics(cloudwatch, Clock())
    gathered.add("shop", {"RowsLoaded": 1})
    gathered.send()
    gathered.send()
    assert len(cloudwatch.calls) == 1


def test_a_refused_call_is_said_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A role without the permission costs the metrics, not the rows; the next minute is sent once it is allowed."""
    cloudwatch = Recorder()
    cloudwatch.refuses = True
    gathered = Metrics(cloudwatch, Clock())
    for _ in range(3):
        gathered.add("shop", {"RowsLoaded": 1})
        gathered.send()
    assert [record.message for record in caplog.records] == ["metrics cannot be sent"]
    cloudwatch.refuses = False
    gathered.add("shop", {"RowsLoaded": 7})
    gathered.send()
    assert cloudwatch.calls[0]["MetricData"][0]["StatisticValues"]["Sum"] == 7


@pytest.mark.usefixtures("aws_server")
def test_an_alarm_finds_what_was_sent() -> None:
    """The values can be asked for by namespace, name and source, as an alarm does."""
    cloudwatch = Aws().client("cloudwatch")
    now = datetime.now(UTC)
    gathered = Metrics(cloudwatch, lambda: now.timestamp())
    gathered.add("alarmed", {"OpenHoles": 0})
    gathered.add("alarmed", {"OpenHoles": 3})
    gathered.send()
    (found,) = cloudwatch.get_metric_statistics(
        Namespace="Headrace",
        MetricName="OpenHoles",
        Dimensions=[{"Name": "source", "Value": "alarmed"}],
        StartTime=now - timedelta(minutes=2),
        EndTime=now + timedelta(minutes=2),
        Period=60,
        Statistics=["Maximum", "SampleCount"],
    )["Datapoints"]
    assert (found["Maximum"], found["SampleCount"]) == (3, 2)


def test_the_documents_name_the_metrics_that_exist() -> None:
    """docs/metrics.md is what alarms are made from: every metric stands there with its unit, and no other."""
    text = (Path(metrics.__file__).parent.parent / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE)
    assert dict(rows) == metrics.UNITS


def test_a_log_line_is_one_json_object() -> None:
    """Extra fields are members; an error's trace is one, too, and breaks no line."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(log_lines.JsonLines())
    logger = logging.getLogger("glue_streaming.test")
    logger.addHandler(handler)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.warning("it broke", exc_info=True, extra={"table": "shop.orders"})
    finally:
        logger.removeHandler(handler)
    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["table"] == "shop.orders"
    assert "two\nlines" in json.loads(line)["error"]
