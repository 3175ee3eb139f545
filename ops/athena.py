"""Athena's client: a statement in, its answer or Athena's own error out. The same here and on AWS."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from ops.errors import QueryFailed

_ENDED: Final = ("SUCCEEDED", "FAILED", "CANCELLED")
_FIRST_LOOK_SECONDS: Final = 0.03
_SLOWEST_LOOK_SECONDS: Final = 0.5

Row = tuple[str | None, ...]


@dataclass(frozen=True)
class Column:
    """A column of an answer; `kind` is its type without parameters, such as `decimal`."""

    name: str
    kind: str


@dataclass(frozen=True)
class Answer:
    """Rows as Athena prints their values; None is NULL."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    scanned_bytes: int
    seconds: float


class Athena:
    """Runs statements in one workgroup. Thread-safe, as boto3's clients are."""

    def __init__(self, client: Any, workgroup: str, database: str | None = None) -> None:
        self._client = client
        self._workgroup = workgroup
        self._database = database

    def run(self, sql: str) -> Answer:
        """The whole answer. Raises QueryFailed with the reason that Athena gives."""
        started = time.monotonic()
        context = {"QueryExecutionContext": {"Database": self._database}} if self._database else {}
        try:
            query = self._client.start_query_execution(QueryString=sql, WorkGroup=self._workgroup, **context)
            execution = self._ended(query["QueryExecutionId"])
            columns, rows = self._results(query["QueryExecutionId"], execution.get("StatementType") == "DML")
        except ClientError as error:
            raise QueryFailed(error.response["Error"]["Message"]) from error
        scanned = int(execution.get("Statistics", {}).get("DataScannedInBytes", 0))
        return Answer(columns, rows, scanned, time.monotonic() - started)

    def _ended(self, query_id: str) -> dict[str, Any]:
        pause = _FIRST_LOOK_SECONDS
        while True:
            execution: dict[str, Any] = self._client.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
            status = execution["Status"]
            if status["State"] == "SUCCEEDED":
                return execution
            if status["State"] in _ENDED:
                raise QueryFailed(status.get("StateChangeReason") or f"the query was {status['State'].lower()}")
            time.sleep(pause)
            pause = min(_SLOWEST_LOOK_SECONDS, pause * 1.5)

    def _results(self, query_id: str, has_header: bool) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
        columns: tuple[Column, ...] = ()
        rows: list[Row] = []
        for page in self._client.get_paginator("get_query_results").paginate(QueryExecutionId=query_id):
            found = page["ResultSet"]
            infos = found["ResultSetMetadata"]["ColumnInfo"]
            columns = tuple(Column(info["Name"], info["Type"]) for info in infos)
            rows += [tuple(cell.get("VarCharValue") for cell in row["Data"]) for row in found["Rows"]]
        return columns, tuple(rows[1:] if has_header else rows)
