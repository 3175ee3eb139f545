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
    condition     = alltrue([for item in values(var.stream.schedule) : item.shards >= 1 && item.shards <= 200 && floor(item.shards) == item.shards])
    error_message = "stream.schedule: each shards is a whole number from 1 to 200."
  }
  validation {
    condition = alltrue([
      for pair in setproduct(values(var.stream.schedule)[*].shards, values(var.stream.schedule)[*].shards) : pair[0] <= 2 * pair[1]
    ])
    error_message = "stream.schedule: Kinesis changes a shard count at most to its double or its half at once; the counts differ by more."
  }
  validation {
    condition     = alltrue([for name in keys(var.stream.schedule) : can(regex("^[a-z0-9-]{1,20}$", name))])
    error_message = "stream.schedule: each name has 1 to 20 lower-case letters, digits and hyphens."
  }
}

# ------------------------------------------------------------------------------------------------ lake (lake.tf)

variable "lake" {
  description = <<-EOT
    The bucket of the tables, raw bytes, claims, jobs and query results. bucket_name: null makes a name from prefix,
    account and region. force_destroy: whether `terraform destroy` may delete a bucket that holds data.
    noncurrent_days: how long a replaced or deleted object can be brought back. results_days: life of query results.
    claims_days: life of payloads that are too large for a record, at least two days more than the stream keeps records;
    a hole of such a block can be replayed for so long. null: 23 days more than the stream keeps records.
    scan_limit_gib: what one Athena query may scan before it is cancelled.
  EOT
  type = object({
    bucket_name     = optional(string)
    force_destroy   = optional(bool, false)
    noncurrent_days = optional(number, 7)
    results_days    = optional(number, 14)
    claims_days     = optional(number)
    scan_limit_gib  = optional(number, 100)
  })
  default = {}

  validation {
    condition     = var.lake.noncurrent_days >= 1 && var.lake.results_days >= 1
    error_message = "lake.noncurrent_days and lake.results_days: at least 1."
  }
  validation {
    condition     = var.lake.claims_days == null ? true : var.lake.claims_days >= ceil(var.stream.retention_hours / 24) + 2
    error_message = "lake.claims_days: at least two days more than stream.retention_hours, or a record in the stream may have lost its payload."
  }
  validation {
    condition     = var.lake.scan_limit_gib >= 1
    error_message = "lake.scan_limit_gib: at least 1."
  }
}

variable "registry" {
  description = "The DynamoDB tables. deletion_protection: whether a table must be unprotected before it can be deleted."
  type = object({
    deletion_protection = optional(bool, true)
  })
  default = {}
}

variable "kms_key_arn" {
  description = "A key of the site's own for stream, bucket, tables, topic and logs; null makes one, with rotation."
  type        = string
  default     = null
}

variable "lake_formation" {
  description = "True where Lake Formation is hardened in this account: grants the roles there what their policies allow. Whoever applies must be a Lake Formation administrator."
  type        = bool
  default     = false
}

# ------------------------------------------------------------------------------------------------ jobs (glue_jobs.tf)

variable "artefacts" {
  description = <<-EOT
    Folder that `make glue-bundle` wrote: the code, the scripts, the wheels and a manifest of their content hashes.
    rollback: content hash of the bundle to run, one of earlier_bundles; null runs the one in the folder.
  EOT
  type = object({
    folder   = optional(string, "../build/glue")
    rollback = optional(string)
  })
  default = {}

  validation {
    condition     = fileexists("${var.artefacts.folder}/manifest.json")
    error_message = "artefacts.folder: there is no manifest.json in it; run `make glue-bundle` first, or name the folder that it wrote."
  }
  validation {
    condition     = var.artefacts.rollback == null ? true : contains(var.earlier_bundles, var.artefacts.rollback)
    error_message = "artefacts.rollback: the hash of a bundle that is in the bucket, as output `bundles` lists them and earlier_bundles passes them on."
  }
}

