"""The agent's health on loopback: /health, /status (JSON) and /metrics (Prometheus text)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from producer.snapshots import SnapshotProgress


@dataclass(frozen=True)
class Status:
    """What the agent says of itself. LSNs are numbers; seconds are measured at the source's commit times.

    spool_outage_seconds, slot_outage_seconds: how long spool and slot hold out at the pace of the last hour, None where
    nothing is known or nothing bounds them. warnings: what will become trouble, or troubles single tables.
    refetched_blocks, lost_blocks: of the spool, found damaged; captured again, or declared to the lake as a hole.
    logical_messages: what the source's applications wrote to its log beside changes, and was passed over.
    """

    source: str
    era: int
    healthy: bool
    trouble: str | None
    committed_lsn: int
    durable_lsn: int
    accepted_lsn: int
    captured_changes: int
    spooled_changes: int
    accepted_changes: int
    spooled_blocks: int
    accepted_blocks: int
    pending_blocks: int
    pending_bytes: int
    spool_bytes: int
    lag_seconds: float
    snapshots: list[SnapshotProgress]
    spool_outage_seconds: float | None = None
    slot_wal_status: str | None = None
    slot_held_bytes: int | None = None
    slot_safe_bytes: int | None = None
    slot_outage_seconds: float | None = None
    warnings: tuple[str, ...] = ()
    logical_messages: int = 0
    refetched_blocks: int = 0
    lost_blocks: int = 0


def metrics(status: Status) -> str:
    """The numbers of a status as Prometheus text."""
    lines = []
    for name, value in {**asdict(status), "warnings": len(status.warnings)}.items():
        if isinstance(value, int | float):
            kind = (
                "counter"
                if name.endswith(("_changes", "_blocks", "_messages")) and not name.startswith("pending")
                else "gauge"
            )
            lines.append(f"# TYPE headrace_agent_{name} {kind}")
            lines.append(f'headrace_agent_{name}{{source="{status.source}"}} {float(value):g}')
    for snapshot in status.snapshots:
        where = f'{{source="{status.source}",table="{snapshot.table}"}}'
        for name, value in (("rows", snapshot.rows_done), ("seconds_left", snapshot.seconds_left)):
            if value is not None:
                lines.append(f"headrace_agent_snapshot_{name}{where} {float(value):g}")
    return "\n".join(lines) + "\n"


class HealthPage:
    """Serves until closed; never on anything but loopback."""

    def __init__(self, port: int, status: Callable[[], Status]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(status))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(status: Callable[[], Status]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            now = status()
            if self.path == "/health":
                self._answer(200 if now.healthy else 503, "text/plain", now.trouble or "ok")
            elif self.path == "/status":
                self._answer(200, "application/json", json.dumps(asdict(now)))
            elif self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", metrics(now))
            else:
                self._answer(404, "text/plain", "no such page; there are /health, /status and /metrics")

        def _answer(self, code: int, kind: str, body: str) -> None:
            data = body.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are not logged."""

    return Handler
