"""What this machine must have before anything is started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from ops.errors import MachineNotReady

_JAVA: Final = 17


def require_java() -> None:
    """Raises MachineNotReady, in one line that says what to install, where Spark would find no Java 17 or newer."""
    found = _java_version()
    if found is None or found < _JAVA:
        seen = "none was found" if found is None else f"Java {found} was found"
        raise MachineNotReady(
            f"Spark needs Java {_JAVA} and {seen}: install a JDK {_JAVA} (Debian: apt-get install "
            f"openjdk-{_JAVA}-jre-headless; macOS: brew install openjdk@{_JAVA}) or set JAVA_HOME"
        )


def java_major(printed: str) -> int | None:
    """The major version in what `java -version` prints; 8 for "1.8"."""
    matched = re.search(r'version "(?:1\.)?(\d+)', printed)
    return int(matched[1]) if matched else None


def _java_version() -> int | None:
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if program is None or not Path(program).exists():
        return None
    done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    return java_major(done.stderr + done.stdout)
