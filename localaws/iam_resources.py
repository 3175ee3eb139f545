"""The resources that AWS judges for a request, where ministack judges another or none. Pure.

`resources` gives every ARN that must be allowed; a service that is missing here is ministack's.
"""

from collections.abc import Callable, Mapping
from typing import Any

from .iam_requests import Request

ALL = ("*",)

_GLUE_LISTS = frozenset({"GetJobs", "ListJobs", "BatchGetJobs", "GetSecurityConfigurations", "GetTriggers"})
_GLUE_UNNAMED = ("SecurityConfiguration", "DataCatalogEncryptionSettings", "ResourcePolicy", "ResourcePolicies")


def _glue(request: Request) -> tuple[str, ...]:
    """Glue judges a catalog object and all its ancestors; a deletion of a database also all that is in it."""
    if arn := request.text("ResourceArn"):
        return (arn,)
    operation, named = request.operation, request.text
    if operation in _GLUE_LISTS or operation.endswith(_GLUE_UNNAMED):
        return ALL
    if "Job" in operation:
        return (request.arn("glue", f"job/{named('JobName', 'Name')}"),)
    catalog = request.arn("glue", "catalog")
    if "Connection" in operation:
        name = named("ConnectionName", "Name") or _member(request, "ConnectionInput", "Name")
        return (catalog, request.arn("glue", f"connection/{name or '*'}"))
    database = named("DatabaseName")
    if database:
        tables = [named("Name", "TableName") or _member(request, "TableInput", "Name") or "*"]
        if operation == "BatchDeleteTable":
            tables = request.texts("TablesToDelete")
        return (
            catalog,
            request.arn("glue", f"database/{database}"),
            *(request.arn("glue", f"table/{database}/{table}") for table in tables),
        )
    if operation in ("GetDatabases", "SearchTables"):
        return (catalog,)
    name = named("Name") or _member(request, "DatabaseInput", "Name")
    found = (catalog, request.arn("glue", f"database/{name}"))
    if operation == "DeleteDatabase":
        return (*found, request.arn("glue", f"table/{name}/*"), request.arn("glue", f"userDefinedFunction/{name}/*"))
    return found


def _logs(request: Request) -> tuple[str, ...]:
    """Log groups are judged as `log-group:NAME:log-stream:STREAM`, with nothing behind it for the group alone."""
    if arn := request.text("resourceArn"):
        return (arn,)
    if request.operation.endswith(("Delivery", "Deliveries", "ResourcePolicy", "ResourcePolicies", "Destination")):
        return ALL
    group = request.text("logGroupName", "logGroupIdentifier", "logGroupNamePrefix")
    if group.startswith("arn:"):
        group = group.split(":")[6]
    if request.operation == "DescribeLogGroups":
        group = ""
    stream = request.text("logStreamName")
    return (request.arn("logs", f"log-group:{group}:log-stream:{stream}"),)


def _monitoring(request: Request) -> tuple[str, ...]:
    operation = request.operation
    if arn := request.text("ResourceARN"):
        return (arn,)
    if "Dashboard" in operation:
        names = request.texts("DashboardNames") or [request.text("DashboardName") or "*"]
        return tuple(f"arn:aws:cloudwatch::{request.account}:dashboard/{name}" for name in names)
    if operation in ("DescribeAlarms", "DescribeAlarmHistory"):
        return (request.arn("cloudwatch", "alarm:*"),)
    if "Alarm" in operation and operation != "DescribeAlarmsForMetric":
        names = request.texts("AlarmNames") or [request.text("AlarmName")]
        return tuple(request.arn("cloudwatch", f"alarm:{name}") for name in names)
    return ALL


def _scheduler(request: Request) -> tuple[str, ...]:
    parts = [part for part in request.path.split("/") if part]
    group = request.text("GroupName", "groupName") or "default"
    match parts:
        case ["schedules"]:
            return (request.arn("scheduler", "schedule/*/*"),)
        case ["schedules", name, *_]:
            return (request.arn("scheduler", f"schedule/{group}/{name}"),)
        case ["schedule-groups", name, *_]:
            return (request.arn("scheduler", f"schedule-group/{name}"),)
        case ["tags", *arn]:
            return ("/".join(arn),)
    return ALL


def _events(request: Request) -> tuple[str, ...]:
    """A rule of the default bus has no bus in its ARN."""
    if arn := request.text("ResourceARN"):
        return (arn,)
    bus = request.text("EventBusName").rpartition("/")[2] or "default"
    if request.operation in ("ListRules", "ListEventBuses", "ListRuleNamesByTarget"):
        return ALL
    if name := request.text("Rule") or ("Rule" in request.operation and request.text("Name")):
        return (request.arn("events", f"rule/{name}" if bus == "default" else f"rule/{bus}/{name}"),)
    if request.operation == "PutEvents":
        given = request.parameters.get("Entries") or []
        buses = {str(entry.get("EventBusName") or "default").rpartition("/")[2] for entry in given}
        return tuple(request.arn("events", f"event-bus/{each}") for each in sorted(buses)) or ALL
    name = request.text("Name", "EventBusName").rpartition("/")[2] or bus
    return (request.arn("events", f"event-bus/{name}"),)


