# For accounts where Lake Formation no longer leaves the catalog to IAM (its default grant to IAMAllowedPrincipals is
# gone): what the roles' policies allow is granted there as well. Whoever applies this must be a Lake Formation
# administrator. The bucket is not registered as a data location, so objects stay a matter of IAM alone.

locals {
  lake_formation_reads  = { database = ["DESCRIBE"], tables = ["SELECT", "DESCRIBE"] }
  lake_formation_writes = { database = ["DESCRIBE", "CREATE_TABLE"], tables = ["SELECT", "DESCRIBE", "ALTER"] }

  # By role: what it does in the databases of each suffix, as its policy says.
  lake_formation_roles = merge(
    {
      stream_job   = { arn = aws_iam_role.stream_job.arn, writes = ["_lake", "_cut"], reads = [] }
      fold_job     = { arn = aws_iam_role.fold_job.arn, writes = local.database_suffixes, reads = [] }
      maintain_job = { arn = aws_iam_role.maintain_job.arn, writes = ["_lake"], reads = [] }
      plan         = { arn = aws_iam_role.plan.arn, writes = [], reads = ["_lake", "_cut"] }
    },
    { for role in aws_iam_role.analyst : "analyst" => { arn = role.arn, writes = [], reads = local.database_suffixes } },
  )

  lake_formation_grants = !var.lake_formation ? {} : merge([
    for name, role in local.lake_formation_roles : {
      for database, of in local.databases : "${name}/${database}" => {
        principal = role.arn
        database  = database
        allowed   = contains(role.writes, of.suffix) ? local.lake_formation_writes : local.lake_formation_reads
      } if contains(concat(role.writes, role.reads), of.suffix)
    }
  ]...)
}

resource "aws_lakeformation_permissions" "database" {
  for_each = local.lake_formation_grants

  principal   = each.value.principal
  permissions = each.value.allowed.database

  database {
    name = aws_glue_catalog_database.this[each.value.database].name
  }
}

# The streaming job makes its databases where they are missing. Lake Formation asks for this right before it says that
# they are there; the names are its policy's matter.
resource "aws_lakeformation_permissions" "new_databases" {
  count = var.lake_formation ? 1 : 0

  principal        = aws_iam_role.stream_job.arn
  permissions      = ["CREATE_DATABASE"]
  catalog_resource = true
}

resource "aws_lakeformation_permissions" "tables" {
  for_each = local.lake_formation_grants

  principal   = each.value.principal
  permissions = each.value.allowed.tables

  table {
    database_name = aws_glue_catalog_database.this[each.value.database].name
    wildcard      = true
  }
}
