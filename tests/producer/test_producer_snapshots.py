"""Snapshots: what is announced, when a group may be read, and what a table's trouble means to the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from producer.budget import Budget
from producer.control_lane import ControlLane
from producer.durable_end import DurableEnd
from producer.errors import SnapshotVoid, SourceRefused
from producer.groups import EVERYTHING, Group, Plan, cut_keys
from producer.settings import SnapshotSettings
from producer.snapshot_pieces import PieceWriter
from producer.snapshots import OpenSnapshot, Snapshotter
from schemas.block import Kind
from tests.producer.conftest import SCHEMA


class Tables:
    """A source of tables in two groups; `trouble` is what opening one of a table raises, once."""

    def __init__(self) -> None:
        self.names = ["a", "b"]
        self.opened: list[tuple[str, Group]] = []
        self.trouble: dict[str, Exception] = {}
        self.load: str | None = None

    def tables(self) -> list[str]:
        return self.names

    def current_lsn(self) -> int:
        return 100

    def plan(self, table: str, group_bytes: int) -> Plan:
        return Plan(cut_keys([("m",)]), rows=0)

    @contextmanager
    def open(self, table: str, group: Group) -> Iterator[OpenSnapshot]:
        if table in self.trouble:
            raise self.trouble.pop(table)
        self.opened.append((table, group))
        yield OpenSnapshot(200 + len(self.opened), SCHEMA, iter(()))

    def busy(self) -> str | None:
        return self.load


@pytest.fixture
def rig(make_spool):
    spool, source = make_spool(), Tables()
    spool.open_era(1, DurableEnd(1, 50, 50, 0))
    now = [0.0]
    control = ControlLane("shop", spool, clock=lambda: now[0])
    writer = PieceWriter("shop", spool, 1000, Budget(None))
    settings = SnapshotSettings(readers=1)

    def announce() -> None:
        now[0] += 20
        assert control.take() is not None
        control.accepted()

    return spool, source, announce, Snapshotter(1, spool, control, source, settings, writer, clock=lambda: now[0])


def _announced(snapshots: Snapshotter) -> None:
    snapshots._announce_missing()
    snapshots._cut_announced()


def _read_all(snapshots: Snapshotter) -> None:
    while (found := snapshots.next_piece()) is not None:
        with snapshots._kept_apart(found[0]):
            snapshots._read(*found, threading.Event())


def test_no_point_is_fixed_before_the_announcement_was_accepted(rig):
    """Readers hold their fold line below the announced bound from then on, and not before."""
    spool, _, announce, snapshots = rig
    _announced(snapshots)
    assert snapshots.next_piece() is None
    announce()
    assert snapshots.next_piece() is not None
    assert [snapshot.low for snapshot in spool.book.all()] == [100, 100]


def test_groups_are_read_once_and_end_the_snapshot_together(rig):
    spool, source, announce, snapshots = rig
    _announced(snapshots)
    announce()
    assert [(item.groups, item.groups_done) for item in snapshots.progress()] == [(2, 0), (2, 0)]
    _read_all(snapshots)
    assert len(source.opened) == len(set(source.opened)) == 4
    assert {snapshot.state for snapshot in spool.book.all()} == {"ended"}
    assert snapshots.progress() == []
    _announced(snapshots)
    assert len(spool.book.all()) == 2


def test_one_tables_trouble_is_not_the_others(rig):
    """It is told, and tried again later; the other table is read meanwhile."""
    _, source, announce, snapshots = rig
    _announced(snapshots)
    announce()
    source.trouble["a"] = SourceRefused("no snapshot of a", ["GRANT SELECT ON a"])
    _read_all(snapshots)
    assert {table for table, _ in source.opened} == {"b"}


def test_groups_that_hold_no_more_begin_a_new_snapshot(rig):
    """Under a new number: the old one is abandoned, and readers are told so."""
    spool, source, announce, snapshots = rig
    source.names = ["a"]
    _announced(snapshots)
    announce()
    source.trouble["a"] = SnapshotVoid("a was rewritten")
    _read_all(snapshots)
    assert [(s.snapshot, s.state) for s in spool.book.all()] == [(1_000_001, "abandoned"), (1_000_002, "announced")]


def test_a_requested_snapshot_replaces_an_unfinished_one_and_a_dropped_table_needs_none(rig):
    spool, source, _, snapshots = rig
    _announced(snapshots)
    snapshots.request("a")
    source.names = ["a"]
    _announced(snapshots)
    assert [(s.table, s.state) for s in spool.book.all()] == [("a", "abandoned"), ("b", "abandoned"), ("a", "running")]
    assert spool.book.pieces(1_000_003)[0].group != EVERYTHING
    source.names = ["a", "b"]
    _announced(snapshots)
    assert [(s.table, s.state) for s in spool.book.all()][3:] == [("b", "running")]


def test_no_new_group_begins_while_the_source_is_busy(rig):
    """Looked at every few seconds; what is being read is read to its end."""
    _, source, announce, snapshots = rig
    _announced(snapshots)
    announce()
    source.load = "a replica is behind"
    snapshots._look_at_load()
    assert snapshots.next_piece() is None
    source.load = None
    snapshots._look_at_load()
    assert snapshots.next_piece() is None
    announce()
    snapshots._look_at_load()
    assert snapshots.next_piece() is not None


def test_a_group_that_finds_no_room_is_given_up_and_read_anew(make_spool, make_change):
    """Half of the spool is for changes; what waits for longer than a while would hold back the source's vacuum."""
    spool, source = make_spool(max_bytes=20_000), Tables()
    source.names = ["a"]
    spool.open_era(1, DurableEnd(1, 50, 50, 0))
    control = ControlLane("shop", spool)
    writer = PieceWriter("shop", spool, 1000, Budget(None), patience_seconds=0.0)
    snapshots = Snapshotter(1, spool, control, source, SnapshotSettings(readers=1), writer)
    _announced(snapshots)
    control.take()
    control.accepted()
    snapshot, piece = snapshots.next_piece()
    rows = (make_change(199, n, size=900) for n in range(30))
    assert writer.write(snapshot, piece, 1, OpenSnapshot(200, SCHEMA, rows), threading.Event()) is None
    assert not spool.full()
    assert spool.full(0.5)
    assert snapshots.next_piece() is None
    (lane,) = spool.lanes_with_blocks()
    while (block := spool.head(lane)) is not None:
        assert block.kind is Kind.SNAPSHOT
        spool.accepted([block])
    assert snapshots.next_piece() is not None
