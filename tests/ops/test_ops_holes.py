"""`headrace holes`: lists say what is missing and what mends it, requests say exactly which hole, refusals say why."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto import mock_aws
from rich.console import Console

from glue_streaming.holes import Hole
from glue_streaming.state import Accepted, EndedGroup, SnapshotState, StreamState
from ops import __main__, asking, holes
from ops.errors import NoSuchHole, NotApplicable, TookTooLong
from ops.holes import Place
from ops.provision import dynamodb_table
from producer.blocks import Lane
from producer.requests import Requests
from producer.spool import Resent
from schemas.position import Position

NOW = datetime(2026, 1, 2, 5, 0, tzinfo=UTC)
GAP = Hole("0", Position(1, 10, 0), Position(1, 20, 3), "gap", "2026-01-02T03:00:00+00:00")
BAD = Hole("0", Position(1, 30, 0), Position(1, 40, 0), "checksum", "2026-01-02T04:00:00+00:00", "s3://b/raw/s/sh/7")
REJECT = replace(BAD, reason="rejected: numeric out of range (key id=1)")
VOID = Hole("s1000001.0.1", None, Position(1, 9, 5), "gap", "2026-01-02T04:00:00+00:00")
COMPLETE = SnapshotState(low=45, groups=1, ended={0: EndedGroup(1, 50, None, None, 2)})


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A catalog and a table of requests."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)  # other tests' AWS may be in the environment
    with mock_aws():
        glue, dynamodb = (boto3.client(name, region_name="eu-west-1") for name in ("glue", "dynamodb"))
        dynamodb_table(dynamodb, "sources", "headrace-sources")
        for suffix in ("_lake", "_cut"):
            glue.create_database(DatabaseInput={"Name": f"shop{suffix}"})
        yield Place(glue, dynamodb, "shop", "headrace-sources")


def keep(place: Place, state: StreamState, table: str = "orders") -> None:
    parameters = {**state.to_properties(), "headrace.table": table, "headrace.source": "shop"}
    place.glue.create_table(DatabaseName="shop_lake", TableInput={"Name": table, "Parameters": parameters})


def items(place: Place) -> list[dict[str, Any]]:
    found = place.dynamodb.scan(TableName=place.sources_table)["Items"]
    return [{name: value["S"] for name, value in item.items()} for item in found]


def answer(place: Place, status: str, detail: str) -> None:
    (item,) = items(place)
    place.dynamodb.update_item(
        TableName=place.sources_table,
        Key={"source": {"S": item["source"]}, "item": {"S": item["item"]}},
        UpdateExpression="SET #s = :s, detail = :d",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={":s": {"S": status}, ":d": {"S": detail}},
    )


@pytest.mark.parametrize(
    ("hole", "state", "mends"),
    [
        (GAP, StreamState(), {"resend", "resnapshot", "accept"}),
        (BAD, StreamState(), {"resend", "replay", "resnapshot", "accept"}),
        (REJECT, StreamState(), {"resnapshot", "accept"}),
        (replace(BAD, reason="gap; rejected: x"), StreamState(), {"resend", "replay", "resnapshot", "accept"}),
        (VOID, StreamState(), {"resnapshot"}),
        (GAP, StreamState(snapshots={7: COMPLETE}), {"resnapshot"}),
        (
            replace(GAP, last=Position(1, 60, 0)),
            StreamState(snapshots={7: COMPLETE}),
            {"resend", "resnapshot", "accept"},
        ),
    ],
)
def test_a_hole_is_mended_by_what_can_bring_its_rows(hole: Hole, state: StreamState, mends: set[str]) -> None:
    """No raw bytes, no replay; a reject comes back as it was; a void snapshot and a repaired hole wait for a fold."""
    assert {verb for verb in holes.VERBS if holes.refusal(verb, hole, state) is None} == mends


def test_the_list_says_what_is_missing_since_when_and_what_mends_it(place: Place) -> None:
    """Table, lane, positions, reason, age and verbs, for people and as JSON; with void snapshots and acceptances."""
    accepted = Accepted(replace(GAP, last=Position(1, 5, 0)), "ann", "test data", "2026-01-01T00:00:00+00:00")
    void = SnapshotState(low=3, void="its end never came")
    keep(place, StreamState(holes=(GAP, BAD), accepted=(accepted,), snapshots={1_000_002: void}))
    found = holes.read(place)
    out = Console(file=io.StringIO(), width=200)
    holes.show_list(found, out, NOW)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "orders" in text and "1:0/A:0" in text and "1:0/14:3" in text and "2 h 0 min" in text
    assert "resend, resnapshot, accept" in text
    assert "snapshot 1000002 of orders is void: its end never came" in text
    listed = json.loads(json.dumps(found.to_json()))
    assert [(h["table"], h["lane"], h["after"], h["last"], h["reason"]) for h in listed["holes"]] == [
        ("orders", "0", [1, 10, 0], [1, 20, 3], "gap"),
        ("orders", "0", [1, 30, 0], [1, 40, 0], "checksum"),
    ]
    assert listed["accepted"][0]["by"] == "ann"
    assert listed["void_snapshots"] == [{"table": "orders", "snapshot": 1_000_002, "why": "its end never came"}]


def test_an_id_is_of_exactly_these_positions(place: Place) -> None:
    """A hole that has grown is another one: nobody accepts more than was seen. An unknown id is told so."""
    keep(place, StreamState(holes=(GAP,)))
    (before,) = holes.read(place).open
    assert holes.find(holes.read(place), before.id[:4]) == before
    grown = replace(before, hole=replace(GAP, last=Position(1, 25, 0)))
    assert grown.id != before.id
    with pytest.raises(NoSuchHole, match="mended, or has grown"):
        holes.find(holes.read(place), grown.id)


def test_a_resend_goes_to_the_agent_and_names_the_positions(place: Place) -> None:
    """The item is one that the agent's own reader takes."""
    keep(place, StreamState(holes=(GAP,)))
    (hole,) = holes.read(place).open
    name = holes.request(place, "resend", hole, by="ann")
    (item,) = items(place)
    assert name.startswith("request:")
    assert {key: item[key] for key in ("kind", "table", "lane", "after", "last", "status", "by")} == {
        "kind": "resend",
        "table": "orders",
        "lane": "0",
        "after": "[1, 10, 0]",
        "last": "[1, 20, 3]",
        "status": "open",
        "by": "ann",
    }


