"""A contender of a benchmark: a process of its own that runs what it is told, and is measured from outside.

One line in is one run (its words are the run's own), one line out is its number of rows. What else the process writes
goes to its standard error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from bench.harness import TreeCpu

_ANSWER: Final = "rows "
_ROOT: Final = Path(__file__).parent.parent


def serve(run: Callable[[str], int]) -> None:
    """The contender's side: says that it is ready, then runs line by line until its input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answers.write(f"{_ANSWER}0\n")
    for line in sys.stdin:
        answers.write(f"{_ANSWER}{run(line.strip())}\n")


@dataclass(frozen=True)
class Run:
    """One run as seen from outside. jvm_cpu: the part of `cpu` that processes called java used. peak_mib: the most
    that all processes held at one time, with pages that they share counted in each."""

    rows: int
    seconds: float
    cpu: float
    jvm_cpu: float
    peak_mib: float

    @property
    def rows_per_cpu_second(self) -> float:
        return round(self.rows / self.cpu, 1)

    @property
    def rows_per_second(self) -> float:
        return round(self.rows / self.seconds, 1)


class Contender:
    """Starts `python -m MODULE WORDS` and waits until it is ready; ends with the `with` block."""

    def __init__(self, module: str, words: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self._name = " ".join((module, *words[:1]))
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                cwd=_ROOT,
                env={**os.environ, **(environment or {}), "PYSPARK_PYTHON": sys.executable},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._answer()

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, words: str) -> Run:
        with TreeCpu(self._process.pid) as used:
            started = time.monotonic()
            rows = self.tell(words)
            seconds = time.monotonic() - started
        return Run(rows, round(seconds, 3), used.seconds, used.seconds_of("java"), round(used.peak_bytes / 2**20, 1))

    def tell(self, words: str) -> int:
        """The same without measuring it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_ANSWER):
                return int(line.removeprefix(_ANSWER))
        raise RuntimeError(f"{self._name} ended with {self._process.wait()}:\n{self._log.read_text()[-3000:]}")
