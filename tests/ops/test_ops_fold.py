"""`headrace fold`: the plan in words and as JSON, and what it starts."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws
from rich.console import Console

from glue_streaming.fold.failing import Failing, note
from glue_streaming.state import FoldState, FoldTotals, StreamState, Totals
from ops import __main__, asking, fold, stack
from ops.holes import Place
from ops.provision import dynamodb_table
from schemas.position import Line

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FOLDED = FoldState(
    Line(1, 100),
    1,
    FoldTotals(base_rows=1000, base_bytes=100 << 20, log_rows_taken=50, log_bytes_taken=100, written_bytes=150),
    NOW.isoformat(),
)
CAME = Totals(5_000_050, 100 + (10 << 20), 3)
TABLES = {
    "orders": StreamState(totals=CAME),
    "held": StreamState(totals=CAME),
    "idle": StreamState(totals=Totals(50, 100, 0)),
}


class Clients:
    """An AWS as the verbs know it."""

    def __init__(self) -> None:
        self.endpoint = "http://127.0.0.1:1"

    def client(self, service: str) -> Any:
        return boto3.client(service, region_name="eu-west-1")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Three tables with the same base: one with much to fold, one as well but paused, one with nothing."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)  # other tests' AWS may be in the environment
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        made = Clients()
        glue, dynamodb = made.client("glue"), made.client("dynamodb")
        for table in ("settings", "tables"):
            dynamodb_table(dynamodb, table, f"headrace-{table}")
        dynamodb.put_item(TableName="headrace-tables", Item={"table": {"S": "shop.held"}, "paused": {"BOOL": True}})
        for database in ("shop_lake", "shop_cut"):
            glue.create_database(DatabaseInput={"Name": database})
        for name, stream in TABLES.items():
            parameters = stream.to_properties() | FOLDED.to_properties() | {"headrace.table": name}
            glue.create_table(DatabaseName="shop_lake", TableInput={"Name": name, "Parameters": parameters})
        cut = {
            "headrace.ring": json.dumps([[1, 150, 0.0], [1, 200, 1000.0]]),
            "headrace.lines": json.dumps({name: [1, 200] for name in TABLES}),
        }
        glue.create_table(DatabaseName="shop_cut", TableInput={"Name": "watermark", "Parameters": cut})
        place = Place(glue, dynamodb, "shop", "headrace-sources")
        monkeypatch.setattr(asking, "place", lambda arguments: place)
        monkeypatch.setattr(stack, "find", lambda name: Namespace(aws=made, source="shop"))
        yield made


def test_the_plan_tells_what_is_due_with_its_cost_and_why_the_rest_is_not(
    aws: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON: kind, reason, bytes to read and to write, gain, amplification; and the reason of those left alone."""
    assert __main__.main(["fold", "--plan", "--json"]) == 0
    held, idle, orders = json.loads(capsys.readouterr().out)
    assert (held["due"], held["why"]) == (False, "paused")
    assert (idle["due"], idle["why"]) == (False, "nothing waits")
    assert (orders["kind"], orders["reason"], orders["line"]) == ("minor", orders["reason"], [1, 150])
    assert orders["reason"].startswith("5000000 rows in 3 files wait since")
    assert (orders["cost_bytes"], orders["write_bytes"], orders["gain_files"]) == (10 << 20, 20 << 20, 3)
    assert orders["amplification"] == {"write": 2.5, "read": 1.1}


def test_the_plan_can_be_read(aws: Clients) -> None:
    """A line a table, and a sum."""
    console = Console(file=io.StringIO(), width=200)
    fold.show(fold.plan(aws, "shop", fold.Names(), "auto", NOW), console)  # type: ignore[arg-type]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "5000000 rows wait" in text and "paused" in text
    assert "1 of 3 tables are due: about 10 MiB to read and 20 MiB to write" in text


