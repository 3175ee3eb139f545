"""The live stream of a source: every committed change behind a position, as events in commit order."""

from __future__ import annotations

from types import TracebackType

import psycopg

from producer.change import Event, Keepalive
from producer.errors import SourceUnreachable
from producer.postgres import messages
from producer.postgres.catalog import SessionCatalog
from producer.postgres.connection import Replication, connect
from producer.postgres.decoder import Decoder
from producer.postgres.rows import RowEncoder, row_encoder
from producer.postgres.source import PostgresSource


class Capture:
    """`poll`, `close` belong to one thread; `confirm` may be called from any.

    Nothing is confirmed to the source but what `confirm` was told: the end_lsn of a durable Commit, or the lsn of a
    Keepalive once all before it is durable and its position is kept.
    """

    def __init__(self, source: PostgresSource, *, era: int, after_lsn: int) -> None:
        """Starts the stream behind after_lsn (0: from the slot's confirmed position). Raises SourceUnreachable."""
        self._source = source
        self._session = connect(source.dsn)
        self._decoder = Decoder(era, after_lsn, self._describe)
        try:
            publications = (source.publication, source.append_publication)
            self._replication = Replication(source.dsn, source.slot, publications, after_lsn)
        except BaseException:
            self._session.close()
            raise

    def poll(self, wait_seconds: float, most: int = 2000) -> list[Event]:
        """The next events, of at most `most` messages; empty when none came within wait_seconds.

        Raises SourceUnreachable (connect again behind the last durable commit) or SourceProtocolBroken.
        """
        events: list[Event] = []
        for arrived in self._replication.receive(wait_seconds, most):
            if arrived.message is not None:
                events.extend(self._decoder.decode(arrived.message))
            elif self._decoder.between_transactions:
                events.append(Keepalive(arrived.lsn))
        return events

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

    def _describe(self, relation: messages.Relation) -> RowEncoder:
        append_only = self._source.is_append_only(relation.namespace, relation.name)
        try:
            return row_encoder(self._source.name, relation, SessionCatalog(self._session), append_only=append_only)
        except psycopg.OperationalError as error:
            table = f"{relation.namespace}.{relation.name}"
            raise SourceUnreachable(f"the catalog cannot be asked about {table}: {str(error).strip()}") from error
