# A ready-made role for people and tools that query: the workgroup, the views with the tables behind them, results.
# Nothing here writes to the lake, and nothing reads raw bytes, claims or code.

locals {
  analysts = length(var.analysts) > 0 ? 1 : 0
}

resource "aws_iam_role" "analyst" {
  count = local.analysts

  name                 = "${var.name}-analyst"
  description          = "Queries the lake through Athena."
  assume_role_policy   = data.aws_iam_policy_document.analyst_trust[0].json
  permissions_boundary = var.permissions_boundary_arn
}

data "aws_iam_policy_document" "analyst_trust" {
  count = local.analysts

  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = var.analysts
    }
  }
}

resource "aws_iam_role_policy" "analyst" {
  count = local.analysts

  name   = "analyst"
  role   = aws_iam_role.analyst[0].id
  policy = data.aws_iam_policy_document.analyst.json
}

data "aws_iam_policy_document" "analyst" {
  source_policy_documents = [
    for use in ["s3-read", "s3-write"] : data.aws_iam_policy_document.key_through[use].json
  ]

  statement {
    sid = "RunQueries"
    actions = [
      "athena:GetWorkGroup", "athena:StartQueryExecution", "athena:StopQueryExecution",
      "athena:GetQueryExecution", "athena:GetQueryResults", "athena:GetQueryResultsStream",
      "athena:ListNamedQueries", "athena:GetNamedQuery", "athena:BatchGetNamedQuery",
    ]
    resources = [aws_athena_workgroup.this.arn]
  }

  statement {
    sid     = "ReadCatalog"
    actions = ["glue:GetDatabase", "glue:GetDatabases", "glue:GetTable", "glue:GetTables"]
    resources = concat(
      ["${local.catalog_arn}:catalog"],
      flatten([for suffix in local.database_suffixes : local.catalog_resources[suffix]]),
    )
  }

  # Athena looks at the catalog's default database with every query, whichever database it names.
  statement {
    sid       = "FindDefaultDatabase"
    actions   = ["glue:GetDatabase"]
    resources = ["${local.catalog_arn}:catalog", "${local.catalog_arn}:database/default"]
  }

  statement {
    sid       = "ReadTables"
    actions   = ["s3:GetObject"]
    resources = ["${local.bucket_arn}/lake/*"]
  }

  statement {
    sid       = "FindBucket"
    actions   = ["s3:GetBucketLocation"]
    resources = [local.bucket_arn]
  }

  statement {
    sid       = "KeepResults"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${local.bucket_arn}/results/*"]
  }

  # Without it S3 answers that an object is forbidden, and not that it is missing.
  statement {
    sid       = "ListTablesAndResults"
    actions   = ["s3:ListBucket"]
    resources = [local.bucket_arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["lake/*", "results/*"]
    }
  }
}
