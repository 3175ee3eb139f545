"""The Iceberg table `holes` of a source: every open hole and every accepted one, for SQL.

A projection. The tables' properties are the truth of what is open, and it can be made again from them; acceptances
that the properties no longer keep stay here for good.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import IntegerType, LongType, NestedField, StringType

from glue_streaming.holes import Hole
from glue_streaming.lake_table import lake_database
from glue_streaming.state import StreamState

NAME: Final = "holes"
_DIGEST: Final = "headrace.holes.digest"
_COLUMNS: Final = (
    ("table_name", StringType(), "the lake table"),
    ("lane", StringType(), "the ordered substream of it"),
    *((f"after_{part}", kind, "missing behind this position; null: from the lane's beginning in the era")
      for part, kind in (("era", IntegerType()), ("lsn", LongType()), ("idx", IntegerType()))),
    *((f"last_{part}", kind, "missing up to and with this position")
      for part, kind in (("era", IntegerType()), ("lsn", LongType()), ("idx", IntegerType()))),
    ("reason", StringType(), "why"),
    ("opened_at", StringType(), "ISO time, UTC"),
    ("raw", StringType(), "where its raw bytes lie, if there are any"),
    ("accepted_by", StringType(), "who accepted that it stays missing"),
    ("accepted_because", StringType(), "and why"),
    ("accepted_at", StringType(), "ISO time, UTC"),
    ("status", StringType(), "open or accepted"),
)  # fmt: skip
_PROPERTIES: Final = {
    "format-version": "2",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
}

Row = dict[str, Any]


class HolesTable:
    """One source's. Written only where something has changed since it was written last, by whomever."""

    def __init__(self, catalog: Catalog, lake_bucket: str, source: str) -> None:
        self._catalog = catalog
        self._lake_bucket = lake_bucket
        self._source = source
        self._written: str | None = None

    def update(self, states: Mapping[str, StreamState]) -> bool:
        """Brings the table in line with the properties; False where it was. states: of every table of the source."""
        wanted = open_rows(states)
        accepted = accepted_rows(states)
        digest = hashlib.sha256(json.dumps([wanted, accepted], sort_keys=True).encode()).hexdigest()
        if digest == self._written:
            return False
        table = self._table(bool(states))
        if table is not None and table.properties.get(_DIGEST) != digest:
            self._write(table, wanted, accepted, digest)
        self._written = digest
        return table is not None

    def _write(self, table: Table, wanted: list[Row], accepted: list[Row], digest: str) -> None:
        """One transaction: the open ones are replaced, new acceptances are added."""
        arrow = table.schema().as_arrow()
        there = table.scan().to_arrow().to_pylist()
        known = {_identity(row) for row in there if row["status"] == "accepted"}
        added = [*wanted, *(row for row in accepted if _identity(row) not in known)]
        with table.transaction() as transaction:
            if any(row["status"] == "open" for row in there):
                transaction.delete("status = 'open'")
            if added:
                transaction.append(pa.Table.from_pylist(added, schema=arrow))
            transaction.set_properties({_DIGEST: digest})

    def _table(self, needed: bool) -> Table | None:
        """The table, made with the source's first one, so that queries find it.

        Raises ValueError where a table of the source has taken its name.
        """
        name = f"{lake_database(self._source)}.{NAME}"
        try:
            table = self._catalog.load_table(name)
        except NoSuchTableError:
            return self._create(name) if needed else None
        if _DIGEST not in table.properties:
            raise ValueError(f"{name} is a table of the source {self._source}: its holes are not shown in SQL")
        return table

    def _create(self, name: str) -> Table:
        with suppress(NamespaceAlreadyExistsError):
            self._catalog.create_namespace(lake_database(self._source))
        fields = [
            NestedField(number, column, kind, required=False, doc=doc)
            for number, (column, kind, doc) in enumerate(_COLUMNS, start=1)
        ]
        return self._catalog.create_table(
            name,
            Schema(*fields),
            location=f"s3://{self._lake_bucket}/lake/{self._source}/{NAME}",
            partition_spec=PartitionSpec(PartitionField(len(_COLUMNS), 1000, IdentityTransform(), "status")),
            properties={**_PROPERTIES, _DIGEST: ""},
        )


def open_rows(states: Mapping[str, StreamState]) -> list[Row]:
    """A row for every open hole."""
    return [_row(table, hole, "open") for table, state in sorted(states.items()) for hole in state.holes]


def accepted_rows(states: Mapping[str, StreamState]) -> list[Row]:
    """A row for every acceptance that the properties keep."""
    return [
        {
            **_row(table, item.hole, "accepted"),
            "accepted_by": item.by,
            "accepted_because": item.because,
            "accepted_at": item.at,
        }
        for table, state in sorted(states.items())
        for item in state.accepted
    ]


def _row(table: str, hole: Hole, status: str) -> Row:
    after = hole.after if hole.after is not None else (None, None, None)
    return {
        "table_name": table,
        "lane": hole.lane,
        **dict(zip(("after_era", "after_lsn", "after_idx"), after, strict=True)),
        **dict(zip(("last_era", "last_lsn", "last_idx"), hole.last, strict=True)),
        "reason": hole.reason,
        "opened_at": hole.opened_at,
        "raw": hole.where,
        "accepted_by": None,
        "accepted_because": None,
        "accepted_at": None,
        "status": status,
    }


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("table_name", "lane", "last_era", "last_lsn", "last_idx", "accepted_at"))
