# The two Glue jobs: what they run, in which role, and where they write their logs.

# ------------------------------------------------------------------------------------------------ code

locals {
  manifest_file = "${var.artefacts.folder}/manifest.json"
  manifest      = try(jsondecode(file(local.manifest_file)), { bundle = "missing", files = {} })
  # Artefacts lie under their content hash: a new bundle is a new place, a run keeps the code it was started with, and
  # the bundle before is still there to go back to.
  bundle        = coalesce(var.artefacts.rollback, local.manifest.bundle)
  known_bundles = distinct(concat(compact([var.artefacts.rollback]), [local.manifest.bundle], var.earlier_bundles))
  bundles       = slice(local.known_bundles, 0, min(6, length(local.known_bundles)))
  bundle_files  = keys(local.manifest.files)
  code          = "s3://${aws_s3_bucket.lake.bucket}/jobs/${local.bundle}"
  wheels        = contains(local.bundle_files, "headrace.gluewheels.zip")
}

resource "aws_s3_object" "artefact" {
  for_each = {
    for pair in setproduct(local.bundles, local.bundle_files) : "${pair[0]}/${pair[1]}" => pair[1]
  }

  bucket = aws_s3_bucket.lake.bucket
  key    = "jobs/${each.key}"
  # Read only when the object is made: an earlier bundle's object stays as it is.
  source = "${var.artefacts.folder}/${each.value}"

  depends_on = [
    aws_s3_bucket_versioning.lake,
    aws_s3_bucket_server_side_encryption_configuration.lake,
    aws_s3_bucket_policy.lake,
    aws_s3_bucket_ownership_controls.lake,
  ]
}

# ------------------------------------------------------------------------------------------------ jobs

locals {
  job_arguments = merge(
    {
      "--source"                       = join(",", keys(var.sources))
      "--stream_name"                  = local.stream_name
      "--lake_bucket"                  = local.lake_bucket
      "--dynamodb_prefix"              = var.name
      "--fold_horizon_seconds"         = tostring(var.fold_job.horizon_seconds)
      "--bundle"                       = local.bundle
      "--extra-py-files"               = "${local.code}/headrace.zip"
      "--job-language"                 = "python"
      "--job-bookmark-option"          = "job-bookmark-disable" # the tables' marks are the checkpoint
      "--enable-metrics"               = "true"
      "--enable-observability-metrics" = "true"
    },
    local.wheels ? {
      "--additional-python-modules"       = "${local.code}/headrace.gluewheels.zip"
      "--python-modules-installer-option" = "--no-index" # what is not in the bundle is not installed
    } : {},
  )
}

resource "aws_glue_job" "stream" {
  name              = local.stream_job
  description       = "Reads the stream and commits to the lake tables."
  role_arn          = aws_iam_role.stream_job.arn
  glue_version      = "6.0"
  worker_type       = var.stream_job.worker_type
  number_of_workers = var.stream_job.workers
  # No timeout: it stands. Glue restarts it in the maintenance window, which a streaming job needs once in seven days.
  maintenance_window      = var.stream_job.mode == "continuous" ? var.stream_job.maintenance_window : null
  max_retries             = 0 # the ingest workflow starts it again
  job_run_queuing_enabled = false
  security_configuration  = aws_glue_security_configuration.this.name
  connections             = local.job_connections

  command {
    name            = "gluestreaming"
    script_location = "${local.code}/stream_job.py"
    python_version  = "3"
  }

  execution_property {
    max_concurrent_runs = 1
  }

  default_arguments = merge(
    local.job_arguments,
    {
      "--job"                    = local.stream_job
      "--mode"                   = var.stream_job.mode
      "--checkpoint"             = coalesce(var.stream_job.checkpoint, "s3://${local.lake_bucket}/checkpoint/${local.stream_job}")
      "--custom-logGroup-prefix" = local.job_log_prefixes["stream"]
    },
    var.stream_job.conf == null ? {} : { "--conf" = var.stream_job.conf },
  )

  depends_on = [aws_s3_object.artefact, aws_iam_role_policy.stream_job, aws_cloudwatch_log_group.jobs]
}

