"""The agent, pg_recvlogical and Debezium Server, each draining the same workload from a slot of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import psutil

from bench.agent_source import PUBLICATION, BenchSource, Workload
from bench.harness import TreeCpu
from bench.null_kinesis import NullKinesis
from localaws.process import LocalAws

STEADY_AFTER: Final = 50_000
"""Changes after which a virtual machine has compiled its hot code."""
_WAIT_SECONDS: Final = 300.0
_DEBEZIUM: Final = Path(__file__).parent / "debezium"
_numbers = count(1)


@dataclass(frozen=True)
class Drained:
    """One drain. rate: changes a second; cpu: microseconds of CPU a change; steady_*: after STEADY_AFTER changes.
    bytes: record data a change, as Kinesis counts it."""

    rate: float
    cpu: float
    peak_bytes: int
    bytes: float = 0.0
    steady_rate: float = 0.0
    steady_cpu: float = 0.0


def cpu_of(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def until(
    what: str, holds: Callable[[], Any], process: subprocess.Popen[bytes] | None = None, nap: float = 0.02
) -> Any:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not (found := holds()):
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise RuntimeError(f"waiting for {what} came to nothing")
        time.sleep(nap)
    return found


# ---- ours


@dataclass
class Agent:
    """A running agent with a spool of its own, sending to the null Kinesis."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def event(self, name: str) -> dict[str, Any] | None:
        return next((event for event in self.events() if event["event"] == name), None)

    def status(self) -> dict[str, Any]:
        page = self.event("health page")
        assert page is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{page['port']}/status", timeout=10) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def accepted(self) -> int:
        return int(self.status()["accepted_changes"])

    def await_snapshots(self, tables: int) -> None:
        def read() -> bool:
            read_ones = [event for event in self.events() if event["event"] == "snapshot read"]
            return len(read_ones) >= tables

        until("the first snapshots", read, self.process, 0.1)

    def await_capture(self) -> None:
        until("the agent to capture", lambda: self.event("capturing"), self.process, 0.005)


