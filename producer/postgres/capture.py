"""The live stream of a source: every committed change behind a position, as events in commit order."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final

import psycopg

from producer.change import Event
from producer.errors import SourceUnreachable, TextNeeded
from producer.postgres import messages
from producer.postgres.asking import asking
from producer.postgres.catalog import SessionCatalog
from producer.postgres.connection import HEARTBEAT, Payload, Replication, connect
from producer.postgres.decoder import Decoder
from producer.postgres.rows import RowEncoder, row_encoder
from producer.postgres.source import PostgresSource
from producer.postgres.streamed import Receiving, Unstreamed
from producer.postgres.transcode import LEAST_MESSAGES, Transcoder

MOST_MESSAGES: Final = 4000

_PREFIX: Final = 10
"""Where a logical message's prefix is: behind kind, flags and LSN."""
_HEARTBEAT: Final = f"{HEARTBEAT}\0".encode()


@dataclass
class Transfer:
    """How values travel, as the captures of one source learn it: binary is cheaper, some types come as text only.

    logical_messages: how many came, those of our own heartbeat left out; what a reconnect sends again counts again.
    """

    binary: bool = True
    logical_messages: int = 0

    def pass_over(self, message: Payload) -> None:
        """Counts a logical message."""
        self.logical_messages += bytes(message[_PREFIX : _PREFIX + len(_HEARTBEAT)]) != _HEARTBEAT


class Capture:
    """`poll`, `close` belong to one thread; `confirm` may be called from any.

    Nothing is confirmed to the source but what `confirm` was told: the end_lsn of a durable Commit, or the lsn of a
    Keepalive once all before it is durable and its position is kept.
    """

    def __init__(
        self,
        source: PostgresSource,
        *,
        era: int,
        after_lsn: int,
        transfer: Transfer | None = None,
        lanes_of: Callable[[str], int] = lambda table: 1,
        least: int = LEAST_MESSAGES,
    ) -> None:
        """Starts the stream behind after_lsn (0: from the slot's confirmed position). Raises SourceUnreachable.

        lanes_of: how many lanes a table has; runs of one with several carry what chooses among them.
        least: how many messages have to come together to be decoded at once.
        """
        self._source = source
        self._transfer = transfer or Transfer()
        self._session = connect(source.dsn)
        decoder = Decoder(era, after_lsn, self._describe)
        least = least if self._transfer.binary else sys.maxsize
        self._transcoder = Transcoder(decoder, lambda table: lanes_of(table) > 1, least, self._transfer.pass_over)
        try:
            self._replication = self._start(after_lsn)
        except BaseException:
            self._session.close()
            raise

    def poll(self, wait_seconds: float, most: int = MOST_MESSAGES) -> list[Event]:
        """The next events, of at most `most` messages; empty when none came within wait_seconds.

        Raises SourceUnreachable (connect again behind the last durable commit) or SourceProtocolBroken.
        """
        try:
            return self._transcoder.events(self._replication.receive(wait_seconds, most))
        except TextNeeded:
            self._transfer.binary = False
            raise

    def confirm(self, lsn: int) -> None:
        """Tells the source that it may forget what lies below `lsn`. Never goes back."""
        self._replication.confirm(lsn)

    def close(self) -> None:
        self._replication.close()
        self._session.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, after_lsn: int) -> Receiving:
        source = self._source
        publications = (source.publication, source.append_publication)
        binary = "true" if self._transfer.binary else "false"
        options = {"proto_version": "1", "binary": binary, "messages": "true"}
        if source.streamed is None:
            return Replication(source.dsn, source.slot, publications, after_lsn, options)
        options |= {"proto_version": "2", "streaming": "on"}
        return Unstreamed(Replication(source.dsn, source.slot, publications, after_lsn, options), source.streamed)

    def _describe(self, relation: messages.Relation) -> RowEncoder:
        append_only = self._source.is_append_only(relation.oid, relation.namespace, relation.name)
        lake_table = self._source.names.bind(relation.oid, relation.namespace, relation.name).lake_table
        table = f"{relation.namespace}.{relation.name}"
        try:
            encoder = row_encoder(
                self._source, lake_table, relation, SessionCatalog(self._session), append_only=append_only
            )
        except psycopg.OperationalError as error:
            raise SourceUnreachable(f"the catalog cannot be asked about {table}: {str(error).strip()}") from error
        if self._transfer.binary and encoder.unreadable:
            columns = ", ".join(encoder.unreadable)
            raise TextNeeded(f"{table} has columns that have no readable binary form ({columns}): going on in text")
        return encoder.asking(partial(asking, self._session))
