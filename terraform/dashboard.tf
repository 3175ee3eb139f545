# One picture of a deployment: the first row follows a change from the source's commit to a query's answer.

locals {
  # A widget is a title, its metrics in CloudWatch's own short form, and what the axis counts.
  path_widgets = [
    { title = "Written to the stream", stat = "Sum", unit = "bytes a minute", metrics = [["AWS/Kinesis", "IncomingBytes", "StreamName", local.stream_name]] },
    { title = "Waited in the stream", stat = "Maximum", unit = "milliseconds", metrics = [["AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", "StreamName", local.stream_name]] },
    { title = "Read behind the tip", stat = "Maximum", unit = "seconds", metrics = [for source in keys(var.sources) : ["Headrace", "LagSeconds", "source", source]] },
    { title = "Committed to the tables", stat = "Sum", unit = "rows a minute", metrics = [for source in keys(var.sources) : ["Headrace", "RowsLoaded", "source", source]] },
    { title = "Folded", stat = "Sum", unit = "executions", metrics = [
      for metric in ["ExecutionsSucceeded", "ExecutionsFailed"] : ["AWS/States", metric, "StateMachineArn", local.workflow_arns.fold]
    ] },
    { title = "A cut view is complete up to", stat = "Maximum", unit = "seconds ago", metrics = [for source in keys(var.sources) : ["Headrace", "FreshnessSeconds", "source", source]] },
  ]
  health_widgets = [
    { title = "Holes and parked lanes", stat = "Maximum", unit = "count", metrics = concat(
      [for source in keys(var.sources) : ["Headrace", "OpenHoles", "source", source]],
      [for source in keys(var.sources) : ["Headrace", "ParkedLanes", "source", source]],
    ) },
    { title = "Commits that failed at first", stat = "Sum", unit = "count", metrics = [for source in keys(var.sources) : ["Headrace", "CommitFailures", "source", source]] },
    { title = "One micro-batch", stat = "Maximum", unit = "seconds", metrics = [for source in keys(var.sources) : ["Headrace", "BatchSeconds", "source", source]] },
    { title = "Refused", stat = "Sum", unit = "requests", metrics = concat(
      [for metric in ["WriteProvisionedThroughputExceeded", "ReadProvisionedThroughputExceeded"] : ["AWS/Kinesis", metric, "StreamName", local.stream_name]],
      [for pair in setproduct(local.dynamodb_names, ["ReadThrottleEvents", "WriteThrottleEvents"]) : ["AWS/DynamoDB", pair[1], "TableName", pair[0]]],
    ) },
    { title = "Workflows, function, dead letters", stat = "Sum", unit = "count", metrics = [
      ["AWS/States", "ExecutionsFailed", "StateMachineArn", local.workflow_arns.ingest],
      ["AWS/States", "ExecutionsFailed", "StateMachineArn", local.workflow_arns.fold],
      ["AWS/Lambda", "Errors", "FunctionName", local.plan_function],
      ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.dead_letters.name, { stat = "Maximum" }],
    ] },
    { title = "Scanned by queries", stat = "Sum", unit = "bytes a minute", metrics = [
      ["AWS/Athena", "ProcessedBytes", "WorkGroup", local.workgroup, "QueryState", "SUCCEEDED", "QueryType", "DML"],
    ] },
  ]
  widget_rows = [local.path_widgets, local.health_widgets]

  metric_widgets = flatten([
    for row, widgets in local.widget_rows : [
      for column, widget in widgets : {
        type = "metric", x = column * 4, y = 2 + row * 6, width = 4, height = 6
        properties = {
          title  = widget.title, metrics = widget.metrics, stat = widget.stat, region = var.region
          period = 60, view = "timeSeries", yAxis = { left = { min = 0, label = widget.unit, showUnits = false } }
        }
      }
    ]
  ])
}

resource "aws_cloudwatch_dashboard" "path" {
  count = var.operations.dashboard ? 1 : 0

  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = concat(
      [{
        type       = "text", x = 0, y = 0, width = 24, height = 2
        properties = { markdown = "## ${var.name} (${var.environment}): from a commit to a query\nWhat to do about an alarm: ${local.handbook}" }
      }],
      local.metric_widgets,
      [{
        type       = "alarm", x = 0, y = 14, width = 24, height = 6
        properties = { title = "Alarms", alarms = [for alarm in local.metric_alarms : "arn:${local.partition}:cloudwatch:${var.region}:${local.account_id}:alarm:${alarm.alarm_name}"] }
      }],
    )
  })
}
