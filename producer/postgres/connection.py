"""Connections to the source: ordinary ones with timeouts, and the replication connection with our own feedback."""

from __future__ import annotations

import select
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq.abc import PGconn, PGresult

from producer.errors import SourceUnreachable, TextNeeded
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

UNKNOWN_ENCODING: Final = "SQL_ASCII"
"""A database in it hands out bytes. Asked for UTF-8 it would end the stream at the first text that is none."""

HEARTBEAT: Final = "headrace"
"""The prefix of the logical messages that the agent itself writes."""

Payload: TypeAlias = bytes | memoryview
"""What one CopyData message of a walsender holds: XLogData around a pgoutput message, or a keepalive."""

XLOG_DATA, KEEPALIVE = b"wk"
XLOG_HEADER: Final = 1 + struct.calcsize(">QQq")
"""Bytes of XLogData before the message: its kind, where it stands, how far the walsender is, the time."""
_KEEPALIVE_BYTES: Final = 1 + struct.calcsize(">QqB")
"""Kind, position, time, and whether a reply is asked for."""

STATUS_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 3.0
CONNECT_SECONDS: Final = 10
MOST_BYTES: Final = 4 * 1024 * 1024

_COMPANY: Final = 1000
_PAUSES: Final = 5
_PAUSE_SECONDS: Final = 0.002
_WORTH_A_PAUSE: Final = 10
"""So many in each pause come to what is decoded at once; with fewer, a pause only makes them late."""

OrdinaryConnection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


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


@contextmanager
def reaching(what: str) -> Iterator[None]:
    """Whatever a server says that goes away, stops or makes us wait too long is SourceUnreachable: try again."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise SourceUnreachable(f"{what}: {str(error).strip()}") from error


def replication_session(dsn: str) -> PGconn:
    """A walsender session, for one command after another (`command`) or for a Replication."""
    pgconn: PGconn = pq.PGconn.connect(_conninfo(dsn, TEXT_FORMS, replication="database").encode())
    if pgconn.status != pq.ConnStatus.OK:
        message = pgconn.get_error_message().strip()
        pgconn.finish()
        raise SourceUnreachable(f"cannot open a replication connection to the source: {message}")
    if pgconn.parameter_status(b"server_encoding") == UNKNOWN_ENCODING.encode():
        pgconn.exec_(f"SET client_encoding TO '{UNKNOWN_ENCODING}'".encode())
    return pgconn


def command(pgconn: PGconn, text: str) -> dict[str, str | None]:
    """The only row that a replication command answers with. Raises psycopg.Error with the server's message."""
    result = pgconn.exec_(text.encode())
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        if pgconn.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError(result.get_error_message().strip())
        raise psycopg.errors.lookup(_sqlstate(result))(result.get_error_message().strip())
    if result.status == pq.ExecStatus.COMMAND_OK or result.ntuples == 0:
        return {}
    names = [(result.fname(index) or b"").decode() for index in range(result.nfields)]
    values = [result.get_value(0, index) for index in range(result.nfields)]
    return {name: None if value is None else value.decode() for name, value in zip(names, values, strict=True)}


def slot_creation(
    name: str, version: int, *, temporary: bool = False, export: bool = False, failover: bool = False
) -> str:
    """The command that makes a logical slot, in the words of the server's version (`(...)` since 15, failover 17)."""
    kept = "TEMPORARY " if temporary else ""
    if version < 150_000:
        return f"CREATE_REPLICATION_SLOT {quoted(name)} {kept}LOGICAL pgoutput {'' if export else 'NO'}EXPORT_SNAPSHOT"
    options = f"SNAPSHOT '{'export' if export else 'nothing'}'"
    if failover and version >= 170_000:
        options += ", FAILOVER true"
    return f"CREATE_REPLICATION_SLOT {quoted(name)} {kept}LOGICAL pgoutput ({options})"