@contextmanager
def home(
    source: BenchSource, dbname: str, slot: str, aws: LocalAws, kinesis: NullKinesis, *, more: str = ""
) -> Iterator[Home]:
    """A folder with an agent's configuration and spool. more: further sections of the configuration."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-agent-") as folder:
        (Path(folder) / "agent.toml").write_text(
            f"""
            [source]
            name = "bench{next(_numbers)}"
            dsn = "{source.dsn(dbname)}"
            slot = "{slot}"
            publication = "{PUBLICATION}"
            [aws]
            stream = "bench"
            endpoint_url = "{aws.endpoint}"
            endpoints = {{ kinesis = "{kinesis.endpoint}" }}
            [health]
            port = 0
            [[tables]]
            name = "public.*"
            [spool]
            path = "{folder}/spool.db"
            {more}
            """
        )
        environment = {**os.environ, **aws.environment()}
        environment.pop("AWS_ENDPOINT_URL", None)
        yield Home(Path(folder), environment)


@dataclass(frozen=True)
class Home:
    folder: Path
    environment: dict[str, str]

    @contextmanager
    def running(self) -> Iterator[Agent]:
        log = self.folder / "agent.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "producer", "--config", str(self.folder / "agent.toml")],
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        try:
            yield Agent(process, log)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{log.read_text()[-3000:]}") from error
        finally:
            process.terminate()
            process.wait(60)

    def begin(self, tables: int) -> None:
        """Lets the agent take its first snapshots, of empty tables: the load of a start is no part of a drain."""
        with self.running() as ours:
            ours.await_snapshots(tables)

    def drain(self, changes: int, kinesis: NullKinesis) -> Drained:
        kinesis.reset()
        with self.running() as ours, TreeCpu(ours.process.pid) as tree:
            ours.await_capture()
            started, cpu = time.monotonic(), cpu_of(ours.process.pid)
            until("the agent to drain", lambda: ours.accepted() >= changes, ours.process, 0.05)
            seconds, used = time.monotonic() - started, cpu_of(ours.process.pid) - cpu
            sent = kinesis.counts()["bytes"]
        return Drained(changes / seconds, used / changes * 1e6, tree.peak_bytes, sent / changes)


# ---- pg_recvlogical


def drained_by_recvlogical(source: BenchSource, workload: Workload, slot: str, changes: int) -> Drained:
    end = source.lsn(workload.dbname)
    command = [
        str(source.server.bin("pg_recvlogical")), "--dbname", source.dsn(workload.dbname), "--slot", slot, "--start",
        "--endpos", end, "--file", "/dev/null", "--no-loop", "--option", "proto_version=1",
        "--option", f"publication_names={PUBLICATION}", "--option", "binary=true",
    ]  # fmt: skip
    started = time.monotonic()
    process = subprocess.Popen(command)
    with source.connect(workload.dbname) as connection:  # so that the end is reached on a quiet source
        connection.execute(b"SELECT pg_logical_emit_message(false, 'bench', '')")
    _, _, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    source.drop_slot(workload.dbname, slot)
    cpu = (usage.ru_utime + usage.ru_stime) / changes * 1e6
    return Drained(changes / seconds, cpu, usage.ru_maxrss * 1024)


# ---- Debezium Server


def built_debezium(folder: Path) -> Path:
    """Debezium Server, assembled by Maven in a folder of its own; the jar to run."""
    for name in ("pom.xml", "application.properties"):
        shutil.copy(_DEBEZIUM / name, folder)
    with (folder / "maven.log").open("wb") as log:
        subprocess.run(
            ["mvn", "-q", "-B", "package"], cwd=folder, check=True, env=_java_environment(), stdout=log, stderr=log
        )
    return next((folder / "target").glob("*-runner.jar"))


def _java_environment() -> dict[str, str]:
    """Debezium 3.3 needs Java 21 or newer: the newest that is installed."""
    homes = sorted(Path("/usr/lib/jvm").glob("*"), key=lambda home: _version(home.name))
    newest = os.environ.get("BENCH_JAVA_HOME") or str(homes[-1])
    return {**os.environ, "JAVA_HOME": newest, "PATH": f"{newest}/bin:{os.environ['PATH']}"}


def _version(name: str) -> int:
    digits = [int(part) for part in name.replace(".", "-").split("-") if part.isdigit()]
    return digits[0] if digits else 0


@contextmanager
def debezium(
    source: BenchSource,
    dbname: str,
    slot: str,
    kinesis: NullKinesis,
    jar: Path,
    *,
    heap: str | None = None,
    poll: int = 500,
) -> Iterator[subprocess.Popen[bytes]]:
    """heap: such as 256m; None leaves it to Java. poll: milliseconds between its looks at its queue."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-debezium-") as folder:
        shutil.copy(_DEBEZIUM / "application.properties", folder)
        credentials = Path(folder) / "credentials"
        credentials.write_text("[default]\naws_access_key_id = bench\naws_secret_access_key = bench\n")
        environment = {
            **_java_environment(),
            "KINESIS_PORT": str(kinesis.port),
            "OFFSETS_FILE": f"{folder}/offsets",
            "PG_PORT": str(source.server.port),
            "PG_DATABASE": dbname,
            "SLOT": slot,
            "PUBLICATION": PUBLICATION,
            "TABLES": "public.t",
            "POLL_MS": str(poll),
            "HTTP_PORT": "0",
            "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [
            "java", *([f"-Xmx{heap}"] if heap else []), "-Daws.cborEnabled=false",
            "-cp", f"{jar}:{folder}:{jar.parent}/lib/*", "io.debezium.server.Main",
        ]  # fmt: skip
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            yield process
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{(Path(folder) / 'log').read_text()[-3000:]}") from error
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def drained_by_debezium(
    source: BenchSource,
    workload: Workload,
    slot: str,
    changes: int,
    kinesis: NullKinesis,
    jar: Path,
    heap: str | None = None,
) -> Drained:
    changes -= workload.tables  # it leaves truncates out
    kinesis.reset()
    with debezium(source, workload.dbname, slot, kinesis, jar, heap=heap) as process, TreeCpu(process.pid) as tree:
        until("Debezium's first record", lambda: kinesis.counts()["records"], process, 0.01)
        started, first_cpu = time.monotonic(), cpu_of(process.pid)
        warm = min(STEADY_AFTER, changes // 2)
        warmed = until("Debezium's warm-up", lambda: _reached(kinesis, warm), process)
        warm_at, warm_cpu = time.monotonic(), cpu_of(process.pid)
        until("Debezium to drain", lambda: _reached(kinesis, changes), process)
        ended, used = time.monotonic(), cpu_of(process.pid)
        sent = kinesis.counts()
    source.drop_slot(workload.dbname, slot)
    rest = changes - warmed
    return Drained(
        rate=changes / (ended - started),
        cpu=(used - first_cpu) / changes * 1e6,
        peak_bytes=tree.peak_bytes,
        bytes=sent["bytes"] / sent["records"],
        steady_rate=rest / (ended - warm_at),
        steady_cpu=(used - warm_cpu) / rest * 1e6,
    )


def _reached(kinesis: NullKinesis, changes: int) -> int:
    records = int(kinesis.counts()["records"])
    return records if records >= changes else 0
