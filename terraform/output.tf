# What tools and people need to know of a deployment. `headrace status` reads the parameter, the next deployment reads
# `bundles`, and the rest is for eyes.

locals {
  deployment = {
    name            = var.name
    environment     = var.environment
    region          = local.region
    account         = local.account_id
    sources         = sort(keys(var.sources))
    mode            = var.stream_job.mode
    bundle          = local.bundle
    stream          = local.stream_name
    bucket          = local.lake_bucket
    dynamodb_prefix = var.name
    databases       = sort(keys(local.databases))
    workgroup       = local.workgroup
    key             = local.kms_key_arn
    topic           = local.topic_arn
    dead_letters    = local.dead_letters
    jobs            = { stream = local.stream_job, fold = local.fold_job, maintain = local.maintain_job }
    function        = local.plan_function
    workflows       = { ingest = aws_sfn_state_machine.ingest.arn, fold = aws_sfn_state_machine.fold.arn }
    schedules       = sort([for schedule in concat(values(aws_scheduler_schedule.workflow), values(aws_scheduler_schedule.shards), [aws_scheduler_schedule.maintain]) : schedule.name])
    roles = merge(
      {
        stream_job      = aws_iam_role.stream_job.arn
        fold_job        = aws_iam_role.fold_job.arn
        maintain_job    = aws_iam_role.maintain_job.arn
        plan            = aws_iam_role.plan.arn
        ingest_workflow = aws_iam_role.ingest_workflow.arn
        fold_workflow   = aws_iam_role.fold_workflow.arn
        schedule        = aws_iam_role.schedule.arn
      },
      { for role in aws_iam_role.analyst : "analyst" => role.arn },
      { for source, role in aws_iam_role.agent : "agent_${source}" => role.arn },
    )
    alarms    = sort(concat(local.alarm_names, [for alarm in aws_cloudwatch_metric_alarm.vpn : alarm.alarm_name]))
    rules     = sort([for rule in aws_cloudwatch_event_rule.trouble : rule.name])
    dashboard = one(aws_cloudwatch_dashboard.path[*].dashboard_name)
    secrets   = sort([for secret in aws_secretsmanager_secret.database : secret.name])
    network = {
      endpoints       = sort(concat([for endpoint in aws_vpc_endpoint.gateway : endpoint.id], [for endpoint in aws_vpc_endpoint.interface : endpoint.id]))
      vpn_connections = aws_vpn_connection.site[*].id
      connections     = sort([for connection in aws_glue_connection.jobs : connection.name])
    }
    log_groups = sort(concat(
      [for group in aws_cloudwatch_log_group.jobs : group.name],
      [for group in aws_cloudwatch_log_group.workflows : group.name],
      [aws_cloudwatch_log_group.plan.name],
    ))
  }
}

resource "aws_ssm_parameter" "deployment" {
  #checkov:skip=CKV2_AWS_34:It holds names and ARNs, and no secret

  name        = "/${var.name}/deployment"
  description = "The names of everything in this deployment, for the headrace command."
  type        = "String"
  tier        = "Intelligent-Tiering" # standard, and free, until it outgrows 4 KiB
  value       = jsonencode(local.deployment)
}

output "deployment" {
  description = "The names of everything, as the parameter /NAME/deployment holds them."
  value       = local.deployment
}

output "bundles" {
  description = "Content hashes of the bundles in the bucket, for earlier_bundles of the next deployment."
  value       = local.bundles
}

output "analyst_role" {
  description = "The role that queries; null without analysts."
  value       = one(aws_iam_role.analyst[*].arn)
}

# ------------------------------------------------------------------------------------------------ network and agent

output "endpoint_urls" {
  description = "By service: the URL of its endpoint for the site; empty without network.enabled."
  value       = local.endpoint_urls
}

output "endpoint_cidrs" {
  description = "Networks that the endpoints lie in: where the site's firewall lets HTTPS go."
  value       = local.subnet_cidrs
}

output "vpn" {
  description = "What the site's device needs; null without a VPN. The tunnels' keys are in the named secret."
  value = !var.vpn.enabled ? null : {
    connection   = aws_vpn_connection.site[0].id
    tunnels      = [aws_vpn_connection.site[0].tunnel1_address, aws_vpn_connection.site[0].tunnel2_address]
    keys_secret  = aws_vpn_connection.site[0].preshared_key_arn
    routing      = var.vpn.routing
    amazon_asn   = local.own_vpn_gateway ? var.vpn.amazon_asn : null
    aws_networks = local.own_vpc ? [var.network.cidr] : [for vpc in data.aws_vpc.given : vpc.cidr_block]
  }
}

output "agent_roles" {
  description = "By source: the role of its agent. Empty until agent.ca_bundle, ca_arn or trusted_principals says who may take it on."
  value       = { for source, role in aws_iam_role.agent : source => role.arn }
}

output "agent_config" {
  description = "By source: its agent.toml (terraform output -json agent_config)."
  value       = local.agent_configs
}

output "agent_profile" {
  description = "By source: a section for ~/.aws/config that turns the agent's certificate into credentials."
  value       = local.agent_profiles
}

output "password_secrets" {
  description = "By source: the secret that waits for its database password."
  value       = { for source, secret in aws_secretsmanager_secret.database : source => secret.name }
}

# ------------------------------------------------------------------------------------------------ cost

output "cost_inputs" {
  description = "What the bill depends on and Terraform knows: terraform output -json cost_inputs | headrace cost --from-terraform -"
  value = {
    sources            = length(var.sources)
    stream_mode        = var.stream.mode
    shards             = local.most_shards # of a schedule the highest, so the bill is not too low
    retention_hours    = var.stream.retention_hours
    mode               = var.stream_job.mode
    worker_type        = var.stream_job.worker_type
    workers            = var.stream_job.workers
    ingest_minutes     = local.schedule_minutes.ingest
    freshness_seconds  = try(tonumber(var.stream_job.settings["freshness_seconds"]), 10)
    fold_worker_type   = var.fold_job.worker_type
    fold_workers       = var.fold_job.workers
    fold_minutes       = local.draining ? local.schedule_minutes.ingest : local.schedule_minutes.fold
    vpn_connections    = length(aws_vpn_connection.site)
    endpoints          = length(aws_vpc_endpoint.interface)
    zones              = max(1, length(local.subnet_ids))
    resolver_addresses = length(flatten([for resolver in aws_route53_resolver_endpoint.site : resolver.ip_address]))
    alarm_metrics      = length(local.alarms) + 2 * length(local.dynamodb_names) + length(local.registry_calls) + length(aws_cloudwatch_metric_alarm.vpn)
    composite_alarms   = length(aws_cloudwatch_composite_alarm.unhealthy)
    dashboards         = length(aws_cloudwatch_dashboard.path)
    log_days           = var.operations.log_days
    keys               = length(aws_kms_key.this)
    secrets            = length(aws_secretsmanager_secret.database)
  }
}
