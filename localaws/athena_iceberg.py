"""Iceberg tables as lists of data files. Everything read here is immutable, so it is remembered by its path."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import pyarrow.parquet as pq
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.manifest import DataFile, DataFileContent, ManifestFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import StaticTable
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import IdentityTransform

from .athena_errors import QueryError
from .athena_files import Files, LakeIO, existing
from .athena_types import iceberg_in_duckdb, literal, quoted

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """The most recently used values by key. Two threads may make the same value; one of them is kept."""

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._limit:
                self._values.popitem(last=False)
        return value


@dataclass(frozen=True, slots=True)
class TableVersion:
    """A table pinned to one metadata file, one of its snapshots (None: no rows) and that snapshot's columns."""

    metadata_location: str
    metadata: TableMetadata
    snapshot: Snapshot | None
    schema: Schema

    @property
    def key(self) -> str:
        """Equal for equal rows and columns."""
        return f"{self.metadata_location}@{self.snapshot.snapshot_id if self.snapshot else None}"


@dataclass(frozen=True, slots=True)
class LakeFile:
    """One file that a snapshot reaches, and the values of its identity partitions by column name."""

    file: DataFile
    partition: Mapping[str, Any]

    @property
    def is_data(self) -> bool:
        return bool(self.file.content == DataFileContent.DATA)


class Lake:
    """Reads Iceberg tables through local files. Safe to use from several threads."""

    def __init__(self, files: Files) -> None:
        self._files, self._io = files, LakeIO(files)
        self._metadata: Remembered[TableMetadata] = Remembered(256)
        self._manifests: Remembered[Sequence[DataFile]] = Remembered(8192)
        self._snapshots: Remembered[Sequence[LakeFile]] = Remembered(256)
        self._has_ids: Remembered[bool] = Remembered(65536)

    def current(self, metadata_location: str) -> TableVersion:
        """The table as this metadata file describes it, at its current snapshot."""
        metadata = self._metadata.get(
            metadata_location, lambda: FromInputFile.table_metadata(self._io.new_input(metadata_location))
        )
        return TableVersion(metadata_location, metadata, metadata.current_snapshot(), metadata.schema())

    def files(self, version: TableVersion) -> Sequence[LakeFile]:
        """Every file of the snapshot, delete files included."""
        snapshot = version.snapshot
        if snapshot is None:
            return ()
        return self._snapshots.get(snapshot.manifest_list, lambda: self._list_files(version.metadata, snapshot))

    def manifests(self, version: TableVersion) -> Sequence[ManifestFile]:
        """The snapshot's manifests."""
        return version.snapshot.manifests(self._io) if version.snapshot else ()

    def _list_files(self, metadata: TableMetadata, snapshot: Snapshot) -> Sequence[LakeFile]:
        specs = metadata.specs()
        found = []
        for manifest in snapshot.manifests(self._io):
            spec = specs[manifest.partition_spec_id]
            names = identity_columns(spec, metadata.schema())
            for file in self._manifests.get(manifest.manifest_path, lambda each=manifest: self._entries(each)):  # type: ignore[misc]
                found.append(LakeFile(file, {name: file.partition[position] for position, name in names}))
        return tuple(found)

    def _entries(self, manifest: ManifestFile) -> Sequence[DataFile]:
        return tuple(entry.data_file for entry in manifest.fetch_manifest_entry(self._io))

    def readable_by_duckdb(self, files: Sequence[LakeFile]) -> bool:
        """False when there are delete files, other formats than Parquet, or files without Iceberg's field ids."""
        return all(each.is_data and each.file.file_format == "PARQUET" and self._field_ids(each) for each in files)

    def _field_ids(self, file: LakeFile) -> bool:
        location = file.file.file_path
        return self._has_ids.get(location, lambda: _has_field_ids(existing(self._files, location)))

    def paths(self, files: Sequence[LakeFile]) -> list[str]:
        """Where the files lie on this disk. Raises QueryError when one is gone."""
        return [str(existing(self._files, each.file.file_path)) for each in files]

    def arrow_scan(self, version: TableVersion, name: str) -> Any:
        """The rows as an Arrow table, read by PyIceberg: for what DuckDB cannot read by itself."""
        snapshot_id = version.snapshot.snapshot_id if version.snapshot else None
        location, io, catalog = version.metadata_location, self._io, NoopCatalog("static")
        table = StaticTable(tuple(name.split(".")), version.metadata, location, io, catalog)
        return table.scan(snapshot_id=snapshot_id).to_arrow()


