"""What a resolved catalog entry is to DuckDB: SQL that may stand in a FROM, and the connection's temporary tables."""

from collections.abc import Collection, Mapping
from typing import Any

import duckdb

from . import athena_iceberg as iceberg
from .athena_iceberg import Lake, TableVersion
from .athena_types import quoted


class Relations:
    """One query's relations on its own DuckDB connection. Equal requests get the same relation."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
        self._connection, self._lake = connection, lake
        self._made: dict[Any, str] = {}
        self._scanned: dict[str, int] = {}

    @property
    def scanned_bytes(self) -> int:
        """The sizes of all data files that were handed to DuckDB, each counted once."""
        return sum(self._scanned.values())

    def table(self, name: str, version: TableVersion, wanted: Mapping[str, Collection[Any]]) -> str:
        """The rows of a snapshot; files whose partition has none of the wanted values are left out."""
        key = (version.key, tuple(sorted((column, tuple(sorted(values))) for column, values in wanted.items())))
        if key not in self._made:
            self._made[key] = self._table(name, version, wanted)
        return self._made[key]

    def _table(self, name: str, version: TableVersion, wanted: Mapping[str, Collection[Any]]) -> str:
        every = self._lake.files(version)
        files = iceberg.keep(every, wanted) if all(each.is_data for each in every) else list(every)
        self._scanned.update((each.file.file_path, each.file.file_size_in_bytes) for each in files)
        if not files:
            return iceberg.no_rows(version.schema)
        if self._lake.readable_by_duckdb(files):
            return iceberg.read_parquet(self._lake.paths(files), version.schema)
        return self._registered(self._lake.arrow_scan(version, name))

    def rows(self, key: str, rows: Any) -> str:
        """An Arrow table."""
        if key not in self._made:
            self._made[key] = self._registered(rows)
        return self._made[key]

    def constant(self, query: str) -> str:
        """The rows of a query without tables, computed now."""
        relation = self._new_name()
        self._connection.execute(f"CREATE TEMP TABLE {quoted(relation)} AS {query}")
        self._made[relation] = quoted(relation)
        return self._made[relation]

    def described(self, query: str) -> list[tuple[str, Any]]:
        """The columns of a query: names and DuckDB's types."""
        relation = self._connection.sql(query)
        return list(zip(relation.columns, relation.types, strict=True))

    def value(self, query: str) -> Any:
        """The one value of a query."""
        ((found,),) = self._connection.execute(query).fetchall()
        return found

    def _registered(self, rows: Any) -> str:
        relation = self._new_name()
        self._connection.register(relation, rows)
        return quoted(relation)

    def _new_name(self) -> str:
        return f"relation_{len(self._made) + 1}"