def _states(request: Request) -> tuple[str, ...]:
    arn = request.text("resourceArn", "stateMachineArn", "executionArn", "activityArn")
    if arn:
        return (arn,)
    if name := request.text("name"):
        return (request.arn("states", f"stateMachine:{name}"),)
    return ALL


def _ssm(request: Request) -> tuple[str, ...]:
    if request.text("ResourceType") == "Parameter":
        return (request.arn("ssm", _parameter(request.text("ResourceId"))),)
    if request.operation == "DescribeParameters":
        return ALL
    names = request.texts("Names") or [request.text("Name", "Path")]
    return tuple(name if name.startswith("arn:") else request.arn("ssm", _parameter(name)) for name in names)


def _parameter(name: str) -> str:
    return f"parameter/{name.lstrip('/')}"


def _iam(request: Request) -> tuple[str, ...]:
    """Names with their paths where the request gives one; ARNs of what exists are the judge's to complete."""
    path = request.text("Path") or "/"
    if name := request.text("RoleName"):
        return (f"arn:aws:iam::{request.account}:role{path}{name}",)
    if request.operation == "CreatePolicy":
        return (f"arn:aws:iam::{request.account}:policy{path}{request.text('PolicyName')}",)
    if arn := request.text("PolicyArn"):
        return (arn,)
    if name := request.text("InstanceProfileName"):
        return (f"arn:aws:iam::{request.account}:instance-profile{path}{name}",)
    if name := request.text("AWSServiceName"):
        return (f"arn:aws:iam::{request.account}:role/aws-service-role/{name}/*",)
    if name := request.text("UserName"):
        return (f"arn:aws:iam::{request.account}:user{path}{name}",)
    return ALL


def _athena(request: Request) -> tuple[str, ...]:
    """What names its workgroup in the request; queries and named queries are the judge's to look up."""
    if arn := request.text("ResourceARN"):
        return (arn,)
    if request.operation in ("ListWorkGroups", "ListDataCatalogs", "ListEngineVersions"):
        return ALL
    if "DataCatalog" in request.operation or request.text("CatalogName"):
        return (request.arn("athena", f"datacatalog/{request.text('Name', 'CatalogName')}"),)
    if "WorkGroup" in request.operation:
        return (request.arn("athena", f"workgroup/{request.text('WorkGroup', 'Name')}"),)
    return (request.arn("athena", f"workgroup/{request.text('WorkGroup') or 'primary'}"),)


def _sns(request: Request) -> tuple[str, ...]:
    if arn := request.text("TopicArn", "TargetArn", "ResourceArn"):
        return (arn,)
    if arn := request.text("SubscriptionArn"):
        return (arn.rpartition(":")[0],)
    return (request.arn("sns", request.text("Name")),) if request.text("Name") else ALL


def _roles_anywhere(request: Request) -> tuple[str, ...]:
    """What is made has no name yet: it is judged as every one of its kind."""
    if arn := request.text("resourceArn"):
        return (arn,)
    kind, _, name = request.path.strip("/").partition("/")
    resource = "trust-anchor" if kind.startswith("trustanchor") else "profile"
    return (request.arn("rolesanywhere", f"{resource}/{name.partition('/')[0] or '*'}"),)


_RESOURCES: Mapping[str, Callable[[Request], tuple[str, ...]]] = {
    "athena": _athena,
    "events": _events,
    "glue": _glue,
    "iam": _iam,
    "logs": _logs,
    "monitoring": _monitoring,
    "rolesanywhere": _roles_anywhere,
    "scheduler": _scheduler,
    "sns": _sns,
    "ssm": _ssm,
    "states": _states,
}


def resources(request: Request) -> tuple[str, ...] | None:
    """Every ARN that the caller must be allowed the request's action on; None leaves it to ministack."""
    find = _RESOURCES.get(request.service)
    return find(request) if find else None


def context(request: Request) -> dict[str, Any]:
    """Condition keys that the request itself carries, beyond those that ministack knows."""
    found: dict[str, Any] = {}
    if request.service == "monitoring" and (namespace := request.text("Namespace")):
        found["cloudwatch:namespace"] = namespace
    if request.service == "iam":
        found["iam:policyarn"] = request.text("PolicyArn") or None
        found["iam:awsservicename"] = request.text("AWSServiceName") or None
        if request.operation in ("CreateRole", "PutRolePermissionsBoundary"):
            found["iam:permissionsboundary"] = request.text("PermissionsBoundary") or None
    return {key: value for key, value in found.items() if value is not None}


def _member(request: Request, parameter: str, name: str) -> str:
    value = request.parameters.get(parameter)
    return str(value.get(name, "")) if isinstance(value, Mapping) else ""