def test_a_table_that_fails_is_left_alone_with_its_error(aws: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    """How often, and when it is tried again; where a kind is asked for it is due, and once it was folded as well."""
    dynamodb, at = aws.client("dynamodb"), datetime.now(UTC)
    note(dynamodb, "headrace-tables", "shop.orders", Failing(2, at, "ValueError: broken"))
    __main__.main(["fold", "--plan", "--json", "orders"])
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["due"], found["why"].startswith("failed 2 times on end, tried again at")) == (False, True)
    assert found["why"].endswith("UTC: ValueError: broken")
    __main__.main(["fold", "--plan", "--json", "--kind", "minor", "orders"])
    assert json.loads(capsys.readouterr().out)[0]["due"]
    note(dynamodb, "headrace-tables", "shop.orders", Failing(2, NOW - timedelta(seconds=1), "ValueError: broken"))
    __main__.main(["fold", "--plan", "--json", "orders"])
    assert json.loads(capsys.readouterr().out)[0]["due"]


def test_a_fold_says_what_became_of_each_table(
    aws: Clients, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folded, with the line; or why it was left alone."""

    def fold_orders(*_: Any) -> str:
        new = replace(FOLDED, line=Line(1, 150), folded_at=datetime.now(UTC).isoformat())
        parameters = TABLES["orders"].to_properties() | new.to_properties() | {"headrace.table": "orders"}
        aws.client("glue").update_table(
            DatabaseName="shop_lake", TableInput={"Name": "orders", "Parameters": parameters}
        )
        return "SUCCEEDED"

    monkeypatch.setattr(fold, "start", fold_orders)
    assert __main__.main(["fold"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "SUCCEEDED", "shop.held: paused", "shop.idle: nothing waits", f"shop.orders: folded up to {Line(1, 150)}",
    ]  # fmt: skip


def test_a_table_that_is_not_there_is_refused(aws: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    """By name, with the tables that there are."""
    assert __main__.main(["fold", "nowhere", "--plan"]) != 0
    assert "no lake table nowhere; it has held, idle, orders" in capsys.readouterr().err


class Runs:
    """Glue's job runs: what was asked, and how it ends at the second look."""

    def __init__(self, end: dict[str, str]) -> None:
        self.asked: dict[str, Any] = {}
        self._states = iter([{"JobRunState": "RUNNING"}, end])

    def client(self, _: str) -> Any:
        return self

    def start_job_run(self, **asked: Any) -> dict[str, str]:
        self.asked = asked
        return {"JobRunId": "jr_1"}

    def get_job_run(self, **_: Any) -> dict[str, Any]:
        return {"JobRun": next(self._states)}


def test_tables_are_folded_in_a_run_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is waited for; a failure is told with its error."""
    monkeypatch.setattr(fold, "until", lambda look, *_, **__: look() or look())
    good = Runs({"JobRunState": "SUCCEEDED"})
    assert fold.start(good, "shop", fold.Names(), "major", ["orders", "idle"], 5) == "SUCCEEDED"  # type: ignore[arg-type]
    words = {"--tables": "shop.orders,shop.idle", "--kind": "major"}
    assert good.asked == {"JobName": "headrace-fold", "Arguments": words}
    bad = Runs({"JobRunState": "FAILED", "ErrorMessage": "not folded: shop.orders"})
    assert fold.start(bad, "shop", fold.Names(), "minor", ["orders"], 5) == "FAILED: not folded: shop.orders"  # type: ignore[arg-type]


def test_amplification_counts_what_stands_beside_base() -> None:
    """A table without a base, or without folds, has none yet."""
    from glue_streaming.fold.plan import amplification

    assert amplification(StreamState(), FoldState()).write is None
    assert amplification(StreamState(), FoldState()).read is None
    beside = replace(FOLDED, totals=replace(FOLDED.totals, delta_bytes=50 << 20))
    assert amplification(StreamState(totals=Totals(50, 100, 0)), beside).read == 1.5
