"""Records from files in the place of a stream, so that no contender pays for a fetch.

Peers read theirs as a DataFrame of one binary column, from Parquet without compression or dictionaries. Ours come from
a file a shard through the two calls that the shard task makes of Kinesis, in pages of 10 MiB.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

_PAGE_BYTES: Final = 10 * 1024 * 1024
_HASH_KEYS: Final = 2**128
_CREATED: Final = datetime(2026, 3, 1, tzinfo=UTC)
FORMS: Final = ("avro", "flat", "debezium")

Records = list[tuple[str, bytes]]
"""(partition key, data) each."""


def write_records(path: Path, records: Records) -> None:
    """What one shard holds. Written whole: a reader sees the file as it was before, or as it is now."""
    made = path.with_suffix(".new")
    made.write_bytes(pickle.dumps(records))
    made.rename(path)


class PeerFiles:
    """One Parquet file for each form of the peers."""

    def __init__(self, folder: Path) -> None:
        schema = pa.schema([("value", pa.binary())])
        self._writers = {
            form: pq.ParquetWriter(folder / f"{form}.parquet", schema, compression="none", use_dictionary=False)
            for form in FORMS
        }

    def write(self, form: str, payloads: Iterable[bytes]) -> None:
        self._writers[form].write_table(pa.table({"value": pa.array(payloads, pa.binary())}))

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class FileKinesis:
    """A stream whose shards are files of a folder. What is appended to it is a file rewritten, with more at its end."""

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
        passed = 1 if request["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER" else 0
        return {"ShardIterator": f"{request['ShardId']}/{int(request.get('StartingSequenceNumber', 0)) + passed}"}

    def get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803
        shard, _, start = ShardIterator.partition("/")
        path = self._folder / f"{shard}.records"
        records = _read(path, path.stat().st_mtime_ns)
        page: list[dict[str, Any]] = []
        size, at = 0, int(start)
        while at < len(records) and len(page) < Limit and size < _PAGE_BYTES:
            key, data = records[at]
            page.append({"SequenceNumber": str(at), "Data": data, "PartitionKey": key})
            size, at = size + len(data), at + 1
        return {
            "Records": page,
            "NextShardIterator": f"{shard}/{at}",
            "MillisBehindLatest": 0 if at == len(records) else 1,
        }


@lru_cache(maxsize=1)
def _read(path: Path, _: int) -> Sequence[tuple[str, bytes]]:
    records: Records = pickle.loads(path.read_bytes())
    return records
