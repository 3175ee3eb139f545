"""What the agent tells systemd (sd_notify(3)): that it is ready, what it does, that it lives. Else it is silent."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

log = logging.getLogger(__name__)

_MICROS: Final = 1_000_000


@dataclass
class Supervisor:
    """address: the socket of NOTIFY_SOCKET, None where nobody listens. watchdog_seconds: within which a sign of life is
    awaited, 0 where none is. Each call is a datagram at most; a socket that is gone costs a log line."""

    address: str | None = None
    watchdog_seconds: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _signed_at: float = field(default=float("-inf"), init=False)
    _status: str | None = field(default=None, init=False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Supervisor:
        meant = environment.get("WATCHDOG_PID") in (None, str(os.getpid()))
        micros = environment.get("WATCHDOG_USEC", "0") if meant else "0"
        return cls(environment.get("NOTIFY_SOCKET") or None, int(micros) / _MICROS)

    def ready(self) -> None:
        """The configuration is valid; source and AWS may still be out of reach, and are waited for."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Until the next `ready` the configuration is being read again."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(time.clock_gettime(time.CLOCK_MONOTONIC) * _MICROS)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self, trouble: str | None) -> None:
        """The main loop turns. Cheap enough for every turn: it speaks three times within watchdog_seconds, and when
        what it has to say of its trouble changes."""
        status = trouble or "capturing"
        if status != self._status:
            self._status = status
            self._send(f"STATUS={' '.join(status.split())}")
        if self.watchdog_seconds and self.clock() - self._signed_at >= self.watchdog_seconds / 3:
            self._signed_at = self.clock()
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self.address is None:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
                notify.setblocking(False)
                notify.sendto(message.encode(), address)
        except BlockingIOError:
            return  # nobody reads at the moment; a lack of signs of life is for systemd to judge
        except OSError as error:
            log.warning("systemd was not told", extra={"said": message, "cause": str(error)})
            self.address = None
