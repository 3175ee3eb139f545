# The Glue jobs inside the private subnets: a connection for each subnet, a group that only they are in, and the ways
# out that they need. Without jobs_in_vpc there is nothing here, and the jobs run in Glue's own network.

locals {
  # What the jobs and Glue's own agent beside them call; S3 and DynamoDB go through the gateways.
  job_services    = var.jobs_in_vpc ? toset(["glue", "kinesis-streams", "kms", "logs", "monitoring", "sts"]) : toset([])
  ec2_arn         = "arn:${local.partition}:ec2:${local.region}:${local.account_id}"
  job_connections = [for connection in aws_glue_connection.jobs : connection.name]
}

resource "aws_security_group" "jobs" {
  #checkov:skip=CKV2_AWS_5:The Glue connections below attach it
  count = var.jobs_in_vpc ? 1 : 0

  name        = "${var.name}-jobs"
  description = "Glue jobs: each other, the endpoints, S3 and DynamoDB; nobody else."
  vpc_id      = local.vpc_id

  tags = { Name = "${var.name}-jobs" }
}

# Spark's driver and executors choose their ports, and Glue refuses a connection whose group does not admit itself on
# all of them.
resource "aws_vpc_security_group_ingress_rule" "jobs_self" {
  count = var.jobs_in_vpc ? 1 : 0

  security_group_id            = aws_security_group.jobs[0].id
  description                  = "Driver and executors"
  referenced_security_group_id = aws_security_group.jobs[0].id
  ip_protocol                  = "tcp"
  from_port                    = 0
  to_port                      = 65535
}

resource "aws_vpc_security_group_egress_rule" "jobs_self" {
  count = var.jobs_in_vpc ? 1 : 0

  security_group_id            = aws_security_group.jobs[0].id
  description                  = "Driver and executors"
  referenced_security_group_id = aws_security_group.jobs[0].id
  ip_protocol                  = "tcp"
  from_port                    = 0
  to_port                      = 65535
}

resource "aws_vpc_security_group_egress_rule" "jobs_endpoints" {
  count = var.jobs_in_vpc ? 1 : 0

  security_group_id            = aws_security_group.jobs[0].id
  description                  = "Interface endpoints"
  referenced_security_group_id = aws_security_group.endpoints[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "jobs_gateways" {
  for_each = var.jobs_in_vpc ? local.gateway_services : toset([])

  security_group_id = aws_security_group.jobs[0].id
  description       = "Gateway endpoint of ${each.value}"
  prefix_list_id    = aws_vpc_endpoint.gateway[each.value].prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

data "aws_subnet" "job" {
  count = var.jobs_in_vpc ? length(local.subnet_ids) : 0
  id    = local.subnet_ids[count.index]
}

# One for each subnet: Glue starts a job in the first that has room, so a zone's outage stops no job.
resource "aws_glue_connection" "jobs" {
  count = var.jobs_in_vpc ? length(data.aws_subnet.job) : 0

  name            = "${var.name}-jobs-${count.index + 1}"
  description     = "The subnet ${local.subnet_ids[count.index]}"
  connection_type = "NETWORK"

  physical_connection_requirements {
    subnet_id              = local.subnet_ids[count.index]
    availability_zone      = data.aws_subnet.job[count.index].availability_zone
    security_group_id_list = [aws_security_group.jobs[0].id]
  }
}

# What a job's role needs so that Glue can put its network interfaces into the subnets.
data "aws_iam_policy_document" "job_network" {
  #checkov:skip=CKV_AWS_356:Only describing is allowed on everything, since it knows no resources
  statement {
    sid       = "LookAtNetwork"
    actions   = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcAttribute", "ec2:DescribeVpcEndpoints", "ec2:DescribeVpcs"]
    resources = ["*"]
  }
  statement {
    sid     = "MakeInterfaces"
    actions = ["ec2:CreateNetworkInterface"]
    resources = concat(
      ["${local.ec2_arn}:network-interface/*"],
      [for subnet in local.subnet_ids : "${local.ec2_arn}:subnet/${subnet}"],
      [for group in aws_security_group.jobs : group.arn],
    )
  }
  statement {
    sid       = "TagInterfacesAsGlues"
    actions   = ["ec2:CreateTags", "ec2:DeleteTags"]
    resources = ["${local.ec2_arn}:network-interface/*"]
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "aws:TagKeys"
      values   = ["aws-glue-service-resource"]
    }
  }
  statement {
    sid       = "DeleteGluesInterfaces"
    actions   = ["ec2:DeleteNetworkInterface"]
    resources = ["${local.ec2_arn}:network-interface/*"]
    condition {
      test     = "Null"
      variable = "aws:ResourceTag/aws-glue-service-resource"
      values   = ["false"]
    }
  }
  statement {
    sid     = "ReadConnections"
    actions = ["glue:GetConnection", "glue:GetConnections"]
    resources = [
      "${local.catalog_arn}:catalog",
      "${local.catalog_arn}:connection/${var.name}-jobs-*",
    ]
  }
}

resource "aws_iam_role_policy" "job_network" {
  for_each = var.jobs_in_vpc ? { stream = aws_iam_role.stream_job.id, fold = aws_iam_role.fold_job.id, maintain = aws_iam_role.maintain_job.id } : {}

  name   = "network"
  role   = each.value
  policy = data.aws_iam_policy_document.job_network.json
}
