"""A folder of files through a real agent process to a real stream, killed on the way."""

from __future__ import annotations

import signal
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localaws.process import LocalAws
from tests.producer.conftest import PATIENCE_SECONDS, Arrived, Rig

FILES, LINES = 6, 700


@dataclass
class FilesRig(Rig):
    """A rig whose source is a folder."""

    @property
    def config(self) -> Path:
        (self.folder / "feed").mkdir(exist_ok=True)
        path = self.folder / "agent.toml"
        path.write_text(
            f"""
            [source]
            name = "{self.name}"
            [files]
            folder = "{self.folder}/feed"
            settle_seconds = 0
            [[files.tables]]
            name = "orders"
            pattern = "*.csv"
            format = "csv"
            columns = {{ id = "long" }}
            [spool]
            path = "{self.folder}/spool.db"
            linger_ms = 20
            block_bytes = 4096
            [aws]
            stream = "{self.name}"
            endpoint_url = "{self.aws.endpoint}"
            """
        )
        return path

    def drop(self, number: int) -> None:
        """A file as an orderly program drops it: under another name first."""
        lines = "".join(f"{number * LINES + line},text {line}\n" for line in range(LINES))
        (self.folder / "feed").mkdir(exist_ok=True)
        part = self.folder / "feed" / f"{number}.csv.part"
        part.write_text(f"id,note\n{lines}")
        part.rename(self.folder / "feed" / f"{number}.csv")


@pytest.fixture
def files_rig(request: pytest.FixtureRequest, tmp_path: Path, producer_aws: LocalAws) -> Iterator[FilesRig]:
    name = f"f{zlib.crc32(request.node.nodeid.encode())}"
    kinesis = producer_aws.client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    unused: Any = None
    rig = FilesRig(name, tmp_path, unused, producer_aws)
    try:
        yield rig
    finally:
        rig.stop()


def complete(rig: FilesRig, files: int) -> Arrived:
    """What arrived once progress has passed the last file and the table's snapshot ended."""

    def holds(seen: Arrived) -> bool:
        rows = seen.rows.get("orders", [])
        return len({row["id"] for row in rows}) >= files * LINES and "orders" in seen.snapshotted

    arrived = rig.until(holds)
    last = max(row["_lsn"] for row in arrived.rows["orders"])
    rig.until(lambda seen: seen.through >= last)
    return arrived


@pytest.mark.parametrize("place", ["spool.before_commit", "spool.after_commit", "source.confirmed", "sender.after_put"])
def test_a_kill_anywhere_loses_no_line_and_doubles_none(files_rig: FilesRig, place: str) -> None:
    """Every line of every file is in the stream once, in the order of files and lines."""
    for number in range(FILES // 2):
        files_rig.drop(number)
    agent = files_rig.start(failpoint=f"{place}:4")
    assert agent.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    for number in range(FILES // 2, FILES):
        files_rig.drop(number)
    files_rig.start()
    rows = complete(files_rig, FILES).rows["orders"]
    assert [row["id"] for row in rows] == list(range(FILES * LINES))
    assert [(row["_lsn"], row["_idx"]) for row in rows] == sorted((row["_lsn"], row["_idx"]) for row in rows)


def test_a_snapshot_on_request_reads_all_files_again(files_rig: FilesRig) -> None:
    """What a repair stages is the table: every line that was taken."""
    files_rig.drop(0)
    files_rig.start()
    complete(files_rig, 1)
    files_rig.aws.client("dynamodb").put_item(
        TableName="headrace-sources",
        Item={
            "source": {"S": files_rig.name},
            "item": {"S": "request:1"},
            "kind": {"S": "resnapshot"},
            "table": {"S": "orders"},
        },
    )
    arrived = files_rig.until(lambda seen: len(seen.ends) == 2)
    assert arrived.ends[1][2].count == LINES
