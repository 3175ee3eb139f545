# Where trouble is told: one topic for people, one queue for what could not be delivered, and the events of failed runs.
# The alarms are in alarms.tf, the picture in dashboard.tf, what to do about each in docs/operations.md.

locals {
  own_topic = var.operations.topic_arn == null
  topic_arn = local.own_topic ? aws_sns_topic.alarms[0].arn : var.operations.topic_arn

  # By name, so that its policy can be read before it is there.
  own_topic_arn = "arn:${local.partition}:sns:${var.region}:${local.account_id}:${local.topic}"

  jobs = [local.stream_job, local.fold_job, local.maintain_job]

  # ARNs by name, so that this file asks for none of the things it watches.
  workflow_arns = {
    for key, name in { ingest = local.ingest_workflow, fold = local.fold_workflow } :
    key => "arn:${local.partition}:states:${var.region}:${local.account_id}:stateMachine:${name}"
  }
  dead_letters     = "${var.name}-dead-letters"
  dead_letters_arn = "arn:${local.partition}:sqs:${var.region}:${local.account_id}:${local.dead_letters}"

  console = "https://${var.region}.console.aws.amazon.com"
}

# ------------------------------------------------------------------------------------------------ the topic

resource "aws_sns_topic" "alarms" {
  count = local.own_topic ? 1 : 0

  name              = local.topic
  kms_master_key_id = local.kms_key_arn
}

resource "aws_sns_topic_subscription" "emails" {
  for_each = toset(local.own_topic ? var.operations.emails : [])

  topic_arn = local.topic_arn
  protocol  = "email"
  endpoint  = each.value
}

data "aws_iam_policy_document" "topic" {
  count = local.own_topic ? 1 : 0

  statement {
    sid       = "AlarmsPublish"
    actions   = ["sns:Publish"]
    resources = [local.own_topic_arn]
    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account_id]
    }
    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:cloudwatch:${var.region}:${local.account_id}:alarm:${var.name}-*"]
    }
  }

  # Without a condition, on purpose: EventBridge brings no source account or ARN when it publishes to a topic, so a
  # statement that asks for one admits nobody, and the events are dropped.
  statement {
    sid       = "RulesPublish"
    actions   = ["sns:Publish"]
    resources = [local.own_topic_arn]
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
  }

  # The roles' own policies allow them this as well; named here so that the topic tells who may speak on it.
  statement {
    sid       = "WorkflowsPublish"
    actions   = ["sns:Publish"]
    resources = [local.own_topic_arn]
    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account_id}:root"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:PrincipalArn"
      values   = [for workflow in ["ingest", "fold"] : "arn:${local.partition}:iam::${local.account_id}:role/${var.name}-${workflow}-workflow"]
    }
  }

  statement {
    sid       = "RefusePlainHttp"
    effect    = "Deny"
    actions   = ["sns:Publish"]
    resources = [local.own_topic_arn]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  count = local.own_topic ? 1 : 0

  arn    = local.topic_arn
  policy = data.aws_iam_policy_document.topic[0].json
}

# ------------------------------------------------------------------------------------------------ dead letters

# What a schedule or a rule could not hand over, with the reason in the message's attributes.
# Encrypted with the queue service's own key: the senders are services, and none of them then needs a key's grant.
resource "aws_sqs_queue" "dead_letters" {
  name                      = local.dead_letters
  message_retention_seconds = 14 * 24 * 3600
  sqs_managed_sse_enabled   = true
  policy                    = data.aws_iam_policy_document.dead_letters.json
}

data "aws_iam_policy_document" "dead_letters" {
  statement {
    sid       = "RulesSend"
    actions   = ["sqs:SendMessage"]
    resources = [local.dead_letters_arn]
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:events:${var.region}:${local.account_id}:rule/${var.name}-*"]
    }
  }

  # Schedules send as their role, whose policy allows it.
  statement {
    sid       = "RefusePlainHttp"
    effect    = "Deny"
    actions   = ["sqs:SendMessage", "sqs:ReceiveMessage"]
    resources = [local.dead_letters_arn]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

# ------------------------------------------------------------------------------------------------ events

locals {
  # A stop is told apart by who asked for it: the ingest workflow stops a run after a deployment, and that is no news.
  # Glue's own event does not say who; the record of the call does, in an account that has a trail.
  event_rules = {
    job-failed = {
      description = "A run of a job failed or ran out of time"
      pattern = {
        source      = ["aws.glue"]
        detail-type = ["Glue Job State Change"]
        detail      = { jobName = local.jobs, state = ["FAILED", "TIMEOUT"] }
      }
      paths = { job = "$.detail.jobName", run = "$.detail.jobRunId", state = "$.detail.state", error = "$.detail.message" }
      lines = [
        "Headrace: job <job> ended as <state>.",
        "Run <run>: <error>",
        "Its log: ${local.console}/gluestudio/home?region=${var.region}#/job/<job>/run/<run>",
        "What to do: docs/operations.md, job-failed.",
      ]
    }
    job-stopped = {
      description = "Somebody other than the ingest workflow stopped a run of a job"
      pattern = {
        source      = ["aws.glue"]
        detail-type = ["AWS API Call via CloudTrail"]
        detail = {
          eventSource       = ["glue.amazonaws.com"]
          eventName         = ["BatchStopJobRun"]
          requestParameters = { jobName = local.jobs }
          userIdentity = { sessionContext = { sessionIssuer = { arn = [
            { exists = false },
            { anything-but = ["arn:${local.partition}:iam::${local.account_id}:role/${var.name}-ingest-workflow"] },
          ] } } }
        }
      }
      paths = { job = "$.detail.requestParameters.jobName", run = "$.detail.requestParameters.jobRunIds", who = "$.detail.userIdentity.arn" }
      lines = [
        "Headrace: <who> stopped a run of job <job>.",
        "Runs: <run>",
        "What to do: docs/operations.md, job-stopped.",
      ]
    }
    workflow-failed = {
      description = "An execution of a workflow failed, ran out of time or was aborted"
      pattern = {
        source      = ["aws.states"]
        detail-type = ["Step Functions Execution Status Change"]
        detail      = { stateMachineArn = values(local.workflow_arns), status = ["FAILED", "TIMED_OUT", "ABORTED"] }
      }
      paths = { machine = "$.detail.stateMachineArn", run = "$.detail.executionArn", state = "$.detail.status", error = "$.detail.cause" }
      lines = [
        "Headrace: an execution of <machine> ended as <state>.",
        "Cause: <error>",
        "Its steps: ${local.console}/states/home?region=${var.region}#/v2/executions/details/<run>",
        "What to do: docs/operations.md, workflow-failed.",
      ]
    }
  }
}

resource "aws_cloudwatch_event_rule" "trouble" {
  for_each = local.event_rules

  name          = "${var.name}-${each.key}"
  description   = each.value.description
  event_pattern = jsonencode(each.value.pattern)
}

resource "aws_cloudwatch_event_target" "trouble" {
  for_each = local.event_rules

  rule      = aws_cloudwatch_event_rule.trouble[each.key].name
  target_id = "topic"
  arn       = local.topic_arn

  input_transformer {
    input_paths = each.value.paths
    # Lines of quoted text. Not jsonencode: it would spell out the brackets around the names.
    input_template = join("\n", [for line in each.value.lines : "\"${line}\""])
  }
  dead_letter_config {
    arn = aws_sqs_queue.dead_letters.arn
  }
}
