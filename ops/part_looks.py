"""One look a kind of part: asks the part's service whether it exists and can do its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final


@dataclass(frozen=True)
class Seen:
    """What a look at an existing part found."""

    state: str
    hint: str = ""
    works: bool = True


class NotThere(Exception):
    """Raised by a look whose service answers an empty list for what does not exist."""


def _stream(kinesis: Any, name: str) -> Seen:
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    shards, hours = summary["OpenShardCount"], summary["RetentionPeriodHours"]
    return Seen(summary["StreamStatus"], f"{shards} shards, {hours} h retention", _can_work(summary["StreamStatus"]))


def _bucket(s3: Any, name: str) -> Seen:
    s3.head_bucket(Bucket=name)
    return Seen("THERE")


def _table(dynamodb: Any, name: str) -> Seen:
    status = dynamodb.describe_table(TableName=name)["Table"]["TableStatus"]
    return Seen(status, works=_can_work(status))


def _database(glue: Any, name: str) -> Seen:
    glue.get_database(Name=name)
    return Seen("THERE")


def _job(glue: Any, name: str) -> Seen:
    glue.get_job(JobName=name)
    runs = glue.get_job_runs(JobName=name, MaxResults=1)["JobRuns"]
    if not runs:
        return Seen("NEVER RUN", "its workflow starts it on schedule")
    state = runs[0]["JobRunState"]
    failed = state in ("FAILED", "TIMEOUT", "ERROR")
    return Seen(state, _first_line(runs[0].get("ErrorMessage", "see its log")) if failed else _run_age(runs[0]))


def _function(lambdas: Any, name: str) -> Seen:
    state = lambdas.get_function_configuration(FunctionName=name).get("State", "Active")
    return Seen(state.upper(), works=state in ("Active", "Inactive"))


def _workflow(states: Any, arn: str) -> Seen:
    status = states.describe_state_machine(stateMachineArn=arn)["status"]
    executions = states.list_executions(stateMachineArn=arn, maxResults=1)["executions"]
    last = f"last execution {executions[0]['status']}" if executions else "not executed yet"
    return Seen(status, last, status == "ACTIVE")


def _schedule(scheduler: Any, name: str) -> Seen:
    found = scheduler.get_schedule(Name=name)
    works = found.get("State", "ENABLED") == "ENABLED"
    return Seen(found.get("State", "ENABLED"), found["ScheduleExpression"] if works else "enable it again", works)


def _workgroup(athena: Any, name: str) -> Seen:
    try:
        state = athena.get_work_group(WorkGroup=name)["WorkGroup"].get("State", "ENABLED")
    except athena.exceptions.InvalidRequestException as error:  # Athena has no code of its own for it
        if "not found" in str(error):
            raise NotThere from error
        raise
    return Seen(state, works=state == "ENABLED")


def _key(kms: Any, arn: str) -> Seen:
    state = kms.describe_key(KeyId=arn)["KeyMetadata"].get("KeyState", "Enabled")
    works = state == "Enabled"
    return Seen(state.upper(), "" if works else "nothing can be read or written: cancel its deletion, enable it", works)


def _role(iam: Any, arn: str) -> Seen:
    iam.get_role(RoleName=_last(arn))
    return Seen("THERE")


def _secret(secrets: Any, name: str) -> Seen:
    found = secrets.describe_secret(SecretId=name)
    if found.get("DeletedDate"):
        return Seen("TO BE DELETED", "restore it: aws secretsmanager restore-secret", False)
    has_value = bool(found.get("VersionIdsToStages"))
    return Seen("THERE" if has_value else "EMPTY", "" if has_value else "put its value; Terraform never does")


def _topic(sns: Any, arn: str) -> Seen:
    attributes = sns.get_topic_attributes(TopicArn=arn)["Attributes"]
    confirmed = int(attributes.get("SubscriptionsConfirmed", 0))
    pending = int(attributes.get("SubscriptionsPending", 0))
    if confirmed:
        return Seen("THERE", f"{confirmed} subscribed")
    return Seen("THERE", f"{pending} must confirm by mail" if pending else "nobody is subscribed: alarms reach no one")


def _queue(sqs: Any, name: str) -> Seen:
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    names = ["ApproximateNumberOfMessages"]
    count = int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"][names[0]])
    return Seen("THERE", f"{count} undelivered: docs/operations.md, dead-letters" if count else "empty")


def _rule(events: Any, name: str) -> Seen:
    state = events.describe_rule(Name=name)["State"]
    if not events.list_targets_by_rule(Rule=name)["Targets"]:
        return Seen(state, "it has no target: `terraform apply` gives it one", False)
    return Seen(state, works=state == "ENABLED")


def _dashboard(cloudwatch: Any, name: str) -> Seen:
    cloudwatch.get_dashboard(DashboardName=name)
    return Seen("THERE")


def _log_group(logs: Any, name: str) -> Seen:
    groups = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    found = next((group for group in groups if group["logGroupName"] == name), None)
    if found is None:
        raise NotThere
    days = found.get("retentionInDays")
    return Seen("THERE", f"{days} days" if days else "kept for ever: its retention was taken away")


def _endpoint(ec2: Any, identity: str) -> Seen:
    found = ec2.describe_vpc_endpoints(VpcEndpointIds=[identity])["VpcEndpoints"]
    if not found or found[0]["State"].lower() in ("deleted", "deleting"):
        raise NotThere
    return Seen(found[0]["State"].upper(), found[0]["ServiceName"], found[0]["State"].lower() == "available")


def _vpn(ec2: Any, identity: str) -> Seen:
    found = ec2.describe_vpn_connections(VpnConnectionIds=[identity])["VpnConnections"]
    if not found or found[0]["State"] in ("deleted", "deleting"):
        raise NotThere
    tunnels = found[0].get("VgwTelemetry", [])
    up = sum(tunnel["Status"] == "UP" for tunnel in tunnels)
    return Seen(found[0]["State"].upper(), f"{up} of {len(tunnels)} tunnels up", found[0]["State"] == "available")


def _connection(glue: Any, name: str) -> Seen:
    glue.get_connection(Name=name)
    return Seen("THERE")


def _alarm(cloudwatch: Any, name: str) -> Seen:
    answer = cloudwatch.describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    found = [*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])]
    if not found:
        raise NotThere
    alarm = found[0]
    return Seen(alarm["StateValue"], alarm.get("AlarmDescription", "") if alarm["StateValue"] == "ALARM" else "")


Look = Callable[[Any, str], Seen]

LOOKS: Final[Mapping[str, tuple[str, Look]]] = {
    "stream": ("kinesis", _stream),
    "bucket": ("s3", _bucket),
    "table": ("dynamodb", _table),
    "database": ("glue", _database),
    "job": ("glue", _job),
    "function": ("lambda", _function),
    "workflow": ("stepfunctions", _workflow),
    "schedule": ("scheduler", _schedule),
    "workgroup": ("athena", _workgroup),
    "key": ("kms", _key),
    "role": ("iam", _role),
    "secret": ("secretsmanager", _secret),
    "topic": ("sns", _topic),
    "queue": ("sqs", _queue),
    "rule": ("events", _rule),
    "dashboard": ("cloudwatch", _dashboard),
    "log group": ("logs", _log_group),
    "endpoint": ("ec2", _endpoint),
    "vpn": ("ec2", _vpn),
    "connection": ("glue", _connection),
    "alarm": ("cloudwatch", _alarm),
}


def _can_work(status: str) -> bool:
    return status in ("ACTIVE", "UPDATING")


def _last(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0][:160]


def _run_age(run: Mapping[str, Any]) -> str:
    started = run.get("StartedOn")
    if not isinstance(started, datetime):
        return ""
    minutes = (datetime.now(UTC) - started.astimezone(UTC)).total_seconds() / 60
    return f"started {minutes:.0f} min ago" if minutes < 120 else f"started {minutes / 60:.0f} h ago"
