"""Tables that executions of the fold workflow could not fold: how often on end, and when they are tried again.

It stands in the table's item of the DynamoDB table `tables`, so that the next execution knows of it. Nothing has to
clear it: a table that was folded since is not failing any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from glue_streaming.fold.table_items import items_with
from glue_streaming.state import fold_state

FIRST_PAUSE_SECONDS: Final = 900.0
MOST_PAUSE_SECONDS: Final = 21_600.0
MAX_ERROR: Final = 300
_NAMES: Final = ("fold_failed_times", "fold_failed_at", "fold_failed_error")


@dataclass(frozen=True)
class Failing:
    """times: executions on end that did not fold it, the last of which gave up at `at`."""

    times: int
    at: datetime
    error: str

    @property
    def next_try(self) -> datetime:
        """Each failure doubles the pause behind it."""
        return self.at + timedelta(seconds=min(FIRST_PAUSE_SECONDS * 2 ** min(self.times - 1, 20), MOST_PAUSE_SECONDS))

    def __str__(self) -> str:
        times = "once" if self.times == 1 else f"{self.times} times on end"
        return f"failed {times}, tried again at {self.next_try:%Y-%m-%d %H:%M:%S} UTC: {self.error}"


def standing(found: Mapping[str, Failing], parameters: Mapping[str, Mapping[str, str]]) -> dict[str, Failing]:
    """Those that were not folded since, of the tables with these parameters. Both by `source.table`. Pure."""
    folded = {table: fold_state(parameters[table]).folded_at for table in found.keys() & parameters.keys()}
    return {
        table: found[table]
        for table, at in folded.items()
        if at is None or datetime.fromisoformat(at) < found[table].at
    }


def standing_of(
    source: str, found: Mapping[str, Failing], tables: Mapping[str, Mapping[str, str]]
) -> dict[str, Failing]:
    """`standing` of one source, whose tables' parameters come by the table alone. Pure."""
    return standing(found, {f"{source}.{table}": parameters for table, parameters in tables.items()})


def read_failing(dynamodb: Any, table_name: str) -> dict[str, Failing]:
    """By `source.table`, also those that were folded since."""
    return {table: _failing(item) for table, item in items_with(dynamodb, table_name, _NAMES, "AND")}


def note(dynamodb: Any, table_name: str, table: str, failing: Failing) -> None:
    """Keeps it; makes the table's item where there is none."""
    values = (
        {"N": str(failing.times)},
        {"S": failing.at.isoformat(timespec="seconds")},
        {"S": failing.error[:MAX_ERROR]},
    )
    dynamodb.update_item(
        TableName=table_name,
        Key={"table": {"S": table}},
        UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in _NAMES),
        ExpressionAttributeValues={f":{name}": value for name, value in zip(_NAMES, values, strict=True)},
    )


def _failing(item: Mapping[str, Mapping[str, str]]) -> Failing:
    times, at, error = _NAMES
    return Failing(int(item[times]["N"]), datetime.fromisoformat(item[at]["S"]), item[error]["S"])
