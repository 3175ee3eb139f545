"""A folder as a source: what a start checks, and what a snapshot reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.change import Change
from producer.errors import ConfigurationRefused, SourceRefused, SourceUnreachable
from producer.files.source import FolderTables
from producer.groups import EVERYTHING
from producer.settings import parse
from tests.producer_files.conftest import taken


def source(tmp_path: Path, **files: object) -> FolderTables:
    table = {"name": "orders", "pattern": "*.csv", "format": "csv", "columns": {"id": "long"}}
    document = {
        "source": {"name": "feeds"},
        "spool": {"path": f"{tmp_path}/spool.db"},
        "files": {"folder": f"{tmp_path}/feed", "settle_seconds": 0, "tables": [table], **files},
    }
    return FolderTables(parse(document, "agent.toml"))


def test_a_snapshot_holds_every_row_that_was_taken_and_no_bad_line(tmp_path: Path) -> None:
    """A bad line was rejected when its file was read first; here it would make the snapshot void."""
    (tmp_path / "feed").mkdir()
    (tmp_path / "feed/a.csv").write_text("id\n1\nx\n3\n\n4\n")
    feeds = source(tmp_path)
    taken(feeds.capture(1, 7))  # type: ignore[arg-type]
    with feeds.open("orders", EVERYTHING, 1) as snapshot:
        rows = list(snapshot.rows)
    assert all(isinstance(row, Change) for row in rows)
    assert [(row.op, row.position.lsn, row.position.idx) for row in rows] == [("r", 15, n) for n in range(3)]
    assert (snapshot.consistent_point, feeds.current_lsn()) == (16, 24)


def test_a_snapshot_without_one_of_its_files_is_not_taken(tmp_path: Path) -> None:
    """It would make the table smaller than it is."""
    (tmp_path / "feed").mkdir()
    (tmp_path / "feed/a.csv").write_text("id\n1\n")
    feeds = source(tmp_path)
    taken(feeds.capture(1, 7))  # type: ignore[arg-type]
    (tmp_path / "feed/a.csv").unlink()
    with pytest.raises(SourceUnreachable, match=r"put back a\.csv"), feeds.open("orders", EVERYTHING, 1):
        pass


def test_an_archive_within_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "feed").mkdir()
    with pytest.raises(SourceRefused, match="its files would be taken again"):
        source(tmp_path, archive=f"{tmp_path}/feed/done").check()


def test_a_folder_that_is_missing_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable, match="create it, or mount it"):
        source(tmp_path).check()


def test_what_is_wrong_with_a_table_of_files_is_said_with_the_types_that_exist(tmp_path: Path) -> None:
    table = {
        "name": "orders",
        "pattern": "../*.csv",
        "format": "xml",
        "columns": {"id": "bigint"},
        "encoding": "klingon",
    }
    with pytest.raises(ConfigurationRefused) as refused:
        source(tmp_path, tables=[table])
    problems = "\n".join(refused.value.problems)
    for part in ("pattern: expected a pattern below", "csv, jsonl, parquet or avro", "decimal(p,s)", "klingon"):
        assert part in problems
