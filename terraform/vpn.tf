# The site-to-site VPN: two tunnels from the site's device to a gateway on the VPC.
#
# The tunnels' keys: an aws_vpn_connection keeps what AWS generates in the state, and a given key would come through it.
# With preshared_key_storage = "SecretsManager" AWS generates both keys into a secret of its own, and every answer of
# its API, and with it the state, holds the word REDACTED in their place. Nothing else does: the provider has no
# write-only key arguments, and CloudFormation knows no such storage. Certificates would do too, but need a private
# authority that costs more than everything else here. The operator reads the secret once, for the device.

locals {
  own_vpn_gateway      = var.vpn.enabled && var.vpn.gateway_id == null
  own_customer_gateway = var.vpn.enabled && var.vpn.customer_gateway_id == null

  vpn_gateway_id = local.own_vpn_gateway ? aws_vpn_gateway.own[0].id : var.vpn.gateway_id

  tunnel_encryption = ["AES256-GCM-16", "AES256"]
  tunnel_integrity  = ["SHA2-256", "SHA2-384", "SHA2-512"]
  tunnel_log_groups = var.vpn.enabled && var.vpn.logs ? [aws_cloudwatch_log_group.vpn[0].arn] : []
}

resource "aws_customer_gateway" "site" {
  count = local.own_customer_gateway ? 1 : 0

  type       = "ipsec.1"
  ip_address = var.vpn.device_ip
  bgp_asn    = var.vpn.device_asn

  tags = { Name = "${var.name}-site" }
}

resource "aws_vpn_gateway" "own" {
  count = local.own_vpn_gateway ? 1 : 0

  vpc_id          = local.vpc_id
  amazon_side_asn = var.vpn.amazon_asn

  tags = { Name = var.name }
}

resource "aws_vpn_gateway_route_propagation" "site" {
  count = var.vpn.enabled ? length(local.route_table_ids) : 0

  vpn_gateway_id = local.vpn_gateway_id
  route_table_id = local.route_table_ids[count.index]
}

resource "aws_cloudwatch_log_group" "vpn" {
  count = var.vpn.enabled && var.vpn.logs ? 1 : 0

  # Groups below this prefix share one delivery policy; others would each use up a part of its limited size.
  name              = "/aws/vendedlogs/${var.name}/vpn"
  retention_in_days = var.operations.log_days
  kms_key_id        = local.kms_key_arn
}

resource "aws_vpn_connection" "site" {
  count = var.vpn.enabled ? 1 : 0

  type                  = "ipsec.1"
  customer_gateway_id   = local.own_customer_gateway ? aws_customer_gateway.site[0].id : var.vpn.customer_gateway_id
  vpn_gateway_id        = local.vpn_gateway_id
  static_routes_only    = var.vpn.routing == "static"
  preshared_key_storage = "SecretsManager"

  tunnel1_inside_cidr                  = try(var.vpn.inside_cidrs[0], null)
  tunnel1_ike_versions                 = ["ikev2"]
  tunnel1_startup_action               = var.vpn.startup
  tunnel1_dpd_timeout_action           = "restart"
  tunnel1_dpd_timeout_seconds          = 30
  tunnel1_phase1_dh_group_numbers      = var.vpn.dh_groups
  tunnel1_phase2_dh_group_numbers      = var.vpn.dh_groups
  tunnel1_phase1_encryption_algorithms = local.tunnel_encryption
  tunnel1_phase2_encryption_algorithms = local.tunnel_encryption
  tunnel1_phase1_integrity_algorithms  = local.tunnel_integrity
  tunnel1_phase2_integrity_algorithms  = local.tunnel_integrity

  tunnel2_inside_cidr                  = try(var.vpn.inside_cidrs[1], null)
  tunnel2_ike_versions                 = ["ikev2"]
  tunnel2_startup_action               = var.vpn.startup
  tunnel2_dpd_timeout_action           = "restart"
  tunnel2_dpd_timeout_seconds          = 30
  tunnel2_phase1_dh_group_numbers      = var.vpn.dh_groups
  tunnel2_phase2_dh_group_numbers      = var.vpn.dh_groups
  tunnel2_phase1_encryption_algorithms = local.tunnel_encryption
  tunnel2_phase2_encryption_algorithms = local.tunnel_encryption
  tunnel2_phase1_integrity_algorithms  = local.tunnel_integrity
  tunnel2_phase2_integrity_algorithms  = local.tunnel_integrity

  dynamic "tunnel1_log_options" {
    for_each = local.tunnel_log_groups
    content {
      cloudwatch_log_options {
        log_enabled       = true
        log_group_arn     = tunnel1_log_options.value
        log_output_format = "json"
      }
    }
  }

  dynamic "tunnel2_log_options" {
    for_each = local.tunnel_log_groups
    content {
      cloudwatch_log_options {
        log_enabled       = true
        log_group_arn     = tunnel2_log_options.value
        log_output_format = "json"
      }
    }
  }

  tags = { Name = "${var.name}-site" }

  lifecycle {
    # Should a key ever come back readable, say so at once: it has to be replaced, and the state's versions deleted.
    postcondition {
      condition     = alltrue([for key in [self.tunnel1_preshared_key, self.tunnel2_preshared_key] : can(regex("^(|\\*+|(?i).*redacted.*)$", key == null ? "" : key))])
      error_message = "vpn: AWS answered with a tunnel's key, which now is in the state. Replace the connection, delete this state's version, and check its preshared_key_storage."
    }
  }
}

resource "aws_vpn_connection_route" "site" {
  for_each = toset(var.vpn.enabled && var.vpn.routing == "static" ? var.network.site_cidrs : [])

  vpn_connection_id      = aws_vpn_connection.site[0].id
  destination_cidr_block = each.value
}

# ------------------------------------------------------------------------------------------------ alarms

locals {
  # TunnelState of a connection is the share of its tunnels that are up.
  vpn_alarms = !var.vpn.enabled ? {} : {
    down = {
      below       = 0.5
      periods     = 1
      description = "Both tunnels of the VPN are down: the agent spools, the lake stands still. See docs/network.md, \"A tunnel is down\"."
    }
    degraded = {
      below       = 1
      periods     = 3
      description = "One of the VPN's two tunnels is down: the next outage cuts the site off. See docs/network.md, \"A tunnel is down\"."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "vpn" {
  for_each = local.vpn_alarms

  alarm_name          = "${var.name}-vpn-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/VPN"
  metric_name         = "TunnelState"
  dimensions          = { VpnId = aws_vpn_connection.site[0].id }
  statistic           = "Average"
  period              = 300
  evaluation_periods  = each.value.periods
  comparison_operator = "LessThanThreshold"
  threshold           = each.value.below
  treat_missing_data  = "breaching"
  alarm_actions       = [local.topic_arn]
  ok_actions          = [local.topic_arn]
}
