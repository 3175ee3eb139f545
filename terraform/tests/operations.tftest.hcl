# What is watched, who is told, and what the figures of the bill are. Planned by the real provider, which asks AWS nothing.

provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "123456789012" }
}

override_resource {
  target          = aws_sns_topic.alarms
  override_during = plan
  values          = { arn = "arn:aws:sns:eu-central-1:123456789012:headrace-alarms" }
}

# The provider has AWS check a definition as soon as all of it is known.
override_resource {
  target          = aws_sfn_state_machine.fold
  override_during = plan
}

override_resource {
  target          = aws_sfn_state_machine.ingest
  override_during = plan
}

variables {
  region      = "eu-central-1"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  artefacts   = { folder = "tests/bundle" }
  agent       = { trusted_principals = ["arn:aws:iam::123456789012:role/operator"] }
}

run "everything_is_watched" {
  command = plan

  variables {
    sources = { shop = {}, crm = {} }
  }

  assert {
    condition = length(aws_cloudwatch_metric_alarm.watched) == 10 + 2 * 8 && alltrue([
      for pair in setproduct(["shop", "crm"], ["silent", "lagging", "stale", "hole", "unmatched-deletes", "parked", "commits-failing", "bad-settings"]) :
      contains(keys(aws_cloudwatch_metric_alarm.watched), join("-", pair))
    ])
    error_message = "Each source has its eight alarms, beside the ten of stream, workflows, function and dead letters."
  }
  assert {
    condition     = alltrue([for alarm in local.metric_alarms : alarm.alarm_actions == toset([local.topic_arn]) && alarm.ok_actions == toset([local.topic_arn])])
    error_message = "Every alarm tells the topic when it is raised and when it is over."
  }
  assert {
    condition     = alltrue([for alarm in local.metric_alarms : strcontains(alarm.alarm_description, "What to do: docs/operations.md, ") && length(alarm.alarm_description) <= 1024])
    error_message = "Every alarm says what to do."
  }
  assert {
    condition = alltrue([
      for alarm in aws_cloudwatch_metric_alarm.watched : alarm.period * alarm.evaluation_periods <= 86400
    ])
    error_message = "CloudWatch lets an alarm look back a day at most."
  }
  assert {
    condition     = { for key, alarm in aws_cloudwatch_metric_alarm.watched : key => alarm.treat_missing_data if alarm.treat_missing_data == "breaching" } == { "shop-silent" = "breaching", "crm-silent" = "breaching", "fold-overdue" = "breaching" }
    error_message = "Silence alarms where silence is the trouble, and nowhere else."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.watched["shop-silent"].evaluation_periods * 5 == 15 && aws_cloudwatch_metric_alarm.watched["fold-overdue"].evaluation_periods * 5 == 30
    error_message = "A continuous job may be silent for 15 minutes; six periods of five minutes may pass without a fold."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.watched["stream-behind"].threshold == 0.25 * 168 * 3600000 && aws_cloudwatch_metric_alarm.watched["stream-loss-near"].threshold == 0.6 * 168 * 3600000
    error_message = "The two alarms of unread records stand at 25 and 60 % of the retention, in milliseconds."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.watched["stream-nearly-full"].threshold == 0.8 * 2 * 1048576 * 60
    error_message = "A stream of two shards is nearly full at 80 % of 2 MiB a second, in bytes a minute."
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.registry_throttled.metric_query) == 11 && length(aws_cloudwatch_metric_alarm.registry_errors.metric_query) <= 11
    error_message = "An alarm may refer to ten metrics: both kinds of refusals on five tables."
  }
  assert {
    condition     = length(aws_cloudwatch_composite_alarm.unhealthy) == 1 && alltrue([for alarm in local.metric_alarms : strcontains(aws_cloudwatch_composite_alarm.unhealthy[0].alarm_rule, "\"${alarm.alarm_name}\"")])
    error_message = "One state sums up all alarms."
  }
}

