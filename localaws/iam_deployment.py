"""What a deployment's requests are judged on, where ministack judges all of a service: EC2, and things' tags.

EC2 judges what a request makes (by the tags that it asks for) and what it names (by the tags that this has).
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .iam_requests import Request

_ALL = ("*",)
_ID = re.compile(r"([a-z]+)-[0-9a-f]{8,17}")

# EC2's ids by their prefix, and the types that its requests make.
_KINDS = {
    "acl": "network-acl",
    "cgw": "customer-gateway",
    "fl": "vpc-flow-log",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "subnet": "subnet",
    "vgw": "vpn-gateway",
    "vpc": "vpc",
    "vpce": "vpc-endpoint",
    "vpn": "vpn-connection",
}
_MADE = {
    "AuthorizeSecurityGroupEgress": "security-group-rule",
    "AuthorizeSecurityGroupIngress": "security-group-rule",
    "CreateCustomerGateway": "customer-gateway",
    "CreateFlowLogs": "vpc-flow-log",
    "CreateRouteTable": "route-table",
    "CreateSecurityGroup": "security-group",
    "CreateSubnet": "subnet",
    "CreateVpc": "vpc",
    "CreateVpcEndpoint": "vpc-endpoint",
    "CreateVpnConnection": "vpn-connection",
    "CreateVpnGateway": "vpn-gateway",
}
_SPECIFIED_TAG = re.compile(r"TagSpecification\.\d+\.Tag\.\d+\.Key")


def resources(request: Request) -> tuple[str, ...] | None:
    """Every ARN that the caller must be allowed the request's action on; None leaves it to the others."""
    if request.service == "ec2":
        return _ec2(request)
    if request.service == "dynamodb" and (arn := request.text("ResourceArn")):
        return (arn,)
    if request.service == "lambda" and request.operation == "CreateFunction":
        return (request.arn("lambda", f"function:{request.text('FunctionName')}"),)
    return None


def context(request: Request, resource: str) -> dict[str, Any]:
    """Condition keys for one of the request's resources: only what is made has the tags that the request asks for."""
    if request.service != "ec2" or not resource.endswith("/*"):
        return {}
    tags = dict(_specified_tags(request))
    found: dict[str, Any] = {f"aws:requesttag/{key}".lower(): value for key, value in tags.items()}
    return {**found, "aws:tagkeys": list(tags)} if tags else {}


def _ec2(request: Request) -> tuple[str, ...]:
    if request.operation.startswith(("Describe", "Get", "List", "Search")):
        return _ALL
    made = _MADE.get(request.operation)  # a rule that is revoked is judged by its group alone
    found = [request.arn("ec2", f"{made}/*")] if made else []
    if association := request.text("AssociationId"):
        found += [request.arn("ec2", f"route-table/{table}") for table in _associated(association)]
    for value in request.parameters.values():
        matched = _ID.fullmatch(value) if isinstance(value, str) else None
        if matched and matched[1] in _KINDS and (matched[1], request.operation[:6]) != ("sgr", "Revoke"):
            found.append(request.arn("ec2", f"{_KINDS[matched[1]]}/{value}"))
    return tuple(dict.fromkeys(found)) or _ALL


def _associated(association: str) -> Iterator[str]:
    """The route table of an association, which a request may name by itself."""
    from ministack.services import ec2

    for name, table in ec2._route_tables.items():
        if any(each.get("RouteTableAssociationId") == association for each in table.get("Associations", [])):
            yield name


def _specified_tags(request: Request) -> Iterator[tuple[str, str]]:
    for name, value in request.parameters.items():
        if _SPECIFIED_TAG.fullmatch(name):
            yield str(value), str(request.parameters.get(f"{name.removesuffix('.Key')}.Value", ""))


def install(agents: Callable[..., tuple[int, Mapping[str, str], bytes]]) -> None:
    """Let the judge find the tags of EC2's things, and of Roles Anywhere's by `agents`, which answers its API."""
    from ministack.services import ec2, tagging

    known = tagging.resource_tags

    def resource_tags(arn: str) -> Mapping[str, str] | None:
        service = arn.split(":")[2] if arn.startswith("arn:") else ""
        if service == "ec2":
            return {tag["Key"]: tag["Value"] for tag in ec2._tags.get(arn.rpartition("/")[2]) or []}
        if service == "rolesanywhere":
            reply = agents("GET", "/ListTagsForResource", b"", {"resourceArn": arn}, arn.split(":")[3])[2]
            return {tag["key"]: tag["value"] for tag in json.loads(reply).get("tags", [])}
        found: Mapping[str, str] | None = known(arn)
        return found

    tagging.resource_tags = resource_tags
