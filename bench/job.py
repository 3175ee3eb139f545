"""The streaming job as a contender: its process, a laptop's AWS of its own, and what is sent to it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final

from bench import corpus as corpora
from bench import laptop as laptops
from bench.change_rows import SOURCE, table_schema
from bench.contender import Contender, Run
from bench.corpus import Corpus, FedStream
from localaws.process import running
from schemas.position import Position

_BATCH_BYTES: Final = 128 * 1024 * 1024
"""A run is one batch, as a peer's is one append."""


class Job:
    """Every run sends the changes again, in one new lane a shard; the table grows."""

    def __init__(self, folder: Path, *, runner: str, feed: str, shards: int = 1, cores: int = 1) -> None:
        folder.mkdir()
        self._open = ExitStack()
        aws = self._open.enter_context(running(folder / "aws"))
        self._laptop = laptops.make(aws, SOURCE, shards)
        self._laptop.register(table_schema())
        self._laptop.set(bytes_per_shard=_BATCH_BYTES, seconds_per_shard=60)
        self._kinesis = aws.client("kinesis")
        self._files = FedStream(folder / "stream", shards) if feed == "file" else None
        self._shards = shards
        self._lanes: dict[str, Position] = {}
        words = [runner, feed, str(folder), str(cores), *self._laptop.arguments()]
        self._contender = self._open.enter_context(Contender("bench.ours", words, folder / "log", aws.environment()))

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def run(self, changes: Corpus) -> Run:
        """Loads the changes, and two blocks of them before it: Spark ends a Python worker that was idle for a minute,
        which never happens to a job whose trigger is shorter, but does while other contenders have their turn."""
        self._send(changes, slice(0, 2))
        self._contender.tell(str(changes.rows_of(slice(0, 2))))
        self._send(changes, slice(None))
        return self._contender.run(str(changes.rows))

    def _send(self, changes: Corpus, whole: slice) -> None:
        start, stop, _ = whole.indices(len(changes.blocks))
        per_shard = -(-(stop - start) // self._shards)
        for shard in range(self._shards):
            part = slice(start + shard * per_shard, min(stop, start + (shard + 1) * per_shard))
            if not changes.blocks[part]:
                continue
            lane = str(len(self._lanes))
            self._lanes[lane] = changes.blocks[part][-1].last
            self._put(shard, changes.lane(lane, part))
        self._put(0, [corpora.progress(self._lanes, changes)])

    def _put(self, shard: int, records: list[tuple[str, str, bytes]]) -> None:
        if self._files is None:
            self._laptop.send(self._kinesis, records)
        else:
            self._files.send(shard, records)
