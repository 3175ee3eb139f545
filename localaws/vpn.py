"""Site-to-site VPN connections as Terraform reads them back: tunnel options, keys in a secret, telemetry.

ministack keeps a connection without its tunnels. No packet is carried here: tunnels are always up.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

from . import ec2_shapes

_DEFAULTS: Final = {
    "EnableAcceleration": "false",
    "LocalIpv4NetworkCidr": "0.0.0.0/0",
    "RemoteIpv4NetworkCidr": "0.0.0.0/0",
    "OutsideIpAddressType": "PublicIpv4",
    "TunnelInsideIpVersion": "ipv4",
}
"""What AWS puts in where a connection's creation does not say."""

# The same of each tunnel's options.
_TUNNEL_DEFAULTS: Mapping[str, Any] = {
    "Phase1LifetimeSeconds": 28800,
    "Phase2LifetimeSeconds": 3600,
    "RekeyMarginTimeSeconds": 540,
    "RekeyFuzzPercentage": 100,
    "ReplayWindowSize": 1024,
    "DpdTimeoutSeconds": 30,
    "DpdTimeoutAction": "clear",
    "StartupAction": "add",
    "EnableTunnelLifecycleControl": False,
}
# Lists whose members are named otherwise in a request than in an answer.
_LISTS = (
    *("Phase1EncryptionAlgorithms", "Phase2EncryptionAlgorithms", "Phase1IntegrityAlgorithms"),
    *("Phase2IntegrityAlgorithms", "Phase1DHGroupNumbers", "Phase2DHGroupNumbers", "IKEVersions"),
)
_SHOWN = ("VpnConnectionId", "State", "Type", "CustomerGatewayId", "Category", "Options")


def _tunnels(options: Mapping[str, Any], *, keys_in_secret: bool) -> list[dict[str, Any]]:
    """Both tunnels as a description shows them; a key that is kept in a secret is not shown."""
    asked = [*(options.get("TunnelOptions") or []), {}, {}][:2]
    tunnels = []
    for number, given in enumerate(asked):
        tunnel = {**_TUNNEL_DEFAULTS, **{name: value for name, value in given.items() if name not in _LISTS}}
        tunnel |= {name: given[name] for name in _LISTS if name in given}
        tunnel.setdefault("TunnelInsideCidr", f"169.254.{100 + number}.0/30")
        tunnel["OutsideIpAddress"] = f"198.51.100.{number + 1}"
        tunnel.setdefault("LogOptions", {"CloudWatchLogOptions": {"LogEnabled": False}})
        key = tunnel.pop("PreSharedKey", None) or secrets.token_urlsafe(24)
        tunnel["PreSharedKey"] = "REDACTED" if keys_in_secret else key
        tunnels.append(_renamed(tunnel))
    return tunnels


def _renamed(tunnel: dict[str, Any]) -> dict[str, Any]:
    """Request names as answer names: IKEVersions is IkeVersions there, DPD is Dpd."""
    names = {
        "IKEVersions": "IkeVersions",
        "DPDTimeoutSeconds": "DpdTimeoutSeconds",
        "DPDTimeoutAction": "DpdTimeoutAction",
    }
    renamed = {names.get(name, name): value for name, value in tunnel.items()}
    if log := renamed.get("LogOptions", {}).get("CloudWatchLogOptions"):
        log["LogEnabled"] = str(log.get("LogEnabled", "false")).lower() == "true"
    return renamed