variable "earlier_bundles" {
  description = "The bundles in the bucket before this deployment, newest first: what output `bundles` says. Five are kept to go back to."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for hash in var.earlier_bundles : can(regex("^[0-9a-f]{16}$", hash))])
    error_message = "earlier_bundles: hashes of bundles have 16 hexadecimal digits."
  }
}

variable "stream_job" {
  description = <<-EOT
    The streaming job. mode: continuous (a standing job) or drain (started on a schedule, reads everything, stops).
    worker_type: G.025X is the smallest for streaming; G.1X where it is not offered. maintenance_window: day and hour
    (UTC) at which Glue may restart it, for example Sun:3. settings: items for the settings table, by name. conf:
    Spark settings. checkpoint: where Spark keeps its own, null is a prefix of the bucket; losing it costs nothing.
  EOT
  type = object({
    mode               = optional(string, "continuous")
    worker_type        = optional(string, "G.025X")
    workers            = optional(number, 2)
    maintenance_window = optional(string, "Sun:3")
    settings           = optional(map(string), {})
    conf               = optional(string)
    checkpoint         = optional(string)
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
    The fold job. workers: of a run; max_workers: of the run of a table too large for a group (one worker more for each
    16 GiB). map_concurrency: how many groups of tables are folded side by side, and with it the job's concurrent runs.
    timeout_minutes: of one run. horizon_seconds: how old a watermark must be before a fold uses it.
    settings: items for the settings table, by name; fold_max_workers and fold_map_concurrency lower the bounds here.
  EOT
  type = object({
    worker_type     = optional(string, "G.1X")
    workers         = optional(number, 2)
    max_workers     = optional(number, 10)
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
    condition     = var.fold_job.workers >= 2 && var.fold_job.max_workers >= var.fold_job.workers
    error_message = "fold_job.workers: at least 2, one of them is the driver; max_workers: not below it."
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

# ------------------------------------------------------------------------------------------------ maintenance (maintenance.tf)

variable "maintenance" {
  description = <<-EOT
    The daily maintenance. schedule: when it runs (an EventBridge Scheduler expression, UTC). orphan_days: how old a file
    that no table reaches must be before it is deleted. conf: Spark settings where Glue's own Iceberg is not to be used.
  EOT
  type = object({
    schedule        = optional(string, "cron(30 2 * * ? *)")
    orphan_days     = optional(number, 3)
    worker_type     = optional(string, "G.1X")
    workers         = optional(number, 2)
    timeout_minutes = optional(number, 240)
    conf            = optional(string)
  })
  default = {}

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.maintenance.schedule))
    error_message = "maintenance.schedule: a rate(...) or cron(...) expression."
  }
  validation {
    condition     = var.maintenance.orphan_days >= 3
    error_message = "maintenance.orphan_days: at least 3; a younger file may still be committed, or read by a query."
  }
  validation {
    condition     = var.maintenance.workers >= 2 && var.maintenance.timeout_minutes >= 5
    error_message = "maintenance.workers: at least 2; maintenance.timeout_minutes: at least 5."
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

# ------------------------------------------------------------------------------------------------ analysts (analyst.tf)

variable "analysts" {
  description = "ARNs of the roles or users that may take up the analyst role; without one the role is not made."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.analysts : can(regex("^arn:[a-z-]+:(iam|sts)::[0-9]{12}:.+$", arn))])
    error_message = "analysts: each is the ARN of a role or user."
  }
}

# ------------------------------------------------------------------------------------------------ operations (operations.tf)

variable "operations" {
  description = <<-EOT
    Alarms and logs. topic_arn: an SNS topic of the site's own, which must admit CloudWatch alarms and EventBridge; null
    makes one. emails: subscribed to the topic made here. log_days: retention of every log group. dashboard: whether to
    make one.
    When an alarm is raised: lag_seconds: the stream is read so far behind its tip. freshness_seconds: a cut view is
    complete up to so long ago. silent_minutes: the streaming job has said nothing for so long (null: 15, or with
    stream_job.mode drain three of its periods). stream_percent: the stream is written at so much of its shards' limit.
    retention_percent: the oldest unread record has used up so much of the stream's retention (first warning, then loss
    is near). parked_minutes: a lane could not be loaded, or commits failed, for so long. fold_periods: so many of the
    fold's periods without a success. athena_gib_a_day: queries of the workgroup scanned so much in a day (null: no
    such alarm).
  EOT
  type = object({
    topic_arn         = optional(string)
    emails            = optional(list(string), [])
    log_days          = optional(number, 30)
    dashboard         = optional(bool, true)
    lag_seconds       = optional(number, 300)
    freshness_seconds = optional(number, 900)
    silent_minutes    = optional(number)
    stream_percent    = optional(number, 80)
    retention_percent = optional(list(number), [25, 60])
    parked_minutes    = optional(number, 10)
    fold_periods      = optional(number, 6)
    athena_gib_a_day  = optional(number)
  })
  default = {}

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.operations.log_days)
    error_message = "operations.log_days: a retention that CloudWatch Logs knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545 or 731."
  }
  validation {
    condition     = var.operations.topic_arn == null || can(regex("^arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+$", var.operations.topic_arn))
    error_message = "operations.topic_arn: the ARN of an SNS topic, or null."
  }
  validation {
    condition     = alltrue([for address in var.operations.emails : can(regex("^[^@[:space:]]+@[^@[:space:]]+$", address))])
    error_message = "operations.emails: each is an address such as team@example.com."
  }
  validation {
    condition     = length(var.operations.emails) == 0 || var.operations.topic_arn == null
    error_message = "operations.emails: subscribe to the topic of operations.topic_arn where that topic is managed; emails go with the topic made here."
  }
  validation {
    condition     = var.operations.lag_seconds > 0 && var.operations.freshness_seconds > 0
    error_message = "operations.lag_seconds and operations.freshness_seconds: more than 0."
  }
  validation {
    condition     = var.operations.silent_minutes == null ? true : var.operations.silent_minutes >= 5 && var.operations.silent_minutes <= 1440
    error_message = "operations.silent_minutes: from 5 to 1440, or null."
  }
  validation {
    condition     = var.operations.stream_percent > 0 && var.operations.stream_percent <= 100
    error_message = "operations.stream_percent: above 0, at most 100."
  }
  validation {
    condition = (
      length(var.operations.retention_percent) == 2 ? 0 < var.operations.retention_percent[0] &&
      var.operations.retention_percent[0] < var.operations.retention_percent[1] && var.operations.retention_percent[1] < 100 : false
    )
    error_message = "operations.retention_percent: two rising percentages, the warning and the last call, above 0 and below 100."
  }
  validation {
    condition     = var.operations.parked_minutes >= 1 && var.operations.parked_minutes <= 1440 && floor(var.operations.parked_minutes) == var.operations.parked_minutes
    error_message = "operations.parked_minutes: whole minutes from 1 to 1440."
  }
  validation {
    condition     = var.operations.fold_periods >= 2 && floor(var.operations.fold_periods) == var.operations.fold_periods
    error_message = "operations.fold_periods: a whole number, at least 2."
  }
  validation {
    condition     = var.operations.athena_gib_a_day == null ? true : var.operations.athena_gib_a_day > 0
    error_message = "operations.athena_gib_a_day: more than 0, or null."
  }
}

