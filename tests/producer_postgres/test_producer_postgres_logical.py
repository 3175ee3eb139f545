"""Logical messages (pg_logical_emit_message): they change no row, and leave no trace but a count."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from producer.change import Commit
from producer.postgres.capture import Transfer
from producer.postgres.identity import beat
from producer.postgres.transcode import LEAST_MESSAGES, Transcoder
from tests.producer_postgres.runs import singly

Make = Callable[..., Any]
Datum = Callable[..., dict[str, Any]]

LARGE = "SELECT pg_logical_emit_message({}, 'äpp \"x\"', repeat('m', 1048576))"
SAY = "SELECT pg_logical_emit_message({}, 'app', '')"
ROWS = "INSERT INTO a SELECT n FROM generate_series({}, {}) n"
SCRIPT = [
    LARGE.format("true"),
    LARGE.format("false"),
    f"BEGIN; {LARGE.format('true')}; {ROWS.format(1, 100)}; {LARGE.format('false')}; {ROWS.format(101, 101)}; "
    f"{LARGE.format('true')}; {ROWS.format(102, 200)}; {SAY.format('true')}; COMMIT",
    f"BEGIN; {ROWS.format(201, 250)}; {LARGE.format('true')}; {LARGE.format('false')}; ROLLBACK",
    f"BEGIN; {ROWS.format(251, 260)}; SAVEPOINT s; {LARGE.format('true')}; ROLLBACK TO s; {ROWS.format(261, 300)}; "
    "COMMIT",
    LARGE.format("false"),
]
TOLD = 8
"""Messages of SCRIPT that come: those of what was rolled back do not, unless they are not transactional."""
IDS = [*range(1, 201), *range(251, 301)]


@pytest.mark.parametrize("streaming", [False, True], ids=["kept", "streamed"])
@pytest.mark.parametrize("least", [sys.maxsize, 2, LEAST_MESSAGES], ids=["one by one", "two", "many"])
def test_messages_leave_no_trace_but_a_count(
    prepared: Make, datum: Datum, tmp_path: Path, least: int, streaming: bool
) -> None:
    """Inside, between and outside of transactions, of a megabyte, transactional and not: `_idx` has no gap, commits
    count changes only, and progress goes on."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    if streaming:
        up.source = replace(up.source, streamed=tmp_path / "streamed")
    transfer = Transfer()
    with up.capturing(least=least, transfer=transfer) as drain:
        up.run(*SCRIPT)
        beat(up.source)
        events = list(singly(drain()))
    changes = [event for event in events if hasattr(event, "datum")]
    assert [datum(change)["id"] for change in changes] == IDS
    positions = [change.position for change in changes]
    assert [position.idx for position in positions] == [*range(200), *range(50)]
    assert len({position.lsn for position in positions}) == 2
    commits = [event for event in events if isinstance(event, Commit)]
    assert [commit.changes for commit in commits if commit.changes][-1] == 50
    # pgoutput streams a message under its top transaction, so a sub-transaction that is rolled back leaves it.
    assert transfer.logical_messages == TOLD + streaming
    with up.capturing(after_lsn=commits[-1].lsn, least=least) as drain:
        assert drain() == []


def test_changes_around_messages_are_still_written_at_once(prepared: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that says something in every transaction is no slower for it."""
    made: list[Transcoder] = []
    init = Transcoder.__init__
    monkeypatch.setattr(Transcoder, "__init__", lambda self, *a, **k: made.append(self) or init(self, *a, **k))
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    up.run(*(f"BEGIN; {ROWS.format(n, n)}; {SAY.format('true')}; COMMIT" for n in range(400)))
    transfer = Transfer()
    with up.capturing(least=LEAST_MESSAGES, transfer=transfer) as drain:
        drain()
    assert transfer.logical_messages == 400
    assert made[-1].written > 300
