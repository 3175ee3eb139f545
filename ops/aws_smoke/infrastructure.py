"""The infrastructure of a smoke run: this repository's Terraform under a name and in a state of its own.

The state lies in the run's folder, so that what a killed run left behind can be destroyed later.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ops.terraform import SOURCE, Terraform, TerraformFailed

_STATE: Final = "terraform.tfstate"
_DESTROY_TRIES: Final = 3
_CHANGES: Final = 2


class SmokeInfrastructure:
    """Terraform in `folder`/terraform. Our variables win over the var file's, so no run touches another deployment."""

    def __init__(
        self, folder: Path, variables: Mapping[str, Any], var_file: Path | None = None, source: Path = SOURCE
    ) -> None:
        account = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        self._folder = folder
        self._var_file = var_file
        self._terraform = Terraform(folder / "terraform", variables, account, source)

    def apply(self) -> None:
        """Raises TerraformFailed; what was made until then is in the state, and `destroy` destroys it."""
        self._terraform.prepare()
        if self._var_file is not None:
            # Files of this kind are read in the order of their names: ours comes later, and so wins.
            suffix = ".auto.tfvars.json" if self._var_file.suffix == ".json" else ".auto.tfvars"
            shutil.copy(self._var_file, self._terraform.folder / f"given{suffix}")
        self._terraform.apply()

    def changes(self) -> str:
        """What a second plan would change, in Terraform's words; empty for nothing."""
        done = self._terraform.run("plan", "-detailed-exitcode", good=(0, _CHANGES))
        return done.stdout[-2000:] if done.returncode == _CHANGES else ""

    def outputs(self) -> dict[str, Any]:
        return self._terraform.output()

    def destroy(self) -> None:
        """Raises TerraformFailed where something is left after several tries, and says how to go on."""
        if not (self._terraform.folder / _STATE).exists():
            return
        for attempt in range(1, _DESTROY_TRIES + 1):
            try:
                self._terraform.destroy()
                return
            except TerraformFailed as error:
                if attempt == _DESTROY_TRIES:
                    raise TerraformFailed(
                        f"{error}\nGo on with: python -m ops.aws_smoke --remove {self._folder.name}"
                    ) from error