run "people_are_told" {
  command = plan

  variables {
    operations = { emails = ["data@example.com"] }
  }

  assert {
    condition     = aws_sns_topic.alarms[0].kms_master_key_id == var.kms_key_arn
    error_message = "The topic is encrypted with the deployment's key."
  }
  assert {
    condition     = [for subscription in aws_sns_topic_subscription.emails : "${subscription.protocol} ${subscription.endpoint}"] == ["email data@example.com"]
    error_message = "The addresses are subscribed."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_sns_topic_policy.alarms[0].policy).Statement :
      try(statement.Condition, null) == null if try(statement.Principal.Service, "") == "events.amazonaws.com"
    ])
    error_message = "EventBridge brings no context to a topic: a condition on its statement would drop every event."
  }
  assert {
    condition     = anytrue([for statement in jsondecode(aws_sns_topic_policy.alarms[0].policy).Statement : statement.Effect == "Deny" && try(statement.Condition.Bool["aws:SecureTransport"], "") == "false"])
    error_message = "The topic refuses plain HTTP."
  }
  assert {
    condition     = aws_sqs_queue.dead_letters.sqs_managed_sse_enabled && aws_sqs_queue.dead_letters.message_retention_seconds == 1209600
    error_message = "Dead letters are encrypted and kept for two weeks."
  }
  assert {
    condition     = alltrue([for target in aws_cloudwatch_event_target.trouble : target.arn == local.topic_arn && length(target.dead_letter_config) == 1])
    error_message = "Every rule tells the topic, and keeps what it could not deliver."
  }
  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.trouble["job-failed"].event_pattern).detail == { jobName = ["headrace-stream", "headrace-fold", "headrace-maintain"], state = ["FAILED", "TIMEOUT"] }
    error_message = "Failed runs of the two jobs are told; a run that the ingest workflow stopped is not."
  }
  assert {
    condition     = alltrue([for target in aws_cloudwatch_event_target.trouble : alltrue([for line in split("\n", target.input_transformer[0].input_template) : can(jsondecode(line))])])
    error_message = "An input template for a topic is lines of quoted text."
  }
  assert {
    condition = alltrue([
      for target in aws_cloudwatch_event_target.trouble : alltrue([
        for name in keys(target.input_transformer[0].input_paths) : strcontains(target.input_transformer[0].input_template, "<${name}>")
        ]) && alltrue([
        for name in flatten(regexall("<([a-z]+)>", target.input_transformer[0].input_template)) : contains(keys(target.input_transformer[0].input_paths), name)
      ])
    ])
    error_message = "A template uses every name that it defines, and no other."
  }
}

run "a_topic_of_the_sites_own" {
  command = plan

  variables {
    operations = { topic_arn = "arn:aws:sns:eu-central-1:123456789012:pager", dashboard = false, athena_gib_a_day = 500 }
  }

  assert {
    condition     = length(aws_sns_topic.alarms) + length(aws_sns_topic_policy.alarms) + length(aws_cloudwatch_dashboard.path) == 0
    error_message = "Neither a topic nor a dashboard is made."
  }
  assert {
    condition     = alltrue([for alarm in local.metric_alarms : alarm.alarm_actions == toset(["arn:aws:sns:eu-central-1:123456789012:pager"])])
    error_message = "The alarms tell the given topic."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.watched["queries-dear"].threshold == 500 * 1024 * 1024 * 1024
    error_message = "A day's scanned bytes alarm where a limit is set."
  }
}

run "draining_is_silent_between_its_runs" {
  command = plan

  variables {
    stream     = { mode = "ON_DEMAND" }
    stream_job = { mode = "drain" }
    schedules  = { ingest = "rate(1 hour)" }
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.watched["shop-silent"].evaluation_periods * 5 == 180 && aws_cloudwatch_metric_alarm.watched["fold-overdue"].evaluation_periods * 5 == 360
    error_message = "A job that runs each hour may be silent for three hours, and six may pass without a fold."
  }
  assert {
    condition     = !contains(keys(aws_cloudwatch_metric_alarm.watched), "stream-nearly-full")
    error_message = "On demand there is no shard limit to come near to."
  }
}

run "the_dashboard_follows_a_change" {
  command = plan

  assert {
    condition = [for widget in jsondecode(aws_cloudwatch_dashboard.path[0].dashboard_body).widgets : widget.properties.metrics[0][1] if widget.y == 2] == [
      "IncomingBytes", "GetRecords.IteratorAgeMilliseconds", "LagSeconds", "RowsLoaded", "ExecutionsSucceeded", "FreshnessSeconds"
    ]
    error_message = "The first row goes from the commit to the query."
  }
  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.path[0].dashboard_body).widgets : widget.x + widget.width <= 24])
    error_message = "A dashboard is 24 columns wide."
  }
}

run "the_bill_is_given_its_figures" {
  command = plan

  variables {
    stream     = { shards = 2, schedule = { morning = { expression = "cron(0 6 * * ? *)", shards = 4 }, evening = { expression = "cron(0 20 * * ? *)", shards = 2 } } }
    stream_job = { workers = 3, settings = { freshness_seconds = "30" } }
  }

  assert {
    condition     = output.cost_inputs.shards == 4 && output.cost_inputs.workers == 3 && output.cost_inputs.freshness_seconds == 30 && output.cost_inputs.ingest_minutes == 1
    error_message = "Shards at their highest, workers, setting and schedules go into the bill."
  }
  assert {
    condition     = output.cost_inputs.alarm_metrics == 18 + 10 + 10 && output.cost_inputs.keys == 0 && output.cost_inputs.endpoints == 0
    error_message = "Alarms are paid by the metrics that they watch; a key of the site's own is not this deployment's."
  }
}

run "wrong_settings_are_named" {
  command = plan

  variables {
    operations = { log_days = 31, retention_percent = [60, 25], emails = ["nobody"], topic_arn = "pager", parked_minutes = 0 }
  }

  expect_failures = [var.operations]
}
