"""What Terraform reads back of networks and agents' identities, as it asked for it."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.process import LocalAws


@pytest.fixture(scope="module")
def vpc(aws: LocalAws) -> str:
    return str(aws.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"])


@pytest.fixture(scope="module")
def group(aws: LocalAws, vpc: str) -> str:
    made = aws.client("ec2").create_security_group(GroupName="g", Description="d", VpcId=vpc)
    return str(made["GroupId"])


def test_endpoint_keeps_its_policy_groups_and_private_names(aws: LocalAws, vpc: str, group: str) -> None:
    ec2 = aws.client("ec2")
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    made = ec2.create_vpc_endpoint(
        VpcId=vpc, ServiceName="com.amazonaws.us-east-1.sts", VpcEndpointType="Interface", PolicyDocument=policy,
        SecurityGroupIds=[group], PrivateDnsEnabled=True,
    )["VpcEndpoint"]  # fmt: skip
    name = {"VpcEndpointIds": [made["VpcEndpointId"]]}
    (shown,) = ec2.describe_vpc_endpoints(**name)["VpcEndpoints"]
    assert (shown["PolicyDocument"], shown["PrivateDnsEnabled"]) == (policy, True)
    assert [each["GroupId"] for each in shown["Groups"]] == [group]
    assert shown["DnsEntries"][0]["DnsName"].startswith(made["VpcEndpointId"])
    ec2.modify_vpc_endpoint(
        VpcEndpointId=made["VpcEndpointId"], RemoveSecurityGroupIds=[group], PrivateDnsEnabled=False
    )
    (shown,) = ec2.describe_vpc_endpoints(**name)["VpcEndpoints"]
    assert (shown["Groups"], shown["PrivateDnsEnabled"]) == ([], False)


def test_rule_may_name_a_prefix_list(aws: LocalAws, group: str) -> None:
    ec2 = aws.client("ec2")
    peer = {"PrefixListId": "pl-63a5400a", "Description": "S3"}
    rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "PrefixListIds": [peer]}
    made = ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[rule])["SecurityGroupRules"][0]
    asked = {"SecurityGroupRuleIds": [made["SecurityGroupRuleId"]]}
    (shown,) = ec2.describe_security_group_rules(**asked)["SecurityGroupRules"]
    assert (shown["PrefixListId"], shown["Description"], shown["IsEgress"]) == ("pl-63a5400a", "S3", True)


def test_flow_log_keeps_its_role_and_interval(aws: LocalAws, vpc: str) -> None:
    ec2, role = aws.client("ec2"), "arn:aws:iam::000000000000:role/flow"
    tags = [{"ResourceType": "vpc-flow-log", "Tags": [{"Key": "Name", "Value": "n"}]}]
    (name,) = ec2.create_flow_logs(
        ResourceIds=[vpc], ResourceType="VPC", TrafficType="ALL", DeliverLogsPermissionArn=role,
        LogDestination="arn:aws:logs:us-east-1:000000000000:log-group:f", MaxAggregationInterval=60,
        TagSpecifications=tags,
    )["FlowLogIds"]  # fmt: skip
    (shown,) = ec2.describe_flow_logs(FlowLogIds=[name])["FlowLogs"]
    assert (shown["DeliverLogsPermissionArn"], shown["MaxAggregationInterval"]) == (role, 60)
    assert shown["Tags"] == tags[0]["Tags"]


def vpn(aws: LocalAws, **options: Any) -> dict[str, Any]:
    ec2 = aws.client("ec2")
    tags = [{"ResourceType": "customer-gateway", "Tags": [{"Key": "Name", "Value": "site"}]}]
    device = ec2.create_customer_gateway(BgpAsn=65000, PublicIp="203.0.113.7", Type="ipsec.1", TagSpecifications=tags)
    assert device["CustomerGateway"]["CustomerGatewayId"]
    gateway = ec2.create_vpn_gateway(Type="ipsec.1")["VpnGateway"]["VpnGatewayId"]
    asked = {"CustomerGatewayId": device["CustomerGateway"]["CustomerGatewayId"], "VpnGatewayId": gateway}
    tunnel = {"IKEVersions": [{"Value": "ikev2"}], "DPDTimeoutAction": "restart"}
    made = ec2.create_vpn_connection(**asked, Type="ipsec.1", Options={"TunnelOptions": [tunnel, {}]}, **options)
    wanted = [made["VpnConnection"]["VpnConnectionId"]]
    return dict(ec2.describe_vpn_connections(VpnConnectionIds=wanted)["VpnConnections"][0])


def test_tunnels_show_what_was_asked_for_and_what_is_usual(aws: LocalAws) -> None:
    first, second = vpn(aws)["Options"]["TunnelOptions"]
    assert (first["IkeVersions"], first["DpdTimeoutAction"]) == ([{"Value": "ikev2"}], "restart")
    assert (second["DpdTimeoutAction"], second["Phase1LifetimeSeconds"]) == ("clear", 28800)
    assert first["TunnelInsideCidr"] != second["TunnelInsideCidr"]
    assert first["PreSharedKey"] != second["PreSharedKey"]


def test_keys_that_lie_in_a_secret_are_nowhere_else(aws: LocalAws) -> None:
    """Both keys are in the secret that the service made; no description has them, and they go with the connection."""
    shown, secrets = vpn(aws, PreSharedKeyStorage="SecretsManager"), aws.client("secretsmanager")
    keys = json.loads(secrets.get_secret_value(SecretId=shown["PreSharedKeyArn"])["SecretString"])
    assert len(set(keys.values())) == 2
    assert not any(key in json.dumps(shown, default=str) for key in keys.values())
    assert [tunnel["PreSharedKey"] for tunnel in shown["Options"]["TunnelOptions"]] == ["REDACTED"] * 2
    aws.client("ec2").delete_vpn_connection(VpnConnectionId=shown["VpnConnectionId"])
    with pytest.raises(ClientError):
        secrets.get_secret_value(SecretId=shown["PreSharedKeyArn"])


def test_trust_anchor_and_profile_are_kept_tagged_and_deleted(aws: LocalAws) -> None:
    agents = aws.client("rolesanywhere")
    source = {"sourceType": "CERTIFICATE_BUNDLE", "sourceData": {"x509CertificateData": "pem"}}
    anchor = agents.create_trust_anchor(name="site", enabled=True, source=source, tags=[{"key": "a", "value": "1"}])
    arn = anchor["trustAnchor"]["trustAnchorArn"]
    agents.tag_resource(resourceArn=arn, tags=[{"key": "b", "value": "2"}])
    agents.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert agents.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "b", "value": "2"}]
    role = "arn:aws:iam::000000000000:role/agent"
    profile = agents.create_profile(name="agent", roleArns=[role])["profile"]["profileId"]
    agents.update_profile(profileId=profile, durationSeconds=900)
    agents.disable_profile(profileId=profile)
    shown = agents.get_profile(profileId=profile)["profile"]
    assert (shown["roleArns"], shown["durationSeconds"], shown["enabled"]) == ([role], 900, False)
    agents.delete_profile(profileId=profile)
    with pytest.raises(agents.exceptions.ResourceNotFoundException):
        agents.get_profile(profileId=profile)
    assert [each["name"] for each in agents.list_trust_anchors()["trustAnchors"]] == ["site"]
