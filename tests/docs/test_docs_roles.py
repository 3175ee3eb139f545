"""The table of roles in docs/security.md is what the policies in terraform/*.tf say."""

from pathlib import Path

import pytest

from ops import role_table
from ops.role_table import UnknownShape

POLICIES = """
data "aws_iam_policy_document" "shared" {
  for_each = { one = "first", two = "second" }
  statement {
    sid       = "Shared"
    actions   = ["logs:PutLogEvents"]
    resources = ["*"] # a comment with } in it
  }
}
data "aws_iam_policy_document" "reader" {
  source_policy_documents = [data.aws_iam_policy_document.shared["one"].json]
  statement {
    sid = "Read"
    actions = [
      "s3:GetObject",
      "s3:ListBucket",
    ]
    resources = ["${local.bucket_arn}/lake/*"]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["lake/*"]
    }
  }
  dynamic "statement" {
    for_each = var.strict ? [1] : []
    content {
      sid       = "Never"
      effect    = "Deny"
      actions   = ["s3:DeleteObject"]
      resources = ["*"]
    }
  }
}
resource "aws_iam_role" "reader" {
  name = "${var.name}-reader"
}
resource "aws_iam_role_policy" "reader" {
  role   = aws_iam_role.reader.id
  policy = data.aws_iam_policy_document.reader.json
}
"""


def test_the_document_holds_the_table_of_the_policies() -> None:
    """Whoever changes a policy runs `python -m ops.role_table --write`."""
    text = role_table.DOCUMENT.read_text()
    assert text == role_table.placed(text, role_table.table(role_table.roles())), "python -m ops.role_table --write"


def test_every_statement_of_a_role_is_read(tmp_path: Path) -> None:
    """Included documents, optional statements, denials and conditions: nothing that a role may do is left out."""
    (tmp_path / "a.tf").write_text(POLICIES)
    (reader,) = role_table.roles(tmp_path)
    assert reader.name == "\\<name>-reader"
    assert [(found.sid, found.effect, found.actions) for found in reader.statements] == [
        ("Shared", "Allow", ("logs:PutLogEvents",)),
        ("Read", "Allow", ("s3:GetObject", "s3:ListBucket")),
        ("Never", "Deny", ("s3:DeleteObject",)),
    ]
    assert reader.statements[1].resources == "bucket/lake/\\*"
    assert reader.statements[1].condition == "`s3:prefix` like lake/\\*"


def test_a_policy_in_an_unknown_shape_is_refused(tmp_path: Path) -> None:
    """A policy that this reader does not understand must not look like one that allows nothing."""
    (tmp_path / "a.tf").write_text(
        POLICIES.replace("policy = data.aws_iam_policy_document.reader.json", "policy = jsonencode({})")
    )
    with pytest.raises(UnknownShape, match="reader"):
        role_table.roles(tmp_path)
