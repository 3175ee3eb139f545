"""The data files of a lake table's snapshot, with the bounds that a fold chooses them by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from glue_streaming.data_files import WrittenFile
from glue_streaming.fold.ranges import Slot
from schemas.position import Line

_ORDERED: Final = ("int", "long", "string", "date", "timestamp", "binary", "decimal")
"""Types whose bounds say where a value may lie. A float's leave out NaN, which lies behind everything."""


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


def paths_of(files: Iterable[LakeFile]) -> tuple[str, ...]:
    return tuple(file.data_file.file_path for file in files)


def size_of(files: Iterable[LakeFile]) -> int:
    """Their bytes."""
    return sum(file.size for file in files)


def in_groups(files: Sequence[LakeFile], limit_bytes: int) -> list[list[LakeFile]]:
    """The files in order, in groups of at most the limit or of one file; one group where there are none."""
    groups: list[list[LakeFile]] = [[]]
    for file in files:
        if groups[-1] and size_of(groups[-1]) + file.size > limit_bytes:
            groups.append([])
        groups[-1].append(file)
    return groups


def slot(file: LakeFile, schema: Schema, key: Sequence[str]) -> Slot:
    """Where the file lies among the keys, as far as its bounds say it; with a null in a key column they do not."""
    bounds = []
    for name in key:
        field = schema.find_field(name)
        low, high = (bound(values, field) for values in (file.data_file.lower_bounds, file.data_file.upper_bounds))
        nulls = (file.data_file.null_value_counts or {}).get(field.field_id, 1)
        if not str(field.field_type).startswith(_ORDERED) or low is None or high is None or nulls:
            break
        bounds.append((low, high))
        if low != high:
            break
    return Slot(tuple(bounds), file.size)


def may_hold(file: LakeFile, schema: Schema, column: str) -> bool:
    """Whether a row of the file may have a value in the column."""
    nulls = (file.data_file.null_value_counts or {}).get(schema.find_field(column).field_id)
    return nulls is None or nulls < file.rows


def _lake_file(data_file: DataFile, schema: Schema) -> LakeFile:
    bounds = [
        [bound(values, schema.find_field(name)) for name in ("_era", "_lsn")]
        for values in (data_file.lower_bounds, data_file.upper_bounds)
    ]
    lowest, highest = (None if None in pair else Line(*pair) for pair in bounds)
    return LakeFile(data_file, str(data_file.partition[0]), lowest, highest)


def bound(bounds: Any, field: Any) -> Any:
    """A field's bound among a file's, as Iceberg's types are in Python; None where there is none."""
    raw = (bounds or {}).get(field.field_id)
    return None if raw is None else from_bytes(field.field_type, raw)
