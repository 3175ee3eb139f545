"""`make glue-bundle`: everything that the jobs and the function run, in one folder under one content hash.

The folder holds the code as a zip, the job scripts, the wheels that Glue lacks, and a manifest. The same sources and
the same pins give the same hash, so going back is deploying the earlier hash.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ops import artefacts
from ops.errors import OpsError

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "build" / "glue"
REQUIREMENTS: Final = ROOT / "requirements-glue.txt"
CODE: Final = "headrace.zip"
WHEELS: Final = "headrace.gluewheels.zip"
MANIFEST: Final = "manifest.json"

# Glue 6.0's interpreter, on a Linux whose C library is glibc 2.34 or newer; a wheel names the oldest one it runs on.
PYTHON: Final = "3.13"
PLATFORMS: Final = (
    "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 35)),
)
_HASH_DIGITS: Final = 16
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def build(folder: Path = FOLDER, *, with_wheels: bool = True, root: Path = ROOT) -> dict[str, Any]:
    """Writes the folder anew and returns its manifest. Raises OpsError where the wheels cannot be fetched."""
    files = _code(root)
    if with_wheels:
        files[WHEELS] = wheels_zip(root / REQUIREMENTS.name)
    manifest = manifest_of(files)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def code_hash(root: Path = ROOT) -> str:
    """The hash of a bundle without wheels."""
    return str(manifest_of(_code(root))["bundle"])


def _code(root: Path) -> dict[str, bytes]:
    return {CODE: artefacts.packages_zip(root), **artefacts.scripts(root)}


def manifest_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Every file's hash and size, and the bundle's hash over all of them."""
    listed = {
        name: {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)} for name, body in sorted(files.items())
    }
    whole = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    return {"bundle": whole[:_HASH_DIGITS], "files": listed}


def wheels_zip(requirements: Path) -> bytes:
    """The wheels and the file that pins them, as Glue's `--additional-python-modules` takes a `.gluewheels.zip`."""
    with tempfile.TemporaryDirectory() as folder:
        _download(requirements, Path(folder))
        wheels = {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.whl"))}
    return pack(wheels)


def pack(wheels: Mapping[str, bytes]) -> bytes:
    """One folder `wheels` with the wheels and a requirements.txt that pins each by version and by its hash."""
    lines = [
        f"{'=='.join(name.split('-')[:2])} --hash=sha256:{hashlib.sha256(body).hexdigest()}"
        for name, body in sorted(wheels.items())
    ]
    entries = {"requirements.txt": ("\n".join(lines) + "\n").encode(), **wheels}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # wheels are compressed already
        for name, body in sorted(entries.items()):
            archive.writestr(zipfile.ZipInfo(f"wheels/{name}", _EPOCH), body)
    return buffer.getvalue()


def _download(requirements: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    command += [f"--dest={folder}", f"--requirement={requirements}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OpsError(f"pip could not fetch the wheels of {requirements.name} for Glue:\n{done.stderr.strip()}")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.glue_bundle", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--without-wheels", action="store_true", help="for the laptop, whose jobs have the libraries")
    given = parser.parse_args(words)
    try:
        manifest = build(given.folder, with_wheels=not given.without_wheels)
    except OpsError as error:
        print(f"glue-bundle: {error}", file=sys.stderr)
        return error.exit_code
    for name, facts in manifest["files"].items():
        print(f"{facts['bytes']:>12,}  {name}")
    print(f"bundle {manifest['bundle']} in {given.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
