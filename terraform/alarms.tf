# One row an alarm. Each description says what it means and where docs/operations.md tells what to do.

locals {
  # The period of a schedule in minutes; one that is not a rate is taken as daily.
  schedule_rates = {
    for key, expression in { ingest = var.schedules.ingest, fold = var.schedules.fold } :
    key => try(regex("^rate\\(([0-9]+) (minute|hour|day)s?\\)$", expression), ["1", "day"])
  }
  schedule_minutes = {
    for key, rate in local.schedule_rates : key => tonumber(rate[0]) * { minute = 1, hour = 60, day = 1440 }[rate[1]]
  }
  draining = var.stream_job.mode == "drain"

  # An alarm looks back a day at most. Windows are in five-minute steps, so that a long one stays cheap to evaluate.
  silent_minutes = min(1440, coalesce(var.operations.silent_minutes, local.draining ? max(15, 3 * local.schedule_minutes.ingest) : 15))
  silent_steps   = ceil(local.silent_minutes / 5)
  # Draining starts a fold after every run; otherwise the fold has a schedule of its own.
  fold_minutes = min(1440, var.operations.fold_periods * (local.draining ? local.schedule_minutes.ingest : local.schedule_minutes.fold))
  fold_steps   = max(1, ceil(local.fold_minutes / 5))

  retention_ms   = var.stream.retention_hours * 3600 * 1000
  most_shards    = max(var.stream.shards, [for item in values(var.stream.schedule) : item.shards]...)
  shard_bytes    = 1024 * 1024
  handbook       = "docs/operations.md"
  dynamodb_names = [for table in ["schemas", "tables", "settings", "shards", "sources"] : "${var.name}-${table}"]

  stream_dimensions = { StreamName = local.stream_name }
  defaults          = { statistic = "Maximum", minutes = 1, steps = 5, comparison = "GreaterThanThreshold", missing = "notBreaching" }

  stream_alarms = {
    stream-throttled = {
      namespace = "AWS/Kinesis", metric = "WriteProvisionedThroughputExceeded", dimensions = local.stream_dimensions
      statistic = "Sum", threshold = 0, steps = 5
      meaning   = "Writes were refused in five minutes on end: a shard is at its limit. Nothing is lost; the agent's spool grows."
    }
    stream-behind = {
      namespace = "AWS/Kinesis", metric = "GetRecords.IteratorAgeMilliseconds", dimensions = local.stream_dimensions
      threshold = local.retention_ms * var.operations.retention_percent[0] / 100
      meaning   = "Records have waited ${var.operations.retention_percent[0]} % of the stream's retention to be read."
    }
    stream-loss-near = {
      namespace = "AWS/Kinesis", metric = "GetRecords.IteratorAgeMilliseconds", dimensions = local.stream_dimensions
      threshold = local.retention_ms * var.operations.retention_percent[1] / 100, steps = 1
      meaning   = "Records have waited ${var.operations.retention_percent[1]} % of the stream's retention: act now, or the stream forgets them unread."
    }
  }

  # On demand there is no shard limit to come near to; the refused writes above tell it all.
  provisioned_alarms = {
    for key, alarm in {
      stream-nearly-full = {
        namespace = "AWS/Kinesis", metric = "IncomingBytes", dimensions = local.stream_dimensions
        statistic = "Sum", threshold = local.most_shards * local.shard_bytes * 60 * var.operations.stream_percent / 100, steps = 15
        meaning   = "The stream is written at ${var.operations.stream_percent} % of what ${local.most_shards} shards take."
      }
    } : key => alarm if var.stream.mode == "PROVISIONED"
  }

  # What the streaming job says of each source (docs/metrics.md).
  source_alarms = merge([for source in keys(var.sources) : {
    for key, alarm in {
      silent = {
        metric  = "LagSeconds", statistic = "SampleCount", comparison = "LessThanThreshold", threshold = 1, missing = "breaching"
        minutes = 5, steps = local.silent_steps
        meaning = "The streaming job has said nothing of source ${source} for ${local.silent_steps * 5} minutes: it is dead or stuck."
      }
      lagging = {
        metric  = "LagSeconds", threshold = var.operations.lag_seconds
        meaning = "The stream is read more than ${var.operations.lag_seconds} s behind its tip for source ${source}."
      }
      stale = {
        metric  = "FreshnessSeconds", threshold = var.operations.freshness_seconds
        meaning = "The cut of source ${source} is complete only up to more than ${var.operations.freshness_seconds} s ago; a silent agent shows here too."
      }
      hole = {
        metric  = "OpenHoles", threshold = 0, steps = 1
        meaning = "A table of source ${source} misses changes for a stated reason; its cut stands still until the hole is closed."
      }
      unmatched-deletes = {
        metric  = "UnmatchedDeletes", threshold = 0, steps = 1
        meaning = "Deletes in a table without a key of source ${source} found no equal row in the lake: the table needs a new snapshot."
      }
      parked = {
        metric  = "ParkedLanes", threshold = 0, steps = var.operations.parked_minutes
        meaning = "A lane of source ${source} has waited ${var.operations.parked_minutes} minutes for something before it can be loaded."
      }
      commits-failing = {
        metric  = "CommitFailures", statistic = "Sum", threshold = 0, steps = var.operations.parked_minutes
        meaning = "Table commits of source ${source} failed at first try in every minute of ${var.operations.parked_minutes}."
      }
      bad-settings = {
        metric  = "BadSettings", threshold = 0, steps = 1
        meaning = "A setting was refused; the last good value is in force for source ${source}."
      }
    } : "${source}-${key}" => merge(alarm, { namespace = "Headrace", dimensions = { source = source }, chapter = key })
  }]...)

  run_alarms = {
    ingest-failing = {
      namespace = "AWS/States", metric = "ExecutionsFailed", dimensions = { StateMachineArn = local.workflow_arns.ingest }
      statistic = "Sum", minutes = 5, steps = 3, threshold = 0
      meaning   = "The ingest workflow failed in three five-minute spans on end: nobody restarts the streaming job."
    }
    fold-failing = {
      namespace = "AWS/States", metric = "ExecutionsFailed", dimensions = { StateMachineArn = local.workflow_arns.fold }
      statistic = "Sum", minutes = 5, steps = 3, threshold = 0
      meaning   = "The fold workflow failed in three five-minute spans on end. Changes are still loaded; queries get slower."
    }
    fold-overdue = {
      namespace = "AWS/States", metric = "ExecutionsSucceeded", dimensions = { StateMachineArn = local.workflow_arns.fold }
      statistic = "Sum", minutes = 5, steps = local.fold_steps, comparison = "LessThanThreshold", threshold = 1, missing = "breaching"
      meaning   = "No fold succeeded for ${local.fold_steps * 5} minutes."
    }
    plan-errors = {
      namespace = "AWS/Lambda", metric = "Errors", dimensions = { FunctionName = local.plan_function }
      statistic = "Sum", minutes = 5, steps = 3, threshold = 0
      meaning   = "The function that decides what is to be folded raises errors."
    }
    plan-throttled = {
      namespace = "AWS/Lambda", metric = "Throttles", dimensions = { FunctionName = local.plan_function }
      statistic = "Sum", minutes = 5, steps = 3, threshold = 0
      meaning   = "The function that decides what is to be folded is refused: the account's concurrency is used up."
    }
    dead-letters = {
      namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", dimensions = { QueueName = aws_sqs_queue.dead_letters.name }
      minutes   = 5, steps = 1, threshold = 0
      meaning   = "A schedule or a rule could not hand something over; the message says what and why."
    }
  }

  query_alarms = {
    for key, alarm in {
      queries-dear = {
        namespace  = "AWS/Athena", metric = "ProcessedBytes"
        dimensions = { WorkGroup = local.workgroup, QueryState = "SUCCEEDED", QueryType = "DML" }
        statistic  = "Sum", minutes = 1440, steps = 1, threshold = coalesce(var.operations.athena_gib_a_day, 1) * pow(1024, 3)
        meaning    = "Queries of workgroup ${local.workgroup} scanned more than ${coalesce(var.operations.athena_gib_a_day, 1)} GiB in a day."
      }
    } : key => alarm if var.operations.athena_gib_a_day != null
  }

  alarms = {
    for key, alarm in merge(local.stream_alarms, local.provisioned_alarms, local.source_alarms, local.run_alarms, local.query_alarms) :
    key => merge(local.defaults, { chapter = key }, alarm)
  }

  # The operations by which jobs and the agents live on each table.
  registry_calls = concat(
    setproduct(["shards"], ["GetItem", "PutItem", "Query", "UpdateItem"]),
    setproduct(["sources"], ["GetItem", "Query", "UpdateItem"]),
    [["schemas", "GetItem"], ["settings", "Query"], ["tables", "Scan"]],
  )

  metric_alarms = concat(
    [for alarm in aws_cloudwatch_metric_alarm.watched : alarm],
    [aws_cloudwatch_metric_alarm.registry_throttled, aws_cloudwatch_metric_alarm.registry_errors],
  )
  alarm_names = concat(
    [for alarm in local.metric_alarms : alarm.alarm_name],
    [for alarm in aws_cloudwatch_composite_alarm.unhealthy : alarm.alarm_name],
  )

  # A composite alarm may name a hundred others; beyond that the alarms speak for themselves.
  composed = length(local.metric_alarms) <= 100
}

