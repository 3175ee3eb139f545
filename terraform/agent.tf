# The identity of each source's agent: a role that only a certificate of the site's authority with the source's subject
# can take on (IAM Roles Anywhere), or the principals that the operator names; and the configuration that it starts with.

locals {
  roles_anywhere = var.agent.ca_bundle != null || var.agent.ca_arn != null

  # A role that nobody may take on is no valid role, so there is none until somebody may, and no agent sends anything.
  agents = local.roles_anywhere || length(var.agent.trusted_principals) > 0 ? var.sources : {}

  trust_anchor_arns    = aws_rolesanywhere_trust_anchor.site[*].arn
  certificate_subjects = { for source, settings in var.sources : source => coalesce(settings.certificate_subject, source) }
}

resource "aws_rolesanywhere_trust_anchor" "site" {
  count = local.roles_anywhere ? 1 : 0

  name    = "${var.name}-site"
  enabled = true

  source {
    source_type = var.agent.ca_arn == null ? "CERTIFICATE_BUNDLE" : "AWS_ACM_PCA"
    source_data {
      x509_certificate_data = var.agent.ca_bundle
      acm_pca_arn           = var.agent.ca_arn
    }
  }
}

# A profile for each source, so that a session can be had for its own role and no other.
resource "aws_rolesanywhere_profile" "agent" {
  for_each = local.roles_anywhere ? local.agents : {}

  name             = aws_iam_role.agent[each.key].name
  enabled          = true
  role_arns        = [aws_iam_role.agent[each.key].arn]
  duration_seconds = var.agent.session_seconds
}

data "aws_iam_policy_document" "agent_trust" {
  for_each = local.agents

  dynamic "statement" {
    for_each = local.trust_anchor_arns
    content {
      sid     = "CertificateOfThisSource"
      actions = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
      principals {
        type        = "Service"
        identifiers = ["rolesanywhere.amazonaws.com"]
      }
      condition {
        test     = "StringEquals"
        variable = "aws:PrincipalTag/x509Subject/CN"
        values   = [local.certificate_subjects[each.key]]
      }
      condition {
        test     = "ArnEquals"
        variable = "aws:SourceArn"
        values   = [statement.value]
      }
    }
  }

  dynamic "statement" {
    for_each = length(var.agent.trusted_principals) > 0 ? [var.agent.trusted_principals] : []
    content {
      sid     = "PrincipalsOfThisAccount"
      actions = ["sts:AssumeRole"]
      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }
}

resource "aws_iam_role" "agent" {
  for_each = local.agents

  name                 = "${var.name}-agent-${each.key}"
  description          = "The agent of the source ${each.key}: sends its changes, registers its schemas, keeps its lease."
  assume_role_policy   = data.aws_iam_policy_document.agent_trust[each.key].json
  max_session_duration = max(3600, var.agent.session_seconds)
  permissions_boundary = var.permissions_boundary_arn

  lifecycle {
    precondition {
      condition     = length("${var.name}-agent-${each.key}") <= 64
      error_message = "sources: the role ${var.name}-agent-${each.key} is longer than the 64 characters that IAM allows; shorten name or the source's name."
    }
  }
}

# Exactly what producer/ calls. A source's items carry its name in their key, so one agent's credentials cannot touch
# another source's lease, requests or schemas; fingerprints are shared and only ever added.
data "aws_iam_policy_document" "agent" {
  for_each = local.agents

  source_policy_documents = [
    data.aws_iam_policy_document.key_through["s3-write"].json,
    data.aws_iam_policy_document.key_through["dynamodb"].json,
  ]

  statement {
    sid       = "SendToStream"
    actions   = ["kinesis:PutRecords", "kinesis:DescribeStreamSummary"]
    resources = [local.stream_arn]
  }

  statement {
    sid       = "OwnLeaseAndRequests"
    actions   = ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem"]
    resources = [local.table_arns["sources"]]
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "dynamodb:LeadingKeys"
      values   = [each.key]
    }
  }

  statement {
    sid       = "RegisterOwnSchemas"
    actions   = ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem"]
    resources = [local.table_arns["schemas"]]
    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = ["${each.key}.*", "fp:*"]
    }
  }

  statement {
    sid       = "LeaveClaims"
    actions   = ["s3:PutObject"]
    resources = ["${local.bucket_arn}/claims/${each.key}/*"]
  }

  statement {
    sid       = "SendEncrypted"
    actions   = ["kms:GenerateDataKey"]
    resources = [local.kms_key_arn]
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["kinesis.${local.region}.amazonaws.com"]
    }
  }

  # KMS is called by the services, from their own networks, so it stays out of this.
  dynamic "statement" {
    for_each = var.agent.only_from_vpc ? [local.vpc_id] : []
    content {
      sid       = "NothingFromElsewhere"
      effect    = "Deny"
      actions   = ["kinesis:*", "dynamodb:*", "s3:*", "secretsmanager:*"]
      resources = ["*"]
      condition {
        test     = "StringNotEquals"
        variable = "aws:SourceVpc"
        values   = [statement.value]
      }
    }
  }

  dynamic "statement" {
    for_each = [for source, arn in local.password_secret_arns : arn if source == each.key]
    content {
      sid       = "ReadOwnDatabasePassword"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = [for source, arn in local.password_secret_arns : arn if source == each.key]
    content {
      sid       = "DecryptOwnDatabasePassword"
      actions   = ["kms:Decrypt"]
      resources = [local.kms_key_arn]
      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["secretsmanager.${local.region}.amazonaws.com"]
      }
      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:SecretARN"
        values   = [statement.value]
      }
    }
  }
}

