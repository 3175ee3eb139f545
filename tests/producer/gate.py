"""A TCP gate before a server: shut, it is as if the network were gone."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from contextlib import suppress


class Gate:
    """Listens on one port for as long as it is open, and passes on to `target` on loopback."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: socketserver.ThreadingTCPServer | None = None
        self._open: set[socket.socket] = set()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def open(self) -> None:
        gate = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                gate._pass_on(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def shut(self) -> None:
        """New connections are refused, and those that are open break."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, near: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as far:
            pair = {near: far, far: near}
            self._open |= pair.keys()
            try:
                while True:
                    for end in select.select(list(pair), [], [])[0]:
                        data = end.recv(1 << 16)
                        if not data:
                            return
                        pair[end].sendall(data)
            except OSError:
                return
            finally:
                self._open -= pair.keys()
