"""Eras, the lease, and requests: what the agent shares with others through DynamoDB."""

from __future__ import annotations

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from ops.provision import dynamodb_table
from producer.blocks import Lane
from producer.era import LEASE_SECONDS, SPEAK_SECONDS, Lease
from producer.errors import AnotherAgent, ContinuityBroken
from producer.kinesis import KinesisStream, StreamIdentity, Unanswered, check_same
from producer.requests import Requests
from producer.spool import Resent
from schemas.position import Line, Position

TABLE = "headrace-sources"


@pytest.fixture
def dynamodb(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("dynamodb", region_name="eu-west-1")
        dynamodb_table(client, "sources", TABLE)
        yield client


def _lease(dynamodb, holder: str = "spool-a", now: float = 1000.0, spooled: Line | None = None) -> Lease:
    return Lease(dynamodb, TABLE, "shop", holder, lambda: spooled, clock=lambda: now)


def test_the_first_start_is_era_1(dynamodb):
    held = _lease(dynamodb).claim(0, new_era=False)
    assert (held.era, held.epoch) == (1, 1)


def test_the_same_spool_goes_on_in_its_era_at_once(dynamodb):
    """A restart after a crash need not wait for the lease to run out; it displaces whoever still runs on it."""
    first = _lease(dynamodb)
    first.claim(0, new_era=False)
    assert _lease(dynamodb).claim(1, new_era=False).era == 1
    with pytest.raises(AnotherAgent, match="took the lease"):
        first.renew()


def test_another_agent_is_refused_while_the_lease_lives(dynamodb):
    _lease(dynamodb).claim(0, new_era=False)
    for new_era in (False, True):
        with pytest.raises(AnotherAgent, match="another agent lives"):
            _lease(dynamodb, "spool-b", 1000 + LEASE_SECONDS - 1).claim(0, new_era=new_era)


def test_an_agent_that_cannot_renew_falls_silent_before_another_may_speak(dynamodb):
    """Counted from the last write that was carried out, so that a request under way ends before the lease does."""
    now = [1000.0]
    lease = Lease(dynamodb, TABLE, "shop", "spool-a", clock=lambda: now[0], monotonic=lambda: now[0])
    assert not lease.speaks()
    lease.claim(0, new_era=False)
    assert lease.speaks()
    now[0] += SPEAK_SECONDS - 1
    assert lease.speaks()
    now[0] += 1
    assert not lease.speaks()
    assert SPEAK_SECONDS + 20 < LEASE_SECONDS
    lease.renew()
    assert lease.speaks()


def test_another_spool_needs_a_new_era(dynamodb):
    """A lost spool is a break: the error names the remedy, and the remedy raises the era by one."""
    lease = _lease(dynamodb)
    lease.claim(0, new_era=False)
    lease.release()
    with pytest.raises(ContinuityBroken, match="--new-era"):
        _lease(dynamodb, "spool-b").claim(0, new_era=False)
    assert _lease(dynamodb, "spool-b").claim(0, new_era=True).era == 2


def test_a_spool_that_was_further_once_needs_a_new_era(dynamodb):
    """The lease remembers how far the spool had got: one that was restored from a backup would say other things now."""
    _lease(dynamodb).claim(0, new_era=False)
    newer = _lease(dynamodb, spooled=Line(1, 500))
    newer.claim(1, new_era=False)
    newer.renew()
    for spooled in (Line(1, 499), None):
        with pytest.raises(ContinuityBroken, match="restored from a backup"):
            _lease(dynamodb, spooled=spooled).claim(1, new_era=False)
    assert _lease(dynamodb, spooled=Line(1, 500)).claim(1, new_era=False).era == 1
    assert _lease(dynamodb, spooled=Line(1, 499)).claim(1, new_era=True).era == 2


def test_an_era_that_was_claimed_but_not_opened_is_opened_once(dynamodb):
    """Killed between the conditional write and its own note, the agent finds the raised era and stays in it."""
    _lease(dynamodb).claim(0, new_era=False)
    assert _lease(dynamodb).claim(1, new_era=True).era == 2
    assert _lease(dynamodb).claim(1, new_era=False).era == 2
    assert _lease(dynamodb).claim(1, new_era=True).era == 2


def test_of_two_claims_at_once_one_wins(dynamodb):
    """The write is conditional on what was read: the loser stops."""
    loser = _lease(dynamodb, "spool-b")
    read = loser._read
    loser._read = lambda: (read(), _lease(dynamodb).claim(0, new_era=False))[0]
    with pytest.raises(AnotherAgent):
        loser.claim(0, new_era=False)


def test_a_repeated_write_whose_answer_was_lost_is_our_own(dynamodb):
    """A client that retries a conditional write reads a failed condition; the lease is held all the same."""
    lease = _lease(dynamodb)
    update = dynamodb.update_item

    class Twice:
        exceptions = dynamodb.exceptions
        get_item = dynamodb.get_item

        def update_item(self, **request):
            update(**request)
            return update(**request)

    lease._dynamodb = Twice()
    assert lease.claim(0, new_era=False).epoch == 1


def test_a_recreated_stream_is_a_break():
    check_same(None, StreamIdentity("arn", "2026"))
    check_same("arn 2026", StreamIdentity("arn", "2026"))
    with pytest.raises(ContinuityBroken, match="recreated"):
        check_same("arn 2026", StreamIdentity("arn", "2027"))


def test_a_failed_request_has_an_unknown_outcome():
    """Whatever boto3 raises, the caller learns that it may have been carried out."""

    class Client:
        def put_records(self, **_):
            raise ClientError({"Error": {"Code": "InternalFailure"}}, "PutRecords")

    with pytest.raises(Unanswered):
        KinesisStream(Client(), "headrace").put([])


class Snapshots:
    def __init__(self) -> None:
        self.requested: list[str] = []

    def tables(self) -> list[str]:
        return ["accounts"]

    def request(self, table: str) -> None:
        self.requested.append(table)


class Resends:
    def __init__(self, held: int, damaged: int = 0) -> None:
        self.held = Resent(held, damaged)
        self.asked: list[tuple] = []

    def resend(self, *asked) -> Resent:
        self.asked.append(asked)
        return self.held


def _ask(dynamodb, **attributes: str) -> None:
    item = {"source": "shop", "item": "request:1", **attributes}
    dynamodb.put_item(TableName=TABLE, Item={key: {"S": value} for key, value in item.items()})


def _answer(dynamodb) -> tuple[str, str]:
    item = dynamodb.get_item(TableName=TABLE, Key={"source": {"S": "shop"}, "item": {"S": "request:1"}})["Item"]
    return item["status"]["S"], item["detail"]["S"]


def test_a_resend_is_carried_out_once(dynamodb):
    _ask(dynamodb, kind="resend", table="accounts", lane="0", after="[1,2,3]", last="[1,9,0]")
    spool = Resends(held=2)
    requests = Requests(dynamodb, TABLE, "shop", spool, Snapshots())
    assert [requests.answer_all(), requests.answer_all()] == [1, 0]
    assert spool.asked == [(Lane("accounts", "0"), Position(1, 2, 3), Position(1, 9, 0))]
    assert _answer(dynamodb)[0] == "done"


@pytest.mark.parametrize(("held", "damaged", "told"), [(0, 0, "unavailable"), (0, 2, "unavailable"), (1, 2, "done")])
def test_a_resend_that_the_spool_cannot_give_whole_says_so(dynamodb, held, damaged, told):
    _ask(dynamodb, kind="resend", table="accounts", lane="0", last="[1,9,0]")
    Requests(dynamodb, TABLE, "shop", Resends(held, damaged), Snapshots()).answer_all()
    status, detail = _answer(dynamodb)
    assert (status, "resnapshot" in detail, "2 are damaged" in detail) == (told, True, damaged > 0)


@pytest.mark.parametrize(
    "request_",
    [
        {"kind": "resend", "table": "accounts"},
        {"kind": "erase", "table": "accounts"},
        {"kind": "resnapshot", "table": "unknown"},
        {"kind": "resend", "table": "accounts", "lane": "0", "last": "tomorrow"},
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_the_reason(dynamodb, request_):
    _ask(dynamodb, **request_)
    snapshots = Snapshots()
    Requests(dynamodb, TABLE, "shop", Resends(held=1), snapshots).answer_all()
    assert (_answer(dynamodb)[0], snapshots.requested) == ("refused", [])


def test_a_resnapshot_is_passed_on(dynamodb):
    _ask(dynamodb, kind="resnapshot", table="accounts")
    snapshots = Snapshots()
    Requests(dynamodb, TABLE, "shop", Resends(held=1), snapshots).answer_all()
    assert (_answer(dynamodb)[0], snapshots.requested) == ("done", ["accounts"])