# ------------------------------------------------------------------------------------------------ network (vpc.tf, endpoints.tf, jobs_in_vpc.tf)

variable "network" {
  description = <<-EOT
    The private way into AWS. enabled: false leaves the agent to the services' public addresses, over TLS. vpc_id: a
    VPC of the site's own, with subnet_ids (at least two, in different zones) and their route_table_ids; null makes
    one of cidr, with a private subnet in each of zones (empty: the first two of the region). site_cidrs: the site's
    networks, which may call the endpoints. endpoints: the interface endpoints that the site gets; each costs by the
    hour and zone. private_dns: whether the endpoints answer to the services' public names within the VPC; switch it
    off where the given VPC has such endpoints already. resolver: a Route 53 resolver endpoint, for sites that want
    those names as well; the agent does without. flow_logs: whether the VPC made here logs its traffic.
  EOT
  type = object({
    enabled         = optional(bool, false)
    vpc_id          = optional(string)
    subnet_ids      = optional(list(string), [])
    route_table_ids = optional(list(string), [])
    cidr            = optional(string, "10.87.0.0/22")
    zones           = optional(list(string), [])
    site_cidrs      = optional(list(string), [])
    endpoints = optional(set(string), [
      "kinesis-streams", "dynamodb", "s3", "sts", "rolesanywhere", "logs", "monitoring"
    ])
    private_dns = optional(bool, true)
    resolver    = optional(bool, false)
    flow_logs   = optional(bool, true)
  })
  default = {}

  validation {
    condition     = can(regex("/(1[6-9]|2[0-5])$", var.network.cidr)) && can(cidrhost(var.network.cidr, 0))
    error_message = "network.cidr: an IPv4 network such as 10.87.0.0/22, from /16 to /25."
  }
  validation {
    condition     = length(var.network.zones) == 0 || (length(distinct(var.network.zones)) == length(var.network.zones) && length(var.network.zones) >= 2 && length(var.network.zones) <= 4)
    error_message = "network.zones: empty, or two to four different zones, such as [\"us-east-1a\", \"us-east-1b\"]."
  }
  validation {
    condition     = var.network.vpc_id == null ? length(var.network.subnet_ids) == 0 && length(var.network.route_table_ids) == 0 : true
    error_message = "network.vpc_id: subnet_ids and route_table_ids belong to a given VPC; give its vpc_id as well."
  }
  validation {
    condition     = var.network.vpc_id == null ? true : length(distinct(var.network.subnet_ids)) >= 2 && length(distinct(var.network.subnet_ids)) == length(var.network.subnet_ids)
    error_message = "network.subnet_ids: a given VPC needs at least two different subnets, in different zones, or one zone's outage cuts the site off; got ${length(distinct(var.network.subnet_ids))}."
  }
  validation {
    condition     = var.network.vpc_id == null ? true : length(var.network.route_table_ids) >= 1
    error_message = "network.route_table_ids: name the route tables of the given subnets, for the gateway endpoints and the routes to the site."
  }
  validation {
    condition     = alltrue([for cidr in var.network.site_cidrs : can(cidrhost(cidr, 0)) && can(regex("^[0-9.]+/([89]|[12][0-9]|3[0-2])$", cidr))])
    error_message = "network.site_cidrs: IPv4 networks of the site, each of /8 or smaller, such as 10.20.0.0/16."
  }
  validation {
    condition     = !var.network.enabled || length(var.network.endpoints) == 0 || length(var.network.site_cidrs) > 0
    error_message = "network.site_cidrs: name the site's networks; nobody could call the endpoints otherwise (or set network.endpoints = [])."
  }
  validation {
    # Two networks overlap when they are the same after both are cut to the shorter prefix.
    condition = !var.network.enabled || var.network.vpc_id != null || alltrue([
      for cidr in var.network.site_cidrs : try(
        cidrsubnet("${split("/", cidr)[0]}/${min(tonumber(split("/", cidr)[1]), tonumber(split("/", var.network.cidr)[1]))}", 0, 0) !=
        cidrsubnet("${split("/", var.network.cidr)[0]}/${min(tonumber(split("/", cidr)[1]), tonumber(split("/", var.network.cidr)[1]))}", 0, 0),
        true
      )
    ])
    error_message = "network.cidr: ${var.network.cidr} overlaps one of network.site_cidrs (${join(", ", var.network.site_cidrs)}); the VPN could not route. Choose another network.cidr."
  }
  validation {
    condition = alltrue([
      for service in var.network.endpoints :
      contains(["kinesis-streams", "dynamodb", "s3", "sts", "rolesanywhere", "logs", "monitoring", "secretsmanager"], service)
    ])
    error_message = "network.endpoints: any of kinesis-streams, dynamodb, s3, sts, rolesanywhere, logs, monitoring and secretsmanager."
  }
  validation {
    condition     = !var.network.resolver || (var.network.enabled && var.network.private_dns)
    error_message = "network.resolver: it answers with the endpoints' private names, so network.enabled and network.private_dns must be true."
  }
}