resource "aws_glue_job" "fold" {
  name                    = local.fold_job
  description             = "Folds log files into history, delta and base, and writes the views."
  role_arn                = aws_iam_role.fold_job.arn
  glue_version            = "6.0"
  worker_type             = var.fold_job.worker_type
  number_of_workers       = var.fold_job.workers
  timeout                 = var.fold_job.timeout_minutes
  max_retries             = 0     # the next workflow run folds what is due then
  job_run_queuing_enabled = false # a fold that waited may find its work done; the workflow retries by itself
  security_configuration  = aws_glue_security_configuration.this.name
  connections             = local.job_connections

  command {
    name            = "glueetl"
    script_location = "${local.code}/fold_job.py"
    python_version  = "3"
  }

  execution_property {
    max_concurrent_runs = var.fold_job.map_concurrency
  }

  default_arguments = merge(
    local.job_arguments,
    {
      "--job"                    = local.fold_job
      "--kind"                   = "auto"
      "--custom-logGroup-prefix" = local.job_log_prefixes["fold"]
    },
    var.fold_job.conf == null ? {} : { "--conf" = var.fold_job.conf },
  )

  depends_on = [aws_s3_object.artefact, aws_iam_role_policy.fold_job, aws_cloudwatch_log_group.jobs]
}

# Encrypts what Spark itself writes to S3, its checkpoint. The logs' encryption is the log groups' own:
# with this configuration's, Glue would write to groups whose names it makes from the configuration and the role.
resource "aws_glue_security_configuration" "this" {
  #checkov:skip=CKV_AWS_99:The log groups carry the key themselves; through this configuration Glue would write to groups that nobody made

  name = var.name

  encryption_configuration {
    s3_encryption {
      s3_encryption_mode = "SSE-KMS"
      kms_key_arn        = local.kms_key_arn
    }
    cloudwatch_encryption {
      cloudwatch_encryption_mode = "DISABLED"
    }
    job_bookmarks_encryption {
      job_bookmarks_encryption_mode = "CSE-KMS"
      kms_key_arn                   = local.kms_key_arn
    }
  }
}

# ------------------------------------------------------------------------------------------------ logs

locals {
  job_log_prefixes = { for job in ["stream", "fold", "maintain"] : job => "/${var.name}/jobs/${job}" }
}

resource "aws_cloudwatch_log_group" "jobs" {
  for_each = toset([for pair in setproduct(values(local.job_log_prefixes), ["output", "error"]) : join("/", pair)])

  name              = each.key
  retention_in_days = var.operations.log_days
  kms_key_id        = local.kms_key_arn
}

# ------------------------------------------------------------------------------------------------ what all jobs do

