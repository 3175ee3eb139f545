"""Connections to the source: ordinary ones with timeouts, and the replication connection with our own feedback."""

from __future__ import annotations

import select
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeAlias

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq.abc import PGconn, PGresult

from producer.errors import SourceProtocolBroken, SourceUnreachable
from producer.postgres.messages import POSTGRES_EPOCH_MICROS
from schemas.position import format_lsn

TEXT_FORMS: Final = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
}
"""What the text form of values depends on. Every session that reads values pins all of it."""

STATUS_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 3.0
CONNECT_SECONDS: Final = 10

OrdinaryConnection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


class Arrived(NamedTuple):
    """A pgoutput message, or None for a keepalive; `lsn` is how far the walsender has got."""

    lsn: int
    message: bytes | None


def connect(dsn: str, *, statement_seconds: float = 60.0, lock_seconds: float = 5.0) -> OrdinaryConnection:
    """An ordinary session in autocommit. A timeout of 0 is none. Raises SourceUnreachable."""
    settings = {
        **TEXT_FORMS,
        "statement_timeout": f"{int(statement_seconds * 1000)}",
        "lock_timeout": f"{int(lock_seconds * 1000)}",
    }
    try:
        return psycopg.connect(_conninfo(dsn, settings), autocommit=True)
    except psycopg.OperationalError as error:
        raise SourceUnreachable(f"cannot connect to the source: {str(error).strip()}") from error


def replication_session(dsn: str) -> PGconn:
    """A walsender session, for one command after another (`command`) or for a Replication."""
    pgconn: PGconn = pq.PGconn.connect(_conninfo(dsn, TEXT_FORMS, replication="database").encode())
    if pgconn.status != pq.ConnStatus.OK:
        message = pgconn.get_error_message().strip()
        pgconn.finish()
        raise SourceUnreachable(f"cannot open a replication connection to the source: {message}")
    return pgconn


def command(pgconn: PGconn, text: str) -> dict[str, str | None]:
    """The only row that a replication command answers with. Raises psycopg.Error with the server's message."""
    result = pgconn.exec_(text.encode())
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise psycopg.errors.lookup(_sqlstate(result))(result.get_error_message().strip())
    if result.status == pq.ExecStatus.COMMAND_OK or result.ntuples == 0:
        return {}
    names = [(result.fname(index) or b"").decode() for index in range(result.nfields)]
    values = [result.get_value(0, index) for index in range(result.nfields)]
    return {name: None if value is None else value.decode() for name, value in zip(names, values, strict=True)}