resource "aws_cloudwatch_metric_alarm" "watched" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.meaning} What to do: ${local.handbook}, ${each.value.chapter}."
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = each.value.minutes * 60
  evaluation_periods  = each.value.steps
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  treat_missing_data  = each.value.missing
  alarm_actions       = [local.topic_arn]
  ok_actions          = [local.topic_arn]
}

# The five tables in one alarm each: it may refer to ten metrics, which are just theirs.
resource "aws_cloudwatch_metric_alarm" "registry_throttled" {
  alarm_name          = "${var.name}-registry-throttled"
  alarm_description   = "Requests to the DynamoDB tables are refused. What to do: ${local.handbook}, registry-throttled."
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.topic_arn]
  ok_actions          = [local.topic_arn]

  metric_query {
    id          = "refused"
    label       = "Refused requests"
    expression  = join("+", [for index in range(2 * length(local.dynamodb_names)) : "FILL(m${index},0)"])
    return_data = true
  }
  dynamic "metric_query" {
    for_each = setproduct(local.dynamodb_names, ["ReadThrottleEvents", "WriteThrottleEvents"])
    content {
      id = "m${metric_query.key}"
      metric {
        namespace   = "AWS/DynamoDB"
        metric_name = metric_query.value[1]
        dimensions  = { TableName = metric_query.value[0] }
        period      = 60
        stat        = "Sum"
      }
    }
  }
}

