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
  plan_function   = "${var.name}-plan"
  ingest_workflow = "${var.name}-ingest"
  fold_workflow   = "${var.name}-fold"
  workgroup       = var.name
  topic           = "${var.name}-alarms"
}
