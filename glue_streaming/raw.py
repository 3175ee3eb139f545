"""Raw bytes of what could not be loaded: on S3 under (shard, sequence number), outside every table's location."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from glue_streaming import failpoints
from glue_streaming.holes import places
from glue_streaming.shards import Record

_PREFIX: Final = "raw"
_MAX_REASON: Final = 1_000


@dataclass(frozen=True)
class RawRange:
    """Raw records of one shard, by sequence number, both ends included. folder: their keys less the last part."""

    bucket: str
    folder: str
    first: str
    last: str

    @property
    def shard(self) -> str:
        return self.folder.rpartition("/")[2]

    def behind(self, sequence: str) -> RawRange:
        """What of the range lies behind a sequence number."""
        return replace(self, first=str(int(sequence) + 1))


def ranges(where: str | None) -> list[RawRange]:
    """The ranges that a hole's `where` names, in its order."""
    found = []
    for uri, last in places(where):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        folder, _, first = key.rpartition("/")
        found.append(RawRange(bucket, folder, first, last))
    return found


def keep(s3: Any, bucket: str, source: str, shard: str, record: Record, reason: str) -> str:
    """Stores a record's bytes and returns their URI. Idempotent: the same record has the same key."""
    key = f"{_PREFIX}/{source}/{shard}/{record.sequence}"
    metadata = {"reason": reason.encode("ascii", "replace").decode()[:_MAX_REASON].replace("\n", " ")}
    s3.put_object(Bucket=bucket, Key=key, Body=record.data, Metadata=metadata)
    failpoints.reach("raw.kept")
    return f"s3://{bucket}/{key}"


def stored(s3: Any, wanted: RawRange) -> Iterator[Record]:
    """The records of a range, in the order of the shard. Other lanes' records may lie among them; lost ones do not."""
    for sequence in _sequences(s3, wanted):
        try:
            body = s3.get_object(Bucket=wanted.bucket, Key=f"{wanted.folder}/{sequence}")["Body"].read()
        except s3.exceptions.NoSuchKey:
            continue
        yield Record(sequence, bytes(body))


def _sequences(s3: Any, wanted: RawRange) -> list[str]:
    if wanted.first == wanted.last:
        return [wanted.first]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=wanted.bucket, Prefix=f"{wanted.folder}/")
    names = [item["Key"].rpartition("/")[2] for page in pages for item in page.get("Contents", [])]
    return sorted((name for name in names if int(wanted.first) <= int(name) <= int(wanted.last)), key=int)
