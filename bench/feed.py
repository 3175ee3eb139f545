"""Records from files in the place of a stream, so that no contender pays for a fetch.

Peers read theirs as a DataFrame of one binary column, from Parquet without compression or dictionaries. Ours come from
a file a shard through the two calls that the shard task makes of Kinesis, in pages of 10 MiB.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from datetime import UTC, datetime
from os import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

_PAGE_BYTES: Final = 10 * 1024 * 1024
_HASH_KEYS: Final = 2**128
_CREATED: Final = datetime(2026, 3, 1, tzinfo=UTC)

Records = list[tuple[str, bytes]]
"""(partition key, data) each."""


def append_records(path: Path, records: Records) -> None:
    """Puts them behind what the shard holds. A record's place in the file is its sequence number."""
    with path.open("ab") as file:
        for record in records:
            pickle.dump(record, file)


class PeerFiles:
    """One Parquet file for each form of the peers."""

    def __init__(self, folder: Path, forms: Iterable[str]) -> None:
        schema = pa.schema([("value", pa.binary())])
        self._writers = {
            form: pq.ParquetWriter(folder / f"{form}.parquet", schema, compression="none", use_dictionary=False)
            for form in forms
        }

    def write(self, form: str, payloads: Iterable[bytes]) -> None:
        self._writers[form].write_table(pa.table({"value": pa.array(payloads, pa.binary())}))

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class FileKinesis:
    """A stream whose shards are files of a folder, read no further back than is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def describe_stream_summary(self, **_: Any) -> dict[str, Any]:
        return {"StreamDescriptionSummary": {"StreamARN": "file", "StreamCreationTimestamp": _CREATED}}

    def list_shards(self, **_: Any) -> dict[str, Any]:
        names = sorted(path.stem for path in self._folder.glob("*.records"))
        width = _HASH_KEYS // max(1, len(names))
        spans = [(str(at * width), str((at + 1) * width - 1)) for at in range(len(names))]
        return {
            "Shards": [
                {"ShardId": name, "HashKeyRange": {"StartingHashKey": low, "EndingHashKey": high}}
                for name, (low, high) in zip(names, spans, strict=True)
            ]
        }

    def get_shard_iterator(self, **request: str) -> dict[str, Any]:
        shard, place = request["ShardId"], int(request.get("StartingSequenceNumber", 0))
        if request["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER":
            with self._open(shard) as file:
                file.seek(place)
                pickle.load(file)
                place = file.tell()
        return {"ShardIterator": f"{shard}/{place}"}

    def get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803
        shard, _, start = ShardIterator.partition("/")
        page: list[dict[str, Any]] = []
        size, place = 0, int(start)
        with self._open(shard) as file:
            end = file.seek(0, SEEK_END)
            file.seek(place)
            while place < end and len(page) < Limit and size < _PAGE_BYTES:
                key, data = pickle.load(file)
                page.append({"SequenceNumber": str(place), "Data": data, "PartitionKey": key})
                size, place = size + len(data), file.tell()
        return {
            "Records": page,
            "NextShardIterator": f"{shard}/{place}",
            "MillisBehindLatest": 0 if place == end else 1,
        }

    def _open(self, shard: str) -> BinaryIO:
        return (self._folder / f"{shard}.records").open("rb")
