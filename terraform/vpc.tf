# The VPC, made here or given: private subnets only, no way to the Internet, and nothing in the default security group.

data "aws_availability_zones" "usable" {
  #checkov:skip=CKV_AWS_394:The first two by name, and a new zone comes behind them; network.zones pins others
  count = local.own_vpc && length(var.network.zones) == 0 ? 1 : 0

  state = "available"
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_vpc" "given" {
  count = local.given_vpc ? 1 : 0
  id    = var.network.vpc_id

  lifecycle {
    postcondition {
      condition = alltrue([
        for pair in setproduct([self.cidr_block], var.network.site_cidrs) :
        cidrsubnet("${split("/", pair[0])[0]}/${min(split("/", pair[0])[1], split("/", pair[1])[1])}", 0, 0) !=
        cidrsubnet("${split("/", pair[1])[0]}/${min(split("/", pair[0])[1], split("/", pair[1])[1])}", 0, 0)
      ])
      error_message = "network.site_cidrs: the given VPC's ${self.cidr_block} overlaps one of ${join(", ", var.network.site_cidrs)}; the VPN could not route."
    }
  }
}

data "aws_subnet" "given" {
  for_each = local.given_vpc ? toset(var.network.subnet_ids) : toset([])
  id       = each.value

  lifecycle {
    postcondition {
      condition     = self.vpc_id == var.network.vpc_id
      error_message = "network.subnet_ids: ${each.value} is not a subnet of ${var.network.vpc_id}."
    }
  }
}

locals {
  own_vpc   = var.network.enabled && var.network.vpc_id == null
  given_vpc = var.network.enabled && var.network.vpc_id != null

  zones = !local.own_vpc ? [] : coalescelist(var.network.zones, slice(try(data.aws_availability_zones.usable[0].names, ["", ""]), 0, 2))

  vpc_id          = local.own_vpc ? aws_vpc.own[0].id : var.network.vpc_id
  subnet_ids      = local.own_vpc ? [for zone in local.zones : aws_subnet.private[zone].id] : var.network.subnet_ids
  subnet_cidrs    = local.own_vpc ? [for subnet in aws_subnet.private : subnet.cidr_block] : [for subnet in data.aws_subnet.given : subnet.cidr_block]
  route_table_ids = local.own_vpc ? [aws_route_table.private[0].id] : var.network.route_table_ids
}

resource "aws_vpc" "own" {
  count = local.own_vpc ? 1 : 0

  cidr_block           = var.network.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

resource "aws_subnet" "private" {
  for_each = toset(local.zones)

  vpc_id            = aws_vpc.own[0].id
  availability_zone = each.value
  # A quarter of the network each, so that two more zones can be added without moving what is there.
  cidr_block = cidrsubnet(var.network.cidr, 2, index(local.zones, each.value))

  tags = { Name = "${var.name}-private-${each.value}" }
}

resource "aws_route_table" "private" {
  count  = local.own_vpc ? 1 : 0
  vpc_id = aws_vpc.own[0].id

  tags = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[0].id
}

# Adopted and emptied: what is started without a group of its own can reach nothing and be reached by nothing.
resource "aws_default_security_group" "empty" {
  count  = local.own_vpc ? 1 : 0
  vpc_id = aws_vpc.own[0].id

  tags = { Name = "${var.name}-default-unused" }
}

# ------------------------------------------------------------------------------------------------ flow logs

locals {
  flow_logs = local.own_vpc && var.network.flow_logs
}

resource "aws_cloudwatch_log_group" "flow" {
  count = local.flow_logs ? 1 : 0

  name              = "/${var.name}/flow"
  retention_in_days = var.operations.log_days
  kms_key_id        = local.kms_key_arn
}

data "aws_iam_policy_document" "flow_trust" {
  statement {
    sid     = "FlowLogsOfThisAccount"
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["vpc-flow-logs.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account_id]
    }
    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:ec2:${local.region}:${local.account_id}:vpc-flow-log/*"]
    }
  }
}

data "aws_iam_policy_document" "flow" {
  statement {
    sid       = "WriteFlowLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
    resources = ["${local.log_arn}:/${var.name}/flow:*"]
  }
}

resource "aws_iam_role" "flow" {
  count = local.flow_logs ? 1 : 0

  name                 = "${var.name}-flow-logs"
  description          = "Writes the VPC's flow logs."
  assume_role_policy   = data.aws_iam_policy_document.flow_trust.json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "flow" {
  count = local.flow_logs ? 1 : 0

  name   = "write-logs"
  role   = aws_iam_role.flow[0].id
  policy = data.aws_iam_policy_document.flow.json
}

resource "aws_flow_log" "vpc" {
  count = local.flow_logs ? 1 : 0

  vpc_id                   = aws_vpc.own[0].id
  traffic_type             = "ALL"
  log_destination          = aws_cloudwatch_log_group.flow[0].arn
  iam_role_arn             = aws_iam_role.flow[0].arn
  max_aggregation_interval = 600

  tags = { Name = var.name }
}
