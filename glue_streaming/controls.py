"""What operators set and ask for, read from DynamoDB every few seconds: settings, pauses, requests, and the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from glue_streaming import failpoints
from glue_streaming.erasure_records import Records
from glue_streaming.erasures import Erasures
from glue_streaming.errors import StaleWriter
from glue_streaming.evolution import NEW_COLUMN
from glue_streaming.lake import TableKey
from glue_streaming.positions import read_epoch
from glue_streaming.requests import CutRequest, Request, Requests
from glue_streaming.settings import BatchSettings, JobArguments, batch_settings

READ_SECONDS: Final = 3.0


@dataclass
class Controls:
    """As they were read last. problems: what is wrong with settings that were left as they were before.

    policies: what a table (source.table) does where a column changes its type, as far as the table `tables` says it.
    """

    settings: BatchSettings = field(default_factory=BatchSettings)
    problems: list[str] = field(default_factory=list)
    paused: frozenset[TableKey] = frozenset()
    policies: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    cut_requests: list[CutRequest] = field(default_factory=list)
    erasures: dict[TableKey, Erasures] = field(default_factory=dict)


class ControlReader:
    """Reads them for a driver with that epoch; raises StaleWriter once a newer one runs the job."""

    def __init__(self, dynamodb: Any, arguments: JobArguments, epoch: int) -> None:
        self._dynamodb = dynamodb
        self._arguments = arguments
        self._epoch = epoch
        self._read_at = float("-inf")
        self.requests = Requests(dynamodb, arguments.dynamodb_table("sources"))
        self.current = Controls()

    def read(self, now: float) -> Controls:
        """The controls, at most READ_SECONDS old. Every request is handed out until it is answered."""
        if not 0 <= now - self._read_at < READ_SECONDS:
            self._read_at = now
            self.check_epoch()
            settings, problems = batch_settings(self._settings(), self.current.settings)
            waiting = [item for source in self._arguments.sources for item in self.requests.open(source, now)]
            paused, policies = self._tables()
            self.current = Controls(
                settings,
                problems,
                paused,
                policies,
                requests=[item for item in waiting if isinstance(item, Request)],
                cut_requests=[item for item in waiting if isinstance(item, CutRequest)],
                erasures=self._erasures(),
            )
        return self.current

    def policy(self, subject: str) -> str:
        """What a table (source.table) does where a column changes its type."""
        return self.current.policies.get(subject, NEW_COLUMN)

    def answer(self, request: Request | CutRequest, status: str, detail: str, now: float) -> None:
        """Answers a request, which is handed out no more."""
        failpoints.reach("request.answering")
        self.requests.answer(request, status, detail, now)
        current = self.current
        current.requests = [item for item in current.requests if item.item != request.item]
        current.cut_requests = [item for item in current.cut_requests if item.item != request.item]

    def check_epoch(self) -> None:
        arguments = self._arguments
        epoch = read_epoch(self._dynamodb, arguments.dynamodb_table("sources"), arguments.job)
        if epoch > self._epoch:
            raise StaleWriter(f"job {arguments.job} was taken over: its epoch is {epoch}, ours is {self._epoch}")

    def _settings(self) -> dict[str, str]:
        answer = self._dynamodb.query(
            TableName=self._arguments.dynamodb_table("settings"),
            KeyConditionExpression="job = :job",
            ExpressionAttributeValues={":job": {"S": self._arguments.job}},
        )
        return {item["name"]["S"]: item["value"]["S"] for item in answer["Items"]}

    def _erasures(self) -> dict[TableKey, Erasures]:
        table, sources = self._arguments.dynamodb_table("sources"), self._arguments.sources
        found = {source: Records(self._dynamodb, table, source).by_table() for source in sources}
        return {(source, name): each for source, tables in found.items() for name, each in tables.items()}

    def _tables(self) -> tuple[frozenset[TableKey], dict[str, str]]:
        """The tables that are paused, whose lanes wait while all others flow; and the tables' policies."""
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._arguments.dynamodb_table("tables"),
            FilterExpression="paused = :yes OR attribute_exists(on_type_change)",
            ProjectionExpression="#table, paused, on_type_change",
            ExpressionAttributeNames={"#table": "table"},
            ExpressionAttributeValues={":yes": {"BOOL": True}},
        )
        items = {item["table"]["S"]: item for page in pages for item in page["Items"]}
        paused = [name.partition(".") for name, item in items.items() if item.get("paused") == {"BOOL": True}]
        policies = {name: item["on_type_change"]["S"] for name, item in items.items() if "on_type_change" in item}
        return frozenset((source, table) for source, _, table in paused), policies
