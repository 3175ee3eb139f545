"""A lake on local disk: Iceberg tables written by PyIceberg, views in the Presto encoding, and the engine over both."""

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.transforms import IdentityTransform

from localaws.athena_engine import Answer, Engine
from localaws.athena_files import ObjectFiles


class DiskCatalog(MetastoreCatalog):
    """The least that PyIceberg needs to commit: each table's newest metadata file, in a dictionary."""

    def __init__(self, warehouse: Path) -> None:
        super().__init__("disk", warehouse=f"file://{warehouse}")
        self.locations: dict[tuple[str, ...], str] = {}

    def create_table(self, identifier: Any, schema: Any, location: Any = None, partition_spec: Any = None,
                     sort_order: Any = None, properties: Any = None) -> Table:  # fmt: skip
        staged = self._create_staged_table(
            identifier, schema, f"{self.properties['warehouse']}/{identifier}",
            partition_spec or UNPARTITIONED_PARTITION_SPEC, properties=properties or {},
        )  # fmt: skip
        self._write_metadata(staged.metadata, staged.io, staged.metadata_location)
        self.locations[self.identifier_to_tuple(identifier)] = staged.metadata_location
        return self.load_table(identifier)

    def load_table(self, identifier: Any) -> Table:
        name = self.identifier_to_tuple(identifier)
        location = self.locations[name]
        io = self._load_file_io(location=location)
        return Table(name, FromInputFile.table_metadata(io.new_input(location)), location, io, self)

    def commit_table(self, table: Table, requirements: Any, updates: Any) -> CommitTableResponse:
        name = table.name()
        current = self.load_table(name)
        staged = self._update_and_stage_table(current, name, requirements, updates)
        if self.locations[name] != current.metadata_location:
            raise CommitFailedException("moved")
        self._write_metadata(staged.metadata, staged.io, staged.metadata_location)
        self.locations[name] = staged.metadata_location
        return CommitTableResponse(metadata=staged.metadata, metadata_location=staged.metadata_location)

    def _unused(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError

    register_table = drop_table = purge_table = rename_table = create_namespace = drop_namespace = _unused
    list_tables = list_namespaces = load_namespace_properties = update_namespace_properties = _unused
    list_views = drop_view = view_exists = namespace_exists = table_exists = create_view = load_view = _unused
    register_view = rename_view = replace_view = create_table_transaction = _unused


class Lake:
    """A catalog of tables and views, as Glue holds them, and an engine that queries it."""

    def __init__(self, folder: Path) -> None:
        self.iceberg = DiskCatalog(folder)
        self.entries: dict[tuple[str, str], dict[str, Any]] = {}
        self.engine = Engine(self, ObjectFiles(lambda bucket, key: None))

    def databases(self) -> Sequence[str]:
        return sorted({"db", *(database for database, _ in self.entries)})

    def tables(self, database: str) -> Sequence[dict[str, Any]]:
        return [entry for (owner, _), entry in self.entries.items() if owner == database]

    def table(self, database: str, name: str) -> dict[str, Any] | None:
        entry = self.entries.get((database, name))
        if entry is None or entry["TableType"] == "VIRTUAL_VIEW":
            return entry
        location = self.iceberg.locations[(database, name)]
        return {**entry, "Parameters": {"table_type": "ICEBERG", "metadata_location": location}}

    def create(self, name: str, schema: Schema, partition_by: str | None = None) -> Table:
        """An empty Iceberg table `database.table`, perhaps with one identity partition."""
        spec = None
        if partition_by:
            source = schema.find_field(partition_by).field_id
            spec = PartitionSpec(PartitionField(source, 1000, IdentityTransform(), partition_by))
        database, table = name.split(".")
        created = self.iceberg.create_table(name, schema, partition_spec=spec)
        columns = [{"Name": field.name, "Type": str(field.field_type)} for field in schema.fields]
        self.entries[database, table] = {
            "Name": table, "TableType": "EXTERNAL_TABLE", "StorageDescriptor": {"Columns": columns},
        }  # fmt: skip
        return created

    def append(self, name: str, rows: list[dict[str, Any]]) -> None:
        table = self.iceberg.load_table(name)
        table.append(pa.Table.from_pylist(rows, schema=table.schema().as_arrow()))

    def view(self, name: str, sql: str, **columns: str) -> None:
        """A view in the encoding that Athena and Trino read."""
        database, view = name.split(".")
        body = {
            "originalSql": sql, "catalog": "awsdatacatalog", "schema": database, "runAsInvoker": True,
            "columns": [{"name": column, "type": kind} for column, kind in columns.items()],
        }  # fmt: skip
        encoded = base64.b64encode(json.dumps(body).encode()).decode()
        self.entries[database, view] = {
            "Name": view, "TableType": "VIRTUAL_VIEW", "ViewOriginalText": f"/* Presto View: {encoded} */",
            "Parameters": {"presto_view": "true"},
        }  # fmt: skip

    def remove(self, location: str) -> None:
        """Delete a file behind the table's back."""
        Path(location.removeprefix("file://")).unlink()

    def ask(self, sql: str, schema: str | None = "db") -> Answer:
        return self.engine.run(sql, schema)

    def rows(self, sql: str, schema: str | None = "db") -> list[list[str | None]]:
        return self.ask(sql, schema).rows()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    made = Lake(tmp_path)
    yield made
    made.engine.close()
