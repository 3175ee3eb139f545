# Saved queries for the common questions, for every source: they stand in the workgroup's list in Athena's console.

locals {
  query_files = fileset("${path.module}/queries", "*.sql")
  named_queries = {
    for pair in setproduct(keys(var.sources), local.query_files) :
    "${pair[0]}/${trimsuffix(pair[1], ".sql")}" => {
      source = pair[0]
      title  = replace(trimsuffix(pair[1], ".sql"), "_", " ")
      sql    = templatefile("${path.module}/queries/${pair[1]}", { source = pair[0] })
    }
  }
}

resource "aws_athena_named_query" "this" {
  for_each = local.named_queries

  name        = "${each.value.source}: ${each.value.title}"
  description = trimprefix(split("\n", each.value.sql)[0], "-- ")
  workgroup   = aws_athena_workgroup.this.id
  database    = each.value.source
  query       = each.value.sql

  depends_on = [aws_glue_catalog_database.this]
}
