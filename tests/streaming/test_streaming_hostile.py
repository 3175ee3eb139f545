"""Hostile and damaged records: never a crash, never a wrong row, never more memory than the bounds allow."""

import importlib.util
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from backports import zstd
from botocore.exceptions import ClientError

from glue_streaming import claims, pending_rows
from glue_streaming.holes import Hole
from glue_streaming.pending_rows import PendingRows
from glue_streaming.task import LaneKey, Outcome
from schemas import block as blocks
from schemas.block import Block, Codec, Kind
from schemas.position import Position

SCRIPT = Path(__file__).parent / "fuzz_blocks.py"
SEEDS = int(os.environ.get("HEADRACE_FUZZ_SEEDS", "24"))
LANE = LaneKey("shop", "orders", "0")


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_blocks", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_blocks"] = module
    spec.loader.exec_module(module)
    return module


fuzz = _module()


def told(folder: Path) -> Iterator[dict[str, Any]]:
    """What the fuzzer says of every seed. A reader that hangs takes its process with it; the next one goes on."""
    seed = 0
    while seed < SEEDS:
        child = subprocess.run(
            [sys.executable, str(SCRIPT), str(folder), str(seed), str(SEEDS - 1)],
            env={**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent.parent)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        lines = [json.loads(line) for line in child.stdout.splitlines()]
        assert lines, child.stderr
        yield from lines
        seed = lines[-1]["seed"] + 1


@pytest.mark.slow
def test_damage_of_any_kind_loads_no_wrong_row_and_loses_none_silently(tmp_path: Path) -> None:
    """Flipped bits, cut records, hostile lengths and wrong counts behind a right checksum: every row in the files is
    one that was sent, at most once, and what is missing below the mark lies in a hole. `HEADRACE_FUZZ_SEEDS=1000` for a
    long run."""
    assert [item for item in told(tmp_path) if item["wrong"]] == []


def loaded(*some: Block | bytes, folder: Path) -> tuple[Outcome, list[int], dict[str, bytes]]:
    records = [blocks.encode(item) if isinstance(item, Block) else item for item in some]
    outcome, rows, stream = fuzz.loaded(records, folder)
    return outcome, [row["id"] for row in rows], stream.kept


def only_hole(outcome: Outcome) -> Hole:
    (hole,) = outcome.lanes[LANE][0].holes
    return hole


def test_whole_blocks_load_whole(tmp_path: Path) -> None:
    """The yardstick: without damage all rows are there, and nothing is kept as raw bytes."""
    outcome, ids, kept = loaded(*fuzz.chained(4), folder=tmp_path)
    assert (ids, outcome.malformed, kept) == (list(range(32)), 0, {})


def test_a_header_that_says_other_positions_than_its_rows_is_a_hole(tmp_path: Path) -> None:
    """The checksum is the payload's. A mark far ahead would make duplicates of everything that follows."""
    first, second = fuzz.chained(2)
    outcome, ids, kept = loaded(first, replace(second, last=Position(1, 10**9, 0)), folder=tmp_path)
    assert ids == list(range(8))
    assert "the rows are those of" in only_hole(outcome).reason
    assert len(kept) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda block: replace(block, table="order"),
        lambda block: replace(block, lane="1"),
        lambda block: replace(block, kind=Kind.SNAPSHOT),
        lambda block: replace(block, kind=Kind.SNAPSHOT_END),
        lambda block: replace(block, source="shup"),
    ],
    ids=["table", "lane", "snapshot", "end", "source"],
)
def test_a_header_that_names_another_lane_or_kind_is_no_block(tmp_path: Path, damage: Callable[[Block], Block]) -> None:
    """The record's key names its lane, too; and a lane of changes holds no rows of a snapshot."""
    first, second = fuzz.chained(2)
    outcome, ids, kept = loaded(first, damage(second), folder=tmp_path)
    assert (ids, outcome.malformed, len(kept)) == (list(range(8)), 1, 1)
    assert list(outcome.lanes) == [LANE]


