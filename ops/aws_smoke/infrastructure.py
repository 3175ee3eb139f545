"""The infrastructure of a smoke run: this repository's Terraform under a name and in a state of its own.

The state lies in the run's folder, so that what a killed run left behind can be destroyed later.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ops.errors import OpsError

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_LOCAL_BACKEND: Final = 'terraform {\n  backend "local" {}\n}\n'
_DESTROY_TRIES: Final = 3

Run = Callable[[Sequence[str], Path], "subprocess.CompletedProcess[str]"]


class TerraformFailed(OpsError):
    """Terraform refused; the message ends with its own words."""


class TerraformRun:
    """Terraform in `folder`. variables override those of the var file, so that no run touches another deployment."""

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, Any],
        var_file: Path | None,
        init_words: Sequence[str] = (),
        source: Path = _REPOSITORY / "terraform",
    ) -> None:
        self._folder = folder
        self._source = source
        self._variables = dict(variables)
        self._var_file = var_file
        self._init_words = tuple(init_words)

    def apply(self) -> None:
        """Raises TerraformFailed; what was made until then is in the state, and `destroy` destroys it."""
        shutil.copytree(
            self._source, self._module, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*")
        )
        (self._module / "backend_override.tf").write_text(_LOCAL_BACKEND)
        (self._folder / "smoke.tfvars.json").write_text(json.dumps(self._variables, indent=1) + "\n")
        if self._var_file is not None:
            shutil.copy(self._var_file, self._given_variables)
        self._require("init", "-input=false", *self._init_words)
        self._require("apply", "-auto-approve", *self._words())

    def changes(self) -> str:
        """What a second plan would change, in Terraform's words; empty for nothing."""
        done = self._terraform("plan", "-detailed-exitcode", "-no-color", *self._words())
        if done.returncode == 1:
            raise TerraformFailed(f"terraform plan failed: {_tail(done)}")
        return "" if done.returncode == 0 else done.stdout[-2000:]

    def outputs(self) -> dict[str, Any]:
        found = json.loads(self._require("output", "-json").stdout)
        return {name: output["value"] for name, output in found.items()}

    def destroy(self) -> None:
        """Raises TerraformFailed where something is left after several tries, and says how to go on."""
        if not (self._module / "terraform.tfstate").exists():
            return
        for attempt in range(1, _DESTROY_TRIES + 1):
            done = self._terraform("destroy", "-auto-approve", "-no-color", *self._words())
            if done.returncode == 0:
                return
            if attempt == _DESTROY_TRIES:
                raise TerraformFailed(
                    f"{_tail(done)}\nGo on with: python -m ops.aws_smoke --remove {self._folder.name}"
                )

    @property
    def _module(self) -> Path:
        return self._folder / "terraform"

    @property
    def _given_variables(self) -> Path:
        suffix = ".tfvars.json" if self._var_file and self._var_file.name.endswith(".json") else ".tfvars"
        return self._folder / f"given{suffix}"

    def _words(self) -> list[str]:
        given = sorted(self._folder.glob("given.tfvars*"))
        files = [*given, self._folder / "smoke.tfvars.json"]
        return ["-input=false", *(f"-var-file={path}" for path in files)]

    def _require(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self._terraform(*words)
        if done.returncode:
            raise TerraformFailed(f"terraform {words[0]} failed: {_tail(done)}")
        return done

    def _terraform(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which("terraform")
        if program is None:
            raise TerraformFailed("terraform is not installed: install Terraform 1.10 or newer")
        # A session of its own: an interrupt on the terminal must not reach Terraform while it changes things.
        process = subprocess.Popen(
            [program, *words],
            cwd=self._module,
            env={**os.environ, "TF_IN_AUTOMATION": "1", "TF_CLI_ARGS": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate()
        except KeyboardInterrupt:
            process.send_signal(2)  # Terraform ends what it is doing and writes its state
            process.communicate()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr or done.stdout).strip()[-3000:]
