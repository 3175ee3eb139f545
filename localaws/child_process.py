"""Child processes in groups of their own, so that a stop ends what they started as well."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
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
    state, _, birth = _ps(["-o", "stat=,lstart=", "-p", str(process_id)]).strip().partition(" ")
    return None if not state or _is_dead(state) else birth.strip()


def end_leftover(process_id: int, birth: str) -> bool:
    """Kill the group of a process that an earlier server started; False when it is gone, or is another's by now."""
    if born(process_id) != birth:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process_id, signal.SIGKILL)
    return True


def _group_lives(group: int) -> bool:
    members = (line.split() for line in _ps(["-A", "-o", "pgid=,stat="]).splitlines())
    return any(int(found) == group and not _is_dead(state) for found, state in members)


def _is_dead(state: str) -> bool:
    """Ended, and kept by the system only because its parent has not asked how."""
    return state.startswith("Z")


def _ps(arguments: list[str]) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False).stdout
