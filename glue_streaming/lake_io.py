"""PyIceberg's files on S3, less the requests that tell it nothing new.

A commit writes a manifest, a manifest list and the table's metadata, and their price and their time are those of
requests. PyIceberg opens each file at once, which begins a multipart upload (three requests instead of one), asks S3
how long the manifest is that it has just written, and reads back the list of the commit before. Here a commit puts
three objects, one after the other, and reads none.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, Final

from pyarrow.fs import FileSystem, S3FileSystem
from pyiceberg.io import InputStream, OutputStream
from pyiceberg.io.pyarrow import ONE_MEGABYTE, PyArrowFile, PyArrowFileIO

_LIST: Final = "/snap-"
"""How PyIceberg's names of manifest lists begin."""


class LakeIO(PyArrowFileIO):
    """s3_options: Arrow's, for its S3 access."""

    def __init__(self, s3_options: Mapping[str, Any]) -> None:
        super().__init__()
        self._s3_options = dict(s3_options)
        self._lists: dict[str, _WholeFile] = {}
        """By a table's folder: the newest manifest list that was written here. Such a file never changes."""

    def new_output(self, location: str) -> PyArrowFile:
        if not location.endswith(".avro"):
            return super().new_output(location)
        scheme, netloc, path = self.parse_location(location, self.properties)
        return _WholeFile(location, path, self.fs_by_scheme(scheme, netloc), self._written)

    def new_input(self, location: str) -> PyArrowFile:
        known = self._lists.get(_folder(location))
        return known if known is not None and known.location == location else super().new_input(location)

    def _written(self, file: _WholeFile) -> None:
        if _LIST in file.location:
            self._lists[_folder(file.location)] = file

    def _initialize_s3_fs(self, netloc: str | None) -> FileSystem:
        return S3FileSystem(**self._s3_options, allow_delayed_open=True)


class _WholeFile(PyArrowFile):
    """A small file that is put whole when it is closed, and that knows what is in it from then on."""

    def __init__(self, location: str, path: str, fs: FileSystem, written: Callable[[_WholeFile], None]) -> None:
        super().__init__(location, path, fs, ONE_MEGABYTE)
        self._written = written
        self._content: bytes | None = None

    def __len__(self) -> int:
        return super().__len__() if self._content is None else len(self._content)

    def create(self, overwrite: bool = False) -> OutputStream:
        return _Buffer(self._put)

    def open(self, seekable: bool = True) -> InputStream:
        return super().open(seekable) if self._content is None else io.BytesIO(self._content)

    def _put(self, content: bytes) -> None:
        with super().create(overwrite=True) as stream:
            stream.write(content)
        self._content = content
        self._written(self)


class _Buffer(io.BytesIO):
    """Hands over what was written, once, when it is closed."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        super().__init__()
        self._put = put

    def close(self) -> None:
        if not self.closed:
            content = self.getvalue()
            super().close()
            self._put(content)


def _folder(location: str) -> str:
    return location.rpartition("/")[0]
