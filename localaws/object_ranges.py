"""Ranged reads of S3 objects that touch only the bytes they ask for; ministack reads the whole file for each.

A reader of Parquet asks for many small ranges of a large file.
"""

import contextvars
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MIN_BYTES = 256 * 1024

_ranged: contextvars.ContextVar[bool] = contextvars.ContextVar("ranged", default=False)


def install() -> None:
    """Let a request with a range read from a map of the object's file, of which a slice is bytes."""
    from ministack.services import s3

    get_object, read_body = s3._get_object, s3._read_body

    def get(bucket: str, key: str, headers: Mapping[str, str], query: Any = None) -> Any:
        token = _ranged.set(bool(headers.get("range")))
        try:
            return get_object(bucket, key, headers, query)
        finally:
            _ranged.reset(token)

    def read(bucket: str, key: str, record: Mapping[str, Any]) -> Any:
        if _ranged.get() and record.get("body") is None and record.get("size", 0) >= _MIN_BYTES:
            path = s3._object_disk_path(bucket, key)
            if path is not None and Path(path).exists():
                with Path(path).open("rb") as file:
                    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return read_body(bucket, key, record)

    s3._get_object, s3._read_body = get, read
