# Stream, registry, lake, jobs, workflows and the analyst. Planned by the real provider, which asks AWS nothing.

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

variables {
  region      = "eu-central-1"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  artefacts   = { folder = "tests/bundle" }
  agent       = { trusted_principals = ["arn:aws:iam::123456789012:role/operator"] }
}

run "everything_at_rest_is_encrypted_with_the_key" {
  command = plan

  assert {
    condition     = aws_kinesis_stream.changes.encryption_type == "KMS" && aws_kinesis_stream.changes.kms_key_id == var.kms_key_arn
    error_message = "The stream is encrypted with the key."
  }
  assert {
    condition     = alltrue([for table in values(aws_dynamodb_table.registry) : table.server_side_encryption[0].kms_key_arn == var.kms_key_arn])
    error_message = "Every DynamoDB table is encrypted with the key."
  }
  assert {
    condition = alltrue([
      for rule in aws_s3_bucket_server_side_encryption_configuration.lake.rule :
      rule.apply_server_side_encryption_by_default[0].kms_master_key_id == var.kms_key_arn
    ])
    error_message = "The bucket encrypts with the key."
  }
  assert {
    condition = alltrue([
      for group in concat(values(aws_cloudwatch_log_group.jobs), values(aws_cloudwatch_log_group.workflows), [aws_cloudwatch_log_group.plan]) :
      group.kms_key_id == var.kms_key_arn && group.retention_in_days == 30
    ])
    error_message = "Every log group is encrypted with the key and forgets."
  }
  assert {
    condition     = aws_athena_workgroup.this.configuration[0].result_configuration[0].encryption_configuration[0].kms_key_arn == var.kms_key_arn
    error_message = "Query results are encrypted with the key."
  }
  assert {
    condition     = length(aws_lakeformation_permissions.tables) == 0
    error_message = "Lake Formation is left alone unless asked."
  }
  assert {
    condition     = length(aws_kms_key.this) == 0
    error_message = "A site that brings a key gets no second one."
  }
}

run "an_own_key_turns_itself_over" {
  command = plan
  variables {
    kms_key_arn = null
  }

  assert {
    condition     = aws_kms_key.this[0].enable_key_rotation
    error_message = "The key made here rotates."
  }
}

run "the_registry_can_be_brought_back" {
  command = plan

  assert {
    condition     = toset(keys(aws_dynamodb_table.registry)) == toset(["schemas", "tables", "settings", "shards", "sources"])
    error_message = "The five tables."
  }
  assert {
    condition = alltrue([
      for table in values(aws_dynamodb_table.registry) :
      table.point_in_time_recovery[0].enabled && table.deletion_protection_enabled && table.billing_mode == "PAY_PER_REQUEST"
    ])
    error_message = "Point-in-time recovery, deletion protection, pay per request."
  }
}

run "the_bucket_is_closed" {
  command = plan

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.lake.block_public_acls, aws_s3_bucket_public_access_block.lake.block_public_policy,
      aws_s3_bucket_public_access_block.lake.ignore_public_acls, aws_s3_bucket_public_access_block.lake.restrict_public_buckets,
      aws_s3_bucket_ownership_controls.lake.rule[0].object_ownership == "BucketOwnerEnforced",
      aws_s3_bucket_versioning.lake.versioning_configuration[0].status == "Enabled",
      !aws_s3_bucket.lake.force_destroy,
    ])
    error_message = "No public access, no ACLs, versions kept, and not destroyed with data in it."
  }
  assert {
    condition = alltrue([
      for rule in aws_s3_bucket_lifecycle_configuration.lake.rule :
      alltrue([for filter in rule.filter : contains(["results/", "claims/"], filter.prefix)]) || length([for expiration in rule.expiration : expiration if coalesce(expiration.days, 0) > 0]) == 0
    ])
    error_message = "Only query results and claims expire; no rule deletes a current object of a table."
  }
  assert {
    condition     = one([for rule in aws_s3_bucket_lifecycle_configuration.lake.rule : rule.expiration[0].days if rule.id == "expire-claims"]) == 30
    error_message = "Payloads outlive the seven days of the stream by 23."
  }
}

run "payloads_outlive_a_longer_stream" {
  command = plan
  variables {
    stream = { retention_hours = 721 }
  }
  assert {
    condition     = one([for rule in aws_s3_bucket_lifecycle_configuration.lake.rule : rule.expiration[0].days if rule.id == "expire-claims"]) == 54
    error_message = "The safe age follows the stream's retention, in days begun."
  }
}

