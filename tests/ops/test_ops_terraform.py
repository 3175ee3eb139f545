"""Terraform as a program: found where it may lie, run on a copy, its errors shown whole."""

import json
import re
from pathlib import Path

import pytest

from ops import artefacts, provision_terraform, terraform, terraform_check
from ops.provision import Deployment
from ops.terraform import Terraform, TerraformFailed

PROVIDER = "registry.terraform.io/hashicorp/aws/5.100.0/linux_amd64/terraform-provider-aws_v5.100.0_x5"
NEEDS_TERRAFORM = pytest.mark.skipif(terraform.program() is None, reason="terraform is not installed")


@pytest.fixture
def provider_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(terraform.PLUGINS_VARIABLE, raising=False)
    (tmp_path / "plugins" / PROVIDER).parent.mkdir(parents=True)
    (tmp_path / "plugins" / PROVIDER).touch()
    return tmp_path / "plugins"


def test_provider_is_found_in_a_usual_folder(provider_folder: Path, tmp_path: Path) -> None:
    """The first folder that holds an AWS provider 5.x is the plugin folder."""
    assert terraform.plugins([tmp_path / "none", provider_folder]) == provider_folder


def test_named_folder_is_the_only_one_searched(
    provider_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever names a folder gets that one or none."""
    monkeypatch.setenv(terraform.PLUGINS_VARIABLE, str(tmp_path / "empty"))
    assert terraform.plugins([provider_folder]) is None


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reason names the variable that would mend it."""
    monkeypatch.setenv(terraform.PLUGINS_VARIABLE, str(tmp_path))
    monkeypatch.setenv(terraform.PROGRAM_VARIABLE, "terraform")
    assert terraform.PLUGINS_VARIABLE in str(terraform.missing())
    monkeypatch.delenv(terraform.PROGRAM_VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert terraform.PROGRAM_VARIABLE in str(terraform.missing())


@pytest.fixture
def tiny(tmp_path: Path) -> Terraform:
    """A deployment that needs no provider."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "main.tf").write_text(
        'terraform {\n  backend "s3" {}\n}\nvariable "word" { type = string }\n'
        'resource "terraform_data" "word" { input = var.word }\noutput "word" { value = var.word }\n'
    )
    return Terraform(tmp_path / "work", {"word": "hello"}, {}, source)


@NEEDS_TERRAFORM
def test_apply_then_nothing_to_do_and_the_source_stays_clean(tiny: Terraform) -> None:
    """State and settings lie in the working copy; a second plan changes nothing."""
    before = sorted(tiny.source.iterdir())
    tiny.prepare()
    assert tiny.plan()
    tiny.apply()
    assert tiny.output() == {"word": "hello"}
    assert not tiny.plan()
    tiny.prepare()  # as a second `up` does
    assert not tiny.plan()
    tiny.destroy()
    assert tiny.plan()
    assert sorted(tiny.source.iterdir()) == before


@NEEDS_TERRAFORM
def test_errors_are_shown_whole(tiny: Terraform) -> None:
    """Terraform's own words, with the place."""
    (tiny.source / "main.tf").write_text('output "word" { value = var.missing }\n')
    with pytest.raises(TerraformFailed, match=r"(?s)main\.tf.*var\.missing|undeclared"):
        tiny.prepare()
        tiny.plan()


@NEEDS_TERRAFORM
def test_a_shell_that_points_elsewhere_does_not_matter(tiny: Terraform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither TF_ variables nor AWS credentials of the shell reach the deployment."""
    monkeypatch.setenv("TF_CLI_ARGS_apply", "-no-such-option")
    monkeypatch.setenv("TF_VAR_word", "other")
    tiny.prepare()
    tiny.apply()
    assert tiny.output() == {"word": "hello"}


def test_laptop_variables_are_variables_of_terraform(tmp_path: Path) -> None:
    """What the laptop sets exists in variables.tf, member by member."""
    declared = (terraform.SOURCE / "variables.tf").read_text()
    for name, value in provision_terraform.variables(Deployment(), tmp_path).items():
        block = re.search(rf'^variable "{name}" {{\n.*?^}}', declared, re.MULTILINE | re.DOTALL)
        assert block, name
        if isinstance(value, dict) and name != "sources":
            for member in value:
                assert re.search(rf"^ +{member} += optional", block[0], re.MULTILINE), f"{name}.{member}"


def test_both_ways_fill_the_same_workflows() -> None:
    """Terraform's templates get every value that the definitions ask for."""
    text = (terraform.SOURCE / "workflows.tf").read_text()
    for name in ("ingest", "fold"):
        definition = (artefacts._ROOT / "terraform" / f"{name}_workflow.asl.json").read_text()
        wanted = set(re.findall(r"\$\{(\w+)\}", definition))
        given = re.search(rf'{name}_workflow\.asl\.json", {{\n(.*?)\n  }}\)', text, re.DOTALL)
        assert given and set(re.findall(r"^ +(\w+) +=", given[1], re.MULTILINE)) == wanted


def test_every_example_of_the_documents_becomes_a_run(tmp_path: Path) -> None:
    """Each hcl block is planned under a name that says where it stands."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a-page.md").write_text('# Title\n\n```hcl\nname = "x"\n```\n\n```sh\nls\n```\n')
    found = terraform_check.examples(tmp_path)
    assert [example.name for example in found] == ["a_page_line_3"]
    test = terraform_check.examples_test(found)
    assert 'run "a_page_line_3"' in test and 'name = "x"' in test and "command = plan" in test


def test_policies_of_a_state_are_found_in_every_module() -> None:
    """Roles' and resources' policies; data sources and empty ones are not policies that were made."""
    role = {"type": "aws_iam_role", "mode": "managed", "address": "a", "values": {"assume_role_policy": "{}"}}
    empty = {"type": "aws_kms_key", "mode": "managed", "address": "b", "values": {"policy": None}}
    read = {"type": "aws_iam_role", "mode": "data", "address": "c", "values": {"assume_role_policy": "{}"}}
    state = {"values": {"root_module": {"resources": [empty, read], "child_modules": [{"resources": [role]}]}}}
    assert list(terraform_check.policies(json.loads(json.dumps(state)))) == [("a.assume_role_policy", "{}")]


def test_a_waiver_covers_its_finding_and_its_policy_alone() -> None:
    """The same finding elsewhere still fails the check."""
    star = "RESOURCE_STAR: Unnecessary use of Resource *: ['kms:Decrypt']"
    assert terraform_check.waived(star, "aws_kms_key.this[0].policy")
    assert not terraform_check.waived(star, "aws_iam_role_policy.plan.policy")
    assert not terraform_check.waived("MISMATCHED: x", "aws_kms_key.this[0].policy")


def test_trust_policies_are_read_with_their_own_role_as_resource() -> None:
    """A trust policy names no resource; any other policy without one stays malformed."""
    trust = {"Statement": [{"Action": "sts:AssumeRole", "Principal": {"Service": "glue.amazonaws.com"}}]}
    other = {"Statement": [{"Action": "s3:GetObject"}]}
    assert "Resource" in json.loads(terraform_check.lintable(json.dumps(trust)))["Statement"][0]
    assert json.loads(terraform_check.lintable(json.dumps(other))) == other