resource "aws_iam_role_policy" "agent" {
  for_each = local.agents

  name   = "agent"
  role   = aws_iam_role.agent[each.key].id
  policy = data.aws_iam_policy_document.agent[each.key].json
}

# ------------------------------------------------------------------------------------------------ configuration

locals {
  # What the agent itself calls; the others of network.endpoints serve tools beside it.
  agent_endpoint_services = { kinesis = "kinesis-streams", dynamodb = "dynamodb", s3 = "s3" }

  agent_configs = {
    for source in keys(var.sources) : source => templatefile("${path.module}/agent.toml.tftpl", {
      source     = source
      dsn        = coalesce(try(var.agent.sites[source].dsn, null), "host=localhost dbname=${source} user=headrace")
      spool_path = coalesce(try(var.agent.sites[source].spool_path, null), "/var/lib/headrace/${source}.sqlite")
      tables     = try(var.agent.sites[source].tables, ["public.*"])
      stream     = local.stream_name
      prefix     = var.name
      region     = local.region
      claims     = "s3://${local.lake_bucket}/claims"
      endpoints = {
        for key, service in local.agent_endpoint_services : key => local.endpoint_urls[service]
        if contains(keys(local.endpoint_urls), service)
      }
    })
  }

  # A section of ~/.aws/config that turns the certificate into credentials, again and again.
  agent_profiles = {
    for source, profile in aws_rolesanywhere_profile.agent : source => templatefile("${path.module}/agent_profile.tftpl", {
      source       = source
      region       = local.region
      trust_anchor = aws_rolesanywhere_trust_anchor.site[0].arn
      profile      = profile.arn
      role         = aws_iam_role.agent[source].arn
      endpoint     = try(local.endpoint_urls["rolesanywhere"], null)
    })
  }
}

# For an operator who has the console and not the state.
resource "aws_ssm_parameter" "agent" {
  for_each = local.agent_configs

  #checkov:skip=CKV2_AWS_34:A configuration without any secret; plain, so that an operator needs no key to read it
  name        = "/${var.name}/agent/${each.key}"
  description = "agent.toml of the source ${each.key}."
  type        = "String"
  value       = each.value
}
