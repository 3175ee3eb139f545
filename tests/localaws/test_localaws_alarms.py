"""An alarm made in the query protocol is described as it was made."""

import urllib.parse
import urllib.request
from collections.abc import Mapping

from localaws.alarms import as_xml, nested
from localaws.process import LocalAws


def asked(aws: LocalAws, action: str, parameters: Mapping[str, str]) -> str:
    """The answer to a request in the query protocol, which boto3 no longer speaks to CloudWatch."""
    body = urllib.parse.urlencode({"Action": action, "Version": "2010-08-01", **parameters}).encode()
    scope = "test/20260101/us-east-1/monitoring/aws4_request"
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none",
    }
    request = urllib.request.Request(aws.endpoint, body, headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(reply.read().decode())


ALARM = {"EvaluationPeriods": "3", "Threshold": "0", "ComparisonOperator": "GreaterThanThreshold"}


def test_all_fields_of_an_alarm_come_back(aws: LocalAws) -> None:
    asked(
        aws,
        "PutMetricAlarm",
        ALARM
        | {
            "AlarmName": "one",
            "AlarmDescription": "a < b & c",
            "Namespace": "AWS/Kinesis",
            "MetricName": "IncomingBytes",
            "Statistic": "Sum",
            "Period": "60",
            "TreatMissingData": "breaching",
            "Dimensions.member.1.Name": "StreamName",
            "Dimensions.member.1.Value": "headrace",
            "AlarmActions.member.1": "arn:aws:sns:us-east-1:000000000000:alarms",
        },
    )
    answer = asked(aws, "DescribeAlarms", {"AlarmNames.member.1": "one"})
    for element in (
        "<AlarmDescription>a &lt; b &amp; c</AlarmDescription>",
        "<Period>60</Period>",
        "<Statistic>Sum</Statistic>",
        "<TreatMissingData>breaching</TreatMissingData>",
        "<ActionsEnabled>true</ActionsEnabled>",
        "<Dimensions><member><Name>StreamName</Name><Value>headrace</Value></member></Dimensions>",
        "<AlarmActions><member>arn:aws:sns:us-east-1:000000000000:alarms</member></AlarmActions>",
    ):
        assert element in answer


def test_alarm_over_several_metrics_keeps_its_expression(aws: LocalAws) -> None:
    asked(
        aws,
        "PutMetricAlarm",
        ALARM
        | {
            "AlarmName": "sum",
            "Metrics.member.1.Id": "total",
            "Metrics.member.1.Expression": "m0+m1",
            "Metrics.member.1.ReturnData": "true",
            "Metrics.member.2.Id": "m0",
            "Metrics.member.2.MetricStat.Metric.MetricName": "ReadThrottleEvents",
            "Metrics.member.2.MetricStat.Metric.Dimensions.member.1.Name": "TableName",
            "Metrics.member.2.MetricStat.Metric.Dimensions.member.1.Value": "headrace-shards",
            "Metrics.member.2.MetricStat.Period": "60",
            "Metrics.member.2.MetricStat.Stat": "Sum",
        },
    )
    described = aws.client("cloudwatch").describe_alarms(AlarmNames=["sum"])["MetricAlarms"][0]
    assert "MetricName" not in described
    assert described["Metrics"][0] == {"Id": "total", "Expression": "m0+m1", "ReturnData": True}
    assert described["Metrics"][1]["MetricStat"]["Metric"]["Dimensions"] == [
        {"Name": "TableName", "Value": "headrace-shards"}
    ]


def test_lists_keep_the_order_of_their_numbers() -> None:
    assert nested({f"A.member.{number}": str(number) for number in (10, 2, 1)}) == {"A": ["1", "2", "10"]}


def test_times_are_spelled_out() -> None:
    assert as_xml({"StateUpdatedTimestamp": 0}) == (
        "<StateUpdatedTimestamp>1970-01-01T00:00:00Z</StateUpdatedTimestamp>"
    )
