"""Files of the lake as local paths, so that DuckDB can prune and project them."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlparse

from pyiceberg.io import FileIO, InputFile, OutputFile
from pyiceberg.io.pyarrow import PyArrowFileIO

from .athena_errors import QueryError


class Files(Protocol):
    """Where an object of the lake lies on disk."""

    def path(self, location: str) -> Path | None:
        """The file behind `s3://bucket/key`, or None when there is no such object now."""


class ObjectFiles:
    """Files that an object store keeps on disk; `path_of(bucket, key)` knows where."""

    def __init__(self, path_of: Callable[[str, str], Path | None]) -> None:
        self._path_of = path_of

    def path(self, location: str) -> Path | None:
        parsed = urlparse(location, allow_fragments=False)
        if parsed.scheme == "file":
            found: Path | None = Path(parsed.path)
        else:
            found = self._path_of(parsed.netloc, parsed.path.removeprefix("/"))
        return found if found and found.is_file() else None


def existing(files: Files, location: str) -> Path:
    """The file behind a location. Raises QueryError when it is gone."""
    path = files.path(location)
    if path is None:
        raise QueryError(
            "ICEBERG_CANNOT_OPEN_SPLIT", f"Error opening Iceberg split {location}: the object does not exist"
        )
    return path


class LakeIO(FileIO):
    """PyIceberg's way to these files. It only reads."""

    def __init__(self, files: Files) -> None:
        super().__init__({})
        self._files, self._disk = files, PyArrowFileIO()

    def new_input(self, location: str) -> InputFile:
        return self._disk.new_input(str(existing(self._files, location)))

    def new_output(self, location: str) -> OutputFile:
        raise NotImplementedError(f"queries do not write: {location}")

    def delete(self, location: str | InputFile | OutputFile) -> None:
        raise NotImplementedError(f"queries do not delete: {location}")
