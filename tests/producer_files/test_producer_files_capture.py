"""Files as a stream of transactions: each once, in order, whole, and as it was taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.change import Begin, Keepalive
from producer.errors import SourceUnreachable
from producer.files.folder import Folder, Rest
from producer.settings import FileTable
from tests.producer_files.conftest import CSV, Feed, commits, rejects, rows, taken

Make = Callable[..., Feed]


def test_a_file_is_a_transaction_of_its_lines(feed: Make) -> None:
    """The position says which file and which line; the row says so for people."""
    source = feed()
    source.drop("orders/a.csv", "id,name\n1,Ada\n2,Bob\n")
    source.drop("orders/b.csv", "id,name\n3,Cy\n")
    events = taken(source.capture())
    assert [(e.lsn, e.committed_at > 0) for e in events if isinstance(e, Begin)] == [(8, True), (16, True)]
    assert commits(events) == [8, 16]
    found = [
        (row["_op"], row["_lsn"], row["_idx"], row["file_name"], row["line_number"], row["id"]) for row in rows(events)
    ]
    assert found == [
        ("c", 8, 0, "orders/a.csv", 2, "1"),
        ("c", 8, 1, "orders/a.csv", 3, "2"),
        ("c", 16, 0, "orders/b.csv", 2, "3"),
    ]


def test_a_restart_hands_on_what_is_not_durable_again_and_nothing_else(feed: Make) -> None:
    """At the same positions, also when other files with earlier names came meanwhile."""
    source = feed()
    source.drop("orders/b.csv", "id\n1\n")
    source.drop("orders/c.csv", "id\n2\n")
    first = taken(source.capture())
    source.drop("orders/a.csv", "id\n3\n")
    again = taken(source.capture(after_lsn=8))
    assert rows(again)[:1] == rows(first)[1:]
    assert [(row["_lsn"], row["id"]) for row in rows(again)] == [(16, "2"), (24, "3")]


def test_a_file_that_still_grows_is_left_alone(feed: Make) -> None:
    """It is taken once it has not changed for settle_seconds, counted from the look that saw it so."""
    source = feed()
    folder, rest = Folder(source.settings), Rest(5)
    source.drop("orders/a.csv", "id\n1\n")
    assert rest.settled(folder.look(), {}, now=100) == []
    source.drop("orders/a.csv", "id\n1\n2\n")
    assert rest.settled(folder.look(), {}, now=104) == []
    assert rest.settled(folder.look(), {}, now=108.9) == []
    assert [found.seen.path for found in rest.settled(folder.look(), {}, now=109)] == ["orders/a.csv"]


@pytest.mark.parametrize("name", ["orders/.a.csv", "orders/_a.csv", "orders/a.csv.part", "orders/a.csv~", "b/a.csv"])
def test_names_of_unfinished_and_of_other_files_are_passed_over(feed: Make, name: str) -> None:
    source = feed(FileTable("orders", "orders/*", "csv"))
    source.drop(name, "id\n1\n")
    assert taken(source.capture()) == []


def test_a_parquet_file_without_its_footer_is_half_written(feed: Make, tmp_path: Path) -> None:
    """However long it rests; it is taken when it is whole."""
    source = feed(FileTable("orders", "*.parquet", "parquet"))
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    capture = source.capture()
    source.drop("a.parquet", whole[:-7])
    assert taken(capture) == []
    source.drop("a.parquet", whole)
    assert [row["id"] for row in rows(taken(capture))] == [1, 2]


def test_a_taken_file_that_gets_other_content_is_told(feed: Make) -> None:
    """As a reject of the table, once; its new rows are not loaded silently, nor left out silently."""
    source = feed()
    source.drop("orders/a.csv", "id\n1\n")
    capture = source.capture()
    taken(capture)
    source.drop("orders/a.csv", "id\n1\n2\n")
    events = taken(capture)
    assert (rows(events), commits(events)) == ([], [16])
    assert rejects(events)[0].reason.startswith("orders/a.csv: it was changed after it was taken")
    assert taken(capture) == []


def test_a_file_that_was_only_touched_is_the_same(feed: Make) -> None:
    source = feed()
    path = source.drop("orders/a.csv", "id\n1\n")
    capture = source.capture()
    taken(capture)
    os.utime(path, (1_800_000_000, 1_800_000_000))
    assert taken(capture) == []


def test_a_file_that_changes_while_it_is_read_is_read_again(feed: Make) -> None:
    """Nothing of its first reading counts: the stream breaks off before its commit."""
    source = feed()
    source.drop("orders/a.csv", "id\n" + "".join(f"{n}\n" for n in range(5_000)))
    capture = source.capture()
    begun = capture.poll(0)
    assert commits(begun) == []
    source.drop("orders/a.csv", "id\n7\n")
    with pytest.raises(SourceUnreachable, match="changed while it was read"):
        taken(capture)
    with pytest.raises(SourceUnreachable, match="is read when it rests"):
        taken(source.capture())
    events = taken(source.capture())
    assert ([row["id"] for row in rows(events)], commits(events)) == (["7"], [8])


def test_a_file_that_was_taken_away_unread_is_told(feed: Make) -> None:
    """It cannot be loaded any more: a reject says so, and the next file goes on."""
    source = feed()
    path = source.drop("orders/a.csv", "id\n1\n")
    source.drop("orders/b.csv", "id\n2\n")
    source.capture().poll(0)
    path.unlink()
    events = taken(source.capture())
    assert rejects(events)[0].reason.startswith("orders/a.csv: it was taken away before it was read")
    assert [row["id"] for row in rows(events)] == ["2"]


def test_a_folder_that_is_away_is_waited_for(feed: Make) -> None:
    """A file system that is not mounted has lost no file."""
    source = feed()
    source.drop("orders/a.csv", "id\n1\n")
    source.capture().poll(0)
    folder = source.settings.folder
    folder.rename(folder.with_name("away"))
    with pytest.raises(SourceUnreachable, match="is not there"):
        source.capture().poll(0)


def test_the_archive_gets_what_the_source_may_forget(feed: Make, tmp_path: Path) -> None:
    """And the name in the folder is free for another file."""
    source = feed(archive=tmp_path / "archive")
    path = source.drop("orders/a.csv", "id\n1\n")
    capture = source.capture()
    taken(capture)
    capture.confirm(8)
    assert path.exists()
    capture.confirm(16)
    assert not path.exists()
    assert (tmp_path / "archive/orders/000000000001-a.csv").read_text() == "id\n1\n"
    source.drop("orders/a.csv", "id\n2\n")
    assert [(row["_lsn"], row["id"]) for row in rows(taken(capture))] == [(16, "2")]


def test_an_idle_folder_says_how_far_all_is_told(feed: Make) -> None:
    """Nothing can come below the next number's position."""
    source = feed()
    source.drop("orders/a.csv", "id\n1\n")
    capture = source.capture()
    taken(capture)
    assert capture.poll(0) == [Keepalive(16)]


def test_the_confirmed_position_never_goes_back(feed: Make) -> None:
    ledger = feed().ledger
    ledger.confirm(24)
    ledger.confirm(16)
    assert ledger.confirmed == 24


def test_a_file_belongs_to_the_first_table_that_names_it(feed: Make) -> None:
    source = feed(CSV, FileTable("rest", "**/*.csv", "csv"))
    source.drop("orders/a.csv", "id\n1\n")
    source.drop("other/a.csv", "id\n2\n")
    events = taken(source.capture())
    assert [event.table for event in events if type(event).__name__ == "Change"] == ["orders", "rest"]
