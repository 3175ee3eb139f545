# The daily maintenance: expires snapshots, lets Iceberg delete what no table reaches, and carries out erasures. It is the
# only part that deletes data, and it is started by its own schedule, by hand, or by `headrace erase`.

resource "aws_glue_job" "maintain" {
  name                    = local.maintain_job
  description             = "Expires snapshots, removes files that no table reaches, and carries out erasures."
  role_arn                = aws_iam_role.maintain_job.arn
  glue_version            = "6.0"
  worker_type             = var.maintenance.worker_type
  number_of_workers       = var.maintenance.workers
  timeout                 = var.maintenance.timeout_minutes
  max_retries             = 0 # what was not done is done the next day
  job_run_queuing_enabled = false
  security_configuration  = aws_glue_security_configuration.this.name
  connections             = local.job_connections

  command {
    name            = "glueetl"
    script_location = "${local.code}/maintain_job.py"
    python_version  = "3"
  }

  execution_property {
    max_concurrent_runs = 1
  }

  default_arguments = merge(
    local.job_arguments,
    {
      "--job"                    = local.maintain_job
      "--fold_job"               = local.fold_job
      "--orphan_days"            = tostring(var.maintenance.orphan_days)
      "--custom-logGroup-prefix" = local.job_log_prefixes["maintain"]
    },
    # Glue brings Iceberg's runtime; elsewhere Spark is told where to find it.
    var.maintenance.conf == null ? { "--datalake-formats" = "iceberg" } : { "--conf" = var.maintenance.conf },
  )

  depends_on = [aws_s3_object.artefact, aws_iam_role_policy.maintain_job, aws_cloudwatch_log_group.jobs]
}

# ------------------------------------------------------------------------------------------------ its role

resource "aws_iam_role" "maintain_job" {
  name                 = "${var.name}-maintain-job"
  description          = "The maintenance that deletes what no table reaches, and what is to be erased."
  assume_role_policy   = data.aws_iam_policy_document.trust["glue"].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "maintain_job" {
  name   = "maintain-job"
  role   = aws_iam_role.maintain_job.id
  policy = data.aws_iam_policy_document.maintain_job.json
}

data "aws_iam_policy_document" "maintain_job" {
  source_policy_documents = concat(
    [data.aws_iam_policy_document.job["maintain"].json],
    [for use in ["s3-read", "s3-write", "dynamodb"] : data.aws_iam_policy_document.key_through[use].json],
  )

  statement {
    sid       = "RewriteFiles"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${local.bucket_arn}/lake/*", "${local.bucket_arn}/raw/*", "${local.bucket_arn}/claims/*"]
  }

  # A version that was deleted can be brought back for lake.noncurrent_days.
  statement {
    sid       = "DeleteUnreachable"
    actions   = ["s3:DeleteObject"]
    resources = ["${local.bucket_arn}/lake/*", "${local.bucket_arn}/raw/*", "${local.bucket_arn}/claims/*"]
  }

  statement {
    sid       = "ListFiles"
    actions   = ["s3:ListBucket"]
    resources = [local.bucket_arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["lake/*", "raw/*", "claims/*"]
    }
  }

  statement {
    sid     = "CommitTables"
    actions = ["glue:GetTable", "glue:GetTables", "glue:UpdateTable"]
    resources = concat(
      ["${local.catalog_arn}:catalog"],
      local.catalog_resources["_lake"],
    )
  }

  statement {
    sid       = "ReadPolicies"
    actions   = ["dynamodb:Scan"]
    resources = [local.table_arns["tables"]]
  }

  statement {
    sid       = "CarryOutErasures"
    actions   = ["dynamodb:Query", "dynamodb:UpdateItem"]
    resources = [local.table_arns["sources"]]
  }

  statement {
    sid       = "ReadSchemas"
    actions   = ["dynamodb:GetItem", "dynamodb:Query"]
    resources = [local.table_arns["schemas"]]
  }
}

# ------------------------------------------------------------------------------------------------ its clock

resource "aws_scheduler_schedule" "maintain" {
  #checkov:skip=CKV_AWS_297:Its input is the name of a job

  name                = local.maintain_job
  description         = "Starts the daily maintenance."
  schedule_expression = var.maintenance.schedule

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:${local.partition}:scheduler:::aws-sdk:glue:startJobRun"
    role_arn = aws_iam_role.maintain_schedule.arn
    input    = jsonencode({ JobName = aws_glue_job.maintain.name })

    retry_policy {
      maximum_retry_attempts       = 3
      maximum_event_age_in_seconds = 3600
    }
    dead_letter_config {
      arn = aws_sqs_queue.dead_letters.arn
    }
  }

  depends_on = [aws_iam_role_policy.maintain_schedule]
}

resource "aws_iam_role" "maintain_schedule" {
  name                 = "${var.name}-maintain-schedule"
  description          = "EventBridge Scheduler starts the maintenance."
  assume_role_policy   = data.aws_iam_policy_document.trust["scheduler"].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "maintain_schedule" {
  name   = "maintain-schedule"
  role   = aws_iam_role.maintain_schedule.id
  policy = data.aws_iam_policy_document.maintain_schedule.json
}

data "aws_iam_policy_document" "maintain_schedule" {
  source_policy_documents = [data.aws_iam_policy_document.to_dead_letters.json]

  statement {
    sid       = "StartMaintenance"
    actions   = ["glue:StartJobRun"]
    resources = ["${local.catalog_arn}:job/${local.maintain_job}"]
  }
}
