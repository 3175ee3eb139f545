"""The engine of the laptop's Athena in the tests' own process, over the laptop's catalog and S3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from localaws.athena_engine import Engine
from localaws.athena_files import ObjectFiles
from localaws.process import LocalAws


class GlueCatalog:
    """The catalog as the engine reads it."""

    def __init__(self, glue: Any) -> None:
        self._glue = glue

    def databases(self) -> Sequence[str]:
        return [item["Name"] for item in self._glue.get_databases()["DatabaseList"]]

    def tables(self, database: str) -> Sequence[dict[str, Any]]:
        return list(self._glue.get_tables(DatabaseName=database)["TableList"])

    def table(self, database: str, name: str) -> dict[str, Any] | None:
        try:
            return dict(self._glue.get_table(DatabaseName=database, Name=name)["Table"])
        except self._glue.exceptions.EntityNotFoundException:
            return None


@contextmanager
def opened(server: LocalAws, folder: Path) -> Iterator[Engine]:
    """folder: keeps what was fetched from S3."""
    s3, names = server.client("s3"), count()

    def fetched(bucket: str, key: str) -> Path | None:
        path = folder / f"{next(names)}-{key.rpartition('/')[2]}"
        try:
            s3.download_file(bucket, key, str(path))
        except ClientError:
            return None
        return path

    engine = Engine(GlueCatalog(server.client("glue")), ObjectFiles(fetched))
    try:
        yield engine
    finally:
        engine.close()
