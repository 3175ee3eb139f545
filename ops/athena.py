"""Athena's client: a statement in, its answer or Athena's own error out. The same here and on AWS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
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
        columns: tuple[Column, ...] = ()
        rows: list[Row] = []
        with _in_athenas_words():
            query, execution = self._execute(sql)
            for named, page in self._pages(query, execution):
                columns = named
                rows += page
        scanned = int(execution.get("Statistics", {}).get("DataScannedInBytes", 0))
        return Answer(columns, tuple(rows), scanned, time.monotonic() - started)

    def rows(self, sql: str) -> Iterator[Row]:
        """The answer's rows, of which a page is held at a time. Raises QueryFailed as `run` does."""
        with _in_athenas_words():
            for _, page in self._pages(*self._execute(sql)):
                yield from page

    def _execute(self, sql: str) -> tuple[str, dict[str, Any]]:
        context = {"QueryExecutionContext": {"Database": self._database}} if self._database else {}
        query = self._client.start_query_execution(QueryString=sql, WorkGroup=self._workgroup, **context)
        return query["QueryExecutionId"], self._ended(query["QueryExecutionId"])

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

    def _pages(self, query_id: str, execution: dict[str, Any]) -> Iterator[tuple[tuple[Column, ...], list[Row]]]:
        header = 1 if execution.get("StatementType") == "DML" else 0
        for page in self._client.get_paginator("get_query_results").paginate(QueryExecutionId=query_id):
            found = page["ResultSet"]
            infos = found["ResultSetMetadata"]["ColumnInfo"]
            columns = tuple(Column(info["Name"], info["Type"]) for info in infos)
            yield columns, [tuple(cell.get("VarCharValue") for cell in row["Data"]) for row in found["Rows"][header:]]
            header = 0


@contextmanager
def _in_athenas_words() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise QueryFailed(error.response["Error"]["Message"]) from error