run "payloads_may_go_two_days_behind_the_stream" {
  command = plan
  variables {
    lake = { claims_days = 9 }
  }
  assert {
    condition     = one([for rule in aws_s3_bucket_lifecycle_configuration.lake.rule : rule.expiration[0].days if rule.id == "expire-claims"]) == 9
    error_message = "As it was set."
  }
}

run "payloads_that_go_before_their_records" {
  command = plan
  variables {
    lake = { claims_days = 8 }
  }
  expect_failures = [var.lake]
}

run "the_streaming_job_stands" {
  command = plan

  assert {
    condition     = aws_glue_job.stream.glue_version == "6.0" && aws_glue_job.stream.command[0].name == "gluestreaming"
    error_message = "Glue 6.0, a streaming job."
  }
  assert {
    condition     = aws_glue_job.stream.execution_property[0].max_concurrent_runs == 1
    error_message = "There is one writer."
  }
  assert {
    condition     = aws_glue_job.stream.maintenance_window == "Sun:3" && aws_glue_job.stream.max_retries == 0
    error_message = "Glue restarts it in its window; the ingest workflow does the rest."
  }
  assert {
    condition     = aws_glue_job.stream.default_arguments["--job-bookmark-option"] == "job-bookmark-disable" && aws_glue_job.fold.default_arguments["--job-bookmark-option"] == "job-bookmark-disable"
    error_message = "No bookmarks: the tables' marks are the checkpoint."
  }

  assert {
    condition = length([
      for statement in data.aws_iam_policy_document.stream_job.statement : statement
      if contains(statement.actions, "s3:ListBucket") && alltrue([for condition in statement.condition : condition.test == "StringLikeIfExists"])
    ]) == 1
    error_message = "S3 tells the streaming job that a checkpoint is missing, and not that it is forbidden."
  }

  assert {
    condition = [for role in [aws_iam_role.stream_job, aws_iam_role.fold_workflow, aws_iam_role.schedule] : keys(jsondecode(role.assume_role_policy).Statement[0].Condition)] == [
      ["StringEqualsIfExists"], ["StringEquals"], ["StringEquals"]
    ]
    error_message = "Services take on a role for this account; Glue, which may not say whose it is, for no other that it names."
  }
  assert {
    condition     = aws_glue_job.stream.command[0].script_location == "s3://headrace-lake-123456789012-eu-central-1/jobs/0123456789abcdef/stream_job.py"
    error_message = "The script lies under the bundle's hash."
  }
  assert {
    condition     = startswith(aws_glue_job.stream.default_arguments["--extra-py-files"], "s3://headrace-lake-123456789012-eu-central-1/jobs/0123456789abcdef/")
    error_message = "The code lies under the bundle's hash."
  }
  assert {
    condition     = aws_lambda_function.plan.s3_key == "jobs/0123456789abcdef/headrace.zip" && aws_lambda_function.plan.runtime == "python3.13"
    error_message = "The planning function runs the same bundle."
  }
}

run "nothing_cuts_a_standing_job_off" {
  command = plan

  # What Terraform leaves out Glue fills in: for a streaming job, no timeout.
  override_resource {
    target          = aws_glue_job.stream
    override_during = plan
    values          = { timeout = 0 }
  }

  assert {
    condition     = aws_glue_job.stream.timeout == 0
    error_message = "The configuration gives the streaming job no timeout."
  }
  assert {
    condition     = aws_glue_job.fold.timeout == 120
    error_message = "A fold does have one."
  }
}

run "folds_run_side_by_side" {
  command = plan
  variables {
    fold_job = { map_concurrency = 7 }
  }

  assert {
    condition     = aws_glue_job.fold.execution_property[0].max_concurrent_runs >= 7
    error_message = "The fold job has room for the whole width of the workflow's map."
  }
}

run "draining_folds_when_it_is_done" {
  command = plan
  variables {
    stream_job = { mode = "drain" }
    schedules  = { ingest = "rate(15 minutes)" }
  }

  assert {
    condition     = toset(keys(aws_scheduler_schedule.workflow)) == toset(["ingest"])
    error_message = "The drain starts the fold; there is no second clock."
  }
  assert {
    condition     = aws_glue_job.stream.maintenance_window == null
    error_message = "A job that ends needs no maintenance window."
  }
}