class Replication:
    """A running logical replication stream.

    `receive` and `close` belong to one thread; `confirm` may be called from any. A thread of its own reports our
    status every STATUS_SECONDS, so that a pause of the reader does not end the session.
    """

    def __init__(self, dsn: str, slot: str, publications: Sequence[str], start_lsn: int) -> None:
        self._pgconn = replication_session(dsn)
        self._lock = threading.Lock()
        self._received = self._flushed = 0
        self._closed = threading.Event()
        try:
            self._start(slot, publications, start_lsn)
        except BaseException:
            self._pgconn.finish()
            raise
        self._heart = threading.Thread(target=self._beat, name="source-status", daemon=True)
        self._heart.start()

    def receive(self, wait_seconds: float, most: int) -> list[Arrived]:
        """What has arrived, at most `most`, in order; waits up to wait_seconds where nothing has.

        Raises SourceUnreachable when the stream ended.
        """
        arrived = self._read(most)
        if arrived or wait_seconds <= 0:
            return arrived
        if select.select([self._pgconn.socket], [], [], wait_seconds)[0]:
            with self._lock:
                self._guarded(self._pgconn.consume_input)
            arrived = self._read(most)
        return arrived

    def confirm(self, lsn: int) -> None:
        """Tells the source that everything below `lsn` is durable here: it may forget it. Never goes back."""
        with self._lock:
            if lsn > self._flushed and not self._closed.is_set():
                self._flushed = lsn
                self._send_status()

    def close(self) -> None:
        """Sends the last confirmation and ends the session. Idempotent."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            with suppress(SourceUnreachable):  # a source that is gone will send again what it was not told
                self._send_status()
                self._end()
            self._pgconn.finish()
        self._heart.join()

    def _end(self) -> None:
        """Ends the stream in agreement: a socket closed over unread data would lose the last status on its way."""
        self._guarded(self._pgconn.put_copy_end)
        self._guarded(self._pgconn.flush)
        deadline = time.monotonic() + CLOSE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            size, _ = self._guarded(self._pgconn.get_copy_data, 1)
            if size < 0:
                return
            if size == 0 and select.select([self._pgconn.socket], [], [], left)[0]:
                self._guarded(self._pgconn.consume_input)

    def __enter__(self) -> Replication:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, slot: str, publications: Sequence[str], start_lsn: int) -> None:
        names = ",".join(quoted(name) for name in publications).replace("'", "''")
        result = self._pgconn.exec_(
            f"START_REPLICATION SLOT {quoted(slot)} LOGICAL {format_lsn(start_lsn)} "
            f"(proto_version '1', publication_names '{names}')".encode()
        )
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise SourceUnreachable(f"slot {slot} cannot be read: {result.get_error_message().strip()}")

    def _read(self, most: int) -> list[Arrived]:
        arrived: list[Arrived] = []
        with self._lock:
            while len(arrived) < most:
                size, data = self._guarded(self._pgconn.get_copy_data, 1)
                if size > 0:
                    arrived.append(self._arrived(bytes(data)))
                elif size == 0:
                    break
                else:
                    raise SourceUnreachable(f"the source ended the stream: {self._last_error()}")
        return arrived

    def _arrived(self, data: bytes) -> Arrived:
        if data[:1] == b"w":
            start_lsn, end_lsn = _XLOG_DATA.unpack_from(data, 1)
            self._received = max(self._received, start_lsn)
            return Arrived(max(start_lsn, end_lsn), data[25:])
        if data[:1] == b"k":
            lsn, _, reply_asked = _KEEPALIVE.unpack_from(data, 1)
            self._received = max(self._received, lsn)
            if reply_asked:
                self._send_status()
            return Arrived(lsn, None)
        raise SourceProtocolBroken(f"unknown replication message {data[:16]!r}")

    def _send_status(self) -> None:
        now = time.time_ns() // 1000 - POSTGRES_EPOCH_MICROS
        received = max(self._received, self._flushed)
        status = _STATUS.pack(b"r", received, self._flushed, self._flushed, now, 0)
        self._guarded(self._pgconn.put_copy_data, status)
        self._guarded(self._pgconn.flush)

    def _beat(self) -> None:
        while not self._closed.wait(STATUS_SECONDS):
            with self._lock:
                if self._closed.is_set():
                    return
                try:
                    self._send_status()
                except SourceUnreachable:
                    return  # the reader meets the same end and reports it

    def _guarded(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except psycopg.Error as error:
            raise SourceUnreachable(f"the connection to the source broke: {str(error).strip()}") from error

    def _last_error(self) -> str:
        result = self._pgconn.get_result()
        message = result.get_error_message() if result is not None else self._pgconn.get_error_message()
        return message.strip() or "the server closed it"


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


_XLOG_DATA: Final = struct.Struct(">QQ")
_KEEPALIVE: Final = struct.Struct(">QqB")
_STATUS: Final = struct.Struct(">cQQQqB")


def _sqlstate(result: PGresult) -> str:
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"XX000").decode()


def _conninfo(dsn: str, settings: dict[str, str], **parameters: str) -> str:
    options = " ".join(f"-c {name}={value}" for name, value in settings.items() if name != "client_encoding")
    given = conninfo_to_dict(dsn)
    return make_conninfo(
        dsn,
        options=f"{given.get('options') or ''} {options}".strip(),
        client_encoding=settings.get("client_encoding", "UTF8"),
        application_name=given.get("application_name") or "headrace",
        connect_timeout=given.get("connect_timeout") or CONNECT_SECONDS,
        keepalives_idle=given.get("keepalives_idle") or "30",
        **parameters,
    )