def test_a_block_that_overlaps_the_mark_stops_nothing(tmp_path: Path) -> None:
    """It cannot be one of ours: its bytes are kept, and the lane goes on with the next that fits."""
    first, second, third = fuzz.chained(3)
    overlapping = replace(second, prev=Position(1, 1, 0))
    outcome, ids, _ = loaded(first, overlapping, second, third, folder=tmp_path)
    assert (ids, outcome.malformed) == (list(range(24)), 1)


@pytest.mark.parametrize("codec", [Codec.ZSTANDARD, Codec.DEFLATE])
def test_a_zip_bomb_is_a_hole_and_takes_bounded_memory(tmp_path: Path, codec: Codec) -> None:
    """A few kilobytes that unpack to a gigabyte: unpacking stops at the bound."""
    (block,) = fuzz.chained(1, codec=codec)
    piece = bytes(2**24)
    if codec is Codec.ZSTANDARD:
        packer = zstd.ZstdCompressor(level=1)
        bomb = b"".join([*(packer.compress(piece) for _ in range(64)), packer.flush()])
    else:
        bomb = blocks.compress(codec, bytes(2**28))
    tracemalloc.start()
    outcome, ids, _ = loaded(replace(block, records=bomb), folder=tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ids == []
    assert f"unpacks to more than {claims.MAX_PAYLOAD_BYTES} bytes" in only_hole(outcome).reason
    assert peak < 2.5 * claims.MAX_PAYLOAD_BYTES  # the unpacker joins its pieces


@pytest.mark.parametrize("count", [10**9, 2**31 - 1])
def test_an_absurd_count_is_a_hole_at_once(tmp_path: Path, count: int) -> None:
    """No memory is asked for what the bytes cannot hold."""
    (block,) = fuzz.chained(1)
    outcome, _, _ = loaded(replace(block, count=count), folder=tmp_path)
    assert f"cannot hold the {count} records" in only_hole(outcome).reason


def test_rows_that_would_not_fit_in_memory_are_a_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A null is a byte on the wire and more in memory."""
    monkeypatch.setattr(pending_rows, "_MAX_ROWS_BYTES", 500)
    outcome, ids, _ = loaded(*fuzz.chained(1), folder=tmp_path)
    assert ids == []
    assert "of memory" in only_hole(outcome).reason


def test_a_batch_that_unpacks_to_much_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a task holds at once is bounded by what it unpacks to; the rows are the same, in more files."""
    held = []
    write = PendingRows._write

    def watched(self: Any, *arguments: Any) -> None:
        held.append(self._bytes)
        write(self, *arguments)

    monkeypatch.setattr(PendingRows, "_write", watched)
    monkeypatch.setattr(pending_rows, "_PENDING_BYTES", 5_000)
    outcome, ids, _ = loaded(*fuzz.chained(20), folder=tmp_path)
    assert ids == list(range(160))
    assert len(outcome.files) > 2
    assert max(held) <= 5_000


def test_a_claim_to_anywhere_else_is_a_hole(tmp_path: Path) -> None:
    """A place that is none is not asked for."""
    (block,) = fuzz.chained(1)
    outcome, _, _ = loaded(replace(block, records=b"", claim="http://[x"), folder=tmp_path)
    assert "no place on S3" in only_hole(outcome).reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject"), "not where the block claims it"),
        ({"ContentLength": 2**40}, "has 1099511627776 bytes"),
    ],
    ids=["denied", "huge"],
)
def test_a_claim_that_cannot_be_had_is_a_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, reason: str
) -> None:
    """Missing (which S3 may call denied), or larger than any block: it is not read."""

    def get_object(self: Any, **_: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(fuzz.Stream, "get_object", get_object, raising=False)
    (block,) = fuzz.chained(1)
    outcome, _, _ = loaded(replace(block, records=b"", claim="s3://lake/claims/1"), folder=tmp_path)
    assert reason in only_hole(outcome).reason
