"""Step Functions' service integrations, called over HTTP with the state machine's role, so that IAM judges them.

ministack walks the states (Choice, Map, Retry, Catch); here is what a Task's resource does. `.sync` waits for what was
started, and stops it when the execution is stopped or the state's time is up, as the service does.
"""

import contextvars
import datetime
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import path_filters, roles
from .settings import Settings

Task = Callable[["Workflows", "Circumstances", Any, bool], Any]

_POLL_SECONDS = 0.4
_MAX_DATA_BYTES = 256 * 1024
_RUN_ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED"})
_QUERY_ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})

# How an integration's name in a state machine differs from boto3's.
_BOTO_NAMES = {"sfn": "stepfunctions", "cloudwatchlogs": "logs", "eventbridge": "events"}
_ERROR_PREFIXES = {
    "athena": "Athena",
    "cloudwatch": "CloudWatch",
    "cloudwatchlogs": "CloudWatchLogs",
    "dynamodb": "DynamoDb",
    "eventbridge": "EventBridge",
    "glue": "Glue",
    "kinesis": "Kinesis",
    "lambda": "Lambda",
    "s3": "S3",
    "sfn": "Sfn",
    "sns": "Sns",
    "sqs": "Sqs",
    "ssm": "Ssm",
    "sts": "Sts",
}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The execution that a task belongs to, and when its state's time is up (monotonic seconds)."""

    execution: Mapping[str, Any]
    role: str
    deadline: float | None

    def check(self) -> None:
        """Raises when the execution was stopped, or the state's time is up."""
        if self.execution["status"] != "RUNNING":
            raise failure("ExecutionStopped", str(self.execution["executionArn"]))
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise failure("States.Timeout", "The state's TimeoutSeconds are over")


_circumstances: contextvars.ContextVar[Circumstances | None] = contextvars.ContextVar("task", default=None)


class Workflows:
    """Runs tasks; keeps one boto3 client a role and service."""

    def __init__(self, settings: Settings) -> None:
        self._endpoint = settings.endpoint
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._lock = threading.Lock()

    def client(self, role: str, service: str, principal: str = "states.amazonaws.com") -> Any:
        """A client that acts as the role. Raises RoleError."""
        import boto3
        from botocore.config import Config
        from ministack.core.responses import get_region

        name = _BOTO_NAMES.get(service, service)
        with self._lock:
            key = (role, name, get_region())
            if key not in self._clients:
                options = roles.assume(role, "workflow", principal).client_options() if role else _ADMINISTRATOR
                self._clients[key] = boto3.session.Session().client(
                    name,
                    endpoint_url=self._endpoint,
                    region_name=get_region(),
                    config=Config(read_timeout=920, max_pool_connections=50, retries={"max_attempts": 1}),
                    **options,
                )
            return self._clients[key]

    def call(self, role: str, service: str, action: str, request: Mapping[str, Any]) -> Any:
        """One API call. Raises an error that a state machine can catch under the service's name."""
        from botocore.exceptions import ClientError, ParamValidationError

        prefix = _ERROR_PREFIXES.get(service, service.capitalize())
        try:
            client = self.client(role, service)
            reply = getattr(client, _snake(action))(**request)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise failure(f"{prefix}.{code}", f"{error.response['Error']['Message']} (Service: {prefix})") from error
        except roles.RoleError as error:
            raise failure("States.Permissions", str(error)) from error
        except ParamValidationError as error:
            raise failure("States.Runtime", str(error)) from error
        except AttributeError as error:
            raise failure("States.Runtime", f"{service}:{action} is not an action of the service") from error
        reply.pop("ResponseMetadata", None)
        return reply

    def run(self, resource: str, request: Any, circumstances: Circumstances) -> Any:
        """Do what a Task's resource says; None of ours is left to ministack by the caller."""
        circumstances.check()
        service, action, sync = parse_resource(resource)
        task = _TASKS.get((service, action))
        if task is not None:
            return task(self, circumstances, request, sync)
        reply = self.call(circumstances.role, service.removeprefix("aws-sdk:"), action, request)
        return plain(reply, iso_time)


def parse_resource(resource: str) -> tuple[str, str, bool]:
    """Service, action and whether to wait, of an integration's ARN."""
    name = resource.removeprefix("arn:aws:states:::")
    name, waits, _ = name.partition(".sync")
    service, _, action = name.rpartition(":")
    return service, action, bool(waits)


def handles(resource: str) -> bool:
    """Whether a resource is ours; activities, callbacks and plain Lambda ARNs stay ministack's."""
    if not resource.startswith("arn:aws:states:::") or ".waitForTaskToken" in resource:
        return False
    service, action, _ = parse_resource(resource)
    return service.startswith("aws-sdk:") or (service, action) in _TASKS