variable "jobs_in_vpc" {
  description = <<-EOT
    Whether the Glue jobs run in the private subnets as well, without any way to the Internet. They then need further
    interface endpoints (glue, kms, and those of network.endpoints that they call), at their hourly price.
  EOT
  type        = bool
  default     = false

  validation {
    condition     = !var.jobs_in_vpc || var.network.enabled
    error_message = "jobs_in_vpc: the jobs need subnets; set network.enabled = true."
  }
}

# ------------------------------------------------------------------------------------------------ vpn (vpn.tf)

variable "vpn" {
  description = <<-EOT
    The site-to-site VPN. device_ip: the public address of the site's device, from which a customer gateway is made;
    or customer_gateway_id of one that exists. device_asn: its BGP number. gateway_id: a VPN gateway that is attached
    to the given VPC; null makes one, with amazon_asn. routing: static (network.site_cidrs) or bgp. startup: start
    (AWS opens the tunnels) or add (the site does). dh_groups: Diffie-Hellman groups of both phases; take 14 only for
    a device that knows no curve. inside_cidrs: a /30 of 169.254.0.0/16 for each tunnel, null lets AWS choose.
    logs: whether the tunnels' negotiations are logged.
  EOT
  type = object({
    enabled             = optional(bool, false)
    device_ip           = optional(string)
    device_asn          = optional(number, 65000)
    customer_gateway_id = optional(string)
    gateway_id          = optional(string)
    amazon_asn          = optional(number, 64512)
    routing             = optional(string, "static")
    startup             = optional(string, "start")
    dh_groups           = optional(set(number), [19, 20, 21])
    inside_cidrs        = optional(list(string))
    logs                = optional(bool, true)
  })
  default = {}

  validation {
    condition     = !var.vpn.enabled || var.network.enabled
    error_message = "vpn.enabled: the VPN leads into the VPC; set network.enabled = true."
  }
  validation {
    condition     = !var.vpn.enabled || length(var.network.site_cidrs) > 0
    error_message = "vpn.enabled: the VPN leads to the site's networks; name them in network.site_cidrs."
  }
  validation {
    condition     = !var.vpn.enabled || (var.vpn.device_ip == null) != (var.vpn.customer_gateway_id == null)
    error_message = "vpn.device_ip or vpn.customer_gateway_id: give one of them."
  }
  validation {
    condition     = var.vpn.device_ip == null ? true : can(cidrhost("${var.vpn.device_ip}/32", 0)) && !can(regex("^(10|127|0|192\\.168|169\\.254|172\\.(1[6-9]|2[0-9]|3[01]))\\.", var.vpn.device_ip))
    error_message = "vpn.device_ip: a public IPv4 address, the one that AWS sees the site's device at."
  }
  validation {
    condition     = var.vpn.gateway_id == null || var.network.vpc_id != null
    error_message = "vpn.gateway_id: a given gateway is attached to a given VPC; set network.vpc_id as well."
  }
  validation {
    condition     = contains(["static", "bgp"], var.vpn.routing)
    error_message = "vpn.routing: static or bgp."
  }
  validation {
    condition     = contains(["start", "add"], var.vpn.startup)
    error_message = "vpn.startup: start or add."
  }
  validation {
    condition     = length(var.vpn.dh_groups) > 0 && alltrue([for group in var.vpn.dh_groups : contains([14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24], group)])
    error_message = "vpn.dh_groups: from 14 to 24; group 2 can be broken."
  }
  validation {
    condition     = var.vpn.inside_cidrs == null ? true : length(var.vpn.inside_cidrs) == 2 && alltrue([for cidr in var.vpn.inside_cidrs : can(regex("^169\\.254\\.[0-9]+\\.[0-9]+/30$", cidr))])
    error_message = "vpn.inside_cidrs: two /30 networks of 169.254.0.0/16, one for each tunnel."
  }
}

