"""Terraform as a program: found on this machine, run on a working copy, its errors shown whole.

The checked-in folder stays clean: configuration is copied, the state of a laptop's deployment lies beside the copy.
Environment: HEADRACE_TERRAFORM names the program, HEADRACE_TERRAFORM_PLUGINS a folder of providers (the layout of
`terraform init -plugin-dir`). Without such a folder the usual ones are searched, and without one of those `init`
downloads the provider.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ops.errors import MachineNotReady, OpsError

SOURCE: Final = Path(__file__).resolve().parent.parent / "terraform"
PROGRAM_VARIABLE: Final = "HEADRACE_TERRAFORM"
PLUGINS_VARIABLE: Final = "HEADRACE_TERRAFORM_PLUGINS"

_PROVIDER: Final = "registry.terraform.io/hashicorp/aws/5.*/*/terraform-provider-aws*"
_SUFFIXES: Final = (".tf", ".json", ".tftpl", ".hcl")
_QUERIES: Final = "queries"
_VARIABLES: Final = "headrace.auto.tfvars.json"
_LOCAL_BACKEND: Final = 'terraform {\n  backend "local" {}\n}\n'
_CHANGES: Final = 2


class TerraformFailed(OpsError):
    """Terraform ended with an error: its own words, whole."""


def program() -> str | None:
    """Terraform's program, if this machine has it."""
    return os.environ.get(PROGRAM_VARIABLE) or shutil.which("terraform")


def plugins(usual: Iterable[Path] | None = None) -> Path | None:
    """The folder that holds the AWS provider, as `init -plugin-dir` wants it; None where there is none."""
    named = os.environ.get(PLUGINS_VARIABLE)
    folders = [Path(named)] if named else list(_usual_folders() if usual is None else usual)
    return next((folder for folder in folders if any(folder.glob(_PROVIDER))), None)


def missing() -> str | None:
    """Why Terraform cannot run here without a download, in one line; None when it can."""
    if program() is None:
        return f"terraform is not installed (or name it with {PROGRAM_VARIABLE})"
    if plugins() is None:
        return f"no AWS provider 5.x was found on this machine (name its folder with {PLUGINS_VARIABLE})"
    return None


def _usual_folders() -> Iterable[Path]:
    yield from (
        Path.home() / ".terraform.d" / "plugins",
        Path("/usr/local/share/terraform/plugins"),
        Path("/usr/share/terraform/plugins"),
    )
    yield from sorted(folder for folder in Path("/opt").glob("*") if folder.is_dir())


@dataclass(frozen=True)
class Terraform:
    """One deployment's working copy. environment: what reaches AWS, the laptop's or an account's.

    >>> Terraform(folder, {"laptop": True, ...}, local_aws.environment()).apply()
    """

    folder: Path
    variables: Mapping[str, Any]
    environment: Mapping[str, str]
    source: Path = SOURCE

    def prepare(self) -> None:
        """Copies the configuration, writes the variables and initialises; state and providers are kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.iterdir():
            if old.is_file() and old.suffix in _SUFFIXES:
                old.unlink()
        for path in self.source.iterdir():
            if path.is_file() and path.suffix in _SUFFIXES and path.name != ".terraform.lock.hcl":
                shutil.copy(path, self.folder / path.name)
        shutil.rmtree(self.folder / _QUERIES, ignore_errors=True)
        if (self.source / _QUERIES).is_dir():
            shutil.copytree(self.source / _QUERIES, self.folder / _QUERIES)
        (self.folder / "backend_override.tf").write_text(_LOCAL_BACKEND)
        (self.folder / _VARIABLES).write_text(json.dumps(dict(self.variables), indent=1) + "\n")
        found = plugins()
        self.run("init", "-reconfigure", *([f"-plugin-dir={found}"] if found else []))

    def plan(self) -> bool:
        """Whether an apply would change anything."""
        return self.run("plan", "-detailed-exitcode", good=(0, _CHANGES)).returncode == _CHANGES

    def apply(self, **more: Any) -> None:
        """Makes it so. Further variables count for this time only."""
        given = [f"-var={name}={json.dumps(value)}" for name, value in more.items()]
        self.run("apply", "-auto-approve", "-parallelism=30", *given)

    def destroy(self) -> None:
        self.run("destroy", "-auto-approve", "-parallelism=30")

    def output(self) -> dict[str, Any]:
        """The outputs by name. A deployment that was never applied has none."""
        found: dict[str, dict[str, Any]] = json.loads(self.run("output", "-json").stdout)
        return {name: item["value"] for name, item in found.items()}

    def run(self, *words: str, good: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
        """One command in the working copy. Raises TerraformFailed with all that Terraform said."""
        found = program()
        if found is None:
            raise MachineNotReady(
                f"terraform is needed and was not found: install it, or name it with {PROGRAM_VARIABLE}"
            )
        colourless = [words[0], *(["-no-color"] if words[0] != "output" else []), *words[1:]]
        done = subprocess.run(
            [found, *colourless], cwd=self.folder, env=self._environment(), capture_output=True, text=True, check=False
        )
        if done.returncode not in good:
            raise TerraformFailed(f"terraform {words[0]} failed:\n{done.stderr.strip() or done.stdout.strip()}")
        return done

    def _environment(self) -> dict[str, str]:
        """The shell's own, less the credentials and Terraform settings that would lead elsewhere."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "TF_"))}
        settings = self.folder / ".terraformrc"
        settings.touch()  # one that exists and is empty: a person's own may redirect where providers come from
        return {
            **inherited,
            "TF_CLI_CONFIG_FILE": str(settings),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
            **self.environment,
        }
