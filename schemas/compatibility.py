"""What a change of a table's structure means for those who read its changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.change_record import AvroType, Column, TableSchema

_PROMOTIONS = {("int", "long"), ("float", "double")}


@dataclass(frozen=True)
class Changes:
    """How a structure differs from an earlier one, by what the source calls its columns."""

    added: tuple[Column, ...]
    dropped: tuple[Column, ...]
    retyped: tuple[tuple[Column, Column], ...]

    def sentences(self) -> list[str]:
        """Each change for the log; a column that goes while one of its type comes may have been renamed."""
        said = [
            f"column {new.source_name} was {type_text(old.avro)} and is {type_text(new.avro)}"
            for old, new in self.retyped
        ]
        for column in self.dropped:
            twin = next((new for new in self.added if new.avro == column.avro), None)
            renamed = f"; if it was renamed to {twin.source_name}, it keeps its old values" if twin else ""
            said.append(f"column {column.source_name} is gone: it stays, and is null from now on{renamed}")
        return said + [f"column {column.source_name} ({type_text(column.avro)}) is new" for column in self.added]


def changes(new: TableSchema, old: TableSchema) -> Changes:
    before = {column.source_name: column for column in old.columns}
    after = {column.source_name for column in new.columns}
    return Changes(
        added=tuple(column for column in new.columns if column.source_name not in before),
        dropped=tuple(column for column in old.columns if column.source_name not in after),
        retyped=tuple(
            (before[column.source_name], column)
            for column in new.columns
            if column.source_name in before and before[column.source_name].avro != column.avro
        ),
    )


def problems(new: TableSchema, old: TableSchema) -> list[str]:
    """Why no lake table could hold what was written under both; empty where one can.

    Columns come and go, widen, and change their type as they like (the lake has a policy for that). The key may not: it
    says which rows are the same one, so neither its columns nor their types change, but for widening.
    """
    if new.key != old.key:
        return [f"the key was ({', '.join(old.key)}) and is ({', '.join(new.key)})"]
    before = {column.name: column for column in old.columns}
    return [
        f"key column {column.name} was {type_text(before[column.name].avro)} and is {type_text(column.avro)}"
        for column in new.columns
        if column.name in new.key and column.name in before and not _alike(before[column.name].avro, column.avro)
    ]


def transitive_problems(new: TableSchema, versions: Sequence[TableSchema]) -> list[str]:
    """`problems` against every earlier version, each reason once."""
    return list(dict.fromkeys(problem for old in versions for problem in problems(new, old)))


def changes_rows(new: TableSchema, old: TableSchema) -> bool:
    """Whether rows written before look different now: under whole rows, a delete may then name one that nobody has."""
    found = changes(new, old)
    retyped = any(not widens(before.avro, after.avro) for before, after in found.retyped)
    return bool(found.added or found.dropped or retyped or new.whole_rows != old.whole_rows)


def widens(old: AvroType, new: AvroType) -> bool:
    """Whether every value of `old` is a value of `new`, as Iceberg may promote it."""
    if old == new:
        return True
    if isinstance(old, str) and isinstance(new, str):
        return (old, new) in _PROMOTIONS
    if _is_decimal(old) and _is_decimal(new):
        return bool(old["scale"] == new["scale"] and old["precision"] <= new["precision"])
    return False


def _alike(old: AvroType, new: AvroType) -> bool:
    return widens(old, new) or widens(new, old)


def type_text(avro: AvroType) -> str:
    """The type for people."""
    if isinstance(avro, str):
        return avro
    if _is_decimal(avro):
        return f"decimal({avro['precision']},{avro['scale']})"
    if avro.get("type") == "array":
        return f"array<{type_text(avro['items'][1])}>"
    return str(avro.get("logicalType", avro["type"]))


def _is_decimal(avro: AvroType) -> bool:
    return isinstance(avro, dict) and avro.get("logicalType") == "decimal"
