"""docs/first-run-on-aws.md lists what the script checks, and nothing that it does not."""

import re
from pathlib import Path

from ops.aws_smoke.checks import CHECKS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "first-run-on-aws.md"


def test_the_claims_that_the_script_proves_are_the_script_s_checks() -> None:
    """A check without a line is undocumented; a line without a check is a promise that nobody keeps."""
    chapter = DOCUMENT.read_text().split("## Claims that the script proves")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", chapter, re.MULTILINE)
    assert listed == [check.name for check in CHECKS]
