"""A stack: one PostgreSQL, one AWS on the laptop, one agent, everything they keep in one folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from localaws import child_process
from localaws.process import free_port
from ops import identities
from ops.athena import Athena
from ops.aws import Aws
from ops.errors import OpsError, StackNotRunning
from ops.names import Names
from ops.postgres_server import PostgresServer
from ops.processes import Processes
from ops.waiting import until

ROOT: Final = Path(".headrace")
_AWS: Final = "localaws"
_AGENT: Final = "agent"
_AWS_START_SECONDS: Final = 60.0
_AWS_STOP_SECONDS: Final = 60.0
_AGENT_STOP_SECONDS: Final = 25.0
# The job runs inherit these: Spark listens on loopback only, and its workers run on this interpreter.
_FOR_JOBS: Final = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
_POSTGRES: Final = {"max_connections": "50", "shared_buffers": "64MB", "synchronous_commit": "on"}


@dataclass(frozen=True)
class Facts:
    """What a stack keeps in stack.json, so that another command finds it.

    terraform: everything was made by Terraform, and IAM is enforced.
    """

    name: str
    source: str
    endpoint: str
    aws_port: int
    postgres_port: int
    health_port: int
    dsn: str
    seconds_per_minute: float
    terraform: bool = False


class Stack:
    """Starts, finds and stops the parts. Everything listens on 127.0.0.1."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder = folder
        self.facts = facts
        self.names = Names()
        self.aws = Aws(facts.endpoint)
        self.processes = Processes(folder / "pids.json")
        self.postgres = PostgresServer(folder / "postgres", facts.postgres_port, _POSTGRES)

    @property
    def source(self) -> str:
        return self.facts.source

    @property
    def agent_config(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def aws_state(self) -> Path:
        return self.folder / "aws"

    @property
    def aws_config(self) -> Path:
        """Profiles of the roles, where IAM is enforced."""
        return self.folder / "aws_config"

    def athena(self, database: str | None = None, workgroup: str | None = None) -> Athena:
        """Athena as an analyst may use it; unnamed tables are looked up among the source's current rows."""
        if self.facts.terraform:
            client = identities.client(self.aws_config, identities.ANALYST, "athena")
        else:
            client = self.aws.client("athena")
        return Athena(client, workgroup or self.names.workgroup, database or self.source)

    def start_postgres(self) -> None:
        self.postgres.start()

    def start_aws(self) -> None:
        """Starts the laptop's AWS unless it runs; returns when it answers."""
        self.aws_state.mkdir(parents=True, exist_ok=True)
        if not self.aws_runs():
            words = ["--port", str(self.facts.aws_port), "--state", str(self.aws_state)]
            words += ["--seconds-per-minute", f"{self.facts.seconds_per_minute:g}"]
            words += ["--auth"] if self.facts.terraform else []
            self._start(_AWS, [sys.executable, "-m", "localaws", *words], _FOR_JOBS)
        until(self._aws_answers, f"the laptop's AWS (see {self.log(_AWS)})", _AWS_START_SECONDS)

    def start_agent(self) -> None:
        """Starts the agent unless it runs. It connects, checks the source and captures by itself."""
        if not self.agent_runs():
            command = [sys.executable, "-m", "producer", "--config", str(self.agent_config)]
            self._start(_AGENT, command, self.agent_environment())

    def agent_environment(self) -> dict[str, str]:
        """Who the agent is to AWS, and where it finds it."""
        if self.facts.terraform:
            return identities.environment(self.aws_config, identities.AGENT)
        return self.aws.environment()

    def kill_agent(self) -> None:
        """Ends the agent as a crash would."""
        self.processes.kill(_AGENT)

    def aws_runs(self) -> bool:
        return self.processes.get(_AWS) is not None

    @property
    def agent_pid(self) -> int | None:
        process = self.processes.get(_AGENT)
        return None if process is None else process.pid

    def agent_runs(self) -> bool:
        return self.agent_pid is not None

    def agent_status(self) -> dict[str, Any] | None:
        """What the agent says of itself; None where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.facts.health_port}/status", timeout=2) as reply:
                found: dict[str, Any] = json.load(reply)
                return found
        except (OSError, ValueError):
            return None

    def log(self, part: str) -> Path:
        return self.folder / "logs" / f"{part}.log"

    def running(self) -> bool:
        return bool(self.processes.running()) or self.postgres.pid is not None

    def stop(self) -> None:
        """Stops everything in the order of the path, so that nothing is cut off; what hangs is killed."""
        self.processes.stop(_AGENT, _AGENT_STOP_SECONDS)
        self.processes.stop(_AWS, _AWS_STOP_SECONDS)
        self._end_leftover_runs()
        self.postgres.stop()

    def _end_leftover_runs(self) -> None:
        """Job runs whose server was killed live on without it: end them by what it wrote down of them."""
        for path in self.aws_state.glob("glue_runs/*/run.json"):
            run = json.loads(path.read_text())
            if run.get("process_id") and run.get("process_born"):
                child_process.end_leftover(run["process_id"], run["process_born"])

    def _aws_answers(self) -> bool:
        process = self.processes.get(_AWS)
        if process is None:
            tail = self.log(_AWS).read_text(errors="replace")[-1500:]
            raise OpsError(f"the laptop's AWS ended at its start; the end of its log:\n{tail}")
        try:
            with urllib.request.urlopen(f"{self.facts.endpoint}/_local/health", timeout=2) as reply:
                return bool(json.load(reply)["pid"] == process.pid)
        except (OSError, ValueError):
            return False

    def _start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        path = str(Path(__file__).resolve().parent.parent)
        inherited["PYTHONPATH"] = os.pathsep.join(filter(None, (path, inherited.get("PYTHONPATH"))))
        self.processes.start(name, command, {**inherited, **environment}, log, self.folder)


def create(
    name: str, source: str = "shop", seconds_per_minute: float = 15.0, root: Path = ROOT, *, terraform: bool = False
) -> Stack:
    """The stack of that name, as it was left, or a new one on free ports. Nothing is started."""
    folder = (root / name).resolve()
    kept = _read(folder)
    if kept is None:
        folder.mkdir(parents=True, exist_ok=True)
        aws_port, postgres_port, health_port = free_port(), free_port(), free_port()
        kept = Facts(
            name=name,
            source=source,
            endpoint=f"http://127.0.0.1:{aws_port}",
            aws_port=aws_port,
            postgres_port=postgres_port,
            health_port=health_port,
            dsn=f"host=127.0.0.1 port={postgres_port} user=postgres dbname={source}",
            seconds_per_minute=seconds_per_minute,
            terraform=terraform,
        )
        (folder / "stack.json").write_text(json.dumps(asdict(kept), indent=1) + "\n")
    return Stack(folder, kept)


def find(name: str | None, root: Path = ROOT) -> Stack:
    """A running stack by its name; without one the only stack that runs. Raises StackNotRunning."""
    stacks = [stack for stack in all_stacks(root) if name in (None, stack.facts.name) and stack.running()]
    if len(stacks) == 1:
        return stacks[0]
    if not stacks:
        wanted = f"no stack {name!r} is running" if name else "no stack is running"
        raise StackNotRunning(f"{wanted} below {root.resolve()}: start one with `headrace up`")
    names = ", ".join(sorted(stack.facts.name for stack in stacks))
    raise StackNotRunning(f"several stacks are running ({names}): say which with --stack NAME")


def all_stacks(root: Path = ROOT) -> list[Stack]:
    """Every stack that has a folder, running or not."""
    found = ((folder, _read(folder)) for folder in sorted(root.resolve().glob("*")) if folder.is_dir())
    return [Stack(folder, facts) for folder, facts in found if facts is not None]


def remove(name: str, root: Path = ROOT) -> None:
    """Stops a stack and forgets everything that it kept."""
    folder = (root / name).resolve()
    facts = _read(folder)
    if facts is not None:
        Stack(folder, facts).stop()
    for _ in range(20):  # a process that ends late can still write
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _read(folder: Path) -> Facts | None:
    path = folder / "stack.json"
    return Facts(**json.loads(path.read_text())) if path.exists() else None