def failure(error: str, cause: str) -> Exception:
    """An error that Retry and Catch of a state machine can match."""
    from ministack.services import stepfunctions

    raised: Exception = stepfunctions._ExecutionError(error, cause)
    return raised


def iso_time(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def epoch_millis(moment: datetime.datetime) -> int:
    return int(moment.timestamp() * 1000)


def plain(value: Any, time_form: Callable[[datetime.datetime], Any]) -> Any:
    """A client's answer as JSON: times in the integration's form, streams and bytes as text."""
    if isinstance(value, datetime.datetime):
        return time_form(value)
    if isinstance(value, Mapping):
        return {key: plain(member, time_form) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(member, time_form) for member in value]
    if hasattr(value, "read"):
        value = value.read()
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _start_job_run(workflows: Workflows, task: Circumstances, request: Any, sync: bool) -> Any:
    started = workflows.call(task.role, "glue", "startJobRun", request)
    if not sync:
        return {**started, "JobName": request["JobName"]}
    name, run_id = request["JobName"], started["JobRunId"]

    def look() -> Any:
        return workflows.call(task.role, "glue", "getJobRun", {"JobName": name, "RunId": run_id})["JobRun"]

    def stop() -> None:
        workflows.call(task.role, "glue", "batchStopJobRun", {"JobName": name, "JobRunIds": [run_id]})

    run = plain(_wait(task, look, lambda run: run["JobRunState"] in _RUN_ENDED, stop), epoch_millis)
    if run["JobRunState"] != "SUCCEEDED":
        raise failure("States.TaskFailed", json.dumps(run))
    return run


def _start_query_execution(workflows: Workflows, task: Circumstances, request: Any, sync: bool) -> Any:
    started = workflows.call(task.role, "athena", "startQueryExecution", request)
    if not sync:
        return started
    query = {"QueryExecutionId": started["QueryExecutionId"]}

    def look() -> Any:
        return workflows.call(task.role, "athena", "getQueryExecution", query)["QueryExecution"]

    def stop() -> None:
        workflows.call(task.role, "athena", "stopQueryExecution", query)

    shown = plain(_wait(task, look, lambda run: run["Status"]["State"] in _QUERY_ENDED, stop), epoch_millis)
    if shown["Status"]["State"] != "SUCCEEDED":
        raise failure("States.TaskFailed", json.dumps({"QueryExecution": shown}))
    return {"QueryExecution": shown}


def _start_execution(workflows: Workflows, task: Circumstances, request: Any, sync: bool) -> Any:
    given = request.get("Input", {})
    names = {
        "stateMachineArn": request["StateMachineArn"],
        "input": given if isinstance(given, str) else json.dumps(given),
    }
    names |= {"name": request["Name"]} if "Name" in request else {}
    started = workflows.call(task.role, "sfn", "startExecution", names)
    execution = {"executionArn": started["executionArn"]}
    if not sync:
        return {"ExecutionArn": started["executionArn"], "StartDate": iso_time(started["startDate"])}

    def look() -> Any:
        return workflows.call(task.role, "sfn", "describeExecution", execution)

    def stop() -> None:
        workflows.call(task.role, "sfn", "stopExecution", execution)

    ended = _wait(task, look, lambda shown: shown["status"] != "RUNNING", stop)
    shown = {key[0].upper() + key[1:]: value for key, value in plain(ended, epoch_millis).items()}
    if shown["Status"] != "SUCCEEDED":
        raise failure("States.TaskFailed", json.dumps(shown))
    return shown | {"Output": json.loads(shown.get("Output") or "{}")}


def _invoke_lambda(workflows: Workflows, task: Circumstances, request: Any, sync: bool) -> Any:
    payload = json.dumps(request.get("Payload", {})).encode()
    options = {key: request[key] for key in ("InvocationType", "Qualifier") if key in request}
    names = {"FunctionName": request["FunctionName"], "Payload": payload, **options}
    reply = workflows.call(task.role, "lambda", "invoke", names)
    body = reply["Payload"].read() or b"null"
    if reply.get("FunctionError"):
        raise failure(json.loads(body).get("errorType", "Lambda.Unknown"), body.decode())
    return {
        "ExecutedVersion": reply.get("ExecutedVersion", "$LATEST"),
        "Payload": json.loads(body),
        "StatusCode": reply["StatusCode"],
    }


def _publish(workflows: Workflows, task: Circumstances, request: Any, sync: bool) -> Any:
    message = request.get("Message", "")
    text = message if isinstance(message, str) else json.dumps(message)
    return plain(workflows.call(task.role, "sns", "publish", {**request, "Message": text}), iso_time)


def _send_message(workflows: Workflows, task: Circumstances, request: Any, sync: bool) -> Any:
    body = request.get("MessageBody", "")
    text = body if isinstance(body, str) else json.dumps(body)
    return plain(workflows.call(task.role, "sqs", "sendMessage", {**request, "MessageBody": text}), iso_time)


def _service_task(service: str, action: str) -> Task:
    def task(workflows: Workflows, circumstances: Circumstances, request: Any, sync: bool) -> Any:
        return plain(workflows.call(circumstances.role, service, action, request), iso_time)

    return task


def _wait(task: Circumstances, look: Callable[[], Any], ended: Callable[[Any], bool], stop: Callable[[], None]) -> Any:
    """Look until it has ended. When the execution is stopped first, or the state's time is up, stop it and raise."""
    while not ended(shown := look()):
        try:
            task.check()
        except Exception:
            stop()
            raise
        time.sleep(_POLL_SECONDS)
    return shown


_ADMINISTRATOR = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}

