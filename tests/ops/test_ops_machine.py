"""A machine without Java hears in one line what to install."""

from pathlib import Path

import pytest

from ops import machine
from ops.errors import MachineNotReady


@pytest.mark.parametrize(
    ("printed", "major"),
    [
        ('openjdk version "17.0.12" 2024-07-16', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ("The operation couldn't be completed", None),
    ],
)
def test_version_is_read(printed: str, major: int | None) -> None:
    assert machine.java_major(printed) == major


def test_missing_java_is_one_line_that_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MachineNotReady) as refused:
        machine.require_java()
    assert "install a JDK 17" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MachineNotReady, match="Java 11 was found"):
        machine.require_java()
