"""The Glue catalog as PyIceberg has it, less the requests that tell it nothing new.

A commit asks the catalog for the table and updates it; that is all. PyIceberg's own also reads the metadata file that
it wrote itself a moment ago, looks whether a name that nobody can have taken is free, asks what kind of database it is,
and opens new connections to S3 for every table (`lake_io` says what is spared there). At hundreds of tables that is
most of a batch, and the catalog's request rates are limits of the account.
"""

from __future__ import annotations

from typing import Any

from pyiceberg.catalog import METADATA_LOCATION
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.io import FileIO
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import EMPTY_DICT, Properties


class LakeCatalog(GlueCatalog):
    """A catalog of tables that all lie in one account's S3 and not in S3 Tables."""

    def __init__(self, name: str, glue: Any, io: FileIO, **properties: Any) -> None:
        super().__init__(name, client=glue, **properties)
        self._io = io
        self._newest: dict[str, tuple[str, TableMetadata]] = {}
        """By a table's folder: the newest metadata file known here, and what it holds. Such a file never changes."""

    def _load_file_io(self, properties: Properties = EMPTY_DICT, location: str | None = None) -> FileIO:
        return self._io

    def _is_s3tables_database(self, database_name: str) -> bool:
        return False

    def _convert_glue_to_iceberg(self, glue_table: Any) -> Table:
        location = glue_table.get("Parameters", {}).get(METADATA_LOCATION)
        known = self._newest.get(_folder(location)) if location else None
        if known is not None and known[0] == location:
            name = (glue_table["DatabaseName"], glue_table["Name"])
            return Table(identifier=name, metadata=known[1], metadata_location=location, io=self._io, catalog=self)
        table = super()._convert_glue_to_iceberg(glue_table)
        self._newest[_folder(location)] = (location, table.metadata)
        return table

    def _write_metadata(self, metadata: TableMetadata, io: FileIO, metadata_path: str) -> None:  # type: ignore[override]
        """Its name holds a new UUID: nothing can be overwritten, so nothing is looked for."""
        ToOutputFile.table_metadata(metadata, io.new_output(metadata_path), overwrite=True)
        self._newest[_folder(metadata_path)] = (metadata_path, metadata)


def _folder(location: str) -> str:
    return location.rpartition("/")[0]
