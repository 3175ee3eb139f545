# Step Functions orchestrates both ways: ingest keeps the streaming job running (or drains), fold folds what is due.
# A planning function reads freshness from the catalog and says what becomes of a failed run, and EventBridge Scheduler is the clock.

# ------------------------------------------------------------------------------------------------ state machines

resource "aws_sfn_state_machine" "ingest" {
  #checkov:skip=CKV_AWS_284:Few steps that call one service each; the execution's history and log tell the same

  name     = local.ingest_workflow
  role_arn = aws_iam_role.ingest_workflow.arn
  definition = templatefile("${path.module}/ingest_workflow.asl.json", {
    stream_job         = local.stream_job
    bundle             = local.bundle
    mode               = var.stream_job.mode
    fold_state_machine = aws_sfn_state_machine.fold.arn
    topic              = local.topic_arn
  })

  logging_configuration {
    log_destination        = "${aws_cloudwatch_log_group.workflows["ingest"].arn}:*"
    level                  = "ERROR" # it runs every minute, and mostly finds a job that runs
    include_execution_data = true
  }

  depends_on = [aws_iam_role_policy.ingest_workflow]
}

resource "aws_sfn_state_machine" "fold" {
  #checkov:skip=CKV_AWS_284:Few steps that call one service each; the execution's history and log tell the same

  name     = local.fold_workflow
  role_arn = aws_iam_role.fold_workflow.arn
  definition = templatefile("${path.module}/fold_workflow.asl.json", {
    plan_function = aws_lambda_function.plan.function_name
    fold_job      = local.fold_job
    worker_type   = var.fold_job.worker_type
    topic         = local.topic_arn
  })

  logging_configuration {
    log_destination        = "${aws_cloudwatch_log_group.workflows["fold"].arn}:*"
    level                  = "ALL"
    include_execution_data = true
  }

  depends_on = [aws_iam_role_policy.fold_workflow]
}

resource "aws_cloudwatch_log_group" "workflows" {
  for_each = { ingest = local.ingest_workflow, fold = local.fold_workflow }

  name              = "/aws/vendedlogs/states/${each.value}"
  retention_in_days = var.operations.log_days
  kms_key_id        = local.kms_key_arn
}

# ------------------------------------------------------------------------------------------------ roles of the workflows

# Step Functions writes its log through a delivery that it makes in the role; for deliveries no resource can be named.
data "aws_iam_policy_document" "workflow" {
  source_policy_documents = [data.aws_iam_policy_document.key_through["sns"].json]

  statement {
    sid = "DeliverLogs"
    actions = [
      "logs:CreateLogDelivery", "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery",
      "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:DescribeResourcePolicies", "logs:DescribeLogGroups",
    ]
    resources = ["*"]
  }

  statement {
    sid       = "TellTopic"
    actions   = ["sns:Publish"]
    resources = [local.topic_arn]
  }
}

