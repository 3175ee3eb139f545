# The private way into AWS. Planned by the real provider, which asks AWS nothing: what it would read is given here.

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

override_data {
  target = data.aws_vpc.given
  values = { cidr_block = "10.5.0.0/20" }
}

override_data {
  target = data.aws_subnet.given["subnet-a"]
  values = { vpc_id = "vpc-site", cidr_block = "10.5.0.0/24", availability_zone = "eu-central-1a" }
}

override_data {
  target = data.aws_subnet.given["subnet-b"]
  values = { vpc_id = "vpc-site", cidr_block = "10.5.1.0/24", availability_zone = "eu-central-1b" }
}

override_data {
  target = data.aws_subnet.given["subnet-a2"]
  values = { vpc_id = "vpc-site", cidr_block = "10.5.2.0/24", availability_zone = "eu-central-1a" }
}

override_data {
  target = data.aws_subnet.given["subnet-elsewhere"]
  values = { vpc_id = "vpc-other", cidr_block = "10.9.1.0/24", availability_zone = "eu-central-1b" }
}

override_data {
  target = data.aws_subnet.job
  values = { availability_zone = "eu-central-1a" }
}

override_resource {
  target          = aws_subnet.private["eu-central-1a"]
  override_during = plan
  values          = { id = "subnet-own-a" }
}

override_resource {
  target          = aws_subnet.private["eu-central-1b"]
  override_during = plan
  values          = { id = "subnet-own-b" }
}

variables {
  region      = "eu-central-1"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  artefacts   = { folder = "tests/bundle" }
  agent       = { trusted_principals = ["arn:aws:iam::123456789012:role/operator"] }
}

run "nothing_by_default" {
  command = plan

  assert {
    condition     = length(aws_vpc.own) + length(aws_vpc_endpoint.interface) + length(aws_vpc_endpoint.gateway) + length(aws_vpn_connection.site) + length(aws_security_group.endpoints) + length(aws_glue_connection.jobs) == 0
    error_message = "Without network.enabled nothing of a network is made, and nothing is paid for."
  }
  assert {
    condition     = local.interface_endpoint_count == 0 && length(local.endpoint_urls) == 0 && length(local.job_connections) == 0
    error_message = "Without network.enabled there are no endpoints to tell of."
  }
}

run "a_vpc_of_its_own" {
  command = plan

  variables {
    network = { enabled = true, cidr = "10.87.0.0/22", site_cidrs = ["10.20.0.0/16", "192.168.7.0/24"] }
  }

  assert {
    condition     = { for zone, subnet in aws_subnet.private : zone => subnet.cidr_block } == { "eu-central-1a" = "10.87.0.0/24", "eu-central-1b" = "10.87.1.0/24" }
    error_message = "A private subnet in each of the first two zones, with room for two more."
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.private : subnet.map_public_ip_on_launch != true])
    error_message = "No subnet gives out public addresses."
  }
  assert {
    condition     = length(aws_default_security_group.empty) == 1
    error_message = "The default security group is emptied."
  }
  assert {
    condition     = keys(aws_vpc_endpoint.interface) == ["dynamodb", "kinesis-streams", "logs", "monitoring", "rolesanywhere", "s3", "sts"]
    error_message = "The site gets the endpoints that it calls, and no others."
  }
  assert {
    condition     = keys(aws_vpc_endpoint.gateway) == ["s3"]
    error_message = "S3 has its gateway endpoint."
  }
  assert {
    condition     = { for service, endpoint in aws_vpc_endpoint.interface : service => endpoint.private_dns_enabled if !endpoint.private_dns_enabled } == { dynamodb = false, s3 = false }
    error_message = "Private names are on, but for DynamoDB (it has none) and S3 (its gateway is free)."
  }
  assert {
    condition = [for rule in aws_vpc_security_group_ingress_rule.site : "${rule.cidr_ipv4} ${rule.ip_protocol} ${rule.from_port}-${rule.to_port}"] == [
      "10.20.0.0/16 tcp 443-443", "192.168.7.0/24 tcp 443-443"
    ]
    error_message = "The endpoints admit HTTPS from the site's networks."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.jobs) + length(aws_vpc_security_group_egress_rule.jobs_self) + length(aws_vpc_security_group_egress_rule.jobs_gateways) == 0
    error_message = "Without jobs_in_vpc no rule speaks of jobs."
  }
  assert {
    condition     = length(aws_flow_log.vpc) == 1 && aws_cloudwatch_log_group.flow[0].kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.flow[0].retention_in_days == 30
    error_message = "Traffic is logged, encrypted, for as long as operations.log_days says."
  }
  assert {
    condition     = length(aws_glue_job.stream.connections) + length(aws_glue_job.fold.connections) == 0
    error_message = "The jobs stay in Glue's own network."
  }
  assert {
    condition     = local.interface_endpoint_count == 14
    error_message = "Seven endpoints in two zones are fourteen to pay for."
  }
}

