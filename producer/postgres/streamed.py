"""Transactions that the source streams before they commit (pgoutput's protocol 2): on disk until they do.

Behind this the stream looks as if protocol 1 had been asked for: every transaction whole, at its commit, without what
was rolled back in it. The files are raw messages; nothing is fsynced, since the source sends all of it again.
"""

from __future__ import annotations

import shutil
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from producer.errors import SourceProtocolBroken
from producer.postgres.connection import XLOG_DATA, XLOG_HEADER, Payload, xlog_data

_START, _STOP, _COMMIT, _ABORT = b"SEcA"
_WITH_XID: Final = frozenset(b"RIUDTMY")
_frame = struct.Struct(">II")
_u32 = struct.Struct(">I").unpack_from
_two_u32 = struct.Struct(">II").unpack_from
_commit = struct.Struct(">IBQQq").unpack_from


class Receiving(Protocol):
    """What a Replication does."""

    def receive(self, wait_seconds: float, most: int) -> list[Payload]: ...

    def confirm(self, lsn: int) -> None: ...

    def close(self) -> None: ...


@dataclass
class _Kept:
    """A transaction that has not ended. gone: its sub-transactions that were rolled back."""

    path: Path
    file: BinaryIO
    gone: set[int] = field(default_factory=set)


class Unstreamed:
    """A Replication's messages, each transaction from Begin to Commit without another in between."""

    def __init__(self, inner: Receiving, folder: Path) -> None:
        self._inner = inner
        self._folder = folder
        self._kept: dict[int, _Kept] = {}
        self._inside: int | None = None
        self._waiting: deque[Payload] = deque()
        self._replay: Iterator[Payload] = iter(())
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)

    def receive(self, wait_seconds: float, most: int) -> list[Payload]:
        """As Replication.receive. A transaction that has just committed comes over several calls."""
        arrived = list(islice(self._replay, most))
        if not arrived and not self._waiting:
            self._waiting.extend(self._inner.receive(wait_seconds, most))
        while self._waiting and len(arrived) < most:
            one = self._waiting.popleft()
            if not self._keeps(one):
                arrived.append(one)
            arrived.extend(islice(self._replay, most - len(arrived)))
        return arrived

    def confirm(self, lsn: int) -> None:
        self._inner.confirm(lsn)

    def close(self) -> None:
        self._inner.close()
        for kept in self._kept.values():
            kept.file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keeps(self, payload: Payload) -> bool:
        """Whether the message belongs to a streamed transaction, and is dealt with here."""
        if payload[0] != XLOG_DATA:
            return False
        message = bytes(payload[XLOG_HEADER:])
        try:
            return self._deal(message, int.from_bytes(payload[1:9], "big"))
        except (struct.error, KeyError) as error:
            raise SourceProtocolBroken(
                f"a streamed message makes no sense: {error!r}; it starts with {message[:64]!r}"
            ) from error

    def _deal(self, message: bytes, lsn: int) -> bool:
        kind = message[0]
        if kind == _START:
            self._inside = _u32(message, 1)[0]
            if self._inside not in self._kept:
                path = self._folder / str(self._inside)
                self._kept[self._inside] = _Kept(path, path.open("wb"))
        elif kind == _STOP:
            self._inside = None
        elif kind == _COMMIT:
            xid, _, commit_lsn, end_lsn, committed_at = _commit(message, 1)
            self._replay = self._replayed(self._kept.pop(xid), xid, commit_lsn, end_lsn, committed_at, lsn)
        elif kind == _ABORT:
            self._abort(*_two_u32(message, 1))
        elif self._inside is None:
            return False
        elif kind in _WITH_XID:
            (xid,) = _u32(message, 1)
            self._kept[self._inside].file.write(_frame.pack(xid, len(message) - 4) + message[:1] + message[5:])
        return True

    def _abort(self, xid: int, sub_xid: int) -> None:
        if xid != sub_xid:
            self._kept[xid].gone.add(sub_xid)
            return
        kept = self._kept.pop(xid)
        kept.file.close()
        kept.path.unlink()

    def _replayed(
        self, kept: _Kept, xid: int, commit_lsn: int, end_lsn: int, committed_at: int, lsn: int
    ) -> Iterator[Payload]:
        kept.file.close()
        yield xlog_data(lsn, b"B" + struct.pack(">QqI", commit_lsn, committed_at, xid))
        with kept.path.open("rb") as file:
            while head := file.read(_frame.size):
                sub_xid, size = _frame.unpack(head)
                message = file.read(size)
                if sub_xid not in kept.gone:
                    yield xlog_data(lsn, message)
        kept.path.unlink()
        yield xlog_data(lsn, b"C" + struct.pack(">BQQq", 0, commit_lsn, end_lsn, committed_at))
