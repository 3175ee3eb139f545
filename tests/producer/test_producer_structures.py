"""A table without a key whose structure changes is read anew: its rows look different at the source from then on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from producer.blocks import Gatherer, Lane
from producer.budget import Budget
from producer.change import Change
from producer.control_lane import ControlLane
from producer.durable_end import DurableEnd
from producer.settings import SnapshotSettings
from producer.snapshot_pieces import PieceWriter
from producer.snapshots import Snapshotter
from producer.spool import Spool
from schemas.change_record import Column, TableSchema
from schemas.position import Position
from tests.producer.test_producer_snapshots import Tables

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOTES = TableSchema("shop", "a", (Column("n", "int", "n", "integer"),), (), whole_rows=True)
MORE = replace(NOTES, columns=(*NOTES.columns, Column("doc", "string", "doc", "text")))
WIDER = replace(NOTES, columns=(Column("n", "long", "n", "bigint"),))
TOLD = replace(NOTES, comment="what people say")


class Rig:
    """A spool that takes a change under one structure after the other, each in a transaction of its own."""

    def __init__(self, spool: Spool) -> None:
        self.spool, self.lsn = spool, 100
        spool.open_era(1, DurableEnd(1, 50, 50, 0))
        writer = PieceWriter("shop", spool, 1000, Budget(None))
        control, settings = ControlLane("shop", spool), SnapshotSettings(readers=1)
        self.snapshots = Snapshotter(1, spool, control, Tables(), settings, writer)

    def take(self, *structures: TableSchema) -> list[str]:
        """The tables that are announced for it."""
        gatherer = Gatherer("shop", 1000, self.spool.ends(1))
        for schema in structures:
            self.lsn += 10
            change = Change(schema.table, schema, "c", b"", Position(1, self.lsn, 0), 0, b"datum")
            gatherer.add(Lane(schema.table, "0"), change)
            gatherer.commit()
        self.spool.append(gatherer.whole(NOW), durable=DurableEnd(1, self.lsn, self.lsn + 1, 0), schemas=structures)
        before = len(self.spool.book.all())
        self.snapshots._announce_restructured()
        self.snapshots._announce_restructured()
        return [snapshot.table for snapshot in self.spool.book.all()[before:]]


def test_a_changed_structure_asks_for_a_snapshot_once(make_spool: Any) -> None:
    """Not the first structure, and not what leaves rows as they look: a wider type, a comment. Each way counts."""
    rig = Rig(make_spool())
    assert rig.take(NOTES) == []
    assert rig.take(NOTES, TOLD) == []
    assert rig.take(MORE) == ["a"]
    assert rig.take(MORE, MORE) == []
    assert rig.take(NOTES) == ["a"]
    assert rig.take(WIDER) == []
    assert rig.take(MORE, WIDER) == ["a"]


def test_a_table_that_was_append_only_is_read_anew(make_spool: Any) -> None:
    """Its deletes were not captured until now."""
    rig = Rig(make_spool())
    assert rig.take(replace(NOTES, whole_rows=False)) == []
    assert rig.take(NOTES) == ["a"]


def test_tables_with_a_key_and_append_only_ones_are_not_read_anew(make_spool: Any) -> None:
    """Their rows are told apart by the key, or never deleted."""
    rig = Rig(make_spool())
    keyed, more = (replace(schema, key=("n",), whole_rows=False) for schema in (NOTES, MORE))
    assert rig.take(keyed, more) == []
    plain, more = (replace(schema, whole_rows=False) for schema in (NOTES, MORE))
    assert rig.take(plain, more) == []


def test_what_is_asked_for_outlives_a_crash(make_spool: Any) -> None:
    """The spool remembers it with the block that showed it, until the snapshot is announced."""
    spool = make_spool()
    rig = Rig(spool)
    rig.take(NOTES)
    rig.snapshots._restructured = lambda: ()  # type: ignore[method-assign]
    assert rig.take(MORE) == []
    spool.close()
    again = make_spool()
    again.settle("a", NOTES.fingerprint().hex())  # announced under a structure before: this one is still due
    assert again.restructured() == [("a", MORE.fingerprint().hex())]
    again.settle("a", MORE.fingerprint().hex())
    assert again.restructured() == []