run "endpoints_let_only_this_account_through" {
  command = plan

  variables {
    network     = { enabled = true, site_cidrs = ["10.20.0.0/16"] }
    jobs_in_vpc = true
    agent       = { trusted_principals = ["arn:aws:iam::123456789012:role/operator"], password_secrets = true }
  }

  assert {
    condition = alltrue([
      for service, endpoint in merge(aws_vpc_endpoint.interface, { s3-gateway = aws_vpc_endpoint.gateway["s3"], dynamodb-gateway = aws_vpc_endpoint.gateway["dynamodb"] }) : alltrue([
        for statement in jsondecode(endpoint.policy).Statement :
        try(statement.Condition.StringEquals["aws:PrincipalAccount"], null) == "123456789012" || statement.Sid == "SessionsOnly"
      ])
    ])
    error_message = "Every endpoint refuses the principals of other accounts (Roles Anywhere has none yet when it is called)."
  }
  assert {
    condition = sort(flatten([
      for endpoint in aws_vpc_endpoint.interface : [
        for statement in jsondecode(endpoint.policy).Statement : statement.Sid if contains(statement.Resource, "*")
      ]
    ])) == tolist(["PutMetrics", "SessionsOnly", "WhoAmI"])
    error_message = "Every other statement names what this deployment owns."
  }
  assert {
    condition     = jsondecode(aws_vpc_endpoint.gateway["s3"].policy).Statement[0].Resource == ["arn:aws:s3:::headrace-lake-123456789012-eu-central-1", "arn:aws:s3:::headrace-lake-123456789012-eu-central-1/*"]
    error_message = "Through the gateway goes only the deployment's own bucket."
  }
  assert {
    condition     = contains(keys(aws_vpc_endpoint.interface), "secretsmanager")
    error_message = "Where the agent reads its password from a secret, it can reach it."
  }
}

run "jobs_in_the_vpc" {
  command = plan

  variables {
    network     = { enabled = true, site_cidrs = ["10.20.0.0/16"], endpoints = ["kinesis-streams", "dynamodb", "s3", "rolesanywhere"] }
    jobs_in_vpc = true
  }

  # EC2 takes letters, digits, spaces and these marks; an apostrophe fails the apply, and nothing says so before.
  assert {
    condition = alltrue([
      for description in concat(
        [for group in concat(aws_security_group.endpoints, aws_security_group.jobs) : group.description],
        [for rule in aws_vpc_security_group_ingress_rule.site : rule.description],
        [for rule in concat(aws_vpc_security_group_ingress_rule.jobs, aws_vpc_security_group_ingress_rule.jobs_self) : rule.description],
        [for rule in concat(aws_vpc_security_group_egress_rule.jobs_self, aws_vpc_security_group_egress_rule.jobs_endpoints) : rule.description],
        [for rule in aws_vpc_security_group_egress_rule.jobs_gateways : rule.description],
      ) : can(regex("^[a-zA-Z0-9 ._:/()#,@+=&;{}!$*\\[\\]-]{1,255}$", description))
    ])
    error_message = "The descriptions of security groups and their rules have only the characters that EC2 takes."
  }

  assert {
    condition     = [for connection in aws_glue_connection.jobs : connection.connection_type] == ["NETWORK", "NETWORK"]
    error_message = "A connection for each subnet."
  }
  assert {
    condition     = aws_glue_job.stream.connections == tolist(["headrace-jobs-1", "headrace-jobs-2"]) && aws_glue_job.fold.connections == aws_glue_job.stream.connections
    error_message = "Both jobs use the connections."
  }
  assert {
    condition     = length(setsubtract(["glue", "kinesis-streams", "kms", "logs", "monitoring", "sts"], keys(aws_vpc_endpoint.interface))) == 0
    error_message = "What the jobs call has an endpoint, whether the site uses it or not."
  }
  assert {
    condition     = keys(aws_vpc_endpoint.gateway) == ["dynamodb", "s3"]
    error_message = "The jobs reach S3 and DynamoDB through the free gateways."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.jobs_self[0].from_port == 0 && aws_vpc_security_group_ingress_rule.jobs_self[0].to_port == 65535 && aws_vpc_security_group_ingress_rule.jobs_self[0].ip_protocol == "tcp" && aws_vpc_security_group_ingress_rule.jobs_self[0].cidr_ipv4 == null
    error_message = "The jobs' group admits itself on all TCP ports, as Glue demands, and no network."
  }
  assert {
    condition     = keys(aws_iam_role_policy.job_network) == ["fold", "maintain", "stream"]
    error_message = "Both jobs' roles may make their network interfaces."
  }
}

