# Every setting of a deployment: typed, described, validated. A bad value stops the plan and is named.

variable "name" {
  description = "Prefix of every resource's name; one deployment of an account and region each."
  type        = string
  default     = "headrace"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name))
    error_message = "name: 2 to 20 lower-case letters, digits and hyphens, starting with a letter."
  }
}

variable "environment" {
  description = "Name of the environment, a tag on everything."
  type        = string
  default     = "dev"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,15}$", var.environment))
    error_message = "environment: 1 to 16 lower-case letters, digits and hyphens, starting with a letter."
  }
}

variable "region" {
  description = "AWS region of everything."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region: an AWS region such as eu-central-1."
  }
}

variable "tags" {
  description = "Further tags on every resource."
  type        = map(string)
  default     = {}
}

variable "laptop" {
  description = "True only when applied to the laptop's AWS: buckets by path, no instance metadata, waits cut short."
  type        = bool
  default     = false
}

variable "permissions_boundary_arn" {
  description = "Policy that bounds every role made here; the seed's build may create roles only with its boundary."
  type        = string
  default     = null
}

# ------------------------------------------------------------------------------------------------ sources

variable "sources" {
  description = <<-EOT
    The upstream databases by name; each gets its Glue databases and an identity for its agent.
    certificate_subject: the common name that the agent's certificate must carry (null: the source's name).
  EOT
  type = map(object({
    certificate_subject = optional(string)
  }))
  default = { shop = {} }

  validation {
    condition     = length(var.sources) > 0 && alltrue([for name in keys(var.sources) : can(regex("^[a-z][a-z0-9_]{0,40}$", name))])
    error_message = "sources: at least one, each named with lower-case letters, digits and underscores, starting with a letter."
  }
  validation {
    condition = alltrue([
      for pair in setproduct(keys(var.sources), ["_cut", "_history", "_lake"]) : !contains(keys(var.sources), "${pair[0]}${pair[1]}")
    ])
    error_message = "sources: a source may not be named like another's databases (<source>_cut, <source>_history, <source>_lake)."
  }
}

# ------------------------------------------------------------------------------------------------ stream (stream.tf)

variable "stream" {
  description = <<-EOT
    The Kinesis stream. mode: ON_DEMAND or PROVISIONED. shards: only with PROVISIONED; one lane lives in one shard
    (1 MiB/s). retention_hours: 24 to 8760; what an outage of the streaming job may last without loss.
    schedule: with PROVISIONED, shard counts by time (cron or rate expression of EventBridge Scheduler, UTC).
  EOT
  type = object({
    mode            = optional(string, "PROVISIONED")
    shards          = optional(number, 2)
    retention_hours = optional(number, 168)
    schedule = optional(map(object({
      expression = string
      shards     = number
    })), {})
  })
  default = {}

  validation {
    condition     = contains(["ON_DEMAND", "PROVISIONED"], var.stream.mode)
    error_message = "stream.mode: ON_DEMAND or PROVISIONED."
  }
  validation {
    condition     = var.stream.shards >= 1 && var.stream.shards <= 200 && floor(var.stream.shards) == var.stream.shards
    error_message = "stream.shards: a whole number from 1 to 200."
  }
  validation {
    condition     = var.stream.retention_hours >= 24 && var.stream.retention_hours <= 8760
    error_message = "stream.retention_hours: from 24 to 8760."
  }
  validation {
    condition     = length(var.stream.schedule) == 0 || var.stream.mode == "PROVISIONED"
    error_message = "stream.schedule: shard counts can be scheduled only where stream.mode is PROVISIONED."
  }
  validation {
    condition     = alltrue([for item in values(var.stream.schedule) : item.shards >= 1 && item.shards <= 200])
    error_message = "stream.schedule: each shards is a whole number from 1 to 200."
  }
}

# ------------------------------------------------------------------------------------------------ lake (lake.tf)

variable "lake" {
  description = <<-EOT
    The bucket of the tables, raw bytes, claims, jobs and query results. bucket_name: null makes a name from prefix,
    account and region. force_destroy: whether `terraform destroy` may delete a bucket that holds data.
    noncurrent_days: how long a replaced or deleted object can be brought back. results_days: life of query results.
    scan_limit_gib: what one Athena query may scan before it is cancelled.
  EOT
  type = object({
    bucket_name     = optional(string)
    force_destroy   = optional(bool, false)
    noncurrent_days = optional(number, 7)
    results_days    = optional(number, 14)
    scan_limit_gib  = optional(number, 100)
  })
  default = {}

  validation {
    condition     = var.lake.noncurrent_days >= 1 && var.lake.results_days >= 1
    error_message = "lake.noncurrent_days and lake.results_days: at least 1."
  }
  validation {
    condition     = var.lake.scan_limit_gib >= 1
    error_message = "lake.scan_limit_gib: at least 1."
  }
}

variable "kms_key_arn" {
  description = "A key of the site's own for stream, bucket, tables, topic and logs; null makes one, with rotation."
  type        = string
  default     = null
}

