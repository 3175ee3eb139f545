"""The fence: files and properties land together, once, or not at all; two kinds of writers never undo each other."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from glue_streaming import commit, data_files, lake_table
from glue_streaming.aws import Aws
from glue_streaming.errors import CommitUnknown, StaleWriter
from glue_streaming.holes import Hole
from glue_streaming.state import FoldState, Mark, StreamState, Totals, fold_state, stream_state
from schemas.position import Line, Position

MARKED = StreamState(epoch=1, marks={"0": Mark(Position(1, 10, 0), "shard", "1")}, totals=Totals(1, 100, 1))
LATER = replace(MARKED, marks={"0": Mark(Position(1, 20, 0), "shard", "2")})


@pytest.fixture
def table(world: Any) -> Table:
    return lake_table.ensure(Aws().catalog, world.schema("orders"), world.bucket)


def again(table: Table) -> Table:
    """The table as another process sees it."""
    return Aws().catalog.load_table(table.name())


def file_of(table: Table, *ids: int, tier: str = "log") -> DataFile:
    target = data_files.arrow_schema(table.schema())
    rows = [
        {"_op": "c", "_era": 1, "_lsn": number, "_idx": 0, "id": number, "_tier": tier, "_batch": 1} for number in ids
    ]
    filled = [{name: row.get(name) for name in target.names} for row in rows]
    written = data_files.write(
        pa.Table.from_pylist(filled, schema=target),
        schema=table.schema(),
        location=table.location(),
        tier=tier,
        io=table.io,
    )
    assert written is not None
    return written.to_data_file(table.spec().spec_id)


def log_files(table: Table) -> list[DataFile]:
    """The table's files as a fold finds them."""
    return [task.file for task in again(table).scan().plan_files()]


def ids(table: Table) -> list[int]:
    return sorted(again(table).scan().to_arrow()["id"].to_pylist())