run "a_given_vpc" {
  command = plan

  variables {
    network = {
      enabled = true, vpc_id = "vpc-site", subnet_ids = ["subnet-a", "subnet-b"], route_table_ids = ["rtb-1"], site_cidrs = ["10.20.0.0/16"], private_dns = false
    }
  }

  assert {
    condition     = length(aws_vpc.own) + length(aws_subnet.private) + length(aws_default_security_group.empty) + length(aws_flow_log.vpc) == 0
    error_message = "A given VPC stays as it is."
  }
  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : endpoint.vpc_id == "vpc-site" && endpoint.subnet_ids == toset(["subnet-a", "subnet-b"])])
    error_message = "The endpoints go into the given subnets."
  }
  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : !endpoint.private_dns_enabled])
    error_message = "network.private_dns = false leaves the VPC's names alone."
  }
  assert {
    condition     = aws_vpc_endpoint.gateway["s3"].route_table_ids == toset(["rtb-1"])
    error_message = "The gateway endpoint is in the given route tables."
  }
  assert {
    condition     = sort(output.endpoint_cidrs) == tolist(["10.5.0.0/24", "10.5.1.0/24"])
    error_message = "The site's firewall is told the given subnets' networks."
  }
}

run "a_resolver_brings_the_private_names_of_s3" {
  command = plan

  variables {
    network = { enabled = true, site_cidrs = ["10.20.0.0/16"], resolver = true }
  }

  assert {
    condition     = aws_vpc_endpoint.interface["s3"].private_dns_enabled && one(aws_vpc_endpoint.interface["s3"].dns_options).private_dns_only_for_inbound_resolver_endpoint
    error_message = "S3's private names answer to the resolver alone, so the jobs' traffic stays on the gateway."
  }
  assert {
    condition     = sort([for rule in aws_vpc_security_group_ingress_rule.resolver : "${rule.ip_protocol} ${rule.from_port} ${rule.cidr_ipv4}"]) == tolist(["tcp 53 10.20.0.0/16", "udp 53 10.20.0.0/16"])
    error_message = "The resolver admits DNS from the site."
  }
}

# ------------------------------------------------------------------------------------------------ what is refused

run "a_network_that_overlaps_the_sites" {
  command = plan
  variables {
    network = { enabled = true, cidr = "10.20.4.0/22", site_cidrs = ["192.168.7.0/24", "10.20.0.0/16"] }
  }
  expect_failures = [var.network]
}

run "a_network_within_which_the_site_lies" {
  command = plan
  variables {
    network = { enabled = true, cidr = "10.20.0.0/16", site_cidrs = ["10.20.200.0/24"] }
  }
  expect_failures = [var.network]
}

run "neighbouring_networks_do_not_overlap" {
  command = plan
  variables {
    network = { enabled = true, cidr = "10.20.4.0/22", site_cidrs = ["10.20.0.0/22", "10.20.8.0/21"] }
  }
}

run "a_given_vpc_that_overlaps_the_sites" {
  command = plan
  variables {
    network = { enabled = true, vpc_id = "vpc-site", subnet_ids = ["subnet-a", "subnet-b"], route_table_ids = ["rtb-1"], site_cidrs = ["10.5.15.0/24"] }
  }
  expect_failures = [data.aws_vpc.given]
}

run "a_subnet_list_of_one" {
  command = plan
  variables {
    network = { enabled = true, vpc_id = "vpc-site", subnet_ids = ["subnet-a"], route_table_ids = ["rtb-1"], site_cidrs = ["10.20.0.0/16"] }
  }
  expect_failures = [var.network]
}

run "the_same_subnet_twice" {
  command = plan
  variables {
    network = { enabled = true, vpc_id = "vpc-site", subnet_ids = ["subnet-a", "subnet-a"], route_table_ids = ["rtb-1"], site_cidrs = ["10.20.0.0/16"] }
  }
  expect_failures = [var.network]
}

run "two_subnets_in_one_zone" {
  command = plan
  variables {
    network = { enabled = true, vpc_id = "vpc-site", subnet_ids = ["subnet-a", "subnet-a2"], route_table_ids = ["rtb-1"], site_cidrs = ["10.20.0.0/16"] }
  }
  expect_failures = [aws_security_group.endpoints]
}

run "a_subnet_of_another_vpc" {
  command = plan
  variables {
    network = { enabled = true, vpc_id = "vpc-site", subnet_ids = ["subnet-a", "subnet-elsewhere"], route_table_ids = ["rtb-1"], site_cidrs = ["10.20.0.0/16"] }
  }
  expect_failures = [data.aws_subnet.given["subnet-elsewhere"]]
}

run "endpoints_without_a_site" {
  command = plan
  variables {
    network = { enabled = true }
  }
  expect_failures = [var.network]
}

run "the_whole_internet_as_site" {
  command = plan
  variables {
    network = { enabled = true, site_cidrs = ["0.0.0.0/0"] }
  }
  expect_failures = [var.network]
}

run "jobs_without_a_network" {
  command = plan
  variables {
    jobs_in_vpc = true
  }
  expect_failures = [var.jobs_in_vpc]
}

run "an_unknown_endpoint" {
  command = plan
  variables {
    network = { enabled = true, site_cidrs = ["10.20.0.0/16"], endpoints = ["kinesis"] }
  }
  expect_failures = [var.network]
}
