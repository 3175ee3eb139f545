"""The on-premise site of a smoke run: a PostgreSQL and an agent on this machine, writing to the account."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localaws.process import free_port
from ops import shop
from ops.errors import OpsError
from ops.postgres_server import PostgresServer
from ops.processes import Processes

TABLES: Final = (*shop.PGBENCH_TABLES, "probes")
_AGENT: Final = "agent"
_STOP_SECONDS: Final = 25.0


@dataclass(frozen=True)
class Target:
    """Where the agent sends to. endpoint: None on AWS."""

    source: str
    stream: str
    dynamodb_prefix: str
    lake_bucket: str
    region: str
    endpoint: str | None


@dataclass(frozen=True)
class Site:
    """A running site."""

    postgres: PostgresServer
    source: str
    folder: Path
    processes: Processes

    @property
    def dsn(self) -> str:
        return self.postgres.dsn_of(self.source)

    @property
    def agent_config(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def agent_log(self) -> Path:
        return self.folder / "agent.log"

    def require_agent(self) -> None:
        """Raises OpsError with the end of its log where the agent has ended."""
        if self.processes.get(_AGENT) is None:
            tail = self.agent_log.read_text(errors="replace")[-2000:]
            raise OpsError(f"the agent ended; the end of its log:\n{tail}")


@contextmanager
def running(folder: Path, target: Target, environment: Mapping[str, str] = os.environ) -> Iterator[Site]:
    """The site for the length of a `with` block. The agent acts with the credentials of `environment`."""
    (folder / "spool").mkdir(parents=True, exist_ok=True)
    postgres = PostgresServer(folder / "postgres", free_port())
    site = Site(postgres, target.source, folder, Processes(folder / "pids.json"))
    try:
        postgres.start()
        shop.create(postgres, target.source)
        site.agent_config.write_text(agent_config(site, target))
        command = [sys.executable, "-m", "producer", "--config", str(site.agent_config)]
        path = str(Path(__file__).resolve().parents[2])
        inherited = {**environment, "PYTHONPATH": os.pathsep.join(filter(None, (path, environment.get("PYTHONPATH"))))}
        site.processes.start(_AGENT, command, inherited, site.agent_log, folder)
        yield site
    finally:
        site.processes.stop(_AGENT, _STOP_SECONDS)
        postgres.stop()


def agent_config(site: Site, target: Target) -> str:
    """agent.toml for the tables of the smoke run."""
    aws = {
        "stream": target.stream,
        "dynamodb_prefix": target.dynamodb_prefix,
        "region": target.region,
        "claims": f"s3://{target.lake_bucket}/claims",
        **({"endpoint_url": target.endpoint} if target.endpoint else {}),
    }
    lines = [
        *_section("[source]", {"name": target.source, "dsn": site.dsn}),
        *_section("[spool]", {"path": str(site.folder / "spool" / "spool.sqlite")}),
        *_section("[aws]", aws),
    ]
    for table in TABLES:
        append_only = table in shop.APPEND_ONLY
        lines += _section("[[tables]]", {"name": f"public.{table}", "append_only": append_only})
    return "\n".join(lines)


def _section(title: str, values: Mapping[str, object]) -> list[str]:
    return [title, *(f"{name} = {json.dumps(value)}" for name, value in values.items()), ""]