def _has_field_ids(path: Any) -> bool:
    fields = pq.read_schema(path)
    return all(b"PARQUET:field_id" in (fields.field(i).metadata or {}) for i in range(len(fields)))


def identity_columns(spec: PartitionSpec, schema: Schema) -> list[tuple[int, str]]:
    """(position in the partition record, column name) of the identity partitions whose column still exists."""
    found = []
    for position, field in enumerate(spec.fields):
        name = schema.find_column_name(field.source_id)
        if name and isinstance(field.transform, IdentityTransform):
            found.append((position, name))
    return found


def keep(files: Sequence[LakeFile], wanted: Mapping[str, Collection[Any]]) -> list[LakeFile]:
    """The files that can hold rows whose columns have one of the wanted values."""
    return [
        each
        for each in files
        if all(each.partition[name] in values for name, values in wanted.items() if name in each.partition)
    ]


def at_version(version: TableVersion, snapshot_id_or_ref: int | str) -> TableVersion:
    """FOR VERSION AS OF: a snapshot's number, or the name of a branch or tag."""
    metadata = version.metadata
    if isinstance(snapshot_id_or_ref, str):
        snapshot = metadata.snapshot_by_name(snapshot_id_or_ref)
        problem = f"Cannot find snapshot with reference name: {snapshot_id_or_ref}"
    else:
        snapshot = metadata.snapshot_by_id(snapshot_id_or_ref)
        problem = f"Iceberg snapshot ID does not exists: {snapshot_id_or_ref}"
    if snapshot is None:
        raise QueryError("INVALID_ARGUMENTS", problem)
    return _pinned(version, snapshot)


def at_time(version: TableVersion, when: datetime) -> TableVersion:
    """FOR TIMESTAMP AS OF: the snapshot that was current then, by the table's own history."""
    millis = int(when.timestamp() * 1000)
    entries = [entry for entry in version.metadata.snapshot_log if entry.timestamp_ms <= millis]
    snapshot = version.metadata.snapshot_by_id(entries[-1].snapshot_id) if entries else None
    if snapshot is None:
        raise QueryError("INVALID_ARGUMENTS", f"No version history table at or before {when.isoformat()}")
    return _pinned(version, snapshot)


def _pinned(version: TableVersion, snapshot: Snapshot) -> TableVersion:
    schemas = {schema.schema_id: schema for schema in version.metadata.schemas}
    schema = schemas.get(snapshot.schema_id, version.schema) if snapshot.schema_id is not None else version.schema
    return TableVersion(version.metadata_location, version.metadata, snapshot, schema)


def read_parquet(paths: Sequence[str], schema: Schema) -> str:
    """DuckDB's relation over data files: columns by field id, so that one that a file does not know is NULL there."""
    columns = ", ".join(
        f"{field.field_id}: {{name: {literal(field.name)}, type: {literal(iceberg_in_duckdb(field.field_type))}, "
        "default_value: NULL}"
        for field in schema.fields
    )
    return f"read_parquet([{', '.join(map(literal, paths))}], schema = MAP {{{columns}}})"


def no_rows(schema: Schema) -> str:
    """DuckDB's relation with the table's columns and nothing in it."""
    columns = ", ".join(
        f"CAST(NULL AS {iceberg_in_duckdb(field.field_type)}) AS {quoted(field.name)}" for field in schema.fields
    )
    return f"(SELECT {columns} WHERE false)"
