"""Alarms and events reach a topic or queue only where its policy, and its key's, admit the service."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from localaws.process import LocalAws

ACCOUNT = "000000000000"
ROOT = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*"}
OTHER_ALARMS = {"aws:SourceArn": f"arn:aws:cloudwatch:*:{ACCOUNT}:alarm:b*"}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def admitting(service: str, *actions: str, **condition: Any) -> dict[str, Any]:
    more = {"Condition": condition} if condition else {}
    return {"Effect": "Allow", "Principal": {"Service": service}, "Action": list(actions), "Resource": "*", **more}


@pytest.fixture
def queue(guarded: LocalAws) -> tuple[str, str]:
    sqs = guarded.client("sqs")
    url = sqs.create_queue(QueueName="heard")["QueueUrl"]
    sqs.purge_queue(QueueUrl=url)
    return url, f"arn:aws:sqs:us-east-1:{ACCOUNT}:heard"


def said(aws: LocalAws, service: str, action: str, resource: str) -> tuple[int, int]:
    """How often a service was allowed and refused."""
    found = [
        (each["allowed"], each["denied"])
        for each in aws.decisions()["decisions"]
        if (each["principal"], each["action"], each["resource"]) == (service, action, resource)
    ]
    return found[0] if found else (0, 0)


@pytest.mark.parametrize(
    ("topic_statement", "key_statement", "refused"),
    [
        (admitting("cloudwatch.amazonaws.com", "sns:Publish"), ["kms:GenerateDataKey*", "kms:Decrypt"], ""),
        (admitting("cloudwatch.amazonaws.com", "sns:Publish"), [], "kms:GenerateDataKey"),
        (admitting("cloudwatch.amazonaws.com", "sns:Publish"), ["kms:GenerateDataKey*"], "kms:Decrypt"),
        (admitting("events.amazonaws.com", "sns:Publish"), ["kms:*"], "sns:Publish"),
        (admitting("cloudwatch.amazonaws.com", "sns:Publish", ArnLike=OTHER_ALARMS), ["kms:*"], "sns:Publish"),
    ],
)  # fmt: skip
def test_alarm_on_an_encrypted_topic(
    guarded: LocalAws, topic_statement: dict[str, Any], key_statement: list[str], refused: str
) -> None:
    """The topic must admit CloudWatch for this alarm, and the key must admit it for both of its actions."""
    grants = [admitting("cloudwatch.amazonaws.com", *key_statement)] if key_statement else []
    key = guarded.client("kms").create_key(Policy=policy(ROOT, *grants))["KeyMetadata"]["Arn"]
    sns, cloudwatch = guarded.client("sns"), guarded.client("cloudwatch")
    topic = sns.create_topic(Name="alarmed")["TopicArn"]
    for name, value in (("KmsMasterKeyId", key), ("Policy", policy(topic_statement))):
        sns.set_topic_attributes(TopicArn=topic, AttributeName=name, AttributeValue=value)
    cloudwatch.put_metric_alarm(
        AlarmName="a", MetricName="m", Namespace="n", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold", AlarmActions=[topic],
    )  # fmt: skip
    guarded.forget_decisions()
    cloudwatch.set_alarm_state(AlarmName="a", StateValue="ALARM", StateReason="test")
    asked = {"sns:Publish": topic, "kms:GenerateDataKey": key, "kms:Decrypt": key}
    if refused:
        assert said(guarded, "cloudwatch.amazonaws.com", refused, asked[refused]) == (0, 1)
    else:
        for action, resource in asked.items():
            assert said(guarded, "cloudwatch.amazonaws.com", action, resource) == (1, 0)
    cloudwatch.delete_alarms(AlarmNames=["a"])
    sns.delete_topic(TopicArn=topic)


@pytest.mark.parametrize(("rules", "arrives"), [("rule/mine*", True), ("rule/others*", False)])
def test_event_reaches_a_queue_that_admits_its_rule(
    guarded: LocalAws, queue: tuple[str, str], until: Callable[..., Any], rules: str, arrives: bool
) -> None:
    url, arn = queue
    condition = {"aws:SourceArn": f"arn:aws:events:us-east-1:{ACCOUNT}:{rules}"}
    statement = admitting("events.amazonaws.com", "sqs:SendMessage", ArnLike=condition)
    guarded.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy(statement)})
    events = guarded.client("events")
    events.put_rule(Name="mine", EventPattern=json.dumps({"source": ["test"]}))
    events.put_targets(Rule="mine", Targets=[{"Id": "q", "Arn": arn}])
    guarded.forget_decisions()
    events.put_events(Entries=[{"Source": "test", "DetailType": "d", "Detail": "{}"}])
    until(lambda: said(guarded, "events.amazonaws.com", "sqs:SendMessage", arn), lambda found: sum(found) == 1)

    def heard() -> list[Any]:
        return list(guarded.client("sqs").receive_message(QueueUrl=url).get("Messages", []))

    if arrives:
        assert len(until(heard, bool)) == 1
    else:
        assert heard() == []


def test_event_reaches_a_topic_only_by_a_statement_without_a_source(
    guarded: LocalAws, until: Callable[..., Any]
) -> None:
    """EventBridge brings no source account to a topic's policy: a condition on it admits nobody."""
    sns, events = guarded.client("sns"), guarded.client("events")
    topic = sns.create_topic(Name="evented")["TopicArn"]
    events.put_rule(Name="tells", EventPattern=json.dumps({"source": ["tell"]}))
    events.put_targets(Rule="tells", Targets=[{"Id": "t", "Arn": topic}])
    source = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    for condition, expected in ((source, (0, 1)), ({}, (1, 0))):
        statement = admitting("events.amazonaws.com", "sns:Publish", **condition)
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy(statement))
        guarded.forget_decisions()
        events.put_events(Entries=[{"Source": "tell", "DetailType": "d", "Detail": "{}"}])
        until(
            lambda: said(guarded, "events.amazonaws.com", "sns:Publish", topic),
            lambda found, wanted=expected: found == wanted,
        )
