"""`make terraform-check`: all that can be said about terraform/ without an account.

Style, validity, the plan tests, every example of the documents planned, checkov, and parliament on every policy as it
stands on the laptop's AWS after an apply. checkov and parliament live in a virtual environment of their own.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from localaws.process import running
from ops import glue_bundle, identities, provision_terraform, terraform
from ops.aws import Aws
from ops.errors import OpsError
from ops.provision import Deployment
from ops.terraform import Terraform

ROOT: Final = Path(__file__).resolve().parent.parent
TOOLS: Final = ROOT / ".venv-check" / "bin"
_NEVER: Final = "cron(0 0 1 1 ? 2099)"
_EXAMPLE: Final = re.compile(r"^```hcl\n(.*?)^```", re.MULTILINE | re.DOTALL)
_EXAMPLES_HEAD: Final = """
provider "aws" {
  region                      = "us-east-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "123456789012" }
}

override_data {
  target = data.aws_availability_zones.usable
  values = { names = ["us-east-1a", "us-east-1b", "us-east-1c"] }
}

variables {
  artefacts = { folder = "tests/bundle" }
}
"""
_POLICIES: Final = {
    "aws_iam_role": ("assume_role_policy",),
    "aws_iam_role_policy": ("policy",),
    "aws_iam_user_policy": ("policy",),
    "aws_s3_bucket_policy": ("policy",),
    "aws_kms_key": ("policy",),
    "aws_sns_topic_policy": ("policy",),
    "aws_sqs_queue": ("policy",),
    "aws_vpc_endpoint": ("policy",),
}
# Findings of parliament that stay: the finding and the policy's address, both as patterns, and the reason.
WAIVED: Final = (
    ("^RESOURCE_STAR", r"^aws_kms_key\.", "a key's policy has no resource but its own key, written as a star"),
    (
        "^UNKNOWN_CONDITION_FOR_ACTION: .* kms:EncryptionContext:aws:logs:arn for action kms:DescribeKey$",
        r"^aws_kms_key\.",
        "CloudWatch Logs asks for this statement as a whole; for this one action it is never met",
    ),
    (
        "^MISMATCHED_TYPE: .*ArnLike requires a value of type Arn but given String$",
        r"^aws_kms_key\.",
        "the encryption context of a log group is its ARN",
    ),
)


@dataclass(frozen=True)
class Example:
    """A block of variables in a document."""

    document: str
    line: int
    text: str

    @property
    def name(self) -> str:
        return f"{Path(self.document).stem}_line_{self.line}".replace("-", "_").replace(".", "_")


@dataclass
class Findings:
    """What each step found; nothing means that it passed."""

    by_step: dict[str, list[str]] = field(default_factory=dict)

    def run(self, step: str, check: Callable[[], Sequence[str]]) -> None:
        try:
            found = list(check())
        except OpsError as error:
            found = [str(error)]
        self.by_step[step] = found
        print(f"{'ok  ' if not found else 'FAIL'}  {step}", *(f"      {line}" for line in found), sep="\n", flush=True)

    @property
    def failed(self) -> bool:
        return any(self.by_step.values())


def examples(root: Path = ROOT) -> list[Example]:
    """Every ```hcl block of the documents; each is a piece of a tfvars file."""
    documents = [root / "README.md", *sorted((root / "docs").glob("*.md")), *sorted((root / "cfn").glob("*.md"))]
    return [
        Example(str(path.relative_to(root)), text.count("\n", 0, match.start()) + 1, match[1])
        for path in documents
        if path.exists()
        for text in [path.read_text()]
        for match in _EXAMPLE.finditer(text)
    ]


def examples_test(found: Sequence[Example]) -> str:
    """A test file that plans each example."""
    runs = [f'run "{example.name}" {{\n  command = plan\n  variables {{\n{example.text}  }}\n}}\n' for example in found]
    return "\n".join([_EXAMPLES_HEAD, *runs])


def policies(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every policy document in an applied state, by address and attribute."""
    modules = [state.get("values", {}).get("root_module", {})]
    for module in modules:
        modules += module.get("child_modules", [])
        for resource in module.get("resources", []):
            for attribute in _POLICIES.get(resource["type"], ()) if resource["mode"] == "managed" else ():
                if document := resource["values"].get(attribute):
                    yield f"{resource['address']}.{attribute}", document


def lintable(document: str) -> str:
    """A trust policy with the resource that it has by its place, which parliament wants to read."""
    policy = json.loads(document)
    for statement in policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]:
        if "sts:AssumeRole" in statement["Action"] and "Principal" in statement:
            statement.setdefault("Resource", "arn:aws:iam::000000000000:role/this")
    return json.dumps(policy)


def waived(finding: str, address: str) -> bool:
    return any(re.search(issue, finding) and re.search(where, address) for issue, where, _ in WAIVED)


def main(words: Sequence[str] | None = None) -> int:
    """Exit status 0 when nothing was found, 1 otherwise; 0 with a line where Terraform cannot run here."""
    argparse.ArgumentParser(prog="python -m ops.terraform_check", description=__doc__).parse_args(words)
    if reason := terraform.missing():
        print(f"terraform-check was skipped: {reason}")
        return 0
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="headrace-check-") as name:
        folder = Path(name)
        copy = Terraform(folder / "plan", {}, {})
        findings.run("terraform fmt", lambda: _formatted(copy))
        findings.run("terraform init and validate", lambda: _validated(copy))
        findings.run("terraform test, with every example of the documents", lambda: _tested(copy))
        findings.run("checkov", lambda: _checkov(copy.folder))
        findings.run("parliament on every policy that an apply makes", lambda: _parliament(folder))
    return 1 if findings.failed else 0


def _formatted(copy: Terraform) -> Sequence[str]:
    copy.folder.mkdir(parents=True)
    done = copy.run("fmt", "-check", "-recursive", str(copy.source), good=(0, 3))
    return [f"{line}: run terraform fmt" for line in done.stdout.split()]


def _validated(copy: Terraform) -> Sequence[str]:
    copy.prepare()
    copy.run("validate")
    return ()


def _tested(copy: Terraform) -> Sequence[str]:
    shutil.copytree(copy.source / "tests", copy.folder / "tests", dirs_exist_ok=True)
    (copy.folder / "tests" / "examples.tftest.hcl").write_text(examples_test(examples()))
    done = copy.run("test", good=(0, 1))
    if done.returncode == 0:
        return ()
    failed = [line for line in done.stdout.splitlines() if line.rstrip().endswith("fail")]
    return [*failed, *done.stderr.splitlines()]


def _checkov(folder: Path) -> Sequence[str]:
    done = _tool(
        "checkov", "--directory", str(folder), "--framework", "terraform", "--skip-path", "tests", "-o", "json"
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        return [f"checkov ended with {done.returncode}: {done.stderr.strip()[-2000:]}"]
    reports = report if isinstance(report, list) else [report]
    return [
        f"{check['check_id']} {check['resource']}: {check['check_name']}"
        for each in reports
        for check in each.get("results", {}).get("failed_checks", [])
    ]


def _parliament(folder: Path) -> Sequence[str]:
    bundle, written = folder / "bundle", folder / "policies"
    written.mkdir()
    glue_bundle.build(bundle, with_wheels=False)
    with running(folder / "aws") as server:
        identities.make_users(Aws(server.endpoint))
        variables = provision_terraform.variables(Deployment(schedule=_NEVER), bundle)
        applied = Terraform(folder / "apply", variables, server.environment())
        applied.prepare()
        applied.apply()
        state = json.loads(applied.run("show", "-json").stdout)
    names = {}
    for number, (address, document) in enumerate(policies(state)):
        names[f"{number}.json"] = address
        (written / f"{number}.json").write_text(lintable(document))
    done = _tool("parliament", "--directory", str(written), "--json")
    found = []
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            issue = json.loads(line)
            address = names[Path(issue["location"]["filepath"]).name]
            text = f"{issue['issue']}: {issue['title']}: {issue['detail']}"
            found += [] if waived(text, address) else [f"{address}: {text}"]
    if not names or (done.returncode and not done.stdout.strip()):
        found.append(f"parliament ended with {done.returncode} on {len(names)} policies: {done.stderr[-2000:]}")
    return found


def _tool(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = TOOLS / name
    if not program.exists():
        raise OpsError(f"{name} is not in {TOOLS}: run `make terraform-check`, which installs it")
    return subprocess.run([str(program), *words], capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
