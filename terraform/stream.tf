# The Kinesis stream that carries the blocks, and the shard counts that follow the clock.
# Records are of 1 MiB: larger blocks travel as claims, so nothing here depends on a larger limit.

resource "aws_kinesis_stream" "changes" {
  name             = local.stream_name
  retention_period = var.stream.retention_hours
  # An apply between two times of stream.schedule sets this count until the next one; readers follow every resharding.
  shard_count     = var.stream.mode == "PROVISIONED" ? var.stream.shards : null
  encryption_type = "KMS"
  kms_key_id      = local.kms_key_arn

  stream_mode_details {
    stream_mode = var.stream.mode
  }
}

# ------------------------------------------------------------------------------------------------ shards by the clock

resource "aws_scheduler_schedule" "shards" {
  #checkov:skip=CKV_AWS_297:Its input is a stream's name and a number

  for_each = var.stream.schedule

  name                = "${var.name}-shards-${each.key}"
  description         = "Sets the stream to ${each.value.shards} shards."
  schedule_expression = each.value.expression

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:${local.partition}:scheduler:::aws-sdk:kinesis:updateShardCount"
    role_arn = aws_iam_role.shards[0].arn
    input = jsonencode({
      StreamName       = aws_kinesis_stream.changes.name
      TargetShardCount = each.value.shards
      ScalingType      = "UNIFORM_SCALING"
    })

    retry_policy {
      maximum_retry_attempts       = 10
      maximum_event_age_in_seconds = 3600
    }
    dead_letter_config {
      arn = aws_sqs_queue.dead_letters.arn
    }
  }
}

resource "aws_iam_role" "shards" {
  count = length(var.stream.schedule) > 0 ? 1 : 0

  name                 = "${var.name}-shards"
  description          = "EventBridge Scheduler sets the stream's shard count."
  assume_role_policy   = data.aws_iam_policy_document.trust["scheduler"].json
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "shards" {
  count = length(var.stream.schedule) > 0 ? 1 : 0

  name   = "shards"
  role   = aws_iam_role.shards[0].id
  policy = data.aws_iam_policy_document.shards.json
}

data "aws_iam_policy_document" "shards" {
  source_policy_documents = [data.aws_iam_policy_document.to_dead_letters.json]

  statement {
    sid       = "SetShardCount"
    actions   = ["kinesis:UpdateShardCount"]
    resources = [aws_kinesis_stream.changes.arn]
  }
}