def _device_configuration(vpn: Mapping[str, Any]) -> str:
    """What a customer gateway is told: both tunnels' addresses and keys."""
    tunnels = "".join(
        "<ipsec_tunnel>"
        f"<customer_gateway><tunnel_inside_address><ip_address>{_host(tunnel, 2)}</ip_address></tunnel_inside_address>"
        "</customer_gateway>"
        f"<vpn_gateway><tunnel_outside_address><ip_address>{tunnel['OutsideIpAddress']}</ip_address>"
        f"</tunnel_outside_address><tunnel_inside_address><ip_address>{_host(tunnel, 1)}</ip_address>"
        "</tunnel_inside_address></vpn_gateway>"
        f"<ike><pre_shared_key>{escape(tunnel['PreSharedKey'])}</pre_shared_key></ike></ipsec_tunnel>"
        for tunnel in vpn["Options"]["TunnelOptions"]
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f'{head}<vpn_connection id="{vpn["VpnConnectionId"]}">{tunnels}</vpn_connection>'


def _host(tunnel: Mapping[str, Any], number: int) -> str:
    network = str(tunnel["TunnelInsideCidr"]).partition("/")[0]
    head, _, last = network.rpartition(".")
    return f"{head}.{int(last) + number}"


def _keys_secret(vpn_id: str) -> str:
    """The ARN of a secret with both keys, made as the service makes it."""
    from ministack.services import secretsmanager

    keys = {f"tunnel{number}": secrets.token_urlsafe(24) for number in (1, 2)}
    reply = secretsmanager._create_secret({"Name": f"s2svpn!{vpn_id}", "SecretString": json.dumps(keys)})
    return str(json.loads(reply[2])["ARN"])


def _to_xml(vpn: Mapping[str, Any], tag: str = "item") -> str:
    from ministack.services import ec2

    tunnels = vpn["Options"].get("TunnelOptions", [])
    gateway = {name: vpn[name] for name in ("VpnGatewayId", "TransitGatewayId") if vpn.get(name)}
    shown = {
        **{
            name: vpn[name] for name in ("VpnConnectionId", "State", "Type", "CustomerGatewayId", "Category", "Options")
        },
        **gateway,
        **({"PreSharedKeyArn": vpn["PreSharedKeyArn"]} if "PreSharedKeyArn" in vpn else {}),
        "CustomerGatewayConfiguration": _device_configuration(vpn) if tunnels else "",
        "Routes": [{**route, "Source": "Static"} for route in vpn.get("Routes", [])],
        "VgwTelemetry": [{"OutsideIpAddress": each["OutsideIpAddress"], "Status": "UP"} for each in tunnels],
    }
    described = ec2_shapes.render(ec2_shapes.shape("VpnConnection"), shown)
    return f"<{tag}>{described}{ec2._tag_set_xml(vpn['VpnConnectionId'])}</{tag}>"


def _tagged(create_gateway: Callable[[Any], Any], store: Any, kind: str) -> Callable[[Mapping[str, Any]], Any]:
    """Keep the tags that a creation brings; ministack looks for them under another name."""
    from ministack.services import ec2

    def create_tagged(parameters: Mapping[str, Any]) -> Any:
        known = set(store)
        reply = create_gateway(parameters)
        for made in set(store) - known:
            ec2._parse_tag_specs(parameters, kind, made)
        return reply

    return create_tagged


def install() -> None:
    """Put tunnels into ministack's VPN connections."""
    from ministack.services import ec2, secretsmanager

    create, delete = ec2._create_vpn_connection, ec2._delete_vpn_connection

    def create_connection(parameters: Mapping[str, Any]) -> Any:
        known = set(ec2._vpn_connections)
        create(parameters)
        (vpn_id,) = set(ec2._vpn_connections) - known
        vpn = ec2._vpn_connections[vpn_id]
        ec2._parse_tag_specs(parameters, "vpn-connection", vpn_id)
        asked = ec2_shapes.shape("VpnConnectionOptionsSpecification")
        options = ec2_shapes.parse(asked, parameters, "Options") or {}
        in_secret = ec2._p(parameters, "PreSharedKeyStorage") == "SecretsManager"
        if in_secret:
            vpn["PreSharedKeyArn"] = _keys_secret(vpn_id)
        vpn["Options"] |= _DEFAULTS | {name: options[name] for name in _DEFAULTS if name in options}
        vpn["Options"]["TunnelOptions"] = _tunnels(options, keys_in_secret=in_secret)
        return ec2._xml(200, "CreateVpnConnectionResponse", ec2._vpn_conn_xml(vpn, tag="vpnConnection"))

    def delete_connection(parameters: Mapping[str, Any]) -> Any:
        vpn = ec2._vpn_connections.get(ec2._p(parameters, "VpnConnectionId")) or {}
        if arn := vpn.get("PreSharedKeyArn"):
            secretsmanager._delete_secret({"SecretId": arn, "ForceDeleteWithoutRecovery": True})
        return delete(parameters)

    def no_attachments(parameters: Mapping[str, Any]) -> Any:
        return ec2._xml(200, "DescribeTransitGatewayAttachmentsResponse", "<transitGatewayAttachments/>")

    ec2._create_vpn_connection, ec2._vpn_conn_xml = create_connection, _to_xml
    actions: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "CreateVpnConnection": create_connection,
        "DeleteVpnConnection": delete_connection,
        "DescribeTransitGatewayAttachments": no_attachments,
        "CreateVpnGateway": _tagged(ec2._create_vpn_gateway, ec2._vpn_gateways, "vpn-gateway"),
        "CreateCustomerGateway": _tagged(ec2._create_customer_gateway, ec2._customer_gateways, "customer-gateway"),
    }
    ec2._ACTION_MAP.update(actions)
