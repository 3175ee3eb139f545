"""pgoutput's messages as events: what changed, encoded, at which position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from producer.change import Begin, Change, Commit, Event, Rejected
from producer.errors import SourceProtocolBroken
from producer.postgres import messages
from producer.postgres.messages import UNCHANGED, Row
from producer.postgres.rows import Encoded, RowEncoder, Stamp, Unencodable
from schemas.position import Position

_NO_OLD_ROW: Final = (
    "the source did not send the whole old row, and the table has no key: "
    "ALTER TABLE ... REPLICA IDENTITY FULL, of each partition too; then take a new snapshot"
)


@dataclass
class OpenTransaction:
    """The transaction under way. skipped: it is in the spool already."""

    lsn: int
    committed_at: int
    stamp: Stamp
    skipped: bool
    emitted: int = 0


@dataclass
class Decoder:
    """Turns one stream's messages into events, in order.

    after_lsn: transactions that committed at or below it are passed over whole. describe: makes the encoder of a
    relation; asked once for every Relation message.
    """

    era: int
    after_lsn: int
    describe: Callable[[messages.Relation], RowEncoder]
    _encoders: dict[int, RowEncoder] = field(default_factory=dict)
    _transaction: OpenTransaction | None = None

    @property
    def between_transactions(self) -> bool:
        return self._transaction is None

    @property
    def open_transaction(self) -> OpenTransaction | None:
        return self._transaction

    def enter_transaction(self, lsn: int, committed_at: int, emitted: int, *, skipped: bool = False) -> None:
        """Stand within a transaction whose messages so far somebody else has decoded, into `emitted` changes."""
        stamp = Stamp.of(self.era, lsn, committed_at)
        self._transaction = OpenTransaction(lsn, committed_at, stamp, skipped, emitted)

    def close_transaction(self) -> None:
        """Stand between transactions."""
        self._transaction = None

    def encoder_of(self, oid: int) -> RowEncoder | None:
        """None for a relation that was not described."""
        return self._encoders.get(oid)

    def decode(self, data: bytes) -> list[Event]:
        """The events of one message. Raises SourceProtocolBroken where the stream makes no sense."""
        message = messages.parse(data)
        if isinstance(message, messages.Insert | messages.Update | messages.Delete):
            transaction = self._require_transaction()
            if transaction.skipped:
                return []
            return self._changes(transaction, message, data)
        if isinstance(message, messages.Begin):
            return self._begin(message)
        if isinstance(message, messages.Commit):
            return self._commit(message)
        if isinstance(message, messages.Relation):
            self._encoders[message.oid] = self.describe(message)
        elif isinstance(message, messages.Truncate):
            transaction = self._require_transaction()
            return [] if transaction.skipped else [self._truncate(transaction, oid) for oid in message.relations]
        return []

    def _begin(self, message: messages.Begin) -> list[Event]:
        if self._transaction is not None:
            raise SourceProtocolBroken(f"transaction {message.xid} begins inside another")
        stamp = Stamp.of(self.era, message.final_lsn, message.committed_at)
        skipped = message.final_lsn <= self.after_lsn
        self._transaction = OpenTransaction(message.final_lsn, message.committed_at, stamp, skipped)
        return [] if skipped else [Begin(message.final_lsn, message.committed_at, message.xid)]

    def _commit(self, message: messages.Commit) -> list[Event]:
        transaction = self._require_transaction()
        if message.lsn != transaction.lsn:
            raise SourceProtocolBroken(f"a transaction announced at {transaction.lsn} commits at {message.lsn}")
        self._transaction = None
        if transaction.skipped:
            return []
        return [Commit(message.lsn, message.end_lsn, message.committed_at, transaction.emitted)]

    def _changes(
        self, transaction: OpenTransaction, message: messages.Insert | messages.Update | messages.Delete, data: bytes
    ) -> list[Event]:
        encoder = self._encoder(message.relation)
        if isinstance(message, messages.Insert):
            return [self._change(transaction, encoder, "c", message.new, data)]
        if encoder.schema.whole_rows:
            return self._whole_rows(transaction, encoder, message, data)
        if isinstance(message, messages.Delete):
            return [self._change(transaction, encoder, "d", message.old, data)]
        return self._update(transaction, encoder, message, data)

    def _update(
        self, transaction: OpenTransaction, encoder: RowEncoder, message: messages.Update, data: bytes
    ) -> list[Event]:
        new = _completed(message, encoder.key)
        if message.old is None or _same_key(message.old, new, encoder.key):
            return [self._change(transaction, encoder, "u", new, data)]
        moved_from = encoder.key_text(message.old) if UNCHANGED in new else None
        return [
            self._change(transaction, encoder, "d", message.old, data),
            self._change(transaction, encoder, "c", new, data, moved_from),
        ]

    def _whole_rows(
        self, transaction: OpenTransaction, encoder: RowEncoder, message: messages.Update | messages.Delete, data: bytes
    ) -> list[Event]:
        """Without a key a row is known by all that it holds: an update takes the old row away and brings the new one.

        Where the source did not send the whole old row, nobody can tell which one is meant.
        """
        if message.old is None or message.old_kind != "O":
            op = "d" if isinstance(message, messages.Delete) else "u"
            return [self._rejected(transaction, encoder, op, _NO_OLD_ROW, data)]
        removed = self._change(transaction, encoder, "d", message.old, data)
        if isinstance(message, messages.Delete):
            return [removed]
        return [removed, self._change(transaction, encoder, "c", _completed(message, ()), data)]

    def _rejected(
        self, transaction: OpenTransaction, encoder: RowEncoder, op: str, reason: str, data: bytes
    ) -> Rejected:
        position = Position(self.era, transaction.lsn, transaction.emitted)
        transaction.emitted += 1
        shown = None if encoder.hides else data
        return Rejected(
            encoder.schema.table, encoder.schema, op, b"", None, position, transaction.committed_at, reason, shown
        )

    def _change(
        self,
        transaction: OpenTransaction,
        encoder: RowEncoder,
        op: str,
        row: Row,
        data: bytes,
        old_key: str | None = None,
    ) -> Event:
        idx = transaction.emitted
        transaction.emitted += 1
        position = Position(self.era, transaction.lsn, idx)
        return encode_change(encoder, op, row, position, transaction.committed_at, transaction.stamp, data, old_key)

    def _truncate(self, transaction: OpenTransaction, oid: int) -> Event:
        encoder = self._encoder(oid)
        idx = transaction.emitted
        transaction.emitted += 1
        datum = encoder.datum("t", transaction.stamp, idx, encoder.empty())
        position = Position(self.era, transaction.lsn, idx)
        return Change(encoder.schema.table, encoder.schema, "t", b"", position, transaction.committed_at, datum)

    def _encoder(self, oid: int) -> RowEncoder:
        encoder = self._encoders.get(oid)
        if encoder is None:
            raise SourceProtocolBroken(f"a change of relation {oid}, which was never described")
        return encoder

    def _require_transaction(self) -> OpenTransaction:
        if self._transaction is None:
            raise SourceProtocolBroken("a change outside a transaction")
        return self._transaction


def encode_change(
    encoder: RowEncoder,
    op: str,
    row: Row,
    position: Position,
    committed_at: int,
    stamp: Stamp,
    raw: bytes,
    old_key: str | None = None,
) -> Change | Rejected:
    """The change, or its rejection with reason and raw bytes where it has no datum."""
    schema = encoder.schema
    try:
        encoded: Encoded = encoder.encode(row)
    except Unencodable as error:
        key_text = encoder.key_text(row) if len(row) == len(encoder.mapped) else None
        shown = None if encoder.hides else raw
        return Rejected(schema.table, schema, op, b"", key_text, position, committed_at, str(error), shown)
    datum = encoder.datum(op, stamp, position.idx, encoded, old_key)
    return Change(schema.table, schema, op, encoder.key_of(encoded.columns), position, committed_at, datum)


def _completed(message: messages.Update, key: tuple[int, ...]) -> Row:
    """The new row with its unchanged values taken from the old one, where the source sent them: the whole old row
    under REPLICA IDENTITY FULL, else its key."""
    new, old = message.new, message.old
    if old is None or UNCHANGED not in new:
        return new
    known = range(len(new)) if message.old_kind == "O" else key
    return [old[place] if value is UNCHANGED and place in known else value for place, value in enumerate(new)]


def _same_key(old: Row, new: Row, key: tuple[int, ...]) -> bool:
    return all(old[place] == new[place] for place in key)
