# Names, and what several parts share. Every other file is one moving part with its role, policy, log group and alarms.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = var.region

  # Bucket names are global: the account and the region make them this deployment's own.
  lake_bucket = coalesce(var.lake.bucket_name, "${var.name}-lake-${local.account_id}-${var.region}")

  # Glue databases of every source, as the code names them.
  database_suffixes = ["", "_cut", "_history", "_lake"]
  databases = {
    for pair in setproduct(keys(var.sources), local.database_suffixes) :
    "${pair[0]}${pair[1]}" => { source = pair[0], suffix = pair[1] }
  }

  stream_name     = var.name
  stream_job      = "${var.name}-stream"
  fold_job        = "${var.name}-fold"
  maintain_job    = "${var.name}-maintain"
  plan_function   = "${var.name}-plan"
  ingest_workflow = "${var.name}-ingest"
  fold_workflow   = "${var.name}-fold"
  workgroup       = var.name
  topic           = "${var.name}-alarms"
}

# ------------------------------------------------------------------------------------------------ what policies share

# Who may take up a role of a service: that service, acting for this account.
data "aws_iam_policy_document" "trust" {
  for_each = toset(["glue", "lambda", "states", "scheduler"])

  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["${each.key}.amazonaws.com"]
    }
    # Lambda assumes execution roles without a source account, so a condition on it would let no function start. Glue
    # does not say whether it brings one: where it does, it must be this account. Neither can be handed another
    # account's role.
    dynamic "condition" {
      for_each = each.key == "lambda" ? [] : [local.account_id]
      content {
        test     = each.key == "glue" ? "StringEqualsIfExists" : "StringEquals"
        variable = "aws:SourceAccount"
        values   = [condition.value]
      }
    }
  }
}

locals {
  # ARNs by name, for policies that must not wait for what they name.
  catalog_arn = "arn:${local.partition}:glue:${local.region}:${local.account_id}"
  table_arns  = { for name in keys(local.dynamodb_tables) : name => "arn:${local.partition}:dynamodb:${local.region}:${local.account_id}:table/${var.name}-${name}" }
  bucket_arn  = "arn:${local.partition}:s3:::${local.lake_bucket}"
  log_arn     = "arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group"

  # A catalog object is judged with its database and the catalog.
  catalog_resources = {
    for suffix in local.database_suffixes : suffix => flatten([
      for source in keys(var.sources) : [
        "${local.catalog_arn}:database/${source}${suffix}",
        "${local.catalog_arn}:table/${source}${suffix}/*",
      ]
    ])
  }
}

# The key through one service only: whoever holds the role's credentials cannot decrypt by hand.
data "aws_iam_policy_document" "key_through" {
  for_each = {
    kinesis-read = { service = "kinesis", sid = "ReadEncryptedStream", actions = ["kms:Decrypt"] }
    s3-read      = { service = "s3", sid = "ReadEncryptedObjects", actions = ["kms:Decrypt"] }
    s3-write     = { service = "s3", sid = "WriteEncryptedObjects", actions = ["kms:GenerateDataKey"] }
    dynamodb     = { service = "dynamodb", sid = "UseEncryptedTables", actions = ["kms:Decrypt"] }
    sns          = { service = "sns", sid = "PublishEncrypted", actions = ["kms:GenerateDataKey", "kms:Decrypt"] }
  }

  statement {
    sid       = each.value.sid
    actions   = each.value.actions
    resources = [local.kms_key_arn]
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["${each.value.service}.${local.region}.amazonaws.com"]
    }
  }
}

# What a schedule could not deliver goes to the queue, with the schedule's role.
data "aws_iam_policy_document" "to_dead_letters" {
  statement {
    sid       = "KeepUndelivered"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }
}
