"""Child processes in groups of their own, so that a stop ends what they started as well."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_GROUP_GRACE_SECONDS = 3.0


def start(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in its own session; its output goes to stdout.log and stderr.log in the folder."""
    with (folder / "stdout.log").open("wb") as output, (folder / "stderr.log").open("wb") as errors:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )


def ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the process alone: it ends its own children, such as a JVM, in order."""
    if process.poll() is None:
        process.terminate()


def end_group(group: int, grace_seconds: float = _GROUP_GRACE_SECONDS) -> None:
    """Wait shortly for what a finished process left behind in its group, then kill it."""
    deadline = time.monotonic() + grace_seconds
    while _group_lives(group):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            return
        time.sleep(0.1)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def born(process_id: int) -> str | None:
    """When a process started, in the system's words; None when there is no such process.

    A process id is given anew after its owner ended; id and birth together are one process for ever.
    """
    found = next((process for process in _processes() if process.id == process_id), None)
    return found.born if found else None


def end_leftover(process_id: int, birth: str) -> bool:
    """Kill the group of a process that an earlier server started; False when it is gone, or is another's by now."""
    if born(process_id) != birth:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process_id, signal.SIGKILL)
    return True


def _group_lives(group: int) -> bool:
    return any(process.group == group for process in _processes())


@dataclass(frozen=True, slots=True)
class _Process:
    id: int
    group: int
    born: str


def _processes() -> Iterator[_Process]:
    """Every living process. One that has ended, and that its parent has not asked for yet, lives no more."""
    return _from_proc() if Path("/proc/self/stat").exists() else _from_ps()


def _from_proc() -> Iterator[_Process]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name stands in parentheses, and may hold spaces and parentheses itself.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if fields[0] not in "ZX":
            yield _Process(int(path.parent.name), int(fields[2]), fields[19])


def _from_ps() -> Iterator[_Process]:
    shown = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat=,lstart="], capture_output=True, text=True, check=False)
    for line in shown.stdout.splitlines():
        process_id, group, state, birth = line.split(maxsplit=3)
        if not state.startswith("Z"):
            yield _Process(int(process_id), int(group), birth.strip())
