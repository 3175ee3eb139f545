"""The agent under systemd: what it tells, and the unit that runs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.supervisor import Supervisor
from tests.producer.conftest import PATIENCE_SECONDS

UNIT = Path(__file__).parents[2] / "producer" / "headrace-agent.service"


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of the notification socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(PATIENCE_SECONDS)
        yield listening


def said(notify: socket.socket) -> list[str]:
    """What was said since the last look."""
    notify.setblocking(False)
    found = []
    try:
        while True:
            found.append(notify.recv(4096).decode())
    except BlockingIOError:
        return found


def supervisor(notify: socket.socket, **environment: str) -> Supervisor:
    return Supervisor.of({"NOTIFY_SOCKET": notify.getsockname(), **environment})


def test_a_sign_of_life_comes_three_times_within_the_watchdog(notify: socket.socket) -> None:
    """However often the loop turns."""
    now = [0.0]
    agent = supervisor(notify, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    agent.clock = lambda: now[0]
    for _ in range(31):
        agent.alive(None)
        now[0] += 1
    assert said(notify) == ["STATUS=capturing", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]


def test_trouble_is_the_status_when_it_changes(notify: socket.socket) -> None:
    agent = supervisor(notify)
    for trouble in (None, "the source\ncannot be reached", "the source\ncannot be reached", None):
        agent.alive(trouble)
    assert said(notify) == ["STATUS=capturing", "STATUS=the source cannot be reached", "STATUS=capturing"]


def test_a_watchdog_that_is_for_another_process_is_none(notify: socket.socket) -> None:
    assert supervisor(notify, WATCHDOG_USEC="30000000", WATCHDOG_PID="1").watchdog_seconds == 0


def test_without_systemd_nothing_is_said_and_nothing_fails(tmp_path: Path) -> None:
    Supervisor.of({}).alive(None)
    gone = Supervisor.of({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    gone.ready()
    assert gone.address is None


@pytest.mark.slow
def test_the_agent_says_ready_lives_and_stops_in_order(rig, notify: socket.socket, monkeypatch) -> None:
    """Ready as soon as its configuration is valid, so that an outage of the site's network at start kills nobody."""
    rig.sql("CREATE TABLE t (id int PRIMARY KEY)")
    monkeypatch.setenv("NOTIFY_SOCKET", notify.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    agent = rig.start()
    assert notify.recv(4096) == b"READY=1"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while notify.recv(4096) != b"WATCHDOG=1":
        assert time.monotonic() < deadline
    rig.until_complete()
    said(notify)
    agent.send_signal(signal.SIGTERM)
    told: list[str] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while agent.poll() is None:
        told += said(notify)
        assert time.monotonic() < deadline
    assert (agent.returncode, [*told, *said(notify)][-1]) == (0, "STOPPING=1")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
def test_the_unit_is_sound_and_confined(tmp_path: Path) -> None:
    """systemd understands every line of it, and finds little that it leaves open (0 nothing, 10 all)."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/headrace/bin/python", "/bin/true"))
    found = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (found.returncode, [line for line in found.stderr.splitlines() if UNIT.name in line]) == (0, [])
    security = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    told = subprocess.run(security, capture_output=True, text=True).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert exposure is not None and float(exposure[1]) <= 1.5, told
