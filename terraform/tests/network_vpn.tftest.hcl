# The site-to-site VPN. Planned by the real provider, which asks AWS nothing.

provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "123456789012" }
}

override_data {
  target = data.aws_availability_zones.usable
  values = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
}

variables {
  region      = "eu-central-1"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  artefacts   = { folder = "tests/bundle" }
  agent       = { trusted_principals = ["arn:aws:iam::123456789012:role/operator"] }
  network     = { enabled = true, site_cidrs = ["10.20.0.0/16", "192.168.7.0/24"], endpoints = ["kinesis-streams"], flow_logs = false }
  vpn         = { enabled = true, device_ip = "203.0.113.7" }
}

run "two_strong_tunnels" {
  command = plan

  assert {
    condition     = aws_vpn_connection.site[0].preshared_key_storage == "SecretsManager"
    error_message = "The tunnels' keys lie in Secrets Manager, so that AWS never answers with them."
  }
  assert {
    condition = alltrue([
      for versions in [aws_vpn_connection.site[0].tunnel1_ike_versions, aws_vpn_connection.site[0].tunnel2_ike_versions] : versions == toset(["ikev2"])
    ])
    error_message = "IKEv2 only."
  }
  assert {
    condition = alltrue([
      for algorithms in [
        aws_vpn_connection.site[0].tunnel1_phase1_encryption_algorithms, aws_vpn_connection.site[0].tunnel1_phase2_encryption_algorithms,
        aws_vpn_connection.site[0].tunnel2_phase1_encryption_algorithms, aws_vpn_connection.site[0].tunnel2_phase2_encryption_algorithms,
      ] : alltrue([for algorithm in algorithms : startswith(algorithm, "AES256")])
    ])
    error_message = "AES-256 in both phases of both tunnels."
  }
  assert {
    condition = alltrue([
      for algorithms in [
        aws_vpn_connection.site[0].tunnel1_phase1_integrity_algorithms, aws_vpn_connection.site[0].tunnel1_phase2_integrity_algorithms,
        aws_vpn_connection.site[0].tunnel2_phase1_integrity_algorithms, aws_vpn_connection.site[0].tunnel2_phase2_integrity_algorithms,
      ] : alltrue([for algorithm in algorithms : startswith(algorithm, "SHA2")])
    ])
    error_message = "No SHA-1."
  }
  assert {
    condition = alltrue([
      for groups in [
        aws_vpn_connection.site[0].tunnel1_phase1_dh_group_numbers, aws_vpn_connection.site[0].tunnel1_phase2_dh_group_numbers,
        aws_vpn_connection.site[0].tunnel2_phase1_dh_group_numbers, aws_vpn_connection.site[0].tunnel2_phase2_dh_group_numbers,
      ] : groups == toset([19, 20, 21])
    ])
    error_message = "Elliptic curves in both phases of both tunnels."
  }
  assert {
    condition     = aws_vpn_connection.site[0].tunnel1_dpd_timeout_action == "restart" && aws_vpn_connection.site[0].tunnel2_dpd_timeout_action == "restart"
    error_message = "A tunnel whose other end fell silent is opened again."
  }
}

run "routes_and_alarms" {
  command = plan

  assert {
    condition     = keys(aws_vpn_connection_route.site) == ["10.20.0.0/16", "192.168.7.0/24"] && aws_vpn_connection.site[0].static_routes_only
    error_message = "Static routes to the site's networks."
  }
  assert {
    condition     = length(aws_vpn_gateway_route_propagation.site) == 1
    error_message = "The subnets' route table learns the gateway's routes."
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.vpn : alarm.treat_missing_data == "breaching" && alarm.namespace == "AWS/VPN" && alarm.metric_name == "TunnelState"])
    error_message = "A connection that says nothing is taken for down."
  }
  assert {
    condition     = { for name, alarm in aws_cloudwatch_metric_alarm.vpn : name => alarm.threshold } == { degraded = 1, down = 0.5 }
    error_message = "One alarm for the first tunnel, one for both."
  }
}

run "bgp_instead_of_static_routes" {
  command = plan
  variables {
    vpn = { enabled = true, customer_gateway_id = "cgw-1", routing = "bgp", logs = false }
  }

  assert {
    condition     = length(aws_vpn_connection_route.site) == 0 && !aws_vpn_connection.site[0].static_routes_only
    error_message = "With BGP no route is written down."
  }
  assert {
    condition     = length(aws_customer_gateway.site) == 0 && aws_vpn_connection.site[0].customer_gateway_id == "cgw-1"
    error_message = "A given customer gateway is used."
  }
  assert {
    condition     = length(aws_cloudwatch_log_group.vpn) == 0 && length(local.tunnel_log_groups) == 0
    error_message = "vpn.logs = false logs nothing."
  }
}

run "a_redacted_key_is_no_key" {
  command = plan

  override_resource {
    target          = aws_vpn_connection.site[0]
    override_during = plan
    values          = { tunnel1_preshared_key = "REDACTED", tunnel2_preshared_key = "" }
  }
}

run "a_key_in_the_answer_is_told" {
  command = plan

  override_resource {
    target          = aws_vpn_connection.site[0]
    override_during = plan
    values          = { tunnel1_preshared_key = "REDACTED", tunnel2_preshared_key = "hV7.readable_key" }
  }
  expect_failures = [aws_vpn_connection.site[0]]
}

# ------------------------------------------------------------------------------------------------ what is refused

run "a_vpn_without_a_network" {
  command = plan
  variables {
    network = { site_cidrs = ["10.20.0.0/16"] }
  }
  expect_failures = [var.vpn]
}

run "a_vpn_to_no_device" {
  command = plan
  variables {
    vpn = { enabled = true }
  }
  expect_failures = [var.vpn]
}

run "a_private_address_as_device" {
  command = plan
  variables {
    vpn = { enabled = true, device_ip = "10.20.0.1" }
  }
  expect_failures = [var.vpn]
}

run "a_breakable_group" {
  command = plan
  variables {
    vpn = { enabled = true, device_ip = "203.0.113.7", dh_groups = [2, 19] }
  }
  expect_failures = [var.vpn]
}
