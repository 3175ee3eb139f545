"""`headrace status` says which table lacks what and why: holes, snapshots that will not be complete, the frozen cut."""

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from glue_streaming.fold.failing import Failing, note
from glue_streaming.holes import Hole
from glue_streaming.state import EndedGroup, FoldState, SnapshotState, StreamState
from ops import status
from ops.provision import dynamodb_table
from schemas.position import Line, Position

GAP = Hole("0", Position(1, 10, 0), Position(1, 20, 3), "gap", "2026-01-02T03:00:00+00:00")
ENDED = {0: EndedGroup(1, 50, None, ("7",), 2)}


@pytest.fixture
def glue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)  # other tests' AWS may be in the environment
    with mock_aws():
        glue = boto3.client("glue", region_name="eu-west-1")
        for suffix in ("_lake", "_cut"):
            glue.create_database(DatabaseInput={"Name": f"shop{suffix}"})
        for job in ("stream", "fold"):
            glue.create_job(Name=job, Role="r", Command={"Name": "gluestreaming"})
        dynamodb_table(boto3.client("dynamodb", region_name="eu-west-1"), "tables", "tables")
        yield glue


def keep(glue: Any, table: str, stream: StreamState, fold: FoldState | None = None) -> None:
    own = {"headrace.table": table, "headrace.source": "shop"}
    parameters = {**stream.to_properties(), **(fold or FoldState()).to_properties(), **own}
    glue.create_table(DatabaseName="shop_lake", TableInput={"Name": table, "Parameters": parameters})


def path(glue: Any) -> status.PathStatus:
    names = SimpleNamespace(stream_job="stream", fold_job="fold", dynamodb=lambda name: name)
    aws = SimpleNamespace(client=lambda service: boto3.client(service, region_name="eu-west-1"))
    stack: Any = SimpleNamespace(aws=aws, source="shop", names=names, agent_status=lambda: None)
    return status.read(stack)


def test_what_is_missing_is_said_with_its_table_positions_and_reason(glue: Any) -> None:
    """An open hole, and what holds the cut."""
    keep(glue, "orders", StreamState(holes=(GAP,)))
    keep(glue, "items", StreamState())
    frozen = {"headrace.status": json.dumps({"frozen_by": {"orders": "gap"}})}
    glue.create_table(DatabaseName="shop_cut", TableInput={"Name": "watermark", "Parameters": frozen})
    found = path(glue)
    assert status.said(found) == ["hole in orders: 0 ..1:0/14:3: gap", "the cut stands still because of: orders"]
    assert found.to_json()["holes"] == 1


def test_a_snapshot_that_is_not_taken_in_is_said_with_what_it_lacks(glue: Any) -> None:
    """Void, abandoned, without its end, or complete and waiting; one that a fold has taken in is not mentioned."""
    snapshots = {
        1: SnapshotState(low=3, void="its end never came"),
        2: SnapshotState(low=3, abandoned=True),
        3: SnapshotState(low=3, groups=2, ended=ENDED),
        4: SnapshotState(low=3),
        5: SnapshotState(low=3, groups=1, ended=ENDED),
    }
    keep(glue, "orders", StreamState(snapshots=snapshots))
    keep(glue, "items", StreamState(snapshots={1: snapshots[5]}), FoldState(Line(1, 60), activated_through=1))
    assert status.said(path(glue)) == [
        "orders: snapshot 1 is void: its end never came",
        "orders: snapshot 2 was abandoned by the agent",
        "orders: snapshot 3 is not complete: 1 of 2 groups have ended",
        "orders: snapshot 4 is not complete: 0 of its groups have ended",
        "orders: snapshot 5 is complete, and waits for a fold",
    ]


def test_a_table_that_is_not_folded_is_said_with_its_error(glue: Any) -> None:
    """How often, until when it waits, and why; not any more once it was folded."""
    at = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
    dynamodb = boto3.client("dynamodb", region_name="eu-west-1")
    keep(glue, "orders", StreamState(), FoldState(Line(1, 60), activated_through=1))
    folded_since = FoldState(Line(1, 60), activated_through=1, folded_at="2026-01-02T03:00:01+00:00")
    keep(glue, "items", StreamState(), folded_since)
    for table in ("shop.orders", "shop.items"):
        note(dynamodb, "tables", table, Failing(3, at, "ValueError: broken"))
    said = "orders is not folded: failed 3 times on end, tried again at 2026-01-02 04:00:00 UTC: ValueError: broken"
    assert status.said(path(glue)) == [said]


def test_what_troubles_the_agent_is_said(glue: Any) -> None:
    """A table that it left out is known to the agent only, so far."""
    agent = {"trouble": "the source does not answer", "warnings": ["table public.t has no key"]}
    found = dataclasses.replace(path(glue), agent=agent)
    assert status.said(found) == ["the agent: the source does not answer", "the agent: table public.t has no key"]