# ------------------------------------------------------------------------------------------------ agent (agent.tf, secrets.tf)

variable "agent" {
  description = <<-EOT
    Who may act as the agent of a source, and what is written into its configuration.
    ca_bundle: the certificates (PEM) of the authority that issues the agents' certificates; or ca_arn of an AWS
    Private CA. With either, IAM Roles Anywhere gives each source's agent its role. session_seconds: how long its
    credentials last. trusted_principals: roles or users of this account that may take on the agents' roles as well.
    only_from_vpc: refuse the agents' calls from anywhere but the VPC's endpoints, even with stolen credentials.
    password_secrets: a secret for each source's database password, which the agent's role may read.
    sites: by source, what its agent.toml starts with: dsn (no password in it), tables, and the path of the spool.
  EOT
  type = object({
    ca_bundle          = optional(string)
    ca_arn             = optional(string)
    session_seconds    = optional(number, 3600)
    trusted_principals = optional(list(string), [])
    only_from_vpc      = optional(bool, false)
    password_secrets   = optional(bool, false)
    sites = optional(map(object({
      dsn        = optional(string)
      tables     = optional(list(string), ["public.*"])
      spool_path = optional(string)
    })), {})
  })
  default = {}

  validation {
    condition     = var.agent.ca_bundle == null || var.agent.ca_arn == null
    error_message = "agent.ca_bundle or agent.ca_arn: give one of them."
  }
  validation {
    condition     = var.agent.ca_bundle == null ? true : can(regex("-----BEGIN CERTIFICATE-----", var.agent.ca_bundle)) && !can(regex("PRIVATE KEY", var.agent.ca_bundle))
    error_message = "agent.ca_bundle: certificates in PEM form, and never a private key; paste them between <<PEM and PEM."
  }
  validation {
    condition     = var.agent.ca_arn == null ? true : can(regex("^arn:aws[a-z-]*:acm-pca:[a-z0-9-]+:[0-9]{12}:certificate-authority/.+$", var.agent.ca_arn))
    error_message = "agent.ca_arn: the ARN of an AWS Private CA's certificate authority."
  }
  validation {
    condition     = var.agent.session_seconds >= 900 && var.agent.session_seconds <= 43200
    error_message = "agent.session_seconds: from 900 to 43200."
  }
  validation {
    condition     = alltrue([for arn in var.agent.trusted_principals : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/.+$", arn))])
    error_message = "agent.trusted_principals: ARNs of roles or users, no wildcard and no whole account."
  }
  validation {
    condition     = !var.agent.only_from_vpc || var.network.enabled
    error_message = "agent.only_from_vpc: needs the VPC's endpoints; set network.enabled = true."
  }
  validation {
    condition     = length(setsubtract(keys(var.agent.sites), keys(var.sources))) == 0
    error_message = "agent.sites: only of sources that are in sources."
  }
  validation {
    condition     = alltrue([for site in values(var.agent.sites) : site.dsn == null ? true : !can(regex("(?i)password", site.dsn)) && !can(regex("://[^@/]*:[^@/]*@", site.dsn))])
    error_message = "agent.sites: a dsn holds no password, since it would be in the state; the agent takes it from PGPASSWORD or a pgpass file."
  }
}
