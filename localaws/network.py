"""VPC endpoints, flow logs and rules of security groups as Terraform reads them back: ministack drops parts of each."""

import re
from collections.abc import Mapping
from typing import Any

from . import ec2_shapes

Parameters = Mapping[str, Any]


def install() -> None:
    from ministack.services import ec2

    _endpoints(ec2)
    _flow_logs(ec2)
    _prefix_lists(ec2)


def _endpoints(ec2: Any) -> None:
    """Policy, security groups, private names, addresses."""
    create, modify = ec2._create_vpc_endpoint, ec2._modify_vpc_endpoint

    def create_endpoint(parameters: Parameters) -> Any:
        known = set(ec2._vpc_endpoints)
        create(parameters)
        (name,) = set(ec2._vpc_endpoints) - known
        endpoint = ec2._vpc_endpoints[name]
        service = endpoint["ServiceName"].rpartition(".")[2]
        is_interface = endpoint["VpcEndpointType"] == "Interface"
        endpoint |= {
            "PolicyDocument": ec2._p(parameters, "PolicyDocument"),
            "SecurityGroupIds": ec2._parse_member_list(parameters, "SecurityGroupId"),
            "PrivateDnsEnabled": ec2._p(parameters, "PrivateDnsEnabled") == "true",
            "DnsNames": [f"{name}-0.{service}.{ec2.get_region()}.vpce.amazonaws.com"] if is_interface else [],
        }
        return ec2._xml(200, "CreateVpcEndpointResponse", to_xml(endpoint, tag="vpcEndpoint"))

    def modify_endpoint(parameters: Parameters) -> Any:
        reply = modify(parameters)
        if endpoint := ec2._vpc_endpoints.get(ec2._p(parameters, "VpcEndpointId")):
            removed = ec2._parse_member_list(parameters, "RemoveSecurityGroupId")
            added = ec2._parse_member_list(parameters, "AddSecurityGroupId")
            kept = [group for group in endpoint.get("SecurityGroupIds", []) if group not in removed]
            endpoint["SecurityGroupIds"] = [*kept, *added]
            if asked := ec2._p(parameters, "PrivateDnsEnabled"):
                endpoint["PrivateDnsEnabled"] = asked == "true"
        return reply

    def to_xml(endpoint: Mapping[str, Any], tag: str = "item") -> str:
        shown = {
            **{name: endpoint[name] for name in ("RouteTableIds", "SubnetIds", "OwnerId", "State", "VpcId")},
            **{name: endpoint[name] for name in ("VpcEndpointId", "VpcEndpointType", "ServiceName")},
            "PolicyDocument": endpoint.get("PolicyDocument", ""),
            "PrivateDnsEnabled": endpoint.get("PrivateDnsEnabled", False),
            "Groups": [
                {"GroupId": group, "GroupName": ec2._security_groups.get(group, {}).get("GroupName", "")}
                for group in endpoint.get("SecurityGroupIds", [])
            ],
            "DnsEntries": [{"DnsName": name, "HostedZoneId": "Z0LAPTOP"} for name in endpoint.get("DnsNames", [])],
            "IpAddressType": "ipv4",
            "DnsOptions": {"DnsRecordIpType": "ipv4"},
        }
        described = ec2_shapes.render(ec2_shapes.shape("VpcEndpoint"), shown)
        return f"<{tag}>{described}{ec2._tag_set_xml(endpoint['VpcEndpointId'])}</{tag}>"

    ec2._vpce_fields_xml = to_xml
    ec2._ACTION_MAP.update(CreateVpcEndpoint=create_endpoint, ModifyVpcEndpoint=modify_endpoint)


def _flow_logs(ec2: Any) -> None:
    """The role that writes them, their interval, and their group's name."""
    create = ec2._create_flow_logs

    def create_logs(parameters: Parameters) -> Any:
        known = set(ec2._flow_logs)
        reply = create(parameters)
        for name in set(ec2._flow_logs) - known:
            kind = ec2._p(parameters, "ResourceType").lower()
            ec2._parse_tag_specs(parameters, "vpc-flow-log", name)
            ec2._flow_logs[name] |= {
                "ResourceType": kind,
                "DeliverLogsPermissionArn": ec2._p(parameters, "DeliverLogsPermissionArn"),
                "MaxAggregationInterval": int(ec2._p(parameters, "MaxAggregationInterval") or 600),
                "LogFormat": ec2._p(parameters, "LogFormat") or _FLOW_FORMAT,
            }
        return reply

    def describe_logs(parameters: Parameters) -> Any:
        wanted = ec2._parse_member_list(parameters, "FlowLogId")
        of = ec2_shapes.shape("FlowLog")
        items = "".join(
            f"<item>{ec2_shapes.render(of, _without_empty(log))}{ec2._tag_set_xml(name)}</item>"
            for name, log in ec2._flow_logs.items()
            if not wanted or name in wanted
        )
        return ec2._xml(200, "DescribeFlowLogsResponse", f"<flowLogSet>{items}</flowLogSet>")

    ec2._ACTION_MAP.update(CreateFlowLogs=create_logs, DescribeFlowLogs=describe_logs)


_FLOW_FORMAT = (
    "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} "
    "${bytes} ${start} ${end} ${action} ${log-status}"
)


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in ("", None) and name != "Tags"}


def _prefix_lists(ec2: Any) -> None:
    """Rules that name a prefix list, such as S3's behind its gateway endpoint."""
    parse, show = ec2._parse_ip_permissions, ec2._sg_rule_xml

    def with_prefix_lists(parameters: Parameters, prefix: str) -> Any:
        rules = parse(parameters, prefix)
        for number, rule in enumerate(rules, 1):
            path = re.compile(rf"{re.escape(prefix)}\.{number}\.PrefixListIds\.(\d+)\.PrefixListId")
            for name in sorted(parameters):
                if found := path.fullmatch(name):
                    description = ec2._p(parameters, f"{prefix}.{number}.PrefixListIds.{found[1]}.Description")
                    entry = {"PrefixListId": ec2._p(parameters, name)}
                    rule["PrefixListIds"].append(entry | ({"Description": description} if description else {}))
        return rules

    def shown(group: str, rule: Mapping[str, Any], is_egress: bool = False) -> str:
        """As ministack shows a rule of nothing but ports, with the list in it; EC2 gives a rule one kind of peer."""
        text = str(show(group, rule, is_egress=is_egress))
        lists = rule.get("PrefixListIds", [])
        if not lists:
            return text
        more = f"<prefixListId>{lists[0]['PrefixListId']}</prefixListId>"
        description = lists[0].get("Description", "")
        if description and "<description>" not in text:
            more += f"<description>{ec2._esc(description)}</description>"
        return text.replace("</toPort>", f"</toPort>{more}", 1)

    ec2._parse_ip_permissions, ec2._sg_rule_xml = with_prefix_lists, shown
