"""What a slot sends again: the proof that spool and source speak of one history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from producer.change import Commit
from producer.continuity import Known
from producer.postgres.overlap import last_resent

Make = Callable[..., Any]


def test_the_last_transaction_up_to_the_end_is_found_and_nothing_is_confirmed(prepared: Make) -> None:
    """Whatever commits behind the end is left out, and so are transactions that change nothing captured."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)", "CREATE UNLOGGED TABLE u (id int)")
    with up.capturing() as drain:
        up.run("INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2)")
        up.run("SELECT pg_logical_emit_message(true, 'x', 'y')", "INSERT INTO u VALUES (1)")
        commits = [event for event in drain() if isinstance(event, Commit) and event.changes]
    first, second = (Known(commit.lsn, commit.committed_at) for commit in commits[:2])
    position = f"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{up.source.slot}'"
    before = up.query(position)
    assert last_resent(up.source, second.lsn) == second
    assert last_resent(up.source, second.lsn + 8) == second
    assert last_resent(up.source, second.lsn - 1) == first
    assert last_resent(up.source, first.lsn - 1) is None
    assert up.query(position) == before
