"""Which changes of structure a lake table can follow."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.change_record import AvroType, TableSchema

_PROMOTIONS = {("int", "long"), ("float", "double")}


def problems(new: TableSchema, old: TableSchema) -> list[str]:
    """Why readers under `new` could not read what `old` wrote; empty when they can.

    Columns may come and go; int widens to long, float to double, a decimal to more digits at the same scale. A key
    that changes its columns needs a new snapshot, so it counts as a problem.
    """
    found = []
    if new.key != old.key:
        found.append(f"the key was ({', '.join(old.key)}) and is ({', '.join(new.key)})")
    before = {column.name: column for column in old.columns}
    for column in new.columns:
        earlier = before.get(column.name)
        if earlier is not None and not widens(earlier.avro, column.avro):
            found.append(f"column {column.name} was {_text(earlier.avro)} and is {_text(column.avro)}")
    return found


def transitive_problems(new: TableSchema, versions: Sequence[TableSchema]) -> list[str]:
    """`problems` against every earlier version, each reason once."""
    return list(dict.fromkeys(problem for old in versions for problem in problems(new, old)))


def widens(old: AvroType, new: AvroType) -> bool:
    """Whether every value of `old` is a value of `new`, as Iceberg may promote it."""
    if old == new:
        return True
    if isinstance(old, str) and isinstance(new, str):
        return (old, new) in _PROMOTIONS
    if _is_decimal(old) and _is_decimal(new):
        return bool(old["scale"] == new["scale"] and old["precision"] <= new["precision"])
    return False


def _is_decimal(avro: AvroType) -> bool:
    return isinstance(avro, dict) and avro.get("logicalType") == "decimal"


def _text(avro: AvroType) -> str:
    if isinstance(avro, str):
        return avro
    if _is_decimal(avro):
        return f"decimal({avro['precision']},{avro['scale']})"
    if avro.get("type") == "array":
        return f"array<{_text(avro['items'][1])}>"
    return str(avro.get("logicalType", avro["type"]))