class Replication:
    """A running logical replication stream.

    `receive` and `close` belong to one thread; `confirm` may be called from any. A thread of its own reports our
    status every STATUS_SECONDS, or oftener where the server needs it: a pause of the reader does not end the session.
    """

    def __init__(
        self, dsn: str, slot: str, publications: Sequence[str], start_lsn: int, options: Mapping[str, str]
    ) -> None:
        """options: pgoutput's, beside the publications."""
        self._pgconn = replication_session(dsn)
        self._binary = options.get("binary") == "true"
        self._lock = threading.Lock()
        self._received = self._flushed = 0
        self._status_seconds = _status_seconds(self._pgconn)
        self._closed = threading.Event()
        try:
            self._start(slot, {"publication_names": ",".join(map(quoted, publications)), **options}, start_lsn)
        except BaseException:
            self._pgconn.finish()
            raise
        self._heart = threading.Thread(target=self._beat, name="source-status", daemon=True)
        self._heart.start()

    def receive(self, wait_seconds: float, most: int) -> list[Payload]:
        """The payloads that have arrived, about `most` messages or MOST_BYTES, in order; waits up to wait_seconds where
        nothing has. Where a few have, and more come fast, it waits a moment for company: many together cost far less
        each.

        Raises SourceUnreachable when the stream ended.
        """
        payloads: list[Payload] = []
        bounded = self._read(payloads, most)
        if not payloads and wait_seconds > 0 and select.select([self._pgconn.socket], [], [], wait_seconds)[0]:
            bounded = self._read(payloads, most)
        for _ in range(_PAUSES):
            before = len(payloads)
            if bounded or not 0 < before < _COMPANY:
                break
            time.sleep(_PAUSE_SECONDS)
            bounded = self._read(payloads, most)
            if len(payloads) - before < _WORTH_A_PAUSE:
                break
        return payloads

    def confirm(self, lsn: int) -> None:
        """Tells the source that everything below `lsn` is durable here: it may forget it. Never goes back."""
        with self._lock:
            if lsn > self._flushed and not self._closed.is_set():
                self._flushed = lsn
                self._send_status()

    def close(self) -> None:
        """Ends the session, once what was confirmed has arrived. Idempotent."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            with suppress(SourceUnreachable):  # a source that is gone will send again what it was not told
                self._end()
            self._pgconn.finish()
        self._heart.join()

    def _end(self) -> None:
        """Ends the stream in agreement: a socket closed over unread data would lose the last status on its way. Behind
        the end of the data comes that of the command: from then on the slot is free for the next session."""
        self._guarded(self._pgconn.put_copy_end)
        self._guarded(self._pgconn.flush)
        deadline, size = time.monotonic() + CLOSE_SECONDS, 0
        while (left := deadline - time.monotonic()) > 0:
            if size >= 0:
                size, _ = self._guarded(self._pgconn.get_copy_data, 1)
            if size < 0 and not self._pgconn.is_busy():
                self._guarded(self._pgconn.get_result)
                return
            if size <= 0 and select.select([self._pgconn.socket], [], [], left)[0]:
                self._guarded(self._pgconn.consume_input)

    def __enter__(self) -> Replication:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, slot: str, options: Mapping[str, str], start_lsn: int) -> None:
        words = ", ".join(f"{name} {literal(value)}" for name, value in options.items())
        result = self._pgconn.exec_(
            f"START_REPLICATION SLOT {quoted(slot)} LOGICAL {format_lsn(start_lsn)} ({words})".encode()
        )
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise SourceUnreachable(f"slot {slot} cannot be read: {result.get_error_message().strip()}")

    def _read(self, payloads: list[Payload], most: int) -> bool:
        """Takes what is there, without waiting; False when there is no more for now."""
        get, append = self._pgconn.get_copy_data, payloads.append
        room, before, asked = MOST_BYTES - sum(map(len, payloads)), len(payloads), False
        with self._lock:
            try:
                while len(payloads) < most and room > 0:
                    size, data = get(1)
                    if size > 0:
                        append(data)
                        room -= size
                        asked = False
                        if size == _KEEPALIVE_BYTES and data[0] == KEEPALIVE and data[-1]:
                            self._send_status()
                    elif size < 0:
                        raise self._ended()
                    elif asked:
                        break
                    else:
                        self._pgconn.consume_input()
                        asked = True
            except psycopg.Error as error:
                raise SourceUnreachable(f"the connection to the source broke: {str(error).strip()}") from error
            if len(payloads) > before:
                self._received = max(self._received, int.from_bytes(payloads[-1][1:9], "big"))
        return not asked

    def _send_status(self) -> None:
        now = time.time_ns() // 1000 - POSTGRES_EPOCH_MICROS
        received = max(self._received, self._flushed)
        status = _STATUS.pack(b"r", received, self._flushed, self._flushed, now, 0)
        self._guarded(self._pgconn.put_copy_data, status)
        self._guarded(self._pgconn.flush)

    def _beat(self) -> None:
        while not self._closed.wait(self._status_seconds):
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

    def _ended(self) -> SourceUnreachable:
        result = self._pgconn.get_result()
        message = result.get_error_message() if result is not None else self._pgconn.get_error_message()
        said = f"the source ended the stream: {message.strip() or 'the server closed it'}"
        if self._binary and result is not None and _sqlstate(result) == _NO_FUNCTION:
            return TextNeeded(f"{said}: going on in text")
        return SourceUnreachable(said)


def xlog_data(lsn: int, message: bytes) -> bytes:
    """A message in the frame that the walsender puts around it."""
    return b"w" + struct.pack(">QQq", lsn, lsn, 0) + message


def _status_seconds(pgconn: PGconn) -> float:
    """How often to report: well within the time after which the server takes us for dead."""
    shown = command(pgconn, "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'")
    timeout_seconds = int(shown.get("setting") or 0) / 1000
    return min(STATUS_SECONDS, timeout_seconds / 4) if timeout_seconds else STATUS_SECONDS


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """An SQL string, where standard_conforming_strings is on as in replication commands."""
    return "'" + value.replace("'", "''") + "'"


_STATUS: Final = struct.Struct(">cQQQqB")
_NO_FUNCTION: Final = "42883"
"""What a walsender ends with where a part of a value has no binary form, such as the items of an array."""


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
