"""Processes that outlive their starter are found again, and nothing else is ever ended."""

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ops.processes import Processes

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(300)",
]


@pytest.fixture
def ledger(tmp_path: Path) -> Processes:
    return Processes(tmp_path / "pids.json")


def test_process_is_found_by_another_command_and_stopped(ledger: Processes, tmp_path: Path) -> None:
    started = ledger.start("sleeper", SLEEP, os.environ, tmp_path / "log", tmp_path)
    other = Processes(tmp_path / "pids.json")
    assert other.get("sleeper") == started
    other.stop("sleeper", 5)
    assert not started.alive
    assert other.running() == ()


def test_process_that_ignores_the_request_is_killed(ledger: Processes, tmp_path: Path) -> None:
    started = ledger.start("stubborn", STUBBORN, os.environ, tmp_path / "log", tmp_path)
    while "ready" not in (tmp_path / "log").read_text():
        assert started.alive
    ledger.stop("stubborn", 0.2)
    assert not started.alive


def test_process_that_got_the_id_later_is_left_alone(ledger: Processes, tmp_path: Path) -> None:
    """The ledger names the id, but another birth: that process is somebody else's."""
    started = ledger.start("mine", SLEEP, os.environ, tmp_path / "log", tmp_path)
    foreign = replace(started, born="Thu Jan  1 00:00:00 1970")
    (tmp_path / "pids.json").write_text(json.dumps({"mine": asdict(foreign)}))
    assert ledger.get("mine") is None
    ledger.stop("mine", 1)
    ledger.kill("mine")
    assert started.alive
    started.signal(9)  # type: ignore[arg-type]


def test_stopping_what_does_not_run_does_nothing(ledger: Processes) -> None:
    ledger.stop("nobody", 1)
    assert ledger.get("nobody") is None
