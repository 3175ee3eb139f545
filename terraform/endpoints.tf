# The services' doors in the VPC: interface endpoints for what the site (and the jobs, jobs_in_vpc.tf) call, gateway
# endpoints for what the subnets send to S3 and DynamoDB. Each lets only this account's principals through, and only to
# what this deployment owns.

locals {
  site_services      = var.network.enabled ? setunion(var.network.endpoints, var.agent.password_secrets ? ["secretsmanager"] : []) : toset([])
  interface_services = setunion(local.site_services, local.job_services)
  gateway_services   = !var.network.enabled ? toset([]) : toset(concat(["s3"], var.jobs_in_vpc ? ["dynamodb"] : []))

  interface_endpoint_count = length(local.interface_services) * length(local.subnet_ids)

  # DynamoDB's interface endpoint has no private names. S3's would draw the jobs' traffic away from the free gateway,
  # so they are switched on for the resolver only, and then answer to the site alone.
  unnamed_services = setunion(["dynamodb"], var.network.resolver ? [] : ["s3"])

  stream_arn  = "arn:${local.partition}:kinesis:${local.region}:${local.account_id}:stream/${local.stream_name}"
  secrets_arn = "arn:${local.partition}:secretsmanager:${local.region}:${local.account_id}:secret:${var.name}/*"

  # What may pass each endpoint. Roles say who may do what; this keeps a stolen credential of another account, and a
  # bucket or stream of another account, from using the endpoint as a way out.
  endpoint_statements = {
    "kinesis-streams" = [{ sid = "OwnStream", actions = ["kinesis:*"], resources = [local.stream_arn] }]
    "dynamodb"        = [{ sid = "OwnTables", actions = ["dynamodb:*"], resources = values(local.table_arns) }]
    "s3" = [
      { sid = "OwnBucket", actions = ["s3:*"], resources = [local.bucket_arn, "${local.bucket_arn}/*"] },
    ]
    "sts" = [
      { sid = "WhoAmI", actions = ["sts:GetCallerIdentity"], resources = ["*"] },
      { sid = "OwnRoles", actions = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"], resources = ["arn:${local.partition}:iam::${local.account_id}:role/${var.name}-*"] },
    ]
    "logs"           = [{ sid = "OwnLogGroups", actions = ["logs:*"], resources = ["${local.log_arn}:*"] }]
    "monitoring"     = [{ sid = "PutMetrics", actions = ["cloudwatch:PutMetricData"], resources = ["*"] }]
    "glue"           = [{ sid = "OwnCatalogAndJobs", actions = ["glue:*"], resources = ["${local.catalog_arn}:*"] }]
    "kms"            = [{ sid = "OwnKey", actions = ["kms:GenerateDataKey*", "kms:Decrypt", "kms:Encrypt", "kms:DescribeKey"], resources = [local.kms_key_arn] }]
    "secretsmanager" = [{ sid = "OwnSecrets", actions = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"], resources = [local.secrets_arn] }]
    # A certificate is exchanged for credentials before there is a principal: CreateSession is not judged by endpoint
    # policies at all, and nothing else of Roles Anywhere is to pass.
    "rolesanywhere" = [{ sid = "SessionsOnly", actions = ["rolesanywhere:CreateSession"], resources = ["*"] }]
  }

  endpoint_policies = {
    for service, statements in local.endpoint_statements : service => jsonencode({
      Version = "2012-10-17"
      Statement = [
        for statement in statements : merge(
          {
            Sid       = statement.sid
            Effect    = "Allow"
            Principal = "*"
            Action    = statement.actions
            Resource  = statement.resources
          },
          service == "rolesanywhere" ? {} : { Condition = { StringEquals = { "aws:PrincipalAccount" = local.account_id } } }
        )
      ]
    })
  }
}

resource "aws_security_group" "endpoints" {
  count = var.network.enabled ? 1 : 0

  name        = "${var.name}-endpoints"
  description = "Endpoints: HTTPS from the site and from the jobs; nothing else, and nothing out."
  vpc_id      = local.vpc_id

  tags = { Name = "${var.name}-endpoints" }

  lifecycle {
    precondition {
      condition     = !local.given_vpc || length(distinct([for subnet in data.aws_subnet.given : subnet.availability_zone])) >= 2
      error_message = "network.subnet_ids: the given subnets lie in one zone (${join(", ", distinct([for subnet in data.aws_subnet.given : subnet.availability_zone]))}); name at least two zones' subnets."
    }
  }
}

resource "aws_vpc_security_group_ingress_rule" "site" {
  for_each = toset(var.network.enabled && length(local.site_services) > 0 ? var.network.site_cidrs : [])

  security_group_id = aws_security_group.endpoints[0].id
  description       = "Agents at the site"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "jobs" {
  count = var.jobs_in_vpc ? 1 : 0

  security_group_id            = aws_security_group.endpoints[0].id
  description                  = "The Glue jobs"
  referenced_security_group_id = aws_security_group.jobs[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = local.gateway_services

  vpc_id            = local.vpc_id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${local.region}.${each.value}"
  route_table_ids   = local.route_table_ids
  policy            = local.endpoint_policies[each.value]

  tags = { Name = "${var.name}-${each.value}-gateway" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interface_services

  vpc_id              = local.vpc_id
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${local.region}.${each.value}"
  subnet_ids          = local.subnet_ids
  security_group_ids  = [aws_security_group.endpoints[0].id]
  private_dns_enabled = var.network.private_dns && !contains(local.unnamed_services, each.value)
  policy              = local.endpoint_policies[each.value]

  dynamic "dns_options" {
    for_each = each.value == "s3" && !contains(local.unnamed_services, "s3") ? [1] : []
    content {
      private_dns_only_for_inbound_resolver_endpoint = true
    }
  }

  tags = { Name = "${var.name}-${each.value}" }

  # S3's names for the resolver alone need the gateway in place.
  depends_on = [aws_vpc_endpoint.gateway]
}

locals {
  endpoint_dns_names = {
    for service, endpoint in aws_vpc_endpoint.interface : service => try(endpoint.dns_entry[0].dns_name, null)
  }

  # Names of these endpoints alone, which any resolver on the site finds in public DNS, at private addresses. S3's
  # certificate knows its endpoint's name below `bucket.`.
  endpoint_urls = {
    for service, name in local.endpoint_dns_names :
    service => "https://${service == "s3" ? "bucket." : ""}${trimprefix(name, "*.")}" if name != null && contains(local.site_services, service)
  }
}

# ------------------------------------------------------------------------------------------------ resolver

resource "aws_security_group" "resolver" {
  count = var.network.resolver ? 1 : 0

  name        = "${var.name}-resolver"
  description = "Inbound resolver endpoint: DNS from the site."
  vpc_id      = local.vpc_id

  tags = { Name = "${var.name}-resolver" }
}

resource "aws_vpc_security_group_ingress_rule" "resolver" {
  for_each = {
    for pair in setproduct(var.network.resolver ? var.network.site_cidrs : [], ["udp", "tcp"]) :
    "${pair[1]} ${pair[0]}" => { cidr = pair[0], protocol = pair[1] }
  }

  security_group_id = aws_security_group.resolver[0].id
  description       = "DNS from the site"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = each.value.protocol
  from_port         = 53
  to_port           = 53
}

resource "aws_route53_resolver_endpoint" "site" {
  count = var.network.resolver ? 1 : 0

  name               = var.name
  direction          = "INBOUND"
  security_group_ids = [aws_security_group.resolver[0].id]

  dynamic "ip_address" {
    for_each = local.subnet_ids
    content {
      subnet_id = ip_address.value
    }
  }
}
