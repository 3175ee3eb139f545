"""Child processes that outlive the command that started them: written down by id and birth, stopped by both."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from localaws import child_process


@dataclass(frozen=True)
class Process:
    """A process that was started here. An id alone can be another's by now; id and birth cannot."""

    name: str
    pid: int
    born: str

    @property
    def alive(self) -> bool:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return child_process.born(self.pid) == self.born

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to this process and no other. Nothing happens where it has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Processes:
    """The ledger of one stack, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log_path: Path, folder: Path
    ) -> Process:
        """Starts a command in a session of its own; its output is appended to the log."""
        with log_path.open("ab") as log:
            child = subprocess.Popen(
                list(command),
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = Process(name, child.pid, child_process.born(child.pid) or "")
        self._write({**self._read(), name: process})
        return process

    def get(self, name: str) -> Process | None:
        """The process of that name, if it runs."""
        process = self._read().get(name)
        return process if process is not None and process.alive else None

    def running(self) -> tuple[Process, ...]:
        return tuple(process for process in self._read().values() if process.alive)

    def stop(self, name: str, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL after the grace; returns when it is gone."""
        process = self._read().get(name)
        if process is not None:
            process.signal(signal.SIGTERM)
            if not _gone(process, grace_seconds):
                process.signal(signal.SIGKILL)
                _gone(process, grace_seconds)
        self._write({key: value for key, value in self._read().items() if key != name})

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash would end it; returns when it is gone."""
        process = self._read().get(name)
        if process is not None:
            process.signal(signal.SIGKILL)
            _gone(process, 10)

    def _read(self) -> dict[str, Process]:
        if not self._path.exists():
            return {}
        return {name: Process(**item) for name, item in json.loads(self._path.read_text()).items()}

    def _write(self, processes: Mapping[str, Process]) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({name: asdict(process) for name, process in processes.items()}, indent=1))
        new.replace(self._path)


def _gone(process: Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
