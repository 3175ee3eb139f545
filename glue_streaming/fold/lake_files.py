"""The data files of a lake table's snapshot, with the bounds that a fold chooses them by."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from glue_streaming.data_files import WrittenFile
from schemas.position import Line

_PRUNABLE: Final = ("int", "long", "string")


@dataclass(frozen=True)
class LakeFile:
    """A data file. lowest and highest bound its rows' (era, lsn), None where the file carries no bounds."""

    data_file: DataFile
    tier: str
    lowest: Line | None
    highest: Line | None

    @property
    def size(self) -> int:
        return self.data_file.file_size_in_bytes

    @property
    def rows(self) -> int:
        return self.data_file.record_count

    def may_reach(self, line: Line) -> bool:
        """Whether a row at or below the line can be in the file."""
        return self.lowest is None or self.lowest <= line

    def must_pass(self, line: Line) -> bool:
        """Whether all its rows lie above the line; only said where it is certain."""
        return self.lowest is not None and self.lowest > line

    def exceeds(self, line: Line) -> bool:
        """Whether it holds a row above the line; bounds of both parts tell it for certain only within one era."""
        if self.lowest is None or self.highest is None:
            return True
        return self.lowest > line or (self.lowest.era == self.highest.era and self.highest > line)


def written_file(file: WrittenFile, schema: Schema) -> LakeFile:
    """A file that a fold has just written, as it will be in the table."""
    return _lake_file(file.to_data_file(), schema)


def lake_files(table: Table) -> list[LakeFile]:
    """All live data files of the table's current snapshot."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return []
    schema = table.schema()
    return [
        _lake_file(entry.data_file, schema)
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        if entry.data_file.content == DataFileContent.DATA
    ]


def of_tier(files: Iterable[LakeFile], tier: str) -> list[LakeFile]:
    return [file for file in files if file.tier == tier]


def key_ranges(files: Sequence[LakeFile], schema: Schema, column: str) -> list[tuple[Any, Any]]:
    """The bounds of a key column in each file; open (None) where its type's bounds are not compared here."""
    field = schema.find_field(column)
    if str(field.field_type) not in _PRUNABLE:
        return [(None, None)] * len(files)
    return [(_bound(file.data_file.lower_bounds, field), _bound(file.data_file.upper_bounds, field)) for file in files]


def download(files: Sequence[LakeFile], io: FileIO, folder: Path) -> list[Path]:
    """Local copies, in the order of the files."""
    paths = []
    for file in files:
        path = folder / file.data_file.file_path.rsplit("/", 1)[-1]
        with io.new_input(file.data_file.file_path).open(seekable=False) as remote, path.open("wb") as local:
            shutil.copyfileobj(remote, local, 1 << 20)
        paths.append(path)
    return paths


def _lake_file(data_file: DataFile, schema: Schema) -> LakeFile:
    bounds = [
        [_bound(values, schema.find_field(name)) for name in ("_era", "_lsn")]
        for values in (data_file.lower_bounds, data_file.upper_bounds)
    ]
    lowest, highest = (None if None in pair else Line(*pair) for pair in bounds)
    return LakeFile(data_file, str(data_file.partition[0]), lowest, highest)


def _bound(bounds: Any, field: Any) -> Any:
    raw = (bounds or {}).get(field.field_id)
    return None if raw is None else from_bytes(field.field_type, raw)