_TASKS: dict[tuple[str, str], Task] = {
    ("glue", "startJobRun"): _start_job_run,
    ("athena", "startQueryExecution"): _start_query_execution,
    ("athena", "getQueryExecution"): _service_task("athena", "getQueryExecution"),
    ("athena", "getQueryResults"): _service_task("athena", "getQueryResults"),
    ("athena", "stopQueryExecution"): _service_task("athena", "stopQueryExecution"),
    ("states", "startExecution"): _start_execution,
    ("lambda", "invoke"): _invoke_lambda,
    ("sns", "publish"): _publish,
    ("sqs", "sendMessage"): _send_message,
    ("dynamodb", "getItem"): _service_task("dynamodb", "getItem"),
    ("dynamodb", "putItem"): _service_task("dynamodb", "putItem"),
    ("dynamodb", "updateItem"): _service_task("dynamodb", "updateItem"),
    ("dynamodb", "deleteItem"): _service_task("dynamodb", "deleteItem"),
}


def install(workflows: Workflows) -> None:
    """Put the integrations in front of ministack's."""
    from ministack.services import stepfunctions

    execute_task, invoke_resource = stepfunctions._execute_task, stepfunctions._invoke_resource
    fail_execution = stepfunctions._fail_execution

    def execute(state: Mapping[str, Any], given: Any, execution: Mapping[str, Any], context: Any) -> Any:
        machine = stepfunctions._state_machines.get(execution["stateMachineArn"]) or {}
        timeout = state.get("TimeoutSeconds")
        deadline = time.monotonic() + timeout if isinstance(timeout, int | float) else None
        token = _circumstances.set(Circumstances(execution, str(machine.get("roleArn", "")), deadline))
        try:
            return execute_task(state, given, execution, context)
        finally:
            _circumstances.reset(token)

    def invoke(resource: str, request: Any) -> Any:
        circumstances = _circumstances.get()
        if circumstances is None or not handles(resource):
            return invoke_resource(resource, request)
        return workflows.run(resource, request, circumstances)

    def fail(execution: Mapping[str, Any], error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":  # one that was stopped stays ABORTED
            fail_execution(execution, error, cause)

    run_map_items = stepfunctions._run_map_items

    def map_items(state: Mapping[str, Any], given: Any, execution: Mapping[str, Any], context: Any) -> Any:
        """A Map with its concurrency from the state's input, where it says so."""
        path = state.get("MaxConcurrencyPath")
        bounded = state if path is None else {**state, "MaxConcurrency": int(resolve_path(path, given))}
        return run_map_items(bounded, given, execution, context)

    plain_path = stepfunctions._resolve_path

    def resolve_path(path: str, data: Any) -> Any:
        try:
            return path_filters.resolve(path, data, plain_path)
        except ValueError as error:
            raise failure("States.Runtime", str(error)) from error

    stepfunctions._resolve_path = resolve_path
    stepfunctions._run_map_items = map_items
    stepfunctions._execute_task = execute
    stepfunctions._fail_execution = fail
    stepfunctions._invoke_resource = invoke
    _hold_to_limits()


def _hold_to_limits() -> None:
    from ministack.services import stepfunctions

    run_sub_machine, apply_selector = stepfunctions._run_sub_machine, stepfunctions._apply_result_selector

    def selected(state: Mapping[str, Any], result: Any) -> Any:
        """The service holds a result to its limit before a selector makes it smaller."""
        check_size(result)
        return apply_selector(state, result)

    def sub_machine(*arguments: Any) -> Any:
        output = run_sub_machine(*arguments)
        check_size(output)
        return output

    stepfunctions._run_sub_machine, stepfunctions._apply_result_selector = sub_machine, selected


def check_size(data: Any) -> None:
    """Raises States.DataLimitExceeded where data are larger than a state may hand on."""
    size = len(json.dumps(data, default=str).encode())
    if size > _MAX_DATA_BYTES:
        raise failure("States.DataLimitExceeded", f"The state's data have {size} bytes, {_MAX_DATA_BYTES} are allowed")


def _snake(action: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", action).lower()
