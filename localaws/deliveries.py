"""What CloudWatch's alarms and EventBridge's rules deliver in their own name, in no role.

The policy of the topic or queue must admit the service, and the policy of the key that encrypts it as well; on AWS a
message that is not admitted is dropped, and nobody is told.
"""

import contextvars
import logging
from collections.abc import Mapping
from typing import Any

from .iam_decisions import Decision, Decisions, Statement
from .iam_existing import key_arn

logger = logging.getLogger("localaws.deliveries")

_CLOUDWATCH, _EVENTS = "cloudwatch.amazonaws.com", "events.amazonaws.com"
_KEY_ACTIONS = ("kms:GenerateDataKey", "kms:Decrypt")

_rule_arn: contextvars.ContextVar[str] = contextvars.ContextVar("rule_arn", default="")


class Deliveries:
    """Judges services by the policies of what they deliver to; remembers it with the other decisions."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions

    def admitted(
        self, service: str, action: str, resource: str, policy: Any, key: str | None, context: Mapping[str, str]
    ) -> bool:
        """Whether the resource's policy, and its key's, let the service deliver; all is admitted while IAM is off."""
        from ministack import app

        if not app.AUTH:
            return True
        arn = key_arn(key) if key else None
        asked = [(action, resource, policy), *((each, arn, _key_policy(arn)) for each in _KEY_ACTIONS if arn)]
        return all(self._one(service, *each, context) for each in asked)

    def _one(self, service: str, action: str, resource: str, policy: Any, context: Mapping[str, str]) -> bool:
        from ministack.core.iam_evaluator import EvalContext, evaluate_resource_policy
        from ministack.core.responses import get_account_id, get_region

        asked = EvalContext(
            principal_arn=service,
            principal_type="Service",
            principal_account=get_account_id(),
            action=action,
            resource_arn=resource,
            region=get_region(),
            secure_transport=True,
            service_context={**context, "aws:principalisawsservice": "true"},
        )
        result = evaluate_resource_policy(policy, asked, service=service)
        if result.decision == "Allow":
            statement = Statement("", f"policy of {resource}", result.matched_sid)
            self._decisions.remember(Decision(service, action, resource, statement))
            return True
        self._decisions.remember(Decision(service, action, resource, refusal="the resource's policy does not admit it"))
        logger.warning("%s may not %s on %s: the message is dropped, as on AWS", service, action, resource)
        return False


def _key_policy(key: str | None) -> Any:
    from ministack.services import kms

    return (kms._resolve_key(key) or {}).get("Policy")


def install(deliveries: Deliveries) -> None:
    """Ask before an alarm's action, and before an event reaches a topic or a queue."""
    from ministack.core.responses import get_account_id
    from ministack.services import cloudwatch, eventbridge, sns, sqs

    act, invoke = cloudwatch._dispatch_alarm_actions, eventbridge._invoke_target
    to_topic, to_queue = eventbridge._dispatch_to_sns, eventbridge._dispatch_to_sqs

    def topic_admits(service: str, arn: str, context: Mapping[str, str]) -> bool:
        attributes = (sns._topics.get(arn) or {}).get("attributes", {})
        policy, key = attributes.get("Policy"), attributes.get("KmsMasterKeyId")
        return deliveries.admitted(service, "sns:Publish", arn, policy, key, context)

    def act_admitted(alarm: Mapping[str, Any], old: str, new: str, reason: str) -> None:
        account = get_account_id()
        context = {"aws:sourcearn": str(alarm.get("AlarmArn", ""))}
        context |= {"aws:sourceaccount": account, "aws:sourceowner": account}  # the latter is in a topic's first policy
        field = _ACTIONS[new]
        admitted = [
            arn
            for arn in alarm.get(field) or []
            if not cloudwatch._is_sns_action_arn(arn) or topic_admits(_CLOUDWATCH, arn, context)
        ]
        act({**alarm, field: admitted}, old, new, reason)

    def invoke_for_rule(target: Any, event: Any, rule: Any, *more: Any, **named: Any) -> Any:
        token = _rule_arn.set(str(rule.get("Arn", "")) if isinstance(rule, Mapping) else "")
        try:
            return invoke(target, event, rule, *more, **named)
        finally:
            _rule_arn.reset(token)

    def to_admitting_topic(arn: str, payload: str) -> None:
        # EventBridge gives a topic's policy neither a source account nor an ARN.
        if topic_admits(_EVENTS, arn, {}):
            to_topic(arn, payload)

    def to_admitting_queue(spec: Any, payload: str, parameters: Any = None) -> None:
        attributes = (sqs._queue_by_arn(str(spec)) or {}).get("attributes", {})
        context = {"aws:sourceaccount": get_account_id(), "aws:sourcearn": _rule_arn.get()}
        policy, key = attributes.get("Policy"), attributes.get("KmsMasterKeyId")
        if deliveries.admitted(_EVENTS, "sqs:SendMessage", str(spec), policy, key, context):
            to_queue(spec, payload, parameters)

    cloudwatch._dispatch_alarm_actions, eventbridge._invoke_target = act_admitted, invoke_for_rule
    eventbridge._dispatch_to_sns, eventbridge._dispatch_to_sqs = to_admitting_topic, to_admitting_queue


_ACTIONS = {"ALARM": "AlarmActions", "OK": "OKActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}