resource "aws_iam_role" "ingest_workflow" {
  name                 = "${var.name}-ingest-workflow"
  description          = "The ingest workflow: starts, looks at and stops runs of the streaming job."
  assume_role_policy   = data.aws_iam_policy_document.trust["states"].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "ingest_workflow" {
  name   = "ingest-workflow"
  role   = aws_iam_role.ingest_workflow.id
  policy = data.aws_iam_policy_document.ingest_workflow.json
}

data "aws_iam_policy_document" "ingest_workflow" {
  source_policy_documents = [data.aws_iam_policy_document.workflow.json]

  statement {
    sid       = "RunStreamJob"
    actions   = ["glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun"]
    resources = ["${local.catalog_arn}:job/${local.stream_job}"]
  }

  # Only draining starts the fold; a continuous job leaves it to the fold's own schedule.
  dynamic "statement" {
    for_each = var.stream_job.mode == "drain" ? [1] : []
    content {
      sid       = "StartFold"
      actions   = ["states:StartExecution"]
      resources = [aws_sfn_state_machine.fold.arn]
    }
  }
}

resource "aws_iam_role" "fold_workflow" {
  name                 = "${var.name}-fold-workflow"
  description          = "The fold workflow: asks the planning function and runs the fold job."
  assume_role_policy   = data.aws_iam_policy_document.trust["states"].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "fold_workflow" {
  name   = "fold-workflow"
  role   = aws_iam_role.fold_workflow.id
  policy = data.aws_iam_policy_document.fold_workflow.json
}

data "aws_iam_policy_document" "fold_workflow" {
  source_policy_documents = [data.aws_iam_policy_document.workflow.json]

  statement {
    sid       = "AskPlan"
    actions   = ["lambda:InvokeFunction"]
    resources = [aws_lambda_function.plan.arn]
  }

  statement {
    sid       = "RunFoldJob"
    actions   = ["glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun"]
    resources = ["${local.catalog_arn}:job/${local.fold_job}"]
  }
}

# ------------------------------------------------------------------------------------------------ planning function

resource "aws_lambda_function" "plan" {
  #checkov:skip=CKV_AWS_50:One call of two services; its log line tells the same
  #checkov:skip=CKV_AWS_115:Called by one workflow, one execution at a time; reserving takes from the account's other functions
  #checkov:skip=CKV_AWS_116:Called synchronously; its failures are the workflow's, which tells the topic
  #checkov:skip=CKV_AWS_117:It calls AWS alone and reaches nothing inside a VPC
  #checkov:skip=CKV_AWS_173:Its environment holds names that are in every log line
  #checkov:skip=CKV_AWS_272:Its code lies under its content hash in a bucket that only the deployment writes

  function_name = local.plan_function
  description   = "Says which tables are due for a fold, and why, and what becomes of those that were not folded."
  role          = aws_iam_role.plan.arn
  runtime       = "python3.13"
  architectures = ["arm64"]
  handler       = "glue_streaming.plan_lambda.handler"
  s3_bucket     = aws_s3_bucket.lake.bucket
  s3_key        = "jobs/${local.bundle}/headrace.zip"
  timeout       = 60
  memory_size   = 256

  environment {
    variables = {
      SOURCES              = join(",", keys(var.sources))
      JOB                  = local.fold_job
      DYNAMODB_PREFIX      = var.name
      FOLD_HORIZON_SECONDS = tostring(var.fold_job.horizon_seconds)
      MAP_CONCURRENCY      = tostring(var.fold_job.map_concurrency)
      WORKERS              = tostring(var.fold_job.workers)
      MAX_WORKERS          = tostring(var.fold_job.max_workers)
      LOG_GROUP            = "${local.job_log_prefixes["fold"]}/error"
    }
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.plan.name
  }

  depends_on = [aws_s3_object.artefact, aws_iam_role_policy.plan]
}

resource "aws_cloudwatch_log_group" "plan" {
  name              = "/aws/lambda/${local.plan_function}"
  retention_in_days = var.operations.log_days
  kms_key_id        = local.kms_key_arn
}

resource "aws_iam_role" "plan" {
  name                 = "${var.name}-plan"
  description          = "The planning function: reads the catalog, settings and runs, and nothing of the data."
  assume_role_policy   = data.aws_iam_policy_document.trust["lambda"].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "plan" {
  name   = "plan"
  role   = aws_iam_role.plan.id
  policy = data.aws_iam_policy_document.plan.json
}

data "aws_iam_policy_document" "plan" {
  source_policy_documents = [data.aws_iam_policy_document.key_through["dynamodb"].json]

  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.plan.arn}:*"]
  }

  statement {
    sid       = "ReadSettings"
    actions   = ["dynamodb:Query"]
    resources = [local.table_arns["settings"]]
  }

  statement {
    sid       = "ReadPauses"
    actions   = ["dynamodb:Scan"]
    resources = [local.table_arns["tables"]]
  }

  statement {
    sid       = "RememberFailures"
    actions   = ["dynamodb:UpdateItem"]
    resources = [local.table_arns["tables"]]
  }

  statement {
    sid       = "SeeRunsOfFoldJob"
    actions   = ["glue:GetJobRuns"]
    resources = ["${local.catalog_arn}:job/${local.fold_job}"]
  }

  statement {
    sid     = "ReadFreshness"
    actions = ["glue:GetTable", "glue:GetTables"]
    resources = concat(
      ["${local.catalog_arn}:catalog"],
      local.catalog_resources["_lake"],
      local.catalog_resources["_cut"],
    )
  }
}

# ------------------------------------------------------------------------------------------------ clock

resource "aws_scheduler_schedule" "workflow" {
  #checkov:skip=CKV_AWS_297:Its input is an empty document

  for_each = {
    for name, machine in { ingest = aws_sfn_state_machine.ingest, fold = aws_sfn_state_machine.fold } :
    name => { arn = machine.arn, name = machine.name, expression = var.schedules[name] }
    # A draining ingest starts the fold when it is done, so that it folds what was just read.
    if name == "ingest" || var.stream_job.mode == "continuous"
  }

  name                = each.value.name
  description         = "Starts the ${each.key} workflow."
  schedule_expression = each.value.expression

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = each.value.arn
    role_arn = aws_iam_role.schedule.arn
    input    = "{}"

    retry_policy {
      maximum_retry_attempts       = 3
      maximum_event_age_in_seconds = 120 # the next one is on its way
    }
    dead_letter_config {
      arn = aws_sqs_queue.dead_letters.arn
    }
  }

  depends_on = [aws_iam_role_policy.schedule]
}

resource "aws_iam_role" "schedule" {
  name                 = "${var.name}-schedule"
  description          = "EventBridge Scheduler starts the workflows."
  assume_role_policy   = data.aws_iam_policy_document.trust["scheduler"].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "schedule" {
  name   = "schedule"
  role   = aws_iam_role.schedule.id
  policy = data.aws_iam_policy_document.schedule.json
}

data "aws_iam_policy_document" "schedule" {
  source_policy_documents = [data.aws_iam_policy_document.to_dead_letters.json]

  statement {
    sid       = "StartWorkflows"
    actions   = ["states:StartExecution"]
    resources = [aws_sfn_state_machine.ingest.arn, aws_sfn_state_machine.fold.arn]
  }
}