run "workers_and_dependencies" {
  command = plan
  variables {
    stream_job = { worker_type = "G.1X", workers = 3 }
    artefacts  = { folder = "tests/bundle_with_wheels" }
  }

  assert {
    condition     = aws_glue_job.stream.worker_type == "G.1X" && aws_glue_job.stream.number_of_workers == 3
    error_message = "The worker type is a variable."
  }
  assert {
    condition     = endswith(aws_glue_job.stream.default_arguments["--additional-python-modules"], "/jobs/fedcba9876543210/headrace.gluewheels.zip")
    error_message = "The wheels come as one zip, under the bundle's hash."
  }
  assert {
    condition     = aws_glue_job.fold.default_arguments["--python-modules-installer-option"] == "--no-index"
    error_message = "The installer uses no index."
  }
}

run "going_back_runs_an_earlier_bundle" {
  command = plan
  variables {
    artefacts       = { folder = "tests/bundle_with_wheels", rollback = "00000000000000aa" }
    earlier_bundles = ["00000000000000a1", "00000000000000a2", "00000000000000a3", "00000000000000a4", "00000000000000aa", "00000000000000a6"]
  }

  assert {
    condition     = aws_glue_job.stream.default_arguments["--bundle"] == "00000000000000aa"
    error_message = "The job runs the bundle that was asked for."
  }
  assert {
    condition     = length([for key in keys(aws_s3_object.artefact) : key if startswith(key, "fedcba9876543210/")]) == 4
    error_message = "The newer bundle stays in the bucket."
  }
  assert {
    condition     = output.bundles == tolist(["00000000000000aa", "fedcba9876543210", "00000000000000a1", "00000000000000a2", "00000000000000a3", "00000000000000a4"])
    error_message = "Six bundles are kept, the one that runs first."
  }
}

run "an_unknown_bundle_is_refused" {
  command = plan
  variables {
    artefacts = { folder = "tests/bundle_with_wheels", rollback = "00000000000000aa" }
  }
  expect_failures = [var.artefacts]
}

run "shards_follow_the_clock" {
  command = plan
  variables {
    stream = { shards = 4, schedule = { day = { expression = "cron(0 6 ? * MON-FRI *)", shards = 4 }, night = { expression = "cron(0 20 * * ? *)", shards = 2 } } }
  }

  assert {
    condition     = jsondecode(aws_scheduler_schedule.shards["night"].target[0].input).TargetShardCount == 2
    error_message = "At night two shards."
  }
  assert {
    condition     = length(aws_iam_role.shards) == 1
    error_message = "A role of its own sets them."
  }
}

run "on_demand_has_no_shard_count" {
  command = plan
  variables {
    stream = { mode = "ON_DEMAND" }
  }

  assert {
    condition     = aws_kinesis_stream.changes.shard_count == null && aws_kinesis_stream.changes.stream_mode_details[0].stream_mode == "ON_DEMAND"
    error_message = "Kinesis counts the shards."
  }
}

run "two_sources_have_eight_databases" {
  command = plan
  variables {
    sources = { shop = {}, erp = {} }
  }

  assert {
    condition     = length(aws_glue_catalog_database.this) == 8 && contains(keys(aws_glue_catalog_database.this), "erp_cut")
    error_message = "Four databases a source."
  }
  assert {
    condition     = aws_glue_job.stream.default_arguments["--source"] == "erp,shop"
    error_message = "The job reads both."
  }
}

run "analysts_query_within_limits" {
  command = plan
  variables {
    analysts = ["arn:aws:iam::123456789012:role/people"]
    lake     = { scan_limit_gib = 5 }
  }

  assert {
    condition     = aws_athena_workgroup.this.configuration[0].enforce_workgroup_configuration && aws_athena_workgroup.this.configuration[0].bytes_scanned_cutoff_per_query == 5 * 1024 * 1024 * 1024
    error_message = "The workgroup's limit and encryption cannot be overridden."
  }
  assert {
    condition     = length(aws_iam_role.analyst) == 1
    error_message = "There is an analyst role where somebody may take it up."
  }

  assert {
    condition = anytrue([
      for statement in data.aws_iam_policy_document.analyst.statement :
      contains(statement.resources, "arn:aws:glue:eu-central-1:123456789012:database/default") if contains(statement.actions, "glue:GetDatabase")
    ])
    error_message = "Athena may look at the default database in an analyst's name, as it does with every query."
  }

  assert {
    condition = toset(flatten([
      for statement in data.aws_iam_policy_document.analyst.statement : [for condition in statement.condition : condition.values]
      if contains(statement.actions, "s3:ListBucket")
    ])) == toset(["lake/*", "results/*"])
    error_message = "An analyst lists the tables and the results, so that S3 says of a missing object that it is missing."
  }
}