def test_the_agent_carries_out_what_the_command_asks(place: Place) -> None:
    """Both sides agree on the item: the agent's reader resends exactly the hole, snapshots the table, and answers."""
    done: list[Any] = []

    class Spool:
        def resend(self, lane: Lane, after: Position | None, last: Position) -> Resent:
            done.append((lane.table, lane.name, after, last))
            return Resent(blocks=3, damaged=0)

    class Snapshots:
        def tables(self) -> list[str]:
            return ["orders"]

        def request(self, table: str) -> None:
            done.append(table)

    keep(place, StreamState(holes=(GAP,)))
    (hole,) = holes.read(place).open
    names = [holes.request(place, "resend", hole, by="ann"), holes.request_snapshot(place, "orders", by="ann")]
    agent = Requests(place.dynamodb, place.sources_table, "shop", Spool(), Snapshots())  # type: ignore[arg-type]
    assert agent.answer_all() == 2
    assert sorted(map(str, done)) == sorted(map(str, [("orders", "0", GAP.after, GAP.last), "orders"]))
    assert [holes.await_answer(place, name)[0] for name in names] == ["done", "done"]


def test_accept_and_replay_go_to_the_streaming_job(place: Place) -> None:
    """Under a name that the agent does not look for, with who and why."""
    keep(place, StreamState(holes=(BAD,)))
    (hole,) = holes.read(place).open
    holes.request(place, "accept", hole, by="ann", because="test rows")
    (item,) = items(place)
    assert item["item"].startswith("lake-request:")
    assert (item["kind"], item["by"], item["because"]) == ("accept", "ann", "test rows")


def test_a_verb_that_cannot_help_is_refused_and_asks_nothing(place: Place) -> None:
    """With the reason, and what does help."""
    keep(place, StreamState(holes=(GAP,)))
    (hole,) = holes.read(place).open
    with pytest.raises(NotApplicable, match=r"no raw bytes.*What does: resend, resnapshot, accept"):
        holes.request(place, "replay", hole, by="ann")
    assert items(place) == []


def test_an_answer_is_waited_for_and_one_that_does_not_come_is_told(place: Place) -> None:
    """Who has not answered; the request stays."""
    keep(place, StreamState(holes=(GAP,)))
    (hole,) = holes.read(place).open
    name = holes.request(place, "resend", hole, by="ann")
    times = iter(range(1000))
    with pytest.raises(TookTooLong, match="the agent has not answered"):
        holes.await_answer(place, name, 3, clock=lambda: next(times), sleep=lambda _: None)
    answer(place, "unavailable", "the spool holds no block of it")
    assert holes.await_answer(place, name) == ("unavailable", "the spool holds no block of it")


def command(place: Place, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(asking, "place", lambda _: place)
    return __main__.main(["holes", *words])


def test_the_command_lists_shows_and_asks(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each verb prints what it found or did, as JSON too; a refusal ends with 1 and its reason."""
    keep(place, StreamState(holes=(GAP,)))
    (hole,) = holes.read(place).open
    assert command(place, monkeypatch, "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["holes"][0]["id"] == hole.id
    assert command(place, monkeypatch, "show", hole.id) == 0
    assert "not here: there are no raw bytes of it" in capsys.readouterr().out
    assert command(place, monkeypatch, "replay", hole.id) == 1
    assert "replay does not mend" in capsys.readouterr().err
    assert command(place, monkeypatch, "resnapshot", hole.id, "--wait", "0", "--json") == 0
    (item,) = items(place)
    assert (item["kind"], item["table"]) == ("resnapshot", "orders")
    assert json.loads(capsys.readouterr().out)["status"] == "asked"
    answer(place, "refused", "table orders is not captured")
    monkeypatch.setattr(holes, "request", lambda *_, **__: item["item"])
    assert command(place, monkeypatch, "resend", hole.id) == 1
    assert "refused: table orders is not captured" in capsys.readouterr().out