variable "lake_formation" {
  description = "True where Lake Formation is hardened in this account: grants the roles what IAM alone would allow."
  type        = bool
  default     = false
}

# ------------------------------------------------------------------------------------------------ jobs (glue_jobs.tf)

variable "artefacts" {
  description = <<-EOT
    Folder that `make glue-bundle` wrote: the code, the scripts, the wheels and a manifest of their content hashes.
    rollback: content hash of an earlier bundle that is still in the bucket; null runs the one in the folder.
  EOT
  type = object({
    folder   = optional(string, "../build/glue")
    rollback = optional(string)
  })
  default = {}
}

variable "stream_job" {
  description = <<-EOT
    The streaming job. mode: continuous (a standing job) or drain (started on a schedule, reads everything, stops).
    worker_type: G.025X is the smallest for streaming; G.1X where it is not offered. maintenance_window: day and hour
    (UTC) at which Glue may restart it, for example Sun:3. settings: items for the settings table, by name.
  EOT
  type = object({
    mode               = optional(string, "continuous")
    worker_type        = optional(string, "G.025X")
    workers            = optional(number, 2)
    maintenance_window = optional(string, "Sun:3")
    settings           = optional(map(string), {})
    conf               = optional(string)
  })
  default = {}

  validation {
    condition     = contains(["continuous", "drain"], var.stream_job.mode)
    error_message = "stream_job.mode: continuous or drain."
  }
  validation {
    condition     = contains(["G.025X", "G.1X", "G.2X", "G.4X", "G.8X"], var.stream_job.worker_type)
    error_message = "stream_job.worker_type: G.025X, G.1X, G.2X, G.4X or G.8X."
  }
  validation {
    condition     = var.stream_job.workers >= 2
    error_message = "stream_job.workers: at least 2, one of them is the driver."
  }
  validation {
    condition     = can(regex("^(Sun|Mon|Tue|Wed|Thu|Fri|Sat):([01]?[0-9]|2[0-3])$", var.stream_job.maintenance_window))
    error_message = "stream_job.maintenance_window: a day and an hour, for example Sun:3."
  }
}

variable "fold_job" {
  description = <<-EOT
    The fold job. map_concurrency: how many groups of tables are folded side by side, and with it the job's
    concurrent runs. timeout_minutes: of one run. horizon_seconds: how old a watermark must be before a fold uses it.
    settings: items for the settings table, by name.
  EOT
  type = object({
    worker_type     = optional(string, "G.1X")
    workers         = optional(number, 2)
    map_concurrency = optional(number, 4)
    timeout_minutes = optional(number, 120)
    horizon_seconds = optional(number, 300)
    settings        = optional(map(string), {})
    conf            = optional(string)
  })
  default = {}

  validation {
    condition     = contains(["G.1X", "G.2X", "G.4X", "G.8X"], var.fold_job.worker_type)
    error_message = "fold_job.worker_type: G.1X, G.2X, G.4X or G.8X."
  }
  validation {
    condition     = var.fold_job.workers >= 2
    error_message = "fold_job.workers: at least 2, one of them is the driver."
  }
  validation {
    condition     = var.fold_job.map_concurrency >= 1 && var.fold_job.map_concurrency <= 40
    error_message = "fold_job.map_concurrency: from 1 to 40."
  }
  validation {
    condition     = var.fold_job.timeout_minutes >= 5 && var.fold_job.horizon_seconds > 0
    error_message = "fold_job.timeout_minutes: at least 5; fold_job.horizon_seconds: more than 0."
  }
}

# ------------------------------------------------------------------------------------------------ workflows (workflows.tf)

variable "schedules" {
  description = "When the workflows run (EventBridge Scheduler expressions, UTC). ingest keeps the job running, or drains."
  type = object({
    ingest = optional(string, "rate(1 minute)")
    fold   = optional(string, "rate(5 minutes)")
  })
  default = {}

  validation {
    condition     = alltrue([for expression in [var.schedules.ingest, var.schedules.fold] : can(regex("^(rate|cron|at)\\(.+\\)$", expression))])
    error_message = "schedules: each is a rate(...), cron(...) or at(...) expression."
  }
}

# ------------------------------------------------------------------------------------------------ operations (operations.tf)

variable "operations" {
  description = <<-EOT
    Alarms and logs. topic_arn: an SNS topic of the site's own, null makes one. emails: subscribed to the topic made
    here. log_days: retention of every log group. lag_seconds: freshness above which an alarm is raised.
  EOT
  type = object({
    topic_arn   = optional(string)
    emails      = optional(list(string), [])
    log_days    = optional(number, 30)
    lag_seconds = optional(number, 300)
    dashboard   = optional(bool, true)
  })
  default = {}

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.operations.log_days)
    error_message = "operations.log_days: a retention that CloudWatch Logs knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545 or 731."
  }
  validation {
    condition     = var.operations.lag_seconds > 0
    error_message = "operations.lag_seconds: more than 0."
  }
}
