"""CloudWatch alarms in the query protocol of Terraform's provider: ministack answers it with half of the fields.

Alarms over several metrics are kept with their expressions, and stay as they were made: they are not evaluated.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

Answer = tuple[int, dict[str, str], bytes]

_ONE_METRIC = ("MetricName", "Namespace", "Statistic", "Period", "Dimensions")


def install() -> None:
    """Let alarms be made and described whole in the query protocol; the other protocols stay ministack's own."""
    from ministack.services import cloudwatch

    put, describe = cloudwatch._put_metric_alarm, cloudwatch._describe_alarms

    def put_metric_alarm(params: Any, data: dict[str, Any], is_cbor: bool, is_json: bool = False) -> Answer:
        answer: Answer = put(params, data, is_cbor, is_json)
        request = data if is_cbor or is_json else nested(params)
        if answer[0] == 200 and request.get("Metrics"):
            alarm = cloudwatch._alarms[request["AlarmName"]]
            for name in _ONE_METRIC:
                alarm.pop(name, None)
            alarm["Metrics"] = request["Metrics"]
        return answer

    def describe_alarms(params: Any, data: dict[str, Any], is_cbor: bool, is_json: bool = False) -> Answer:
        if is_cbor or is_json:
            other: Answer = describe(params, data, is_cbor, is_json)
            return other
        answer: Answer = describe(params, nested(params), False, True)
        if answer[0] != 200:
            failed: Answer = describe(params, {}, False, False)
            return failed
        inner = f"<DescribeAlarmsResult>{as_xml(json.loads(answer[2]))}</DescribeAlarmsResult>"
        described: Answer = cloudwatch._xml(200, "DescribeAlarmsResponse", inner)
        return described

    cloudwatch._put_metric_alarm, cloudwatch._describe_alarms = put_metric_alarm, describe_alarms


def nested(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Flat parameters (`Metrics.member.1.Id=a`) as the structure that they spell, lists in their numbers' order."""
    tree: dict[str, Any] = {}
    for path, value in parameters.items():
        *folders, leaf = path.split(".")
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
        at[leaf] = _typed(leaf, value[0] if isinstance(value, list) else value)
    return dict(_without_members(tree))


def as_xml(value: Any, name: str = "") -> str:
    """The XML inside an element: members of lists are called so, and times are spelled out."""
    if isinstance(value, Mapping):
        return "".join(_element(key, each) for key, each in value.items() if each is not None)
    if isinstance(value, list):
        return "".join(_element("member", each) for each in value)
    if isinstance(value, bool):
        return str(value).lower()
    if name.endswith("Timestamp"):
        return datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
    return escape(str(value))


def _element(name: str, value: Any) -> str:
    return f"<{name}>{as_xml(value, name)}</{name}>"


def _typed(name: str, value: str) -> str | int | bool:
    if name == "Period":
        return int(value)
    return value == "true" if name == "ReturnData" else value


def _without_members(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        yield name, _listed(value) if isinstance(value, Mapping) else value


def _listed(tree: Mapping[str, Any]) -> Any:
    if set(tree) != {"member"}:
        return dict(_without_members(tree))
    members = sorted(tree["member"].items(), key=lambda pair: int(pair[0]))
    return [_listed(value) if isinstance(value, Mapping) else value for _, value in members]
