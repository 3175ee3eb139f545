"""`headrace cut`: says what holds the cut and who is out of it, and asks the streaming job for the rest."""

import argparse
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from moto import mock_aws
from rich.console import Console

from glue_streaming import watermark_view
from glue_streaming.requests import CutRequest, Requests
from glue_streaming.watermark_view import Entry
from ops import __main__, asking, cut_verb
from ops.holes import Place
from ops.provision import dynamodb_table
from schemas.position import Line

NOW = datetime(2026, 1, 2, 5, 0, tzinfo=UTC)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A catalog and a table of requests."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)  # other tests' AWS may be in the environment
    with mock_aws():
        glue, dynamodb = (boto3.client(name, region_name="eu-west-1") for name in ("glue", "dynamodb"))
        dynamodb_table(dynamodb, "sources", "headrace-sources")
        glue.create_database(DatabaseInput={"Name": "shop_cut"})
        made = Place(glue, dynamodb, "shop", "headrace-sources")
        monkeypatch.setattr(asking, "place", lambda arguments: made)
        yield made


def parsed(*words: str) -> argparse.Namespace:
    return __main__._parser(words).parse_args(words)


def test_a_request_reaches_the_streaming_job_as_it_was_asked(place: Place) -> None:
    """The words become a request that the job reads: which table, who asks, and why."""
    words = ["cut", "exclude", "orders", "--because", "its disk is gone", "--by", "anna", "--wait", "0"]
    assert __main__.main(words) == 0
    (request,) = Requests(place.dynamodb, place.sources_table).open("shop", 0.0)
    assert request == CutRequest(request.item, "exclude", "shop", "orders", "anna", "its disk is gone")


def test_a_refusal_is_the_verbs_failure(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 1, and the reason on the screen."""
    monkeypatch.setattr("ops.holes.await_answer", lambda *_: ("refused", "it is in the cut"))
    said = io.StringIO()
    arguments = parsed("cut", "include", "orders")
    assert arguments.verb(arguments, Console(file=said)) == 1
    assert said.getvalue() == "refused: it is in the cut\n"


def test_show_says_how_far_the_cut_is_and_why_not_further(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The time up to which every cut view is complete, what holds it there, and who is out, each with its reason."""
    entry = Entry(
        line=Line(1, 5),
        committed_at=NOW,
        left={"orders": 1.0},
        frozen_by={"items": "gap"},
        missing={"orders": "anna took it out: its disk is gone"},
    )
    assert watermark_view.write(place.glue, "shop", entry)
    found = cut_verb.cut(place, NOW + timedelta(seconds=90))
    assert (found["seconds_behind"], found["closed"]) == (90.0, False)
    said = io.StringIO()
    arguments = parsed("cut", "show")
    assert arguments.verb(arguments, Console(file=said, width=200)) == 0
    assert said.getvalue().splitlines() == [
        "complete up to 2026-01-02T05:00:00+00:00",
        "items holds it back: gap",
        "orders is out of it: anna took it out: its disk is gone",
    ]
    arguments = parsed("cut", "show", "--json")
    assert arguments.verb(arguments, Console(file=said)) == 0
    assert json.loads(capsys.readouterr().out)["frozen_by"] == {"items": "gap"}
