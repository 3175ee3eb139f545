"""The bundle: the same sources give the same hash, and its zip of wheels is what Glue's installer takes."""

import hashlib
import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from ops import glue_bundle

WHEELS = {"datafusion-55.0.0-cp310-abi3-manylinux_2_28_x86_64.whl": b"one", "click-8.5.1-py3-none-any.whl": b"two"}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of what goes into a bundle, to be changed."""
    root = tmp_path / "checkout"
    for package in ("schemas", "glue_streaming"):
        shutil.copytree(glue_bundle.ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_bundle_is_the_same_for_the_same_sources(tmp_path: Path, sources: Path) -> None:
    """Two builds at different times and places have one hash, so a redeployment restarts nothing."""
    first = glue_bundle.build(tmp_path / "one", with_wheels=False, root=sources)
    assert glue_bundle.build(tmp_path / "two", with_wheels=False, root=sources) == first


def test_any_changed_file_is_another_bundle() -> None:
    """The hash covers the scripts and the wheels as well as the packages."""
    files = {"headrace.zip": b"code", "fold_job.py": b"script", "headrace.gluewheels.zip": b"wheels"}
    hashes = {glue_bundle.manifest_of(files | {name: b"changed"})["bundle"] for name in files}
    assert len(hashes | {glue_bundle.manifest_of(files)["bundle"]}) == 4


def test_folder_holds_what_the_manifest_lists(tmp_path: Path) -> None:
    """Every file with its hash, nothing left of an earlier build."""
    folder = tmp_path / "glue"
    folder.mkdir()
    (folder / "headrace.gluewheels.zip").write_bytes(b"of an earlier build")
    glue_bundle.build(folder, with_wheels=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    del found["manifest.json"]
    assert found == {name: facts["sha256"] for name, facts in manifest["files"].items()}
    assert set(found) == {"headrace.zip", "stream_job.py", "fold_job.py", "maintain_job.py"}


def test_wheels_lie_beside_the_file_that_pins_them() -> None:
    """One folder `wheels`; each is pinned by its version and its hash."""
    archive = zipfile.ZipFile(io.BytesIO(glue_bundle.pack(WHEELS)))
    assert set(archive.namelist()) == {"wheels/requirements.txt", *(f"wheels/{name}" for name in WHEELS)}
    lines = archive.read("wheels/requirements.txt").decode().splitlines()
    assert lines == [
        f"click==8.5.1 --hash=sha256:{hashlib.sha256(b'two').hexdigest()}",
        f"datafusion==55.0.0 --hash=sha256:{hashlib.sha256(b'one').hexdigest()}",
    ]


def test_every_wheel_that_the_jobs_need_is_pinned_by_hash() -> None:
    """What is pinned covers what is asked for, and pip may check each download."""
    pinned = glue_bundle.REQUIREMENTS.read_text()
    wanted = [line for line in (glue_bundle.ROOT / "requirements-glue.in").read_text().splitlines() if "==" in line]
    for line in wanted:
        assert f"{line.replace('.zstd', '-zstd')} \\" in pinned, line
    names = [line for line in pinned.splitlines() if line and not line.startswith((" ", "#"))]
    assert all(line.endswith("\\") for line in names)


def test_jobs_run_the_same_versions_as_the_tests() -> None:
    """What Glue installs is what was tested here, beside the same boto3, whose needs Glue's installer only warns of."""
    tested = pins(glue_bundle.ROOT / "requirements.txt")
    installed = pins(glue_bundle.REQUIREMENTS)
    assert {name: version for name, version in installed.items() if tested.get(name, version) != version} == {}
    asked = (glue_bundle.ROOT / "requirements-glue.in").read_text().splitlines()
    named = {line.partition("==")[0].replace(".", "-") for line in asked if "==" in line}
    assert named <= set(tested)


def pins(file: Path) -> dict[str, str]:
    """Version by name."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", file.read_text(), re.MULTILINE))


def test_missing_pip_or_index_is_told_whole(tmp_path: Path) -> None:
    """What pip says reaches the user, with the file that it was about."""
    requirements = tmp_path / "requirements-glue.txt"
    requirements.write_text("no-such-file.whl @ file:///nowhere/none.whl --hash=sha256:00\n")
    with pytest.raises(glue_bundle.OpsError, match=r"requirements-glue\.txt"):
        glue_bundle.wheels_zip(requirements)
