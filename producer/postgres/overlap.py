"""What the slot sends again of what the spool has: the proof that both speak of one history."""

from __future__ import annotations

import struct
import time
from contextlib import closing
from typing import Final

from producer.continuity import Known
from producer.errors import SourceUnreachable
from producer.postgres import messages
from producer.postgres.connection import Replication
from producer.postgres.source import PostgresSource

_SILENCE_SECONDS: Final = 60.0
_CHANGES: Final = (b"I", b"U", b"D", b"T")
_LSN: Final = struct.Struct(">Q")
_HEADER: Final = 25  # of XLogData: its kind, two LSNs and a time


def last_resent(source: PostgresSource, through: int) -> Known | None:
    """The last transaction at or below `through` that the slot has not been told to forget. Confirms nothing.

    Transactions without changes do not count: whether they are sent depends on the server's version, and on whether
    they were streamed. Raises SourceUnreachable.
    """
    publications = (source.publication, source.append_publication)
    last: Known | None = None
    begun: Known | None = None
    heard = time.monotonic()
    with closing(Replication(source.dsn, source.slot, publications, 0, {"proto_version": "1"})) as stream:
        while time.monotonic() - heard < _SILENCE_SECONDS:
            for payload in map(bytes, stream.receive(1.0, 1000)):
                heard = time.monotonic()
                begin = _begin(payload)
                if begin is not None and begin.lsn <= through:
                    begun = begin
                elif begin is not None or _keepalive(payload) > through:
                    return last
                elif payload[:1] == b"w" and payload[_HEADER : _HEADER + 1] in _CHANGES:
                    last = begun
    raise SourceUnreachable(f"slot {source.slot} sends nothing")


def _begin(payload: bytes) -> Known | None:
    if payload[:1] != b"w" or payload[_HEADER : _HEADER + 1] != b"B":
        return None
    message = messages.parse(payload[_HEADER:])
    assert isinstance(message, messages.Begin)
    return Known(message.final_lsn, message.committed_at)


def _keepalive(payload: bytes) -> int:
    """How far the source has got, where it says just that."""
    return int(_LSN.unpack_from(payload, 1)[0]) if payload[:1] == b"k" else 0
