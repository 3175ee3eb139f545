"""What the jobs and the Lambda run: one zip of the packages, and the two thin scripts."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("schemas", "glue_streaming")
_SCRIPTS: Final = ("stream_job.py", "fold_job.py", "maintain_job.py")
_SUFFIXES: Final = (".py", ".avsc", ".json", ".typed")
_ROOT: Final = Path(__file__).resolve().parent.parent
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def packages_zip(root: Path = _ROOT) -> bytes:
    """The zip that goes first on the jobs' path. The same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in _PACKAGES:
            for path in sorted((root / package).rglob("*")):
                if path.suffix in _SUFFIXES:
                    archive.writestr(zipfile.ZipInfo(str(path.relative_to(root)), _EPOCH), path.read_bytes())
    return buffer.getvalue()


def scripts(root: Path = _ROOT) -> dict[str, bytes]:
    """The job scripts by file name."""
    return {name: (root / "glue_streaming" / name).read_bytes() for name in _SCRIPTS}


def workflow(name: str, values: dict[str, str], root: Path = _ROOT) -> str:
    """A state machine's definition, its `${name}` placeholders filled in as Terraform's templatefile does."""
    text = (root / "terraform" / f"{name}_workflow.asl.json").read_text()
    for key, value in values.items():
        text = text.replace(f"${{{key}}}", value)
    if "${" in text:
        missing = text.split("${", 1)[1].split("}", 1)[0]
        raise KeyError(f"{name}_workflow.asl.json: no value for ${{{missing}}}")
    return text
