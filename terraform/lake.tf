# The key, the bucket, the Glue databases and the Athena workgroup.

# ------------------------------------------------------------------------------------------------ key

locals {
  kms_key_arn = coalesce(var.kms_key_arn, one(aws_kms_key.this[*].arn))
}

resource "aws_kms_key" "this" {
  count = var.kms_key_arn == null ? 1 : 0

  description             = "Headrace ${var.name}: stream, bucket, tables, topic, queue and logs."
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_alias" "this" {
  count = var.kms_key_arn == null ? 1 : 0

  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this[0].key_id
}

# A site that brings a key of its own gives it these statements: without the second and third no log line and no alarm
# gets through, and neither service says so loudly.
data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109:A key policy that leaves out the account's administrators can lock everybody out for good
  #checkov:skip=CKV_AWS_111:A key policy has no resource but its own key, written as a star
  #checkov:skip=CKV_AWS_356:A key policy has no resource but its own key, written as a star

  statement {
    sid       = "AccountGrantsThroughIam"
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account_id}:root"]
    }
  }

  statement {
    sid       = "LogGroups"
    actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
    resources = ["*"]
    principals {
      type        = "Service"
      identifiers = ["logs.${local.region}.amazonaws.com"]
    }
    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = ["arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group:*${var.name}*"]
    }
  }

  # Alarms and event rules publish to the encrypted topic, and rules drop into the encrypted queue, as services and in
  # no role. Without a condition on the account: EventBridge brings none when it publishes to a topic.
  statement {
    sid       = "AlarmsAndEvents"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
    resources = ["*"]
    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "events.amazonaws.com"]
    }
  }
}

# ------------------------------------------------------------------------------------------------ bucket

resource "aws_s3_bucket" "lake" {
  #checkov:skip=CKV_AWS_18:Object reads are logged by the account's CloudTrail data events where a site wants them; a second bucket would cost as much as the lake's requests
  #checkov:skip=CKV_AWS_144:Everything here can be loaded again from the stream and the source; replication would double the storage bill
  #checkov:skip=CKV2_AWS_62:Nothing waits for an object; the tables' commits say what is new

  bucket        = local.lake_bucket
  force_destroy = var.lake.force_destroy
}

resource "aws_s3_bucket_versioning" "lake" {
  bucket = aws_s3_bucket.lake.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "lake" {
  bucket = aws_s3_bucket.lake.id
  rule {
    bucket_key_enabled = true # one call of KMS for many objects
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = local.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "lake" {
  bucket                  = aws_s3_bucket.lake.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "lake" {
  bucket = aws_s3_bucket.lake.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# No rule expires a current object of a table: what a table still refers to is known to its metadata alone, and the
# daily maintenance deletes by it.
resource "aws_s3_bucket_lifecycle_configuration" "lake" {
  bucket = aws_s3_bucket.lake.id

  rule {
    id     = "abort-multipart-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }

  rule {
    id     = "expire-noncurrent-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = var.lake.noncurrent_days
    }
    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "expire-query-results"
    status = "Enabled"
    filter {
      prefix = "results/"
    }
    expiration {
      days = var.lake.results_days
    }
  }

  # The payload of a block above the stream's record limit is read with its record: while the stream keeps that, and
  # at the replay of a hole, whose raw bytes name the payload and do not hold it.
  rule {
    id     = "expire-claims"
    status = "Enabled"
    filter {
      prefix = "claims/"
    }
    expiration {
      days = coalesce(var.lake.claims_days, ceil(var.stream.retention_hours / 24) + 23)
    }
  }

  depends_on = [aws_s3_bucket_versioning.lake]
}

resource "aws_s3_bucket_policy" "lake" {
  bucket     = aws_s3_bucket.lake.id
  policy     = data.aws_iam_policy_document.lake_bucket.json
  depends_on = [aws_s3_bucket_public_access_block.lake]
}

# By account, not by endpoint: Athena and Glue read in the name of a principal of this account, but from networks of
# their own.
data "aws_iam_policy_document" "lake_bucket" {
  statement {
    sid       = "OnlyEncryptedConnections"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.lake.arn, "${aws_s3_bucket.lake.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  statement {
    sid       = "OnlyThisAccount"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.lake.arn, "${aws_s3_bucket.lake.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "StringNotEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account_id]
    }
    condition {
      test     = "BoolIfExists"
      variable = "aws:PrincipalIsAWSService"
      values   = ["false"]
    }
  }
}

# ------------------------------------------------------------------------------------------------ catalog

resource "aws_glue_catalog_database" "this" {
  for_each = local.databases

  name = each.key
  description = {
    ""         = "${each.value.source}: current rows, as fresh as the last batch."
    "_cut"     = "${each.value.source}: whole transactions across all tables, at the source's watermark."
    "_history" = "${each.value.source}: every change with its time."
    "_lake"    = "${each.value.source}: the Iceberg tables; query the views in the other databases."
  }[each.value.suffix]
}

resource "aws_athena_workgroup" "this" {
  name          = local.workgroup
  description   = "Queries on the lake of ${var.name}."
  force_destroy = true # its saved history only; the results lie in the bucket

  configuration {
    enforce_workgroup_configuration    = true
    publish_cloudwatch_metrics_enabled = true
    bytes_scanned_cutoff_per_query     = var.lake.scan_limit_gib * 1024 * 1024 * 1024

    engine_version {
      selected_engine_version = "Athena engine version 3"
    }

    result_configuration {
      output_location       = "s3://${aws_s3_bucket.lake.bucket}/results/"
      expected_bucket_owner = local.account_id
      encryption_configuration {
        encryption_option = "SSE_KMS"
        kms_key_arn       = local.kms_key_arn
      }
    }
  }
}