def before_the_catalog(table: Table, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Lets another writer act between this one's look at the table and its commit, once."""
    original = table.catalog.commit_table

    def interrupted(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(table.catalog, "commit_table", original)
        act()
        return original(*arguments, **more)

    monkeypatch.setattr(table.catalog, "commit_table", interrupted)


def test_files_and_marks_land_together(table: Table) -> None:
    """One commit carries both; a later look finds both."""
    assert commit.append(table, [file_of(table, 1)], expected=StreamState(), new=MARKED)
    assert ids(table) == [1]
    assert stream_state(again(table).properties) == MARKED


def test_marks_without_rows_are_committed(table: Table) -> None:
    """A hole moves a mark and brings no rows: that is a commit; nothing at all is none."""
    assert commit.append(table, [], expected=StreamState(), new=MARKED)
    assert stream_state(again(table).properties) == MARKED
    assert not commit.append(table, [], expected=MARKED, new=MARKED)


def test_marks_that_moved_refuse_the_commit(table: Table) -> None:
    """A writer whose marks are not the table's writes nothing."""
    commit.append(again(table), [file_of(table, 1)], expected=StreamState(), new=MARKED)
    with pytest.raises(StaleWriter):
        commit.append(table, [file_of(table, 2)], expected=StreamState(), new=LATER)
    assert ids(table) == [1]


def test_holes_that_changed_refuse_the_commit(table: Table) -> None:
    """A resend fills a hole below the mark: with equal marks, the holes alone tell that another writer was there."""
    hole = Hole("0", None, Position(1, 5, 0), "gap", "2026-01-02T03:00:00+00:00")
    holed = replace(MARKED, holes=(hole,))
    commit.append(table, [file_of(table, 1)], expected=StreamState(), new=holed)
    commit.append(again(table), [file_of(table, 2)], expected=holed, new=MARKED)
    with pytest.raises(StaleWriter):
        commit.append(again(table), [file_of(table, 2)], expected=holed, new=LATER)
    assert ids(table) == [1, 2]


def test_marks_that_move_during_the_commit_refuse_its_retry(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence holds inside PyIceberg's own retry, which would move the marks back."""
    other = again(table)
    before_the_catalog(
        table,
        monkeypatch,
        lambda: assert_true(commit.append(other, [file_of(other, 1)], expected=StreamState(), new=MARKED)),
    )
    with pytest.raises(StaleWriter):
        commit.append(table, [file_of(table, 2)], expected=StreamState(), new=LATER)
    assert ids(table) == [1]
    assert stream_state(again(table).properties) == MARKED


def test_an_older_epoch_is_refused(table: Table) -> None:
    """A driver that was superseded cannot write, even where the marks are the ones it knows."""
    newer = replace(MARKED, epoch=5)
    commit.append(again(table), [file_of(table, 1)], expected=StreamState(), new=newer)
    with pytest.raises(StaleWriter, match="epoch"):
        commit.append(table, [file_of(table, 2)], expected=newer, new=replace(LATER, epoch=4))


def test_a_fold_and_an_append_race_and_both_land(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold removes what it read and keeps what was appended meanwhile; each writer's properties stay its own."""
    commit.append(table, [file_of(table, 1)], expected=StreamState(), new=MARKED)
    first = log_files(table)
    catalog, other = Aws().catalog, again(table)
    folder = catalog.load_table(table.name())
    before_the_catalog(
        folder,
        monkeypatch,
        lambda: assert_true(commit.append(other, [file_of(other, 2)], expected=MARKED, new=LATER)),
    )
    commit.replace(
        folder.catalog,
        ".".join(table.name()),
        remove=first,
        add=[file_of(table, 1, tier="base")],
        expected=FoldState(),
        new=FoldState(Line(1, 10)),
        summary={},
    )
    assert ids(table) == [1, 2]
    properties = again(table).properties
    assert (stream_state(properties), fold_state(properties).line) == (LATER, Line(1, 10))


def test_an_append_that_meets_a_fold_keeps_the_fold_line(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way round: an append that is retried behind a fold does not put the old fold line back."""
    commit.append(table, [file_of(table, 1)], expected=StreamState(), new=MARKED)
    first = log_files(table)

    def fold() -> None:
        commit.replace(
            Aws().catalog,
            ".".join(table.name()),
            remove=first,
            add=[file_of(table, 1, tier="base")],
            expected=FoldState(),
            new=FoldState(Line(1, 10)),
            summary={},
        )

    before_the_catalog(table, monkeypatch, fold)
    commit.append(table, [file_of(table, 2)], expected=MARKED, new=LATER)
    assert ids(table) == [1, 2]
    assert fold_state(again(table).properties).line == Line(1, 10)


def test_of_two_folds_one_is_refused(table: Table) -> None:
    """Both began at the same line; the second would remove files that are gone."""
    commit.append(table, [file_of(table, 1)], expected=StreamState(), new=MARKED)
    first = log_files(table)

    def fold() -> None:
        base = [file_of(table, 1, tier="base")]
        new = FoldState(Line(1, 10))
        name = ".".join(table.name())
        commit.replace(Aws().catalog, name, remove=first, add=base, expected=FoldState(), new=new, summary={})

    fold()
    with pytest.raises(StaleWriter):
        fold()
    assert ids(table) == [1]


@pytest.mark.parametrize("seen", [CommitFailedException("version conflict"), ConnectionError("reset by peer")])
def test_a_lost_answer_counts_as_done(table: Table, monkeypatch: pytest.MonkeyPatch, seen: Exception) -> None:
    """The catalog took the commit, the client saw an error: the table is asked, and nothing is done twice."""
    original = table.catalog.commit_table

    def lost(*arguments: Any, **more: Any) -> Any:
        original(*arguments, **more)
        raise seen

    monkeypatch.setattr(table.catalog, "commit_table", lost)
    assert commit.append(table, [file_of(table, 1)], expected=StreamState(), new=MARKED)
    assert ids(table) == [1]
    assert stream_state(again(table).properties) == MARKED


def test_an_outcome_that_cannot_be_looked_up_is_unknown(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the catalog answers neither, the caller is told so, and not that it failed."""

    def unreachable(*_: Any, **__: Any) -> Any:
        monkeypatch.setattr(table.catalog, "load_table", unreachable)
        raise ConnectionError("no route to host")

    file = file_of(table, 1)
    monkeypatch.setattr(table.catalog, "commit_table", unreachable)
    with pytest.raises(CommitUnknown):
        commit.append(table, [file], expected=StreamState(), new=MARKED)


def assert_true(value: bool) -> None:
    assert value
