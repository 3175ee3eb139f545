"""What a resolved catalog entry is to DuckDB: temporary views over data files, made while a query is analysed."""

from collections.abc import Collection, Mapping
from typing import Any

import duckdb

from . import athena_iceberg as lake_tables
from .athena_iceberg import Lake, TableVersion
from .athena_types import quoted


class Relations:
    """One query's relations on its own DuckDB connection. Equal requests get the same relation."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
        self._connection, self._lake = connection, lake
        self._names: dict[Any, str] = {}
        self._scanned: dict[str, int] = {}

    @property
    def scanned_bytes(self) -> int:
        """The sizes of all data files that were handed to DuckDB, each counted once."""
        return sum(self._scanned.values())

    def new_name(self) -> str:
        return f"relation_{len(self._names) + 1}"

    def table(self, name: str, version: TableVersion, wanted: Mapping[str, Collection[Any]]) -> str:
        """The rows of a snapshot; files whose partition has none of the wanted values are left out."""
        key = (version.key, tuple(sorted((column, tuple(sorted(values))) for column, values in wanted.items())))
        if key not in self._names:
            self._names[key] = relation = self.new_name()
            self._create(relation, name, version, wanted)
        return self._names[key]

    def _create(self, relation: str, name: str, version: TableVersion, wanted: Mapping[str, Collection[Any]]) -> None:
        every = self._lake.files(version)
        files = lake_tables.keep(every, wanted) if all(each.is_data for each in every) else list(every)
        self._scanned.update((each.file.file_path, each.file.file_size_in_bytes) for each in files)
        if not files:
            self.view(relation, f"SELECT * FROM {lake_tables.no_rows(version.schema)}")
        elif self._lake.readable_by_duckdb(files):
            self.view(relation, f"SELECT * FROM {lake_tables.read_parquet(self._lake.paths(files), version.schema)}")
        else:
            self._connection.register(relation, self._lake.arrow_scan(version, name))

    def rows(self, key: str, rows: Any) -> str:
        """An Arrow table as a relation."""
        if key not in self._names:
            self._names[key] = relation = self.new_name()
            self._connection.register(relation, rows)
        return self._names[key]

    def view(self, relation: str, query: str) -> None:
        """A temporary view; DuckDB binds the query now."""
        self._connection.execute(f"CREATE TEMP VIEW {quoted(relation)} AS {query}")

    def constant(self, relation: str, query: str) -> None:
        """The rows of a query without tables, computed now."""
        self._connection.execute(f"CREATE TEMP TABLE {quoted(relation)} AS {query}")

    def described(self, query: str) -> list[tuple[str, Any]]:
        """The columns of a query: names and DuckDB's types."""
        relation = self._connection.sql(query)
        return list(zip(relation.columns, relation.types, strict=True))

    def named(self, key: Any, relation: str) -> None:
        self._names[key] = relation