# DynamoDB counts its own errors by operation.
resource "aws_cloudwatch_metric_alarm" "registry_errors" {
  alarm_name          = "${var.name}-registry-errors"
  alarm_description   = "DynamoDB answers with errors of its own. What to do: ${local.handbook}, registry-errors."
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.topic_arn]
  ok_actions          = [local.topic_arn]

  metric_query {
    id          = "errors"
    label       = "Errors of the service"
    expression  = join("+", [for index in range(length(local.registry_calls)) : "FILL(m${index},0)"])
    return_data = true
  }
  dynamic "metric_query" {
    for_each = local.registry_calls
    content {
      id = "m${metric_query.key}"
      metric {
        namespace   = "AWS/DynamoDB"
        metric_name = "SystemErrors"
        dimensions  = { TableName = "${var.name}-${metric_query.value[0]}", Operation = metric_query.value[1] }
        period      = 60
        stat        = "Sum"
      }
    }
  }
}

# One state for the whole deployment, for the dashboard and for `headrace status`. It tells nobody: the alarms have.
resource "aws_cloudwatch_composite_alarm" "unhealthy" {
  count = local.composed ? 1 : 0

  alarm_name        = "${var.name}-unhealthy"
  alarm_description = "At least one alarm of deployment ${var.name} is raised. What to do: ${local.handbook}, the chapter of that alarm."
  alarm_rule        = join(" OR ", [for alarm in local.metric_alarms : "ALARM(\"${alarm.alarm_name}\")"])
}