run "a_hardened_lake_formation_is_told_what_the_roles_do" {
  command = plan
  variables {
    lake_formation = true
    analysts       = ["arn:aws:iam::123456789012:role/people"]
  }

  assert {
    condition     = one(aws_lakeformation_permissions.new_databases).catalog_resource && toset(one(aws_lakeformation_permissions.new_databases).permissions) == toset(["CREATE_DATABASE"])
    error_message = "The streaming job may ask for its databases, which it does at every start."
  }

  assert {
    condition     = toset(aws_lakeformation_permissions.tables["analyst/shop_cut"].permissions) == toset(["SELECT", "DESCRIBE"])
    error_message = "Analysts read, and change nothing."
  }
  assert {
    condition     = contains(aws_lakeformation_permissions.database["stream_job/shop_lake"].permissions, "CREATE_TABLE") && contains(aws_lakeformation_permissions.tables["stream_job/shop_lake"].permissions, "ALTER")
    error_message = "The streaming job makes and commits to tables."
  }
  assert {
    condition     = !contains(keys(aws_lakeformation_permissions.tables), "stream_job/shop_history")
    error_message = "The streaming job has no part in the history's views."
  }
}

run "roles_are_bounded" {
  command = plan
  variables {
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/headrace-boundary"
    analysts                 = ["arn:aws:iam::123456789012:role/people"]
    stream                   = { schedule = { night = { expression = "cron(0 20 * * ? *)", shards = 2 } } }
  }

  assert {
    condition = alltrue([
      for role in concat(
        [aws_iam_role.stream_job, aws_iam_role.fold_job, aws_iam_role.plan, aws_iam_role.ingest_workflow, aws_iam_role.fold_workflow, aws_iam_role.schedule],
        aws_iam_role.analyst, aws_iam_role.shards,
      ) : role.permissions_boundary == var.permissions_boundary_arn
    ])
    error_message = "Every role has the boundary."
  }
}

# ------------------------------------------------------------------------------------------------ wrong values name themselves

run "values_that_cannot_be" {
  command = plan
  variables {
    stream     = { shards = 0 }
    stream_job = { workers = 1 }
    fold_job   = { map_concurrency = 0 }
    artefacts  = { folder = "tests/none" }
    sources    = { shop = {}, shop_lake = {} }
    analysts   = ["everyone"]
    schedules  = { ingest = "every minute" }
  }
  expect_failures = [var.stream, var.stream_job, var.fold_job, var.artefacts, var.sources, var.analysts, var.schedules]
}

run "results_that_go_at_once" {
  command = plan
  variables {
    lake = { results_days = 0 }
  }
  expect_failures = [var.lake]
}

run "half_a_shard_and_other_halves" {
  command = plan
  variables {
    stream     = { shards = 1.5 }
    stream_job = { maintenance_window = "Sunday" }
    fold_job   = { timeout_minutes = 1 }
    artefacts  = { folder = "tests/bundle", rollback = "latest" }
    sources    = { Shop = {} }
  }
  expect_failures = [var.stream, var.stream_job, var.fold_job, var.artefacts, var.sources]
}

run "a_day_too_short_and_a_worker_that_streams_nowhere" {
  command = plan
  variables {
    stream     = { retention_hours = 23 }
    stream_job = { worker_type = "Z.2X" }
    fold_job   = { worker_type = "G.025X" }
  }
  expect_failures = [var.stream, var.stream_job, var.fold_job]
}

run "shards_that_jump" {
  command = plan
  variables {
    stream = { shards = 2, schedule = { day = { expression = "rate(1 day)", shards = 8 }, night = { expression = "rate(1 day)", shards = 2 } } }
  }
  expect_failures = [var.stream]
}

run "a_schedule_without_shards_to_set" {
  command = plan
  variables {
    stream = { mode = "ON_DEMAND", schedule = { night = { expression = "rate(1 day)", shards = 2 } } }
  }
  expect_failures = [var.stream]
}
