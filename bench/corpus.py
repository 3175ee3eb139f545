"""The benchmark's changes on disk in every form, and the blocks that ours come in."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from bench.change_rows import ENVELOPES, SOURCE, TABLE, AvroForm, Change, changes, data_block, flat_json, table_schema
from bench.feed import PeerFiles, append_records
from schemas import block as blocks
from schemas import control
from schemas.block import Block, Kind
from schemas.control import LaneEnd, Progress
from schemas.position import Position

BLOCK_ROWS: Final = 8_000
"""About 480 KiB compressed: what the agent cuts from a backlog (512 KiB at most)."""


@dataclass(frozen=True)
class Corpus:
    """The changes in one lane's blocks; sizes: mean bytes of one change as a peer's record, by form."""

    rows: int
    blocks: tuple[Block, ...]
    sizes: dict[str, float]

    @property
    def wire_bytes(self) -> float:
        """Mean bytes of one change in blocks, headers included."""
        return sum(len(blocks.encode(block)) for block in self.blocks) / self.rows

    def lane(self, name: str, part: slice = slice(None)) -> list[tuple[str, str, bytes]]:
        """(table, lane, data) of the blocks, as those of a lane of that name that begins with them."""
        mine = self.blocks[part]
        renamed = [replace(block, lane=name, prev=block.prev if at else None) for at, block in enumerate(mine)]
        return [(TABLE, name, blocks.encode(block)) for block in renamed]

    def rows_of(self, part: slice) -> int:
        return sum(block.count for block in self.blocks[part])


COMPARED: Final = ("avro", "flat", "debezium")


def make(rows: int, folder: Path, forms: Sequence[str] = COMPARED) -> Corpus:
    """Writes the peers' files, in these forms, into the folder and returns ours."""
    folder.mkdir(parents=True)
    files, form, schema = PeerFiles(folder, forms), AvroForm(table_schema()), table_schema()
    sizes = dict.fromkeys(forms, 0)
    made: list[Block] = []
    load = changes(rows)
    while part := list(itertools.islice(load, BLOCK_ROWS)):
        columns = [form.columns(change.row) for change in part]
        for name in forms:
            items = _payloads(name, part, columns)
            files.write(name, items)
            sizes[name] += sum(map(len, items))
        datums = b"".join(form.ours(change, row) for change, row in zip(part, columns, strict=True))
        made.append(data_block(schema, "0", part, datums, made[-1].last if made else None))
    files.close()
    return Corpus(rows, tuple(made), {name: size / rows for name, size in sizes.items()})


def _payloads(form: str, part: Sequence[Change], columns: Sequence[bytes]) -> list[bytes]:
    if form == "avro":
        return [AvroForm.peers(change, row) for change, row in zip(part, columns, strict=True)]
    return [(flat_json if form == "flat" else ENVELOPES[form].json)(change) for change in part]


def bytes_in_blocks_of(rows_of_a_block: int, rows: int = 20_000) -> float:
    """Mean bytes of a change where blocks hold so few: what a lane's linger makes of a quiet table."""
    form, schema = AvroForm(table_schema()), table_schema()
    load, size = changes(rows), 0
    while part := list(itertools.islice(load, rows_of_a_block)):
        datums = b"".join(form.ours(change, form.columns(change.row)) for change in part)
        size += len(blocks.encode(data_block(schema, "0", part, datums, None)))
    return size / rows


def progress(lanes: dict[str, Position], corpus: Corpus) -> tuple[str, str, bytes]:
    """What the agent says once all of the lanes was accepted."""
    through = corpus.blocks[-1].last
    moment = corpus.blocks[-1].created_at + timedelta(seconds=1)
    vector = tuple(LaneEnd(TABLE, lane, last) for lane, last in lanes.items())
    datum = control.encode_progress(Progress(through.era, through.lsn, moment, vector, ()))
    at = Position(through.era, through.lsn, 0)
    block = blocks.build(
        Kind.PROGRESS,
        SOURCE,
        "",
        control.CONTROL_LANE,
        schema=blocks.NO_SCHEMA,
        prev=None,
        first=at,
        last=at,
        count=1,
        created_at=moment,
        datums=datum,
        codec=blocks.Codec.NULL,
    )
    return "", control.CONTROL_LANE, blocks.encode(block)


class FedStream:
    """The stream of files: what is sent to a shard stands behind what it held."""

    def __init__(self, folder: Path, shards: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = [folder / f"shardId-{number:012}.records" for number in range(shards)]
        for shard in range(shards):
            self.send(shard, [])

    def send(self, shard: int, records: list[tuple[str, str, bytes]]) -> None:
        keyed = [(control.partition_key(SOURCE, table, lane), data) for table, lane, data in records]
        append_records(self._paths[shard], keyed)
