# The five DynamoDB tables: schemas, tables, settings, shard positions, sources. Losing `shards` costs a re-read;
# the others are restored to any second of the last 35 days.

locals {
  dynamodb_tables = {
    schemas  = { hash = "subject", range = "version", range_type = "N" }
    tables   = { hash = "table", range = null, range_type = null }
    settings = { hash = "job", range = "name", range_type = "S" }
    shards   = { hash = "job", range = "shard", range_type = "S" }
    sources  = { hash = "source", range = "item", range_type = "S" }
  }

  # What the settings table starts with; the command line and the console may change a value later.
  settings = merge(
    { for name, value in var.stream_job.settings : "${local.stream_job}/${name}" => { job = local.stream_job, name = name, value = value } },
    { for name, value in var.fold_job.settings : "${local.fold_job}/${name}" => { job = local.fold_job, name = name, value = value } },
  )
}

resource "aws_dynamodb_table" "registry" {
  for_each = local.dynamodb_tables

  name                        = "${var.name}-${each.key}"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = each.value.hash
  range_key                   = each.value.range
  deletion_protection_enabled = var.registry.deletion_protection

  attribute {
    name = each.value.hash
    type = "S"
  }

  dynamic "attribute" {
    for_each = each.value.range == null ? [] : [each.value]
    content {
      name = attribute.value.range
      type = attribute.value.range_type
    }
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = local.kms_key_arn
  }
}

resource "aws_dynamodb_table_item" "setting" {
  for_each = local.settings

  table_name = aws_dynamodb_table.registry["settings"].name
  hash_key   = aws_dynamodb_table.registry["settings"].hash_key
  range_key  = aws_dynamodb_table.registry["settings"].range_key
  item = jsonencode({
    job   = { S = each.value.job }
    name  = { S = each.value.name }
    value = { S = each.value.value }
  })
}