data "aws_iam_policy_document" "job" {
  for_each = local.job_log_prefixes

  statement {
    sid       = "ReadCode"
    actions   = ["s3:GetObject"]
    resources = ["${local.bucket_arn}/jobs/*"]
  }

  # The groups are made here; Glue still asks to make them before it writes.
  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${local.log_arn}:${each.value}/*"]
  }

  # No resource can be named for metrics; the namespace narrows it. "Glue" is where the runtime puts its own.
  statement {
    sid       = "PutMetrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = ["Headrace", "Glue"]
    }
  }

  statement {
    sid       = "ReadSettings"
    actions   = ["dynamodb:Query"]
    resources = [local.table_arns["settings"]]
  }
}

# ------------------------------------------------------------------------------------------------ the streaming job's role

resource "aws_iam_role" "stream_job" {
  name                 = "${var.name}-stream-job"
  description          = "The streaming job."
  assume_role_policy   = data.aws_iam_policy_document.trust["glue"].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "stream_job" {
  name   = "stream-job"
  role   = aws_iam_role.stream_job.id
  policy = data.aws_iam_policy_document.stream_job.json
}

data "aws_iam_policy_document" "stream_job" {
  source_policy_documents = concat(
    [data.aws_iam_policy_document.job["stream"].json],
    [for use in ["kinesis-read", "s3-read", "s3-write", "dynamodb"] : data.aws_iam_policy_document.key_through[use].json],
  )

  statement {
    sid       = "ReadStream"
    actions   = ["kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:GetShardIterator", "kinesis:GetRecords"]
    resources = [aws_kinesis_stream.changes.arn]
  }

  statement {
    sid       = "ReadSchemas"
    actions   = ["dynamodb:GetItem", "dynamodb:Query"]
    resources = [local.table_arns["schemas"]]
  }

  statement {
    sid       = "ReadTables"
    actions   = ["dynamodb:Scan"]
    resources = [local.table_arns["tables"]]
  }

  statement {
    sid       = "SavePositions"
    actions   = ["dynamodb:Query", "dynamodb:PutItem"]
    resources = [local.table_arns["shards"]]
  }

  statement {
    sid       = "TakeEpochAnswerRequests"
    actions   = ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"]
    resources = [local.table_arns["sources"]]
  }

  statement {
    sid       = "ReadLakeAndClaims"
    actions   = ["s3:GetObject"]
    resources = ["${local.bucket_arn}/lake/*", "${local.bucket_arn}/claims/*", "${local.bucket_arn}/raw/*"]
  }

  statement {
    sid       = "WriteLakeAndRaw"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${local.bucket_arn}/lake/*", "${local.bucket_arn}/raw/*"]
  }

  # A commit takes the oldest description of a table away, and never data.
  statement {
    sid       = "DropOldMetadata"
    actions   = ["s3:DeleteObject"]
    resources = ["${local.bucket_arn}/lake/*/metadata/*.metadata.json"]
  }

  statement {
    sid       = "KeepCheckpoint"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    resources = ["${local.bucket_arn}/checkpoint", "${local.bucket_arn}/checkpoint/*"]
  }

  # Also where a request names no prefix: Spark asks for checkpoint files, and for the folders above them, before they
  # are there, and S3 answers such a request with "missing" only to who may list; to others it is forbidden.
  statement {
    sid       = "ListRawAndCheckpoint"
    actions   = ["s3:ListBucket"]
    resources = [local.bucket_arn]
    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["raw/*", "checkpoint/*"]
    }
  }

  statement {
    sid     = "CommitTables"
    actions = ["glue:CreateDatabase", "glue:GetTable", "glue:GetTables", "glue:CreateTable", "glue:UpdateTable"]
    resources = concat(
      ["${local.catalog_arn}:catalog"],
      local.catalog_resources["_lake"],
      local.catalog_resources["_cut"],
    )
  }

  # Views that stand follow a new structure before any row needs it; the fold makes them.
  statement {
    sid     = "RefreshViews"
    actions = ["glue:GetTable", "glue:GetTables", "glue:UpdateTable"]
    resources = concat(
      ["${local.catalog_arn}:catalog"],
      local.catalog_resources[""],
      local.catalog_resources["_history"],
    )
  }
}

# ------------------------------------------------------------------------------------------------ the fold job's role

resource "aws_iam_role" "fold_job" {
  name                 = "${var.name}-fold-job"
  description          = "The fold job."
  assume_role_policy   = data.aws_iam_policy_document.trust["glue"].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "fold_job" {
  name   = "fold-job"
  role   = aws_iam_role.fold_job.id
  policy = data.aws_iam_policy_document.fold_job.json
}

data "aws_iam_policy_document" "fold_job" {
  source_policy_documents = concat(
    [data.aws_iam_policy_document.job["fold"].json],
    [for use in ["s3-read", "s3-write", "dynamodb"] : data.aws_iam_policy_document.key_through[use].json],
  )

  statement {
    sid       = "FoldFiles"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${local.bucket_arn}/lake/*"]
  }

  # A commit takes the oldest description of a table away, and never data.
  statement {
    sid       = "DropOldMetadata"
    actions   = ["s3:DeleteObject"]
    resources = ["${local.bucket_arn}/lake/*/metadata/*.metadata.json"]
  }

  statement {
    sid       = "ReadPolicies"
    actions   = ["dynamodb:Scan"]
    resources = [local.table_arns["tables"]]
  }

  statement {
    sid       = "ReadErasures"
    actions   = ["dynamodb:Query"]
    resources = [local.table_arns["sources"]]
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
    sid     = "WriteViews"
    actions = ["glue:GetTable", "glue:CreateTable", "glue:UpdateTable"]
    resources = concat(
      ["${local.catalog_arn}:catalog"],
      local.catalog_resources[""],
      local.catalog_resources["_cut"],
      local.catalog_resources["_history"],
    )
  }
}
