"""What the DynamoDB table `tables` says of one table's history, snapshots and files. Items are keyed `source.table`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from glue_streaming.fold.plan import FoldSettings
from glue_streaming.fold.table_items import items_with

_NAMES: Final = ("history_days", "time_travel_days", "target_file_bytes")


@dataclass(frozen=True)
class TablePolicy:
    """The settings of those names, for one table; None leaves them to the job's."""

    history_days: float | None = None
    time_travel_days: int | None = None
    target_file_bytes: int | None = None

    def over(self, settings: FoldSettings) -> FoldSettings:
        """The job's settings, with what this table's policy says in their place."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return replace(settings, **given)


def policy_of(item: Mapping[str, Mapping[str, str]]) -> TablePolicy:
    """The policy in a DynamoDB item; numbers may be written as texts. Raises ValueError with the attribute's name."""
    found = {name: _number(name, item[name]) for name in _NAMES if name in item}
    whole = {name: int(value) for name, value in found.items() if name != "history_days"}
    return TablePolicy(history_days=found.get("history_days"), **whole)


def read_policies(dynamodb: Any, table_name: str) -> dict[str, TablePolicy]:
    """The policies of all tables that have one, by `source.table`. Raises ValueError with the item's name."""
    found: dict[str, TablePolicy] = {}
    for table, item in items_with(dynamodb, table_name, _NAMES, "OR"):
        try:
            found[table] = policy_of(item)
        except ValueError as error:
            raise ValueError(f"the policy of {table} in {table_name}: {error}") from None
    return found


def _number(name: str, value: Mapping[str, str]) -> float:
    (text,) = value.values()
    try:
        number = float(text)
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {text!r} is not a number") from None
    if number < 0:
        raise ValueError(f"{name} = {text} is negative")
    return number
